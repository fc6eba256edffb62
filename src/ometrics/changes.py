# SPDX-License-Identifier: MIT
"""What a source counted between two looks at it, whatever happened in between.

`Snapshot.delta` subtracts two snapshots of one start. A source that is looked at again
and again may be reset or restarted meanwhile, and a model may be removed. `Changes`
turns what it shows into windows that do not overlap, none negative, in which every
count appears once. Lengths come from a monotonic clock; wall clocks only date them.

The exception is a model that is removed: what it counted since the last look goes with
it; and if within that time it is recorded anew, and more, only the surplus is seen.
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from ometrics.fields import Distribution, Gauge, fields_of
from ometrics.histogram import LatencyHistogram
from ometrics.models import CallMetrics
from ometrics.snapshot import PerformanceMetrics, Snapshot

if TYPE_CHECKING:
    from ometrics.clock import Clock
    from ometrics.sources import Source

# How far two clocks that are read one after the other may be apart, in seconds.
_CLOCK_SLACK: Final = 0.25
# What calls have of an instant, as it is when none runs.
_NOTHING_RUNS: Final = {
    field.name: getattr(CallMetrics(operation=""), field.name)
    for field in fields_of(CallMetrics)
    if isinstance(field, Gauge)
}
# Starts whose last snapshot is kept: the present one, and the one before a reset.
_KEPT_STARTS: Final = 2


class CountedWindow(NamedTuple):
    """
    What was counted in one window.

    Attributes:
        start: When the window began, in seconds of the monotonic clock.
        end: When it ended, likewise.
        counts: What was counted, with only the models that changed and no running
            calls, so that changes add up by `Snapshot.merge`.
        now: The whole snapshot that ended the window.
    """

    start: float
    end: float
    counts: Snapshot
    now: Snapshot


class Changes:
    """
    A source as a sequence of changes.

    Args:
        source: What to look at.
        clock: Where to read the monotonic time instead of the system.

    Thread-safety:
        `cleared` from any thread and from signal handlers; `look` from one at a time.
    """

    def __init__(self, source: Source, clock: Clock | None = None) -> None:
        self._source = source
        self._clock: Clock = clock or time
        self._bases: dict[tuple[str, datetime], Snapshot] = {}  # oldest start first
        self._end: float | None = None
        self._cleared: SimpleQueue[Snapshot] = SimpleQueue()

    def cleared(self, snapshot: Snapshot) -> None:
        """Keep what a reset of the source cleared: the next look counts it."""
        self._cleared.put(snapshot)

    def look(self) -> CountedWindow:
        """
        What came since the last look; at the first one, since the source's start.

        A source in whose place stands another one that began earlier (a file that was
        replaced) has nothing in common with what was seen: its counts so far are left
        out, and what follows counts.
        """
        # Before the snapshot: what is cleared later is in no snapshot taken so far.
        cleared = self._take_cleared()
        now = self._source.snapshot()
        end = self._clock.monotonic()
        parts = [self._part(snapshot, end) for snapshot in (*cleared, now)]
        self._bases[_start_of(now)] = now
        while len(self._bases) > _KEPT_STARTS:
            del self._bases[next(iter(self._bases))]
        start, counts = parts[0]
        for later_start, later in parts[1:]:
            start = min(start, later_start)
            counts = counts.merge(later)
        self._end = end
        return CountedWindow(start, end, _dated(counts, now, end - start), now)

    def _take_cleared(self) -> list[Snapshot]:
        taken = []
        while True:
            try:
                taken.append(self._cleared.get_nowait())
            except Empty:
                return taken

    def _part(self, snapshot: Snapshot, end: float) -> tuple[float, Snapshot]:
        """Where the counts that are new in `snapshot` begin, and these counts."""
        base = self._base_of(snapshot)
        if base is not None and self._end is not None:
            return self._end, since(base, snapshot)
        start = end - snapshot.uptime_seconds
        if self._end is None:
            return start, since(None, snapshot)
        if start >= self._end - _CLOCK_SLACK:
            return max(start, self._end), since(None, snapshot)
        return end, since(snapshot, snapshot)

    def _base_of(self, snapshot: Snapshot) -> Snapshot | None:
        """The last snapshot of the same start; of fewer processes, if some joined."""
        base = self._bases.pop(_start_of(snapshot), None)
        if base is None:
            ids = _ids(snapshot)
            for start in reversed(self._bases):
                if _ids(self._bases[start]) < ids:
                    return self._bases.pop(start)
        return base


def _start_of(snapshot: Snapshot) -> tuple[str, datetime]:
    return snapshot.instance_id, snapshot.start_time


def _ids(snapshot: Snapshot) -> set[str]:
    return set(snapshot.instance_id.split("+"))


def _dated(counts: Snapshot, now: Snapshot, seconds: float) -> Snapshot:
    """`counts` as those of the `seconds` before the instant of `now`."""
    return replace(
        counts,
        instance_id=now.instance_id,
        start_time=now.collection_time - timedelta(seconds=seconds),
        collection_time=now.collection_time,
        uptime_seconds=seconds,
    )


def since(before: Snapshot | None, now: Snapshot) -> Snapshot:
    """What `now` counts that `before` did not; all of it, if there is none."""
    models = {}
    for name, with_running in now.models.items():
        model = without_running(with_running)
        earlier = None if before is None else before.models.get(name)
        if earlier is None:
            models[name] = model
            continue
        earlier = replace(without_running(earlier), uptime_seconds=model.uptime_seconds)
        if model != earlier:
            try:
                gained = model - earlier
            except ValueError:
                # Removed and recorded anew: all its counts are new. Of several
                # processes only one forgot it, and what is new cannot be known.
                if len(_ids(now)) == 1:
                    models[name] = model
            else:
                models[name] = _with_extremes(gained, model)
    rest = replace(now, models={})
    if before is not None:
        try:
            rest = rest.delta(replace(before, models={}))
        except ValueError:  # one of several processes began anew
            rest = rest.delta(rest)
    return replace(rest, models=models)


def _with_extremes(gained: PerformanceMetrics, now: PerformanceMetrics) -> Any:
    """
    `gained`, its histograms' extremes known to 1.1 % where they were not new.

    Never beyond those of `now`, so the changes of one start add up to its exact ones.
    """
    calls = {
        operation: _estimated(call, now.calls[operation])
        for operation, call in gained.calls.items()
    }
    return replace(_estimated(gained, now), calls=calls)


def _estimated(gained: Any, now: Any) -> Any:
    better = {}
    owner: type = type(gained)
    for field in fields_of(owner):
        if isinstance(field, Distribution):
            histogram, whole = field.of(gained), field.of(now)
            if histogram.cells and None in (histogram.min, histogram.max):
                # A value on the edge of a cell has no estimate that fits: unknown.
                with contextlib.suppress(ValueError):
                    better[field.name] = _with_estimates(histogram, whole)
    return replace(gained, **better) if better else gained


def _with_estimates(gained: Any, whole: Any) -> Any:
    """Extremes within 1.1 %, on their side of the mean, and not beyond `whole`'s."""
    latencies = isinstance(gained, LatencyHistogram)
    total, unit = (gained.sum_ns, 1e9) if latencies else (gained.total, 1.0)
    mean, rest = divmod(total, gained.count)
    low, high = gained.min, gained.max
    if low is None and whole.min is not None:
        low = max(min(gained.quantile(0.0), mean / unit), whole.min)
    if high is None and whole.max is not None:
        high = min(max(gained.quantile(1.0), (mean + bool(rest)) / unit), whole.max)
    return replace(gained, min=low, max=high)


def without_running(model: PerformanceMetrics) -> PerformanceMetrics:
    """`model` without its calls under way, which are of an instant and do not add."""
    if not any(call.in_flight for call in model.calls.values()):
        return model
    calls = {
        operation: replace(call, **_NOTHING_RUNS)
        for operation, call in model.calls.items()
    }
    return replace(model, calls=calls)
