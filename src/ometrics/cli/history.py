# SPDX-License-Identifier: MIT
"""`ometrics history`: what was counted when, as a table and plots over time."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from math import ceil
from typing import Any, Final

import click
from rich.console import Console, RenderableType
from rich.text import Text

from ometrics.cli.command import Command
from ometrics.cli.store import DEFAULT, opened
from ometrics.durations import parse_length
from ometrics.snapshot import PerformanceMetrics, Snapshot
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.plots import chart, sparkline
from ometrics.view.terminal import console_for
from ometrics.view.units import compact, count, duration, percent

EXAMPLES: Final = (
    ("ometrics history", "the last day of metrics.db"),
    ("ometrics history metrics.db --since 7d --step 1h", "a week by the hour"),
    ("ometrics history --since yesterday --model llama3.2", "one model"),
    ("ometrics history postgresql://user@host/db --csv", "for other programs"),
)
NOTES: Final = """
TIME is a length of time ago such as 24h, a date or time in UTC, 'today' or 'yesterday'.
A stretch in which no process was counting is a gap, not a zero. Exit codes: 0 all is
well; 2 wrong usage, or a store that cannot be read.
"""
_STEPS: Final = ("10s", "1m", "5m", "15m", "30m", "1h", "6h", "1d", "7d")
_POINTS: Final = 60  # as many steps as this fit into a narrow terminal
_CHART_HEIGHT: Final = 5
_WIDEST: Final = 100
_SPARK: Final = 24


class PlottedSeries:
    """
    Steps of equal length, with gaps where nobody counted.

    Args:
        found: What the store has, in order.
        begin: Start of the first step.
        end: End of the last one.
        step: Length of a step in seconds.
    """

    def __init__(
        self, found: Iterable[Snapshot], begin: datetime, end: datetime, step: float
    ) -> None:
        self.step = step
        first = begin.timestamp() // step
        n = max(ceil(end.timestamp() / step) - int(first), 1)
        self.begin = datetime.fromtimestamp(first * step, timezone.utc)
        self.end = self.begin + timedelta(seconds=n * step)
        self.steps: list[Snapshot | None] = [None] * n
        for snapshot in found:
            middle = snapshot.start_time + timedelta(
                seconds=snapshot.uptime_seconds / 2
            )
            place = int((middle - self.begin).total_seconds() // step)
            there = self.steps[min(max(place, 0), n - 1)]
            merged = snapshot if there is None else there.merge(snapshot)
            self.steps[min(max(place, 0), n - 1)] = merged

    def of(self, read: Any, name: str | None = None) -> list[float | None]:
        """
        A number of each step; `None` where nobody counted or nothing is known.

        Args:
            read: From a snapshot, or from a model's metrics if `name` is given.
            name: The model.
        """
        values: list[float | None] = []
        for snapshot in self.steps:
            if snapshot is None:
                values.append(None)
            elif name is None:
                values.append(read(snapshot))
            else:
                model = snapshot.models.get(name)
                values.append(read(model or PerformanceMetrics(model=name)))
        return values

    def whole(self) -> Snapshot | None:
        """All steps merged; `None` of none."""
        known = [snapshot for snapshot in self.steps if snapshot is not None]
        if not known:
            return None
        total, *others = known
        for other in others:
            total = total.merge(other)
        return total


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.argument("store", default=DEFAULT)
@click.option("--since", default="24h", show_default=True, metavar="TIME")
@click.option("--until", default="now", show_default=True, metavar="TIME")
@click.option("--step", metavar="LENGTH", help="Such as 5m; by default about 60 steps.")
@click.option("--model", metavar="NAME", help="Only this model, with its quantiles.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each step.")
@click.option("--csv", "as_csv", is_flag=True, help="A row for each step and model.")
def history(
    store: str,
    since: str,
    until: str,
    step: str | None,
    model: str | None,
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    """
    Show what STORE has recorded over time: requests, errors, latency quantiles.

    STORE is a file or database URL that 'MetricsCollector(store=...)' wrote;
    'metrics.db' if it is left out.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two formats: choose one")
    with opened(store) as there:
        from ometrics.store.when import parse_time

        try:
            begin, end = parse_time(since), parse_time(until)
            seconds = parse_length(step or _fitting((end - begin).total_seconds()))
            steps = there.between(begin, end, step=seconds, model=model)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        found = list(steps)
        starts = there.starts(begin, end)
        damaged = there.damaged.total()
    if as_json or as_csv:
        rows = list(_rows(found))
        _write_json(rows) if as_json else _write_csv(rows)
        return
    console = console_for(sys.stdout)
    series = PlottedSeries(found, begin, end, seconds)
    for part in _report(series, starts, model, console):
        console.print(part)
    if damaged:
        console.print(
            Text(f"{damaged} damaged rows are left out: ometrics store check", "red")
        )


