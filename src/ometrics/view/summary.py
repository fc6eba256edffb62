# SPDX-License-Identifier: MIT
"""Text for people: the original package's lines, and tables of what we know beyond.

Plain text without colours; names are made harmless, bars are ASCII, so that it can be
printed anywhere. A line whose number is not known is left out; a cell of a table that
is not known reads `n/a`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final

from ometrics.durations import format_duration
from ometrics.fields import fields_of
from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import CallMetrics, PerformanceMetrics, Snapshot, percentage
from ometrics.view.escape import harmless
from ometrics.view.names import CLIENT_TIMES, PHASES, TOKENS, losses, tokens_known

UNKNOWN: Final = "n/a"
NAME_WIDTH: Final = 40  # characters of a name in a table; names may have 256
BAR_WIDTH: Final = 30  # characters of the longest bar
LEAST_WINDOW: Final = 1.0  # seconds; a rate over less is an accident of the clock

# Means are exact but need no nanoseconds; quantiles are estimates to 1 %.
MEAN_DIGITS: Final = 4
QUANTILE_DIGITS: Final = 3


def summary(snapshot: Snapshot) -> str:
    """All models, tasks and resources of a snapshot, and what was lost, if anything."""
    models = list(snapshot.models.values())
    counts = sum(m.latency_hist.count for m in models)
    sum_ns = sum(m.latency_hist.sum_ns for m in models)
    tasks = snapshot.task_statistics
    resources = snapshot.resource_metrics
    lines = [
        "=== Metrics Summary ===",
        f"Uptime: {_rounded(snapshot.uptime_seconds, MEAN_DIGITS)}",
        f"Total Requests: {snapshot.total_requests}",
        f"Total Errors: {snapshot.total_errors}",
    ]
    if snapshot.total_requests:
        lines.append(f"Error Rate: {snapshot.overall_error_rate:.2f}%")
    if counts:
        lines.append(f"Average Latency: {_mean(sum_ns / counts / 1e9)}")
    if tasks.total_tasks:
        lines.append(f"Task Completion Rate: {tasks.success_rate:.2f}%")
    if resources is not None:
        lines += (
            f"Memory Usage: {resources.memory_usage_mb:.0f} MB",
            f"CPU Usage: {resources.cpu_usage_percent:.2f}%",
            f"Goroutines: {resources.goroutine_count}",
        )
    lines.append(f"Models Tracked: {len(models)}")
    if models:
        lines += ("", *_table(_MODEL_COLUMNS, map(_model_row, models)))
    if lost := list(losses(snapshot)):
        lines += ("", "Not Counted In Full:", *(f"  {k}: {n}" for k, n in lost))
    return "\n".join(lines) + "\n"


def model_summary(metrics: PerformanceMetrics) -> str:
    """One model: requests, latencies, tokens, errors, and its instrumented calls."""
    hist = metrics.latency_hist
    lines = [
        f"=== Model: {harmless(metrics.model)} ===",
        f"Total Requests: {metrics.total_requests}",
        f"Successful Requests: {metrics.successful_reqs}",
        f"Failed Requests: {metrics.failed_reqs}",
    ]
    if metrics.total_requests:
        lines.append(f"Error Rate: {metrics.error_rate:.2f}%")
    if hist.count:
        lines += (
            f"Avg Latency: {_mean(hist.mean)}",
            f"Min Latency: {_exact(hist.min)}",
            f"Max Latency: {_exact(hist.max)}",
            f"P50 Latency: {_quantile(hist, 0.5)}",
            f"P90 Latency: {_quantile(hist, 0.9)}",
            f"P95 Latency: {_quantile(hist, 0.95)}",
            f"P99 Latency: {_quantile(hist, 0.99)}",
            f"P99.9 Latency: {_quantile(hist, 0.999)}",
        )
    if (throughput := _throughput(metrics)) is not None:
        lines.append(f"Throughput: {throughput:.2f} req/s")
    lines.append(f"Tokens Processed: {metrics.tokens_processed}")
    if metrics.avg_tokens_per_req is not None:
        lines.append(f"Avg Tokens/Request: {metrics.avg_tokens_per_req:.2f}")
    if metrics.last_updated is not None:
        lines.append(f"Last Updated: {_time(metrics.last_updated)}")
    if metrics.cancelled_reqs:
        lines.append(f"Cancelled Requests: {metrics.cancelled_reqs}")
    if metrics.latency_unknown:
        lines.append(f"Latency Unknown: {metrics.latency_unknown}")
    lines += _other_fields(metrics)
    if metrics.errors:
        lines += ("Errors:", *_counts(metrics.errors))
    for call in metrics.calls.values():
        lines += ("", *_call_lines(call))
    return "\n".join(lines) + "\n"


# Fields that have lines of their own above.
_WITH_LINES: Final = frozenset(
    {"successful_reqs", "failed_reqs", "cancelled_reqs", "latency_unknown"}
    | {"tokens_processed", "latency_hist"}
)


def _other_fields(metrics: PerformanceMetrics) -> Iterator[str]:
    """Every other declared number that has something to say, in its own words."""
    for field in fields_of(type(metrics)):
        value = field.of(metrics)
        what = field.help.rstrip(".")
        if field.name in _WITH_LINES or field.by is not None:
            continue
        if field.kind == "counter" and value:
            yield f"{what}: {value}"
        elif field.kind == "histogram" and value.count:
            values = "1 value" if value.count == 1 else f"{value.count} values"
            middle, tail = _quantile(value, 0.5), _quantile(value, 0.95)
            yield f"{what}: {values}, P50 {middle}, P95 {tail}"


def histogram_summary(metrics: PerformanceMetrics) -> str:
    """One model's latencies by bucket, with bars."""
    hist = metrics.latency_hist
    count = hist.count
    buckets = hist.buckets
    lines = [
        f"=== Latency Histogram: {harmless(metrics.model)} ===",
        f"Count: {count}",
    ]
    most = max(buckets.values(), default=0)
    width = max(map(len, buckets))
    rows = [
        (f"{label:>{width}}: {n} ({percentage(n, count):.2f}%)", _bar(n, most))
        for label, n in buckets.items()
    ]
    width = max(len(text) for text, _ in rows)
    lines += (f"{text:<{width}}  {bar}".rstrip() for text, bar in rows)
    return "\n".join(lines) + "\n"


