# SPDX-License-Identifier: MIT
"""Snapshots as tables for a terminal.

Every name that comes from outside goes through `name`: no controls, no markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    Snapshot,
    percentage,
)
from ometrics.view.calls import all_calls
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, Flow, TableColumn
from ometrics.view.names import CLIENT_TIMES, PHASES, Phase, losses, tokens_known
from ometrics.view.plots import stack
from ometrics.view.units import UNKNOWN, count, counted, duration, number, percent

NAME_WIDTH: Final = 40  # characters of a name in a table; names may have 256
STACK_WIDTH: Final = 24  # characters of a bar of phases


def name(text: str, width: int = NAME_WIDTH) -> Text:
    """A name from outside, made harmless for a terminal and for rich."""
    return Text(harmless(text, width) or '""', style="bold")


def alarming(value: int) -> Text:
    """A count that should be zero: dim if it is, else red."""
    return Text(count(value), style="red" if value else "dim")


def quiet(value: int) -> Text:
    """A count that is dim if it is zero."""
    return Text(count(value), style="" if value else "dim")


# --- tables


_MODELS: Final = (
    TableColumn("model", left=True),
    TableColumn("requests"),
    TableColumn("errors", 1),
    TableColumn("cancelled", 9),
    TableColumn("mean", 7),
    TableColumn("p50"),
    TableColumn("p95", 3),
    TableColumn("p99", 5),
    TableColumn("first chunk", 4),
    TableColumn("tokens/s", 2),
    TableColumn("tokens", 6),
)


def models(snapshot: Snapshot) -> FittedTable:
    """One row a model."""
    return FittedTable(_MODELS, map(_model, snapshot.models.values()))


def _model(metrics: PerformanceMetrics) -> list[Text | str]:
    hist = metrics.latency_hist
    calls = all_calls(metrics)
    return [
        name(metrics.model),
        count(metrics.total_requests),
        alarming(metrics.failed_reqs),
        quiet(metrics.cancelled_reqs),
        duration(hist.mean),
        *(duration(hist.quantile(q)) for q in (0.5, 0.95, 0.99)),
        duration(calls.time_to_first_chunk.quantile(0.5)),
        number(calls.decode_tokens_per_second),
        count(metrics.tokens_processed),
    ]


def phases(snapshot: Snapshot) -> FittedTable | None:
    """Where the time went, one row a model and operation; `None` if no server told."""
    calls = [
        (metrics.model, call)
        for metrics in snapshot.models.values()
        for call in metrics.calls.values()
        if any(getattr(call, phase.field).count for phase in PHASES)
    ]
    if not calls:
        return None
    known = [p for p in PHASES if any(getattr(c, p.field).count for _, c in calls)]
    columns = (
        TableColumn("share of time", left=True),
        TableColumn("operation", 1, left=True),
        *(
            TableColumn(phase.title, _rank(phase, [c for _, c in calls]))
            for phase in known
        ),
        TableColumn("by initial", _LEAST, left=True),
    )
    rows = (
        [name(model), harmless(call.operation), *_shares(call, known)]
        for model, call in calls
    )
    return FittedTable(columns, rows)


# Ranks of the phases that are least, in percent of the time; and of the bar.
_STAYS, _LEAST = 10, 101


def _rank(phase: Phase, calls: Sequence[CallMetrics]) -> int:
    """What takes a tenth of any call's time stays; of the rest the least goes first."""
    most = max(
        percentage(getattr(call, phase.field).sum_ns, whole)
        for call in calls
        for whole in [sum(getattr(call, every.field).sum_ns for every in PHASES)]
    )
    return 0 if most >= _STAYS else _LEAST - 1 - round(most)


def _shares(call: CallMetrics, phases: Sequence[Phase]) -> Iterator[Text | str]:
    """The share of each phase, then all of them as one bar."""
    hists = [getattr(call, phase.field) for phase in phases]
    whole = sum(hist.sum_ns for hist in hists)
    for hist, phase in zip(hists, phases, strict=True):
        share = percent(percentage(hist.sum_ns, whole))
        yield Text(share if hist.count else UNKNOWN, style=phase.colour)
    parts = stack(
        [(p.title, h.sum_ns) for p, h in zip(phases, hists, strict=True)], STACK_WIDTH
    )
    bar = Text()
    for phase, (title, width) in zip(phases, parts, strict=False):
        # Of one colour, a block; without colours the letters are what is seen.
        bar.append(title[0].upper() * width, f"{phase.colour} on {phase.colour}")
    yield bar


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
        TableColumn("errors", left=True),
        TableColumn("code", left=True),
        TableColumn("count"),
        TableColumn("of requests", 1),
    )
    return FittedTable(columns, (cells for _, cells in rows))


