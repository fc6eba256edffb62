# SPDX-License-Identifier: MIT
"""`python -m ometrics` is the command `ometrics`."""

from ometrics.cli import main

if __name__ == "__main__":
    main()
