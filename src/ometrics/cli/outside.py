# SPDX-License-Identifier: MIT
"""A run as seen from beside the program: its directory, its processes, its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ometrics.cli.directory import remove
from ometrics.cli.members import RunMembers
from ometrics.cli.proc import words_of
from ometrics.cli.tree import ChildProcess, Tree
from ometrics.cli.watch import RunReporter
from ometrics.instrumentation.unmeasured import noted_clients
from ometrics.segments import attach, places

LOOK_EVERY: Final = 0.25  # seconds
_SHARE: Final = 0.05  # of one core at most, on a machine of thousands of processes
# Seconds that processes have to end after the program, as those do that it told to.
_PATIENCE: Final = 0.5
_SHORT: Final = 0.02
_MOST_NAMED: Final = 5  # processes that were not reached
_COMMAND: Final = 60  # characters of a command line


class Run:
    """
    One run.

    Args:
        directory: Where its processes have their records.
        program: What the user asked to run.
        is_temporary: Whether to remove the directory at the end.

    Raises:
        OSError: The directory cannot be read.

    Attributes:
        members: Its processes as a source.

    Thread-safety:
        The main thread; `members` any.
    """

    def __init__(self, directory: str, program: str, *, is_temporary: bool) -> None:
        self._directory = directory
        self._program = program
        self._is_temporary = is_temporary
        self._following = 0.0
        self._began = time.time()
        self._tree = Tree(os.getpid(), directory)
        self.members = RunMembers(attach(directory), program)

    def look(self, watch: RunReporter) -> None:
        """Look at its processes, and write what is to be written; never raises."""
        began = time.monotonic()
        if began >= self._following:
            with suppress(Exception):  # said at the end, if it is so then
                self._tree.look()
            self._following = began + (time.monotonic() - began) / _SHARE
        watch.look()

    def report(self, watch: RunReporter, pid: int, code: int) -> None:
        """
        Say all of it, after the program has ended.

        Args:
            watch: Who says it.
            pid: The program's number.
            code: How it ended: an exit code, or the negative number of a signal.
        """
        deadline = time.monotonic() + _PATIENCE
        while self.members.living() and time.monotonic() < deadline:
            time.sleep(_SHORT)
        watch.attempt("look at its processes", self._tree.look)
        self._tree.learn(pid, self._program, words_of(code))
        watch.finish(
            partial(noted_clients, self._directory),
            partial(self.members.rows, self._tree),
        )
        for line in _unreached(self._tree.unreached()):
            watch.say(line)
        if self._has_failed():
            watch.say(
                f"numbers may be missing: there was no room for records in"
                f" {self._directory}, or it was not to be used; see the warnings of the"
                " program, and name another directory with --directory"
            )
        living = self.members.living()
        if living:
            numbers = ", ".join(map(str, living[:_MOST_NAMED]))
            watch.say(
                f"{len(living)} of its processes still run ({numbers}); what they count"
                f" from now on is in {self._directory}"
            )
        watch.close()
        self.end()

    def _has_failed(self) -> bool:
        """Whether a process could not have its records in the directory meanwhile."""
        try:
            note = Path(self._directory, places.FAILED).lstat()
        except OSError:
            return False
        return note.st_mtime >= self._began

    def end(self) -> None:
        """Remove the directory if nobody needs it."""
        if self._is_temporary and not self.members.living():
            remove(self._directory)


def _unreached(processes: Sequence[ChildProcess]) -> Iterator[str]:
    for one in processes[:_MOST_NAMED]:
        command = one.command[:_COMMAND]
        yield f"process {one.pid} was not measured ({command}): {one.unreached}"
    rest = len(processes) - _MOST_NAMED
    if rest > 0:
        yield f"{rest} more processes were not measured"
    if processes:
        yield "what starts them may call ometrics.instrument(), or see ometrics proxy"