def _fitting(seconds: float) -> str:
    """The shortest step of which about 60 make up so many seconds."""
    for step in _STEPS:
        if parse_length(step) * _POINTS >= seconds:
            return step
    return _STEPS[-1]


# --- for people


def _report(
    series: PlottedSeries,
    starts: Sequence[datetime],
    model: str | None,
    console: Console,
) -> Iterable[RenderableType]:
    whole = series.whole()
    step = duration(series.step)
    yield Text(
        f"{series.begin:%Y-%m-%d %H:%M} to {series.end:%Y-%m-%d %H:%M} UTC,"
        f" steps of {step}",
        style="dim",
    )
    if whole is None or (model is not None and model not in whole.models):
        of = "" if model is None else f" of {harmless(model)}"
        yield Text(f"nothing{of} was recorded in this time")
        return
    names = list(whole.models) if model is None else [model]
    yield FittedTable(
        [
            TableColumn("model", left=True),
            TableColumn("requests"),
            TableColumn("over time", rank=1, left=True),
            TableColumn("errors", rank=2),
            TableColumn("p50", rank=3),
            TableColumn("p95"),
            TableColumn("p99", rank=4),
            TableColumn("p95 over time", rank=5, left=True),
        ],
        [_row(series, whole.models[name]) for name in names],
    )
    width = min(console.width, _WIDEST)
    for title, values, show in _charts(series, model):
        lines = chart(values, width, _CHART_HEIGHT, show)
        if lines:
            yield Text(f"\n{title}", style="bold")
            for line in lines:
                yield Text(line, style="green")
    yield Text(_axis(series, width), style="dim")
    gaps = sum(snapshot is None for snapshot in series.steps)
    if gaps:
        yield Text(f"{gaps} of {len(series.steps)} steps: nobody was counting", "dim")
    if starts:
        shown = ", ".join(f"{start:%m-%d %H:%M}" for start in starts[-3:])
        more = "... " if len(starts) > len(starts[-3:]) else ""
        started = "a process" if len(starts) == 1 else f"{len(starts)} processes"
        yield Text(f"{started} began to count: {more}{shown}", "dim")


def _row(series: PlottedSeries, metrics: PerformanceMetrics) -> list[Text | str]:
    name = metrics.model
    requests = series.of(lambda m: m.total_requests, name)
    p95 = series.of(lambda m: m.latency_p95, name)
    rate = percent(metrics.error_rate) if metrics.total_requests else ""
    return [
        tables.name(name),
        count(metrics.total_requests),
        sparkline(requests, _SPARK),
        rate,
        duration(metrics.latency_p50),
        duration(metrics.latency_p95),
        duration(metrics.latency_p99),
        sparkline(p95, _SPARK),
    ]


def _charts(
    series: PlottedSeries, model: str | None
) -> Iterable[tuple[str, list[float | None], Any]]:
    def requests(of: Any) -> float:
        return float(of.total_requests)

    yield "requests a step", series.of(requests, model), compact
    for q, title in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):

        def latency(of: Any, q: float = q) -> float | None:
            models = of.models.values() if isinstance(of, Snapshot) else [of]
            hists = [m.latency_hist for m in models if m.latency_hist.count]
            if not hists:
                return None
            total, *others = hists
            for other in others:
                total = total.merge(other)
            value: float | None = total.quantile(q)
            return value

        if model is not None or q == 0.95:  # noqa: PLR2004
            yield f"latency {title}", series.of(latency, model), duration


def _axis(series: PlottedSeries, width: int) -> str:
    """The times of both ends below the plots."""
    long = series.end - series.begin > timedelta(days=2)
    style = "%m-%d" if long else "%H:%M"
    left, right = (f"{t:{style}}" for t in (series.begin, series.end))
    used = min(width, len(series.steps) + 10)
    return left + " " * max(used - len(left) - len(right), 1) + right


# --- for programs


def _rows(found: Iterable[Snapshot]) -> Iterable[dict[str, Any]]:
    for snapshot in found:
        for name, metrics in snapshot.models.items():
            yield {
                "start": _rfc3339(snapshot.start_time),
                "end": _rfc3339(snapshot.collection_time),
                "model": name,
                "requests": metrics.total_requests,
                "failed": metrics.failed_reqs,
                "cancelled": metrics.cancelled_reqs,
                "tokens": metrics.tokens_processed,
                "latency_sum_seconds": metrics.total_latency,
                "latency_min_seconds": metrics.min_latency,
                "latency_p50_seconds": metrics.latency_p50,
                "latency_p95_seconds": metrics.latency_p95,
                "latency_p99_seconds": metrics.latency_p99,
                "latency_max_seconds": metrics.max_latency,
            }


def _rfc3339(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def _write_json(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(json.dumps(row, allow_nan=False))


def _write_csv(rows: Sequence[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else ["start"])
    writer.writeheader()
    writer.writerows(rows)
