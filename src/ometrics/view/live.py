# SPDX-License-Identifier: MIT
"""The table that updates in place: one row a model, newest numbers, a sparkline."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from ometrics.snapshot import PerformanceMetrics, Snapshot
from ometrics.sources import Source
from ometrics.view import tables
from ometrics.view.calls import all_calls
from ometrics.view.fitted import Column, FittedTable
from ometrics.view.plots import sparkline
from ometrics.view.units import count, duration, number

REFRESH: Final = 4  # times a second
TICK: Final = 1.0  # seconds of one character of the sparkline
SPARKS: Final = 16  # characters of it
FRAME: Final = 6  # lines around the rows of models

_COLUMNS: Final = (
    Column("model", left=True),
    Column("requests"),
    Column("errors", 1),
    Column("cancelled", 9),
    Column("in flight", 5),
    Column("p50"),
    Column("p95", 4),
    Column("p99", 8),
    Column("first chunk", 7),
    Column("tokens/s", 2),
    Column("latency", 6, left=True),
)


class LiveTable:
    """
    What a source counts, as a table that is made anew whenever rich renders it.

    Args:
        source: What to show.
        clock: Monotonic seconds.

    Thread-safety:
        One thread renders it, as rich's `Live` does under a lock of its own.
    """

    def __init__(
        self,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._clock = clock
        self._ticked = clock()
        self._recent: dict[str, deque[float]] = {}
        self._seen: dict[str, tuple[int, int]] = {}

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        snapshot = self.source.snapshot()
        self._tick(snapshot)
        yield tables.headline(snapshot)
        yield ""
        room = max((options.height or console.height) - FRAME, 1)
        # The busiest ones, in the order in which they appeared.
        busiest = sorted(
            snapshot.models.values(),
            key=lambda m: -m.total_requests - all_calls(m).in_flight,
        )
        shown = {m.model for m in busiest[:room]}
        yield FittedTable(
            _COLUMNS,
            (self._row(m) for name, m in snapshot.models.items() if name in shown),
        )
        if len(busiest) > room:
            yield Text(f"and {count(len(busiest) - room)} more models", style="dim")

    def _tick(self, snapshot: Snapshot) -> None:
        """Add the mean latency since the last tick to each model's sparkline."""
        now = self._clock()
        if now - self._ticked < TICK and self._seen:
            return
        self._ticked = now
        for name, metrics in snapshot.models.items():
            hist = metrics.latency_hist
            state = hist.count, hist.sum_ns
            before = self._seen.get(name, (0, 0))
            self._seen[name] = state
            values, ns = (a - b for a, b in zip(state, before, strict=True))
            if values > 0:
                recent = self._recent.setdefault(name, deque(maxlen=SPARKS))
                recent.append(ns / values / 1e9)

    def _row(self, metrics: PerformanceMetrics) -> list[Text | str]:
        hist = metrics.latency_hist
        calls = all_calls(metrics)
        recent = self._recent.get(metrics.model, ())
        return [
            tables.name(metrics.model),
            count(metrics.total_requests),
            tables.alarming(metrics.failed_reqs),
            tables.quiet(metrics.cancelled_reqs),
            Text(count(calls.in_flight), "cyan" if calls.in_flight else "dim"),
            *(duration(hist.quantile(q)) for q in (0.5, 0.95, 0.99)),
            duration(calls.time_to_first_chunk.quantile(0.5)),
            number(calls.decode_tokens_per_second),
            Text(sparkline(recent), style="green"),
        ]


class _Latest:
    """
    A source that is read now and then, so that to render what it said takes no time.

    A line that a program prints is rendered with the table; where that takes long, rich
    draws the table twice when a refresh comes in between.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._snapshot = source.snapshot()

    def look(self) -> None:
        """Read it; what it said last stays if it cannot be read."""
        with suppress(OSError, ValueError):
            self._snapshot = self._source.snapshot()

    def snapshot(self) -> Snapshot:
        """What was read last."""
        return self._snapshot


class _Live(Live):
    """rich's, which looks before each refresh."""

    def __init__(self, latest: _Latest, *args: Any, **kwargs: Any) -> None:
        self._latest = latest
        super().__init__(*args, **kwargs)

    def refresh(self) -> None:
        """Look, and draw."""
        self._latest.look()
        super().refresh()


def live(
    source: Source,
    console: Console,
    *,
    above: RenderableType = "",
    below: RenderableType = "",
) -> Live:
    """
    A live display of a source, to be started and stopped.

    It leaves no trace when stopped, so that a summary can take its place.

    Args:
        source: What to show.
        console: On a terminal.
        above: More to show above the table, made anew as well.
        below: More to show under it.
    """
    latest = _Latest(source)
    parts = (above, LiveTable(latest), below)
    return _Live(
        latest,
        Group(*(part for part in parts if part != "")),
        console=console,
        refresh_per_second=REFRESH,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        vertical_overflow="ellipsis",
    )
