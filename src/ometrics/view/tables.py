# SPDX-License-Identifier: MIT
"""Snapshots as tables that fit: the least important columns go when there is no room.

Every name that comes from outside goes through `name`: no controls, no markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    Snapshot,
    percentage,
)
from ometrics.view.escape import harmless
from ometrics.view.units import UNKNOWN, count, duration, number, percent

NAME_WIDTH: Final = 40  # characters of a name in a table; names may have 256
LEAST_NAME: Final = 16  # characters that a name keeps in a narrow terminal
STACK_WIDTH: Final = 24  # characters of a bar of phases

# The phases of a call, in the order of time, and the colour of each.
PHASES: Final = (
    ("load + queue", "load", "magenta"),
    ("prefill", "prefill", "blue"),
    ("decode", "decode", "green"),
    ("residual", "residual", "yellow"),
    ("network", "network", "cyan"),
)


def name(text: str, width: int = NAME_WIDTH) -> Text:
    """A name from outside, made harmless for a terminal and for rich."""
    return Text(harmless(text, width) or '""', style="bold")


@dataclass(frozen=True)
class Column:
    """
    A column of a `FittedTable`.

    Attributes:
        title: Its heading.
        rank: Columns of the highest rank are the first to go; those of 0 stay.
        left: Align to the left, as text is.
    """

    title: str
    rank: int = 0
    left: bool = False


class FittedTable:
    """
    A table that leaves out columns, then shortens the first, until it fits.

    Args:
        columns: What is known of each column; the first one holds names.
        rows: As many cells each.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[Text | str]],
    ) -> None:
        self.columns = columns
        self.rows = list(rows)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        kept = list(range(len(self.columns)))
        names = min(self._width(0), LEAST_NAME)
        while self._needs(console, options, kept, names) > options.max_width:
            worst = max(kept, key=lambda i: (self.columns[i].rank, i))
            if not self.columns[worst].rank:
                break
            kept.remove(worst)
        surplus = self._needs(console, options, kept, None) - options.max_width
        limit = max(self._width(0) - surplus, 1) if surplus > 0 else None
        yield self._table(kept, limit)

    def _width(self, column: int) -> int:
        cells = (str(row[column]) for row in self.rows)
        return max(map(cell_len, (self.columns[column].title, *cells)))

    def _needs(
        self,
        console: Console,
        options: ConsoleOptions,
        kept: Sequence[int],
        names: int | None,
    ) -> int:
        """Columns of the terminal that it takes with names of so many characters."""
        table = self._table(kept, names)
        roomy = options.update(width=10_000)
        return Measurement.get(console, roomy, table).maximum

    def _table(self, kept: Sequence[int], names: int | None) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold",
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        for i in kept:
            column = self.columns[i]
            table.add_column(
                Text(column.title),
                justify="left" if column.left else "right",
                no_wrap=True,
                overflow="ellipsis",
                max_width=None if i else names,
            )
        for row in self.rows:
            table.add_row(*(row[i] for i in kept))
        return table


# --- what is read from a model's metrics


def merged(
    metrics: PerformanceMetrics, read: Callable[[CallMetrics], LatencyHistogram]
) -> LatencyHistogram:
    """One histogram of all operations of a model."""
    empty = LatencyHistogram(bucket_bounds=metrics.latency_hist.bucket_bounds)
    return reduce(LatencyHistogram.merge, map(read, metrics.calls.values()), empty)


def first_chunk(metrics: PerformanceMetrics) -> float | None:
    """Median time to the first chunk in seconds; `None` without streams."""
    return merged(metrics, lambda call: call.time_to_first_chunk).quantile(0.5)


def tokens_per_second(metrics: PerformanceMetrics) -> float | None:
    """Completion tokens over decode time, of all operations; `None` if unknown."""
    tokens = sum(call.decode_tokens for call in metrics.calls.values())
    ns = sum(call.decode_ns for call in metrics.calls.values())
    return tokens / ns * 1e9 if ns else None


