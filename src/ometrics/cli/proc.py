# SPDX-License-Identifier: MIT
"""What Linux says of processes: `/proc`, and descriptors of processes.

Each function answers of a process that may end at any moment, and then says nothing of
it. On other systems they say nothing at all.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ometrics.instrumentation.children import STARTUP, VARIABLE

Key = tuple[int, int]  # number and start, in ticks since boot: no two have both

_PROC: Final = Path("/proc")
_PYTHON: Final = re.compile(r"python|pypy", re.IGNORECASE)

# include/uapi/linux/pidfd.h: PIDFD_GET_INFO with PIDFD_INFO_EXIT, from Linux 6.15 on,
# tells of a process that ended and was waited for how it did.
_INFO_SIZE: Final = 64
_GET_INFO: Final = (3 << 30) | (_INFO_SIZE << 16) | (0xFF << 8) | 11
_INFO_EXIT: Final = 1 << 3
_EXIT_CODE_AT: Final = 60

KILLED: Final = "killed by signal"
NO_OMETRICS: Final = "its Python has no ometrics of this version: install it there"
_OTHER_USER: Final = "it is another user's: give it an 'ometrics run' of its own"
_BARE: Final = "its environment has no OMETRICS_RUN: hand the environment on to it"
_OTHER_PATH: Final = "its PYTHONPATH is another: add to it instead of replacing it"


class Stat(NamedTuple):
    """
    What `/proc` says of one process.

    Attributes:
        parent: The number of who started it, or took it over.
        has_ended: Whether it only waits to be waited for.
    """

    parent: int
    has_ended: bool


def processes() -> dict[Key, Stat]:
    """All processes of this system that can be seen."""
    found = (_stat_of(int(name)) for name in _names())
    return dict(filter(None, found))


def _stat_of(pid: int) -> tuple[Key, Stat] | None:
    try:
        line = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The program's name, in parentheses, may contain anything.
    fields = line[line.rindex(b")") + 2 :].split()
    return (pid, int(fields[19])), Stat(int(fields[1]), fields[0] in b"ZX")


def below(root: int, there: Mapping[Key, Stat]) -> set[Key]:
    """Those that a process started and that run, and those that they did."""
    children: dict[int, list[Key]] = {}
    for key, stat in there.items():
        if not stat.has_ended:
            children.setdefault(stat.parent, []).append(key)
    found: set[Key] = set()
    left = [root]
    while left:
        started = children.pop(left.pop(), ())
        found.update(started)
        left.extend(pid for pid, _ in started)
    return found


def _names() -> list[str]:
    try:
        return [path.name for path in _PROC.iterdir() if path.name.isdigit()]
    except OSError:
        return []


def is_python(pid: int) -> bool:
    """Whether a process runs Python, by the name of its program."""
    try:
        name = (_PROC / str(pid) / "exe").readlink().name
    except PermissionError:
        name = _text(pid, "comm")
    except OSError:
        return False
    return bool(_PYTHON.search(name))


def is_reached(pid: int, directory: str) -> bool:
    """Whether a process has a file of the run's directory mapped."""
    try:
        return f"{directory}/".encode() in (_PROC / str(pid) / "maps").read_bytes()
    except OSError:
        return False


def command_of(pid: int) -> str:
    """The command line of a process as the system shows it to everybody."""
    return " ".join(_text(pid, "cmdline").rstrip("\0").split("\0"))


def why_unreached(pid: int) -> str:
    """Why a Python process is not measured, and what to do about it."""
    ignoring = _ignoring(_text(pid, "cmdline").split("\0"))
    if ignoring:
        return f"Python's {ignoring} ignores what reaches it: leave that out"
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except PermissionError:
        return _OTHER_USER
    except OSError:
        return ""
    variables = dict(line.partition(b"=")[::2] for line in environment)
    if VARIABLE.encode() not in variables:
        return _BARE
    path = variables.get(b"PYTHONPATH", b"").split(os.pathsep.encode())
    return NO_OMETRICS if STARTUP.encode() in path else _OTHER_PATH


def _ignoring(command: list[str]) -> str:
    """The flag by which Python ignores its environment or its `site`, if it has one."""
    arguments = iter(command[1:])
    for argument in arguments:
        if not re.match(r"-\w", argument):
            break  # the script
        flags = re.match(r"-([^ISEcmWX]*)(.?)(.*)", argument)
        if flags is None or flags[2] in {"c", "m"}:
            break
        if flags[2] in {"I", "S", "E"}:
            return f"-{flags[2]}"
        if flags[2] and not flags[3]:
            next(arguments, None)  # what -W or -X takes
    return ""


def _text(pid: int, file: str) -> str:
    try:
        return (_PROC / str(pid) / file).read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""


class Handle:
    """
    A process, held so that how it ended can be asked when it is long gone.

    Args:
        descriptor: Of the process; `None` where there is no such thing.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, pid: int, start: int) -> Handle:
        """A process by number and start."""
        if not hasattr(os, "pidfd_open"):
            return cls()
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # gone, or too many files are open
            return cls()
        stat = _stat_of(pid)
        if stat is None or stat[0] != (pid, start):
            os.close(descriptor)  # the number is another's by now
            return cls()
        return cls(descriptor)

    def end(self) -> str:
        """How it ended, for people."""
        code = self._code()
        return "ended" if code is None else words_of(code)

    def _code(self) -> int | None:
        import fcntl

        if self._descriptor is None:
            return None
        info = bytearray(_INFO_SIZE)
        struct.pack_into("=Q", info, 0, _INFO_EXIT)
        try:
            fcntl.ioctl(self._descriptor, _GET_INFO, info)
        except OSError:  # an older Linux
            return None
        if not struct.unpack_from("=Q", info)[0] & _INFO_EXIT:
            return None
        status: int = struct.unpack_from("=i", info, _EXIT_CODE_AT)[0]
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def words_of(code: int) -> str:
    """An exit code, or the negative number of a signal, for people."""
    return f"exit {code}" if code >= 0 else f"{KILLED} {-code}"
