# SPDX-License-Identifier: MIT
"""Atomic replacement of a file: a reader sees the whole old or the whole new one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path
from typing import Final


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """
    Write a file anew, durably, or leave it as it was.

    The data goes to a new file beside it, which takes its name once it is on the disk.
    A symbolic link stays one; its target is replaced. A new file gets the permissions
    that `open` would give, a replaced one keeps its own.

    Args:
        path: The file; its directory must exist.
        data: The whole content.

    Raises:
        OSError: The disk is full, the directory is missing or not writable, ...; the
            error's `filename` is `path`. Readers still see one whole file.

    Thread-safety:
        Safe from any thread and process; of several writers the last one wins.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(
        f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"  # see `_sweep`
    )
    try:
        try:
            _write(temporary, data, _mode_of(target))
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_directory(target.parent)
        _sweep(target)
    except OSError as error:
        # Says the user's path, not that of a temporary file nobody has heard of.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _mode_of(target: Path) -> int | None:
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes, mode: int | None) -> None:
    # 0o666 less the umask, as `open` does: an export is for others to read.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(descriptor)


_BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _sync_directory(directory: Path) -> None:
    """Make the new name durable, where directories can be synchronized."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


# A directory that may be written but not read, or a file system without this.
_CANNOT_SYNC: Final = frozenset({errno.EACCES, errno.EINVAL, errno.ENOTSUP})


def _sweep(target: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    if os.name == "nt":
        return  # os.kill(pid, 0) would end the process there
    ours = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.[0-9a-f]{{8}}\.tmp")
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            match = ours.fullmatch(entry.name)
            if match and not _alive(int(match[1])):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # someone else's process, or no pid of this machine: not ours to judge
    return True