def in_flight(metrics: PerformanceMetrics) -> int:
    """Calls that run at the instant of the snapshot."""
    return sum(call.in_flight for call in metrics.calls.values())


def alarming(value: int) -> Text:
    """A count that should be zero: dim if it is, else red."""
    return Text(count(value), style="red" if value else "dim")


# --- tables


_MODELS: Final = (
    Column("model", left=True),
    Column("requests"),
    Column("errors"),
    Column("cancelled", 4),
    Column("mean", 8),
    Column("p50", 1),
    Column("p95", 3),
    Column("p99", 2),
    Column("first chunk", 5),
    Column("tokens/s", 6),
    Column("tokens", 7),
)


def models(snapshot: Snapshot) -> FittedTable:
    """One row a model."""
    return FittedTable(_MODELS, map(_model, snapshot.models.values()))


def _model(metrics: PerformanceMetrics) -> list[Text | str]:
    hist = metrics.latency_hist
    return [
        name(metrics.model),
        count(metrics.total_requests),
        alarming(metrics.failed_reqs),
        Text(
            count(metrics.cancelled_reqs), style="" if metrics.cancelled_reqs else "dim"
        ),
        duration(hist.mean),
        *(duration(hist.quantile(q)) for q in (0.5, 0.95, 0.99)),
        duration(first_chunk(metrics)),
        number(tokens_per_second(metrics)),
        count(metrics.tokens_processed),
    ]


def phases(snapshot: Snapshot) -> FittedTable | None:
    """Where the time went, one row a model and operation; `None` if no server told."""
    rows: list[list[Text | str]] = [
        [name(metrics.model), harmless(call.operation), *_shares(call)]
        for metrics in snapshot.models.values()
        for call in metrics.calls.values()
        if any(getattr(call, field).count for _, field, _ in PHASES)
    ]
    if not rows:
        return None
    columns = (
        Column("where the time went", left=True),
        Column("operation", 3, left=True),
        *(
            Column(title, rank)
            for (title, _, _), rank in zip(PHASES, _RANKS, strict=True)
        ),
        Column("", 2, left=True),
    )
    return FittedTable(columns, rows)


_RANKS: Final = (0, 0, 0, 5, 4)  # the server's three big phases stay


def _shares(call: CallMetrics) -> Iterator[Text | str]:
    """The share of each phase, then all of them as one bar."""
    hists = [getattr(call, field) for _, field, _ in PHASES]
    whole = sum(hist.sum_ns for hist in hists)
    stack = Text()
    below = 0
    for hist, (_, _, colour) in zip(hists, PHASES, strict=True):
        share = percent(percentage(hist.sum_ns, whole))
        yield Text(share if hist.count else UNKNOWN, style=colour)
        below += hist.sum_ns
        end = round(STACK_WIDTH * below / whole) if whole else 0
        stack.append("█" * (end - len(stack)), style=colour)
    yield stack


def errors(snapshot: Snapshot) -> FittedTable | None:
    """Failures by model and code, the most frequent first; `None` without any."""
    rows: list[tuple[int, list[Text | str]]] = [
        (failures, [name(m.model), harmless(code), alarming(failures), share])
        for m in snapshot.models.values()
        for code, failures in m.errors.items()
        for share in [percent(percentage(failures, m.total_requests))]
        if failures
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[0])
    columns = (
        Column("errors", left=True),
        Column("code", left=True),
        Column("count"),
        Column("of requests", 1),
    )
    return FittedTable(columns, (cells for _, cells in rows))


_CALL_TIMES: Final[
    tuple[tuple[str, Callable[[CallMetrics], LatencyHistogram]], ...]
] = (
    ("latency", lambda call: call.latency),
    ("first chunk", lambda call: call.time_to_first_chunk),
    ("first answer", lambda call: call.time_to_first_answer),
    ("between chunks", lambda call: call.time_per_output_chunk),
    ("load + queue", lambda call: call.load),
    ("prefill", lambda call: call.prefill),
    ("decode", lambda call: call.decode),
    ("residual", lambda call: call.residual),
    ("network", lambda call: call.network),
)


