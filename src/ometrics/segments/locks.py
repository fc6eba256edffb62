# SPDX-License-Identifier: MIT
"""The locks of segments: a process holds its own segment's as long as it lives.

The system lets go of it when the process ends, whatever kills it, and it is the same
lock in every container. On Windows there are no such locks, and no segments.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):  # `attach` says what to do instead
    import fcntl


def take(file: int) -> bool:
    """Take the lock of an open file or directory; `False`: another one has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(file: int) -> None:
    """Let go of the lock."""
    fcntl.flock(file, fcntl.LOCK_UN)


def is_held(file: int) -> bool:
    """Whether the process still runs whose segment this is."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    release(file)
    return False
