# SPDX-License-Identifier: MIT
"""Who a process is, beyond its number: numbers come again, in time and in containers.

Linux says all of it in `/proc`; elsewhere what is not known is 0 or empty, and the lock
of a segment still tells whether its process lives.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """
    One process of one boot of one machine.

    Attributes:
        pid: Its number in its own namespace.
        pid_namespace: Which one that is; 0 if that is not known.
        start: Ticks from boot to its start, which no later process of that number has;
            0 if that is not known.
    """

    pid: int
    pid_namespace: int
    start: int


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return Process(pid, _namespace(), start_of(pid))


def start_of(pid: int) -> int:
    """When a process of our namespace began, in ticks since boot; 0: not known."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
        # The name, in parentheses, may contain anything; 20 fields lie between.
        return int(line[line.rindex(b")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - follows the link
    except OSError:
        return 0


@cache
def boot() -> str:
    """Which boot of the machine this is; empty if that is not known."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except OSError:
        return ""
    return text.strip().replace("-", "")[:32]


def program() -> str:
    """What runs, without its arguments: they may hold anything, a prompt too."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name.removesuffix(".__main__"))
    if sys.argv[:1] == ["-m"]:  # its package is being imported
        words = sys.orig_argv
        return words[words.index("-m") + 1] if "-m" in words[:-1] else "-m"
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"


def command_line(process: Process) -> str | None:
    """
    The command line of a living process, as the system shows it to everybody.

    Returns:
        `None` if it is not to be had: of another namespace, or gone.
    """
    if process.pid_namespace != _namespace() or process.start == 0:
        return None
    try:
        data = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return None
    if start_of(process.pid) != process.start or not data:
        return None  # the number is another's by now
    return " ".join(data.decode(errors="replace").rstrip("\0").split("\0"))


@cache
def fields_digest() -> bytes:
    """What records of this version count: by that a reader knows its own segments."""
    from ometrics.fields import Counter, Counts, Distribution, stored
    from ometrics.models import CallMetrics, PerformanceMetrics
    from ometrics.snapshot import Snapshot, TaskStatistics

    names = [
        f"{owner.__name__}.{kind.__name__}.{name}"
        for owner in (PerformanceMetrics, CallMetrics, TaskStatistics, Snapshot)
        for kind in (Counter, Counts, Distribution)
        for name in stored(owner, kind)
    ]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:32].encode()