def times(metrics: PerformanceMetrics) -> FittedTable:
    """Every kind of time of one model, one row a kind."""
    fields = CLIENT_TIMES | {phase.title: phase.field for phase in PHASES}
    calls = all_calls(metrics)
    hists = {title: getattr(calls, field) for title, field in fields.items()}
    if hists["latency"] != metrics.latency_hist:
        hists = {"all requests": metrics.latency_hist, **hists}
    columns = (
        TableColumn("time", left=True),
        TableColumn("count", 4),
        TableColumn("mean", 1),
        TableColumn("min", 5),
        *(TableColumn(title, rank) for title, rank in (("p50", 0), ("p90", 3))),
        *(TableColumn(title, rank) for title, rank in (("p95", 2), ("p99", 0))),
        TableColumn("max", 6),
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


def headline(snapshot: Snapshot) -> Flow:
    """Requests, errors, cancelled calls, running calls and the window, in one line."""
    every = snapshot.models.values()
    cancelled = sum(m.cancelled_reqs for m in every)
    running = sum(call.in_flight for m in every for call in m.calls.values())
    failed = counted(snapshot.total_errors, "error")
    if snapshot.total_requests:
        failed += f" ({percent(snapshot.overall_error_rate)})"
    parts = [
        Text("ometrics", style="bold green"),
        Text(counted(snapshot.total_requests, "request")),
        Text(failed, style="red" if snapshot.total_errors else ""),
    ]
    if cancelled:
        parts.append(Text(f"{count(cancelled)} cancelled"))
    if running:
        parts.append(Text(f"{count(running)} in flight", style="cyan"))
    parts.append(Text(duration(snapshot.uptime_seconds)))
    return Flow(parts)


def facts(snapshot: Snapshot) -> list[Flow]:
    """Tasks, resources, and what was not counted in full: a line each, if any."""
    lines = []
    tasks = snapshot.task_statistics
    if tasks.total_tasks:
        parts = [
            f"tasks      {count(tasks.completed_tasks)} completed",
            f"{count(tasks.failed_tasks)} failed",
        ]
        if tasks.avg_completion_ms is not None:
            parts.append(f"{duration(tasks.avg_completion_ms / 1e3)} each")
        lines.append(Flow(parts, ", "))
    used = snapshot.resource_metrics
    if used is not None:
        parts = [
            f"resources  {used.memory_usage_mb:,.0f} MB",
            f"{used.cpu_usage_percent:.0f}% CPU",
            f"{count(used.goroutine_count)} threads and tasks",
        ]
        lines.append(Flow(parts, ", "))
    for metrics in snapshot.models.values():
        calls, model = all_calls(metrics), harmless(metrics.model, NAME_WIDTH)
        if (known := tokens_known(calls)) is not None:
            text = f"{model}: tokens known for {known}"
            lines.append(Flow([Text(text, style="yellow")]))
        if calls.retries:
            of = counted(calls.retries_known, "call")
            lines.append(
                Flow([f"{model}: {count(calls.retries)} of {of} were retries"])
            )
    lost = [f"{reason}: {count(n)}" for reason, n in losses(snapshot)]
    if lost:
        lost[0] = f"not counted in full: {lost[0]}"
        lines.append(Flow((Text(text, style="yellow") for text in lost), ", "))
    return lines


def report(snapshot: Snapshot) -> Group:
    """A whole snapshot: what `run`, `show` and `demo` say at their end."""
    parts: list[RenderableType | None] = [headline(snapshot)]
    if snapshot.models:
        parts.append(models(snapshot))
    facts_known = facts(snapshot)
    parts += (phases(snapshot), errors(snapshot))
    parts.append(Group(*facts_known) if facts_known else None)
    return spaced(*parts)


def spaced(*parts: RenderableType | None) -> Group:
    """What there is of the parts, with an empty line after each."""
    return Group(*(line for part in parts if part is not None for line in (part, "")))
