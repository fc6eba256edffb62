# SPDX-License-Identifier: MIT
"""What goes wrong with a store, as one error that names the place and the way out."""

from __future__ import annotations


class StoreError(Exception):
    """
    A store that cannot be opened, read or written.

    The message names the file or server, never its password, and what to do next.
    """


class StoreBusyError(StoreError):
    """Another process holds the database; trying again later may help."""
