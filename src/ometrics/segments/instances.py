# SPDX-License-Identifier: MIT
"""What a reading of a directory of segments finds: its processes, and their sum."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ometrics.segments.folding import Folded

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot


@dataclass(frozen=True)
class Instance:
    """
    One process with a segment.

    Attributes:
        id: The collector's `instance_id`; a process has one for each collector.
        pid: Its number, in its own pid namespace.
        command: Its command line as the system shows it; of a process that ended, or
            of another container, only the program's name.
        program: The program's name alone: of its script or module.
        started: When its collector began, UTC.
        last_heard: When its newest record was made, UTC.
        alive: Whether it still runs.
        snapshot: What it counted.
    """

    id: str
    pid: int
    command: str
    program: str
    started: datetime
    last_heard: datetime
    alive: bool
    snapshot: Snapshot

    @property
    def models(self) -> tuple[str, ...]:
        """Names of its models."""
        return tuple(self.snapshot.models)


class Reading(NamedTuple):
    """
    What one reading of a directory found.

    Attributes:
        instances: The processes that run, and those that ended and are not folded yet.
        folded: The sum of those that are.
    """

    instances: list[Instance]
    folded: Folded

    @property
    def snapshots(self) -> list[Snapshot]:
        """What was counted, each count in one of them."""
        counted = [instance.snapshot for instance in self.instances]
        return [*counted, *self.folded.totals]