_MODEL_COLUMNS: Final = (
    *("Model", "Requests", "Errors", "Avg", "P50", "P95", "P99", "Tokens", "req/s"),
)


def _model_row(metrics: PerformanceMetrics) -> Sequence[str]:
    hist = metrics.latency_hist
    throughput = _throughput(metrics)
    return (
        harmless(metrics.model, NAME_WIDTH) or '""',
        str(metrics.total_requests),
        str(metrics.failed_reqs),
        _mean(hist.mean),
        *(_quantile(hist, q) for q in (0.5, 0.95, 0.99)),
        str(metrics.tokens_processed),
        UNKNOWN if throughput is None else f"{throughput:.2f}",
    )


def _throughput(metrics: PerformanceMetrics) -> float | None:
    """Requests a second; `None` of a window too short for that to mean anything."""
    if metrics.uptime_seconds < LEAST_WINDOW:
        return None
    return metrics.total_requests / metrics.uptime_seconds


def _call_lines(call: CallMetrics) -> Iterator[str]:
    yield f"--- Calls: {harmless(call.operation)} ---"
    yield (
        f"Outcomes: {call.successful_reqs} succeeded, {call.failed_reqs} failed,"
        f" {call.cancelled_reqs} cancelled"
    )
    if call.retries:
        yield f"Retries: {call.retries} of {call.retries_known} calls"
    oldest = call.oldest_in_flight_seconds
    age = "" if oldest is None else f" (oldest {_rounded(oldest, MEAN_DIGITS)})"
    yield f"In Flight: {call.in_flight}{age}"
    known = [
        f"{amount} {kind}"
        for kind, field in TOKENS.items()
        if (amount := getattr(call, field)) is not None
    ]
    if known:
        yield f"Tokens: {', '.join(known)}"
    if (told := tokens_known(call)) is not None:
        yield f"Tokens Known For: {told}"
    rates = [
        f"{rate:.1f} tokens/s {phase}"
        for phase, rate in (
            ("prefill", call.prefill_tokens_per_second),
            ("decode", call.decode_tokens_per_second),
        )
        if rate is not None
    ]
    if rates:
        yield f"Token Rates: {', '.join(rates)}"
    if call.done_reasons:
        yield "Done Reasons:"
        yield from _counts(call.done_reasons)
    if call.errors:
        yield "Errors:"
        yield from _counts(call.errors)
    times = [(name, getattr(call, field)) for name, field in CLIENT_TIMES.items()]
    yield ""
    yield from _table(
        ("Seen By The Client", "Count", "Mean", "P50", "P95", "P99"),
        (
            (
                *(name, str(h.count), _mean(h.mean)),
                *(_quantile(h, q) for q in (0.5, 0.95, 0.99)),
            )
            for name, h in times
            if h.count or h is call.latency
        ),
    )
    phases = [(p.title, getattr(call, p.field)) for p in PHASES]
    phases = [(title, h) for title, h in phases if h.count]
    if not phases:
        return  # a server that tells no durations
    whole = sum(h.sum_ns for _, h in phases)
    yield ""
    yield from _table(
        ("Where The Time Went", "Count", "Mean", "P95", "Share", ""),
        (
            (
                name,
                str(h.count),
                _mean(h.mean),
                _quantile(h, 0.95),
                f"{percentage(h.sum_ns, whole):.2f}%",
                _bar(h.sum_ns, whole),
            )
            for name, h in phases
        ),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table: the first column and a nameless last one to the left."""
    cells = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = [row[0].ljust(widths[0])]
        for name, cell, width in zip(columns, row, widths, strict=True):
            line.append(cell.rjust(width) if name else cell)
        yield "  ".join([line[0], *line[2:]]).rstrip()


def _counts(counts: Mapping[str, int]) -> Iterator[str]:
    """Indented `name: count`, the most frequent first."""
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {harmless(name)}: {count}"


def _bar(part: int, whole: int) -> str:
    """A bar; what is not zero can be seen."""
    return "#" * max(round(BAR_WIDTH * part / whole), 1) if part else ""


def _rounded(seconds: float, digits: int) -> str:
    """A duration rounded to so many significant digits."""
    ns = round(seconds * 1e9)
    return format_duration(round(ns, digits - len(str(ns))) if ns > 10**digits else ns)


def _mean(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else _rounded(seconds, MEAN_DIGITS)


def _exact(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else format_duration(round(seconds * 1e9))


def _quantile(hist: LatencyHistogram, q: float) -> str:
    seconds = hist.quantile(q)
    return UNKNOWN if seconds is None else _rounded(seconds, QUANTILE_DIGITS)


def _time(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second, as in the original."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
