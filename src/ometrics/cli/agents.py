# SPDX-License-Identifier: MIT
"""The agents of this machine: whose directories there are, and what they do now."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ometrics.changes import since
from ometrics.segments import Followed, Instance, attach, runtime_directory
from ometrics.segments.places import directories_under
from ometrics.snapshot import Snapshot
from ometrics.view.agents import Agent

#: Seconds of what is shown as the present.
MINUTE: Final = 60.0
# Seconds between two snapshots that are kept for it.
_STEP: Final = 5.0


@dataclass(frozen=True)
class Found:
    """
    What one look found.

    Attributes:
        directories: Which ones there are.
        running: The processes that run: each with its directory and numbers.
        ended: How many others have counted there.
        requests: Of all, those that ended included.
        errors: Failed ones of these.
        troubles: Why directories or files of them were left out.
    """

    directories: list[Path]
    running: list[tuple[Instance, Path, Agent]]
    ended: int
    requests: int
    errors: int
    troubles: list[str]

    @property
    def processes(self) -> list[Agent]:
        """The processes that run."""
        return [process for _, _, process in self.running]


class Agents:
    """
    All processes of some directories, looked at again and again.

    Args:
        directories: Which ones; none for every one of this user.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        directories: Sequence[Path] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = list(directories)
        self._clock = clock
        self._followed: dict[Path, Followed] = {}
        self._recent: dict[str, _Recent] = {}
        self._begun = clock()

    @property
    def has_watched_a_minute(self) -> bool:
        """Whether what is shown as of the last minute is so of every process."""
        return self._clock() - self._begun >= MINUTE

    @property
    def places(self) -> list[Path]:
        """Where it looks."""
        if self._given:
            return self._given
        own = os.environ.get("OMETRICS_DIR")
        return [runtime_directory(), *([Path(own)] if own else [])]

    def look(self) -> Found:
        """
        Who is there now.

        Raises:
            OSError: This system cannot have segments.
        """
        directories = self._directories()
        running: list[tuple[Instance, Path, Agent]] = []
        ended = requests = errors = 0
        troubles: list[str] = []
        for directory in directories:
            if directory not in self._followed:
                self._followed[directory] = attach(directory).follow()
            followed = self._followed[directory]
            try:
                instances, folded = reading = followed.read()
            except OSError as error:
                troubles.append(_why(directory, error))
                continue
            alive = [instance for instance in instances if instance.alive]
            running += [(i, directory, self._process(i)) for i in alive]
            ended += folded.processes + len(instances) - len(alive)
            requests += sum(s.total_requests for s in reading.snapshots)
            errors += sum(s.total_errors for s in reading.snapshots)
            troubles += [f"{directory}: {why}" for _, why in followed.bad.values()]
        self._forget(instance.id for instance, _, _ in running)
        return Found(directories, running, ended, requests, errors, troubles)

    def _directories(self) -> list[Path]:
        if self._given:
            return self._given
        found = [d for place in self.places for d in directories_under(place)]
        return list(dict.fromkeys(found))

    def _process(self, instance: Instance) -> Agent:
        recent = self._recent.setdefault(instance.id, _Recent())
        counts, seconds = recent.add(self._clock(), instance.snapshot)
        return Agent(instance.pid, instance.program, instance.snapshot, counts, seconds)

    def _forget(self, running: Iterable[str]) -> None:
        """Keep nothing of processes that ended."""
        self._recent = {key: self._recent[key] for key in running}


class _Recent:
    """The last minute of one process: some snapshots of it."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, Snapshot]] = deque()
        self._start: datetime | None = None

    def add(self, now: float, snapshot: Snapshot) -> tuple[Snapshot, float]:
        """
        What came within the last minute, and of how many seconds that is.

        As long as the process was looked at for less, it is all since its start.
        """
        if self._start != snapshot.start_time:  # a reset
            self._kept.clear()
            self._start = snapshot.start_time
        kept = self._kept
        while len(kept) > 1 and kept[1][0] <= now - MINUTE:
            kept.popleft()
        began, base = kept[0] if kept else (now, snapshot)
        if not kept or now - kept[-1][0] >= _STEP:
            kept.append((now, snapshot))
        if began > now - MINUTE:
            return snapshot, snapshot.uptime_seconds
        return since(base, snapshot), now - began


def _why(directory: Path, error: OSError) -> str:
    text = str(error)
    return f"{directory}: {error.strerror}" if error.strerror else text
