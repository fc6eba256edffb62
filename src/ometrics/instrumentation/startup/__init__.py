# SPDX-License-Identifier: MIT
"""A directory for `PYTHONPATH`: every Python that starts imports what is in here."""
