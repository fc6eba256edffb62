# SPDX-License-Identifier: MIT
"""The processes below this one, how each ended, and which of them went unmeasured.

Linux says it in `/proc`; elsewhere nothing is known. Who looks from time to time can
miss a process that lives for less than that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ometrics.cli import proc
from ometrics.cli.proc import Handle, Key

# Seconds after which a Python that is not measured is not merely starting.
STARTING: Final = 1.0
_MOST_ENDED: Final = 1000  # processes that are remembered


@dataclass
class ChildProcess:
    """
    One process below this one.

    Attributes:
        pid: Its number.
        start: When it began, in ticks since boot.
        handle: For asking how it ended.
        command: Its command line as the system shows it; empty if it is not Python.
        end: How it ended, for people; empty while it runs.
        reached_as: The command line under which it was seen to have been reached.
        unreached: Why it is not measured; empty if it is.
        seen_so: Seconds for which it was seen not to be.
    """

    pid: int
    start: int
    handle: Handle
    command: str = ""
    end: str = ""
    reached_as: str = ""
    unreached: str = ""
    seen_so: float = 0.0

    def examine(self, directory: str, seconds: float) -> None:
        """
        See whether it is Python, and measured; each time, as it may become another.

        Args:
            directory: Of the run.
            seconds: Since the last look.
        """
        if not proc.is_python(self.pid):
            self.command = self.unreached = ""
            return
        self.command = proc.command_of(self.pid)
        if self.reached_as == self.command:
            return
        if proc.is_reached(self.pid, directory):
            self.reached_as, self.unreached = self.command, ""
        elif self.unreached:
            self.seen_so += seconds
        else:
            self.unreached = proc.why_unreached(self.pid)
            self.seen_so = 0.0

    def was_unreached(self) -> bool:
        """Whether it went unmeasured, and was not merely about to begin."""
        is_sure = self.unreached != proc.NO_OMETRICS or self.seen_so >= STARTING
        return bool(self.unreached) and is_sure


class Tree:
    """
    Watches the processes below one.

    Args:
        root: The number of that one; it is not part of the tree.
        directory: Of the run.

    Thread-safety:
        One thread.
    """

    def __init__(self, root: int, directory: str) -> None:
        self._root = root
        self._directory = os.path.realpath(directory)
        self._running: dict[Key, ChildProcess] = {}
        self._ended: list[ChildProcess] = []
        self._looked = time.monotonic()

    def look(self) -> None:
        """See what began, what ended, and what runs."""
        now = time.monotonic()
        seconds, self._looked = now - self._looked, now
        there = proc.processes()
        for key in proc.below(self._root, there) - self._running.keys():
            self._running[key] = ChildProcess(*key, Handle.of(*key))
        for key, process in list(self._running.items()):
            if key not in there:
                self._end(process)
            elif not there[key].has_ended:
                process.examine(self._directory, seconds)

    def _end(self, process: ChildProcess) -> None:
        process.end = process.handle.end()
        process.handle.close()
        del self._running[process.pid, process.start]
        if process.command:
            self._ended.append(process)
            del self._ended[:-_MOST_ENDED]

    def learn(self, pid: int, command: str, end: str) -> None:
        """
        Take somebody's word for how a process ended, whether it was seen or not.

        Args:
            pid: Its number.
            command: What to call it if it was not seen.
            end: How it ended, for people.
        """
        process = self.find(pid)
        if process is None:
            process = ChildProcess(pid, 0, Handle(), command)
            self._ended.append(process)
        process.end = end

    def find(self, pid: int) -> ChildProcess | None:
        """The newest Python process that has or had this number."""
        newest = [one for one in self._pythons() if one.pid == pid]
        return newest[-1] if newest else None

    def unreached(self) -> list[ChildProcess]:
        """Python processes that were not measured."""
        return [one for one in self._pythons() if one.was_unreached()]

    def _pythons(self) -> Iterator[ChildProcess]:
        yield from self._ended
        yield from (one for one in self._running.values() if one.command)
