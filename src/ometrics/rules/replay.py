# SPDX-License-Identifier: MIT
"""Rules over the past: snapshots of one collector, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from ometrics.rules.engine import Alert, Engine
from ometrics.snapshot import Snapshot


class ReplayError(ValueError):
    """The snapshots are not of one collector in the order of time."""


def replay(engine: Engine, snapshots: Sequence[Snapshot]) -> Iterator[Alert]:
    """
    Evaluate at the instant of each snapshot.

    A window begins at the last snapshot that is at least as old as it is long; where
    there is none, at the start of counting.

    Raises:
        ReplayError: A count went back from one snapshot to the next.
    """
    for index, snapshot in enumerate(snapshots):
        earlier = snapshots[:index]

        def window(
            seconds: float,
            now: Snapshot = snapshot,
            earlier: Sequence[Snapshot] = earlier,
        ) -> Snapshot:
            edge = now.collection_time - timedelta(seconds=seconds)
            before = [s for s in earlier if s.collection_time <= edge]
            return now.delta(before[-1]) if before else now

        time = snapshot.collection_time
        if earlier and earlier[-1].collection_time > time:
            raise ReplayError(
                f"{time.isoformat()} comes after"
                f" {earlier[-1].collection_time.isoformat()}; give files in the order"
                " of time"
            )
        seconds = (time - snapshots[0].collection_time).total_seconds()
        try:
            alerts = engine.evaluate(window, now=seconds, at=time)
        except ValueError as error:
            raise ReplayError(str(error)) from None
        yield from alerts