def times(metrics: PerformanceMetrics) -> FittedTable:
    """Every kind of time of one model, one row a kind."""
    hists = {title: merged(metrics, read) for title, read in _CALL_TIMES}
    if hists["latency"] != metrics.latency_hist:
        hists = {"all requests": metrics.latency_hist, **hists}
    columns = (
        Column("time", left=True),
        Column("count", 4),
        Column("mean", 1),
        Column("min", 5),
        *(Column(title, rank) for title, rank in (("p50", 0), ("p90", 3))),
        *(Column(title, rank) for title, rank in (("p95", 2), ("p99", 0))),
        Column("max", 6),
    )
    return FittedTable(
        columns, (_time(t, hist) for t, hist in hists.items() if hist.count)
    )


def _time(title: str, hist: LatencyHistogram) -> list[Text | str]:
    return [
        Text(title),
        count(hist.count),
        duration(hist.mean),
        duration(hist.min),
        *(duration(hist.quantile(q)) for q in (0.5, 0.9, 0.95, 0.99)),
        duration(hist.max),
    ]


# --- lines


def headline(snapshot: Snapshot) -> Text:
    """Requests, errors, cancelled calls, running calls and the window, in one line."""
    every = snapshot.models.values()
    cancelled = sum(m.cancelled_reqs for m in every)
    running = sum(map(in_flight, every))
    parts = [
        Text("ometrics", style="bold green"),
        Text(_counted(snapshot.total_requests, "request")),
        Text(
            _counted(snapshot.total_errors, "error")
            + f" ({percent(snapshot.overall_error_rate)})",
            style="red" if snapshot.total_errors else "",
        ),
    ]
    if cancelled:
        parts.append(Text(f"{count(cancelled)} cancelled"))
    if running:
        parts.append(Text(f"{count(running)} in flight", style="cyan"))
    parts.append(Text(duration(snapshot.uptime_seconds)))
    return Text(" · ").join(parts)


def _counted(amount: int, noun: str) -> str:
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def facts(snapshot: Snapshot) -> Text:
    """Tasks, resources, and what was not counted in full: a line each, if any."""
    lines = []
    tasks = snapshot.task_statistics
    if tasks.total_tasks:
        mean = tasks.avg_completion_ms
        took = duration(None if mean is None else mean / 1e3)
        lines.append(
            f"tasks      {count(tasks.completed_tasks)} completed,"
            f" {count(tasks.failed_tasks)} failed, {took} each"
        )
    used = snapshot.resource_metrics
    if used is not None:
        lines.append(
            f"resources  {used.memory_usage_mb:,.0f} MB,"
            f" {used.cpu_usage_percent:.0f}% CPU,"
            f" {count(used.goroutine_count)} threads and tasks"
        )
    text = Text("\n".join(lines))
    if lost := dict(_losses(snapshot)):
        told = ", ".join(f"{reason}: {count(n)}" for reason, n in lost.items())
        separator = "\n" if lines else ""
        text.append(f"{separator}not counted in full: {told}", style="yellow")
    return text


def _losses(snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    # Dropped events are missing to a live reader only: the counts here have them.
    counts: Mapping[str, int] = {
        **{f"{harmless(k)} values": n for k, n in snapshot.invalid_values.items()},
        "requests past the limit of models": snapshot.overflowed_requests,
        "names cut": snapshot.truncated_names,
        "sums at their limit": snapshot.saturated,
        "internal errors": snapshot.internal_errors,
    }
    yield from ((reason, n) for reason, n in counts.items() if n)


def report(snapshot: Snapshot) -> Group:
    """A whole snapshot: what `run`, `show` and `demo` say at their end."""
    parts: list[RenderableType | None] = [headline(snapshot)]
    if snapshot.models:
        parts.append(models(snapshot))
    parts += (phases(snapshot), errors(snapshot), facts(snapshot) or None)
    return spaced(*parts)


def spaced(*parts: RenderableType | None) -> Group:
    """What there is of the parts, with an empty line after each."""
    return Group(*(line for part in parts if part is not None for line in (part, "")))
