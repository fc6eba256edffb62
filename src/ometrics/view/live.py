# SPDX-License-Identifier: MIT
"""The table that updates in place: one row a model, the last minutes, a sparkline."""

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
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.plots import sparkline
from ometrics.view.units import count, duration, number
from ometrics.windows import Windows

REFRESH: Final = 4  # times a second
TICK: Final = 1.0  # seconds of one character of the sparkline
SPARKS: Final = 16  # characters of it
FRAME: Final = 6  # lines around the rows of models
WINDOW: Final = "5m"  # what quantiles and rates are of

_COLUMNS: Final = (
    TableColumn("model", left=True),
    TableColumn("requests"),
    TableColumn("errors", 1),
    TableColumn("cancelled", 9),
    TableColumn("in flight", 5),
    TableColumn("a minute", 3),
    TableColumn("p50"),
    TableColumn("p95", 4),
    TableColumn("p99", 8),
    TableColumn("first chunk", 7),
    TableColumn("tokens/s", 2),
    TableColumn("latency", 6, left=True),
)


class LiveTable:
    """
    What a source counts, as a table that is made anew whenever rich renders it.

    Counts are those of the whole source. Quantiles and rates are of the last minutes,
    so that they say how it is now.

    Args:
        source: What to show.
        clock: Monotonic seconds.
        window: Gives the last minutes; `None` for all that the source counted.

    Thread-safety:
        One thread renders it, as rich's `Live` does under a lock of its own.
    """

    def __init__(
        self,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        window: Callable[[], Snapshot] | None = None,
    ) -> None:
        self.source = source
        self._window = window
        self._clock = clock
        self._ticked = clock()
        self._recent: dict[str, deque[float]] = {}
        self._seen: dict[str, tuple[int, int]] = {}

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        snapshot = self.source.snapshot()
        recent = snapshot if self._window is None else self._window()
        self._tick(snapshot)
        yield tables.headline(snapshot)
        yield "" if self._window is None else _covered(recent.uptime_seconds)
        room = max((options.height or console.height) - FRAME, 1)
        # The busiest ones, in the order in which they appeared.
        busiest = sorted(
            snapshot.models.values(),
            key=lambda m: -m.total_requests - all_calls(m).in_flight,
        )
        shown = {m.model for m in busiest[:room]}
        yield FittedTable(
            _COLUMNS,
            (
                self._row(m, recent.models.get(name, m), recent.uptime_seconds)
                for name, m in snapshot.models.items()
                if name in shown
            ),
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

    def _row(
        self, metrics: PerformanceMetrics, recent: PerformanceMetrics, seconds: float
    ) -> list[Text | str]:
        hist = recent.latency_hist
        calls = all_calls(recent)
        under_way = all_calls(metrics).in_flight
        means = self._recent.get(metrics.model, ())
        return [
            tables.name(metrics.model),
            count(metrics.total_requests),
            tables.alarming(metrics.failed_reqs),
            tables.quiet(metrics.cancelled_reqs),
            Text(count(under_way), "cyan" if under_way else "dim"),
            number(recent.total_requests * 60 / seconds if seconds else None),
            *(duration(hist.quantile(q)) for q in (0.5, 0.95, 0.99)),
            duration(calls.time_to_first_chunk.quantile(0.5)),
            number(calls.decode_tokens_per_second),
            Text(sparkline(means), style="green"),
        ]


def _covered(seconds: float) -> Text:
    """What quantiles and rates are of."""
    minutes = round(seconds / 60)
    length = f"{minutes} minutes" if minutes > 1 else "minute"
    return Text(f"latency, first chunk and rates: of the last {length}", style="dim")


class _Latest:
    """
    A source that is read now and then, so that to render what it said takes no time.

    A line that a program prints is rendered with the table; where that takes long, rich
    draws the table twice when a refresh comes in between.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._windows = Windows(source, longest=WINDOW)
        self._snapshot = source.snapshot()
        self._window = self._windows.window(WINDOW)
        self._ticked = time.monotonic()

    def look(self) -> None:
        """Read it; what it said last stays if it cannot be read."""
        with suppress(OSError, ValueError):
            self._snapshot = self._source.snapshot()
            if time.monotonic() - self._ticked >= TICK:
                self._ticked = time.monotonic()
                self._window = self._windows.window(WINDOW)

    def snapshot(self) -> Snapshot:
        """What was read last."""
        return self._snapshot

    def window(self) -> Snapshot:
        """The last minutes then."""
        return self._window


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
    parts = (above, LiveTable(latest, window=latest.window), below)
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
