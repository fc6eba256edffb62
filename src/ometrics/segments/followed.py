# SPDX-License-Identifier: MIT
"""A directory of segments for who looks again and again: its counts never go back.

Between two looks a segment can vanish without being folded (somebody removed the file,
or it cannot be read now), a collector can be reset, the sum can be damaged. A total of
one look would then be less than that of the look before, which readers of counters take
for a restart. Here what was once read stays counted.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from ometrics.changes import without_running
from ometrics.segments.folding import Folded, totals_of
from ometrics.segments.instances import Instance, Reading

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot


class Followed:
    """
    All processes of a directory from now on; made by `Attached.follow()`.

    Args:
        directory: Its path.
        read: Reads it.
        total_of: Adds up what was read.
        bad: Why files were left out, by name; filled by `read`.

    Thread-safety:
        Any thread.
    """

    def __init__(
        self,
        directory: str,
        read: Callable[[], Reading],
        total_of: Callable[[list[Snapshot]], Snapshot],
        bad: dict[str, tuple[str, str]],
    ) -> None:
        self.directory = directory
        self.bad = bad
        self._read = read
        self._total_of = total_of
        self._lock = threading.Lock()
        self._last: dict[str, Instance] = {}  # of the look before, by id
        self._folded = Folded()
        self._cleared: list[Snapshot] = []  # counted once, and in no file any more
        self._forgotten = 0  # processes of sums that are not there any more
        self._start: datetime | None = None
        #: What the newest look found; `None` before the first.
        self.last: Reading | None = None

    def snapshot(self) -> Snapshot:
        """
        What all processes counted, the dead ones included, since the first look.

        Raises:
            OSError: As `Attached.snapshot`.
        """
        from msgspec.structs import replace

        total = self._total_of(self.read().snapshots)
        # Of one start, whoever joins later and began earlier.
        self._start = self._start or total.start_time
        return replace(total, start_time=self._start)

    def read(self) -> Reading:
        """
        The processes, and the sum of those that are folded, at one time.

        A process that cannot be read any more, and was not folded, is as it was last;
        so are all if the directory is gone.

        Raises:
            OSError: As `Attached.snapshot`.
        """
        with self._lock:
            try:
                instances, folded = self._read()
            except FileNotFoundError:
                if self.last is None:
                    raise
                instances, folded = [], Folded()
            now = {instance.id: instance for instance in instances}
            for vanished in self._vanished(now, folded):
                now[vanished.id] = ended(vanished)
            self._keep_cleared(now, folded)
            self._last, self._folded = now, folded
            totals = (*folded.totals, *self._cleared)
            processes = folded.processes + self._forgotten
            kept = dataclasses.replace(folded, totals=totals, processes=processes)
            self.last = Reading(list(now.values()), kept)
            return self.last

    def _vanished(self, now: dict[str, Instance], folded: Folded) -> list[Instance]:
        """Those that are not there any more, and were not folded either."""
        gone = [last for key, last in self._last.items() if key not in now]
        # Most likely folded are those that the sum names, then those that had ended.
        gone.sort(key=lambda last: (last.id not in folded.ids, last.alive))
        return gone[max(folded.processes - self._folded.processes, 0) :]

    def _keep_cleared(self, now: dict[str, Instance], folded: Folded) -> None:
        """Keep what resets cleared, and a sum that is not there any more."""
        cleared = [
            ended(last).snapshot
            for key, last in self._last.items()
            if key in now and now[key].snapshot.start_time > last.snapshot.start_time
        ]
        if folded.processes < self._folded.processes:
            cleared += self._folded.totals
            self._forgotten += self._folded.processes
        if cleared:
            self._cleared = totals_of([*self._cleared, *cleared])

    def __repr__(self) -> str:
        return f"<Followed {self.directory!r}>"


def ended(last: Instance) -> Instance:
    """A process without what it had at that instant only."""
    from msgspec.structs import replace

    models = {
        name: without_running(model) for name, model in last.snapshot.models.items()
    }
    snapshot = replace(last.snapshot, models=models, resource_metrics=None)
    return dataclasses.replace(last, alive=False, snapshot=snapshot)
