# SPDX-License-Identifier: MIT
"""The processes of one run, as a source, and as rows: what each counted, how it ended.

A directory may have held other runs before. They stay in it, and out of this one.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime, timezone
from pathlib import PurePath
from typing import Final

import msgspec

from ometrics.cli.proc import KILLED, command_of, words_of
from ometrics.cli.tree import ChildProcess, Tree
from ometrics.segments import Attached
from ometrics.segments.folding import Ended
from ometrics.snapshot import Snapshot
from ometrics.view.processes import ProcessRow

MOST: Final = 20  # rows


class RunMembers:
    """
    What the processes of a run count, from now on.

    Args:
        attached: The directory that they have.
        program: What the user asked to run, shown where the system shows the runner's
            own command line: the program is a fork of it.

    Raises:
        OSError: It cannot be read.

    Thread-safety:
        Any thread.
    """

    def __init__(self, attached: Attached, program: str) -> None:
        self._followed = attached.follow()
        self._program = program
        self._runner = command_of(os.getpid())
        self._began, self._began_at = datetime.now(timezone.utc), time.monotonic()
        self._id = os.urandom(16).hex()
        before = self._followed.snapshot()
        reading = self._followed.read()
        strangers = [one.id for one in reading.instances]
        strangers += [one.id for one in reading.folded.newest]
        self._strangers = frozenset(strangers)
        self._before = before if strangers else None

    def snapshot(self) -> Snapshot:
        """
        All of them together, since the run began.

        Raises:
            OSError: The directory cannot be read.
        """
        run = self._followed.snapshot()
        if self._before is not None:
            run = run.delta(self._before)
        return msgspec.structs.replace(
            run,
            instance_id=self._id,
            start_time=self._began,
            uptime_seconds=time.monotonic() - self._began_at,
        )

    def living(self) -> list[int]:
        """The numbers of those that run; of none if the directory cannot be read."""
        try:
            instances = self._followed.read().instances
        except OSError:
            return []
        strangers = self._strangers
        return [one.pid for one in instances if one.alive and one.id not in strangers]

    def rows(self, tree: Tree) -> list[ProcessRow]:
        """
        A row for each that called a model: those that crashed, then the busiest.

        Args:
            tree: The processes as far as they were seen.
        """
        reading = self._followed.read()
        known = {gone.id: (gone, "") for gone in reading.folded.newest}
        for one in reading.instances:
            counts = one.snapshot.total_requests, one.snapshot.total_errors
            end = "running" if one.alive else ""
            known[one.id] = Ended(one.id, one.pid, one.command, *counts), end
        rows = [
            self._row(one, end, tree.find(one.pid))
            for one, end in known.values()
            if one.requests and one.id not in self._strangers
        ]
        return self._with_rest(sorted(rows, key=_order))

    def _row(self, one: Ended, end: str, seen: ChildProcess | None) -> ProcessRow:
        command = seen.command if seen else one.program
        if command == self._runner:
            command = self._program
        program, _, arguments = command.partition(" ")
        return ProcessRow(
            f"{PurePath(program).name} {arguments}".strip(),
            one.pid,
            one.requests,
            one.errors,
            end or (seen.end if seen else "") or "ended",
        )

    def _with_rest(self, rows: list[ProcessRow]) -> list[ProcessRow]:
        """The first of them, and a row for what the others counted."""
        shown = rows[:MOST]
        total = self.snapshot()
        requests = total.total_requests - sum(row.requests for row in shown)
        errors = total.total_errors - sum(row.errors for row in shown)
        if len(rows) > MOST and requests > 0:
            shown.append(ProcessRow("all others", None, requests, errors, ""))
        return shown


def _order(row: ProcessRow) -> tuple[bool, int]:
    """Who was killed comes first, unless as pools end their workers: by SIGTERM."""
    crashed = row.end.startswith(KILLED) and row.end != words_of(-signal.SIGTERM)
    return not crashed, -row.requests
