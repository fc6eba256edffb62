# SPDX-License-Identifier: MIT
"""Atomic replacement of a file: a reader sees the whole old or the whole new one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def replace_file(path: AnyPath, data: bytes) -> None:
    """
    Write a file anew, durably, or leave it as it was.

    The data goes to a new file beside it, which takes its name once it is on the disk.
    A symbolic link stays one; its target is replaced. A new file gets the permissions
    that `open` would give; a replaced one keeps its own, and its owner and group as far
    as this process may give files away. What is no regular file (a pipe, a device,
    `/dev/stdout`) is written to, as is a file that is this process's output.

    Args:
        path: The file; its directory must exist.
        data: The whole content.

    Raises:
        OSError: The disk is full, the directory is missing or not writable, nobody
            reads from the pipe, ...; the error's `filename` is `path`. Readers of a
            file still see one whole file.

    Thread-safety:
        Safe from any thread, process, container and machine; of several writers the
        last one wins.
    """
    try:
        target = Path(os.path.realpath(os.fsdecode(path)))
        there = _status(path)
        if there is not None and _is_written_through(there):
            _write_through(path, there, data)
        else:
            _replace(target, there, data)
    except OSError as error:
        # Says the user's path, not that of a temporary file nobody has heard of.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _status(path: AnyPath) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - a Path cannot hold bytes
    except FileNotFoundError:
        return None


# --- What is no regular file


def _output_of(there: os.stat_result) -> int | None:
    """The descriptor of standard output or error that writes to this very file."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
    return None


def _is_written_through(there: os.stat_result) -> bool:
    return not stat.S_ISREG(there.st_mode) or _output_of(there) is not None


def _write_through(path: AnyPath, there: os.stat_result, data: bytes) -> None:
    output = _output_of(there)
    if output is not None:  # where the rest of the output goes, not over its start
        descriptor = os.dup(output)
    else:
        # A pipe that nobody reads is an error at once; `open` would wait for a reader.
        descriptor = os.open(path, os.O_WRONLY | _BINARY | _NONBLOCK)
        if _NONBLOCK:
            os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        _write_all(file, data)


# --- What is one, or nothing yet


def _replace(target: Path, there: os.stat_result | None, data: bytes) -> None:
    temporary = target.with_name(f".ometrics-{secrets.token_hex(8)}.tmp")
    try:
        written = _write(temporary, there, data)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)
    _sweep(target.parent, written.st_mtime - LEFTOVER_SECONDS)


def _write(path: Path, like: os.stat_result | None, data: bytes) -> os.stat_result:
    # 0o666 less the umask, as `open` does: an export is for others to read.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        if like is not None and hasattr(os, "fchmod"):
            _give(descriptor, like)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        _write_all(file, data)
        os.fsync(descriptor)
        return os.fstat(descriptor)


def _give(descriptor: int, like: os.stat_result) -> None:
    """The owner and group of the file that is replaced, or its group alone."""
    ours = os.fstat(descriptor)
    if (ours.st_uid, ours.st_gid) == (like.st_uid, like.st_gid):
        return
    for owner in (like.st_uid, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner, like.st_gid)
            return


def _write_all(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


_BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)


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


# A writer in another container or machine is known by nothing but the age of its file:
# process ids mean nothing across them. An hour is far beyond any write.
LEFTOVER_SECONDS: Final = 3600.0
_TEMPORARY: Final = re.compile(r"\.ometrics-[0-9a-f]{16}\.tmp")


def _sweep(directory: Path, before: float) -> None:
    """Remove what killed writers left; `before` is by the clock of the file system."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        Path(entry.path).unlink()
