# SPDX-License-Identifier: MIT
"""Directories of segments: where they are by default, and which ones are safe."""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

# A segment is created under a name that readers pass over, until it is whole.
SUFFIX: Final = ".segment"
UNFINISHED: Final = ".new"
FOLDED: Final = "folded"
# Beside a segment, if its counts are to be in a store: which one.
STORE: Final = ".store"

# Touched by a process whenever it cannot have its records here.
FAILED: Final = "failed"

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def runtime_directory() -> Path:
    """
    Where the segments of this user's agents are unless somebody says otherwise.

    `$XDG_RUNTIME_DIR/ometrics`, as the XDG Base Directory Specification has it for
    files that live as long as the session; without that variable, a private directory
    under the temporary one. Whoever runs several programs gives each a directory in
    there; `ometrics top` finds them all. It is not created by this.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute():
        return Path(runtime) / "ometrics"
    user = os.geteuid() if hasattr(os, "geteuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"ometrics-{user}"


def open_directory(path: str | os.PathLike[str], *, create: bool = False) -> int:
    """
    A descriptor of a directory that nobody else can write to.

    Args:
        path: The directory; links on the way to it are followed, it must not be one.
        create: Whether to make it, and its parents, for this user only.

    Raises:
        FileNotFoundError: There is none.
        PermissionError: It is another user's, or others can write to it.
        OSError: It cannot be made or opened.
    """
    if create:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # a file is found out below
            Path(path).mkdir(mode=0o700)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        directory = os.open(path, flags)
    except OSError as error:
        if not Path(path).is_symlink():
            raise
        why = "it is a link: name the directory that it leads to"
        raise NotADirectoryError(error.errno, why, os.fspath(path)) from None
    try:
        check_owner(os.fstat(directory), str(path))
    except BaseException:
        os.close(directory)
        raise
    return directory


def check_owner(status: os.stat_result, name: str) -> None:
    """
    Refuse what somebody else owns or can write to.

    Raises:
        PermissionError: That is so; the message says what to do.
    """
    user = os.geteuid()
    if status.st_uid != user:
        raise PermissionError(
            f"{name} belongs to user {status.st_uid}, this is user {user}: records are"
            " only written to and read from what is one's own"
        )
    if status.st_mode & _OTHERS:
        raise PermissionError(
            f"others can write to {name} (mode {stat.S_IMODE(status.st_mode):04o}):"
            " use a directory of your own in it, which ometrics makes for you"
        )


def directories_under(place: Path) -> list[Path]:
    """
    The directories of segments in a place, itself included; links are not followed.

    Args:
        place: Such as `runtime_directory()`; it need not be there.
    """
    return sorted(
        Path(directory)
        for directory, _, files in os.walk(place)
        if any(name == FOLDED or name.endswith(SUFFIX) for name in files)
    )
