# SPDX-License-Identifier: MIT
"""The command `ometrics`: one file a command, click for arguments, rich for the view.

Exit codes: 0 all is well; 1 a limit was passed or the work failed; 2 wrong use, a file
that cannot be read, or a missing package; `ometrics run` ends as its program did.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """
    Run the command that `sys.argv` names, and exit with its code.

    Raises:
        SystemExit: Always, unless a program under `ometrics run` raises something else.
    """
    try:
        from ometrics.cli import app

        program = app.parse()
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.exit(_without_packages())
    if program is not None:
        # Outside click, which has ideas of its own about the exceptions of a program.
        program()


def _without_packages() -> int:
    """Say how to get the command's packages; the exit code."""
    print(
        "ometrics: the command needs click and rich: pip install 'ollama-metrics[cli]'",
        file=sys.stderr,
    )
    return 2
