# SPDX-License-Identifier: MIT
"""Text for people: the original package's lines, and tables of what we know beyond.

Plain text without colours; names are made harmless, bars are ASCII, so that it can be
printed anywhere. What nobody told reads `n/a`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final

from ometrics.durations import format_duration
from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import CallMetrics, PerformanceMetrics, Snapshot, percentage
from ometrics.view.escape import harmless

UNKNOWN: Final = "n/a"
NAME_WIDTH: Final = 40  # characters of a name in a table; names may have 256
BAR_WIDTH: Final = 30  # characters of the longest bar

# Means are exact but need no nanoseconds; quantiles are estimates to 1 %.
MEAN_DIGITS: Final = 4
QUANTILE_DIGITS: Final = 3

_PHASES: Final = (
    ("load + queue", "load"),
    ("prefill", "prefill"),
    ("decode", "decode"),
    ("residual", "residual"),
    ("network", "network"),
)


def summary(snapshot: Snapshot) -> str:
    """All models, tasks and resources of a snapshot, and what was lost, if anything."""
    models = list(snapshot.models.values())
    counts = sum(m.latency_hist.count for m in models)
    sum_ns = sum(m.latency_hist.sum_ns for m in models)
    resources = snapshot.resource_metrics
    lines = [
        "=== Metrics Summary ===",
        f"Uptime: {_rounded(snapshot.uptime_seconds, MEAN_DIGITS)}",
        f"Total Requests: {snapshot.total_requests}",
        f"Total Errors: {snapshot.total_errors}",
        f"Error Rate: {snapshot.overall_error_rate:.2f}%",
        f"Average Latency: {_mean(sum_ns / counts / 1e9 if counts else None)}",
        f"Task Completion Rate: {snapshot.task_statistics.success_rate:.2f}%",
    ]
    if resources is None:
        lines += (f"{name}: {UNKNOWN}" for name in _RESOURCES)
    else:
        lines += (
            f"Memory Usage: {resources.memory_usage_mb:.0f} MB",
            f"CPU Usage: {resources.cpu_usage_percent:.2f}%",
            f"Goroutines: {resources.goroutine_count}",
        )
    lines.append(f"Models Tracked: {len(models)}")
    if models:
        lines += ("", *_table(_MODEL_COLUMNS, map(_model_row, models)))
    if lost := list(_losses(snapshot)):
        lines += ("", "Not Counted In Full:", *(f"  {loss}" for loss in lost))
    return "\n".join(lines) + "\n"


def model_summary(metrics: PerformanceMetrics) -> str:
    """One model: requests, latencies, tokens, errors, and its instrumented calls."""
    hist = metrics.latency_hist
    lines = [
        f"=== Model: {harmless(metrics.model)} ===",
        f"Total Requests: {metrics.total_requests}",
        f"Successful Requests: {metrics.successful_reqs}",
        f"Failed Requests: {metrics.failed_reqs}",
        f"Error Rate: {metrics.error_rate:.2f}%",
        f"Avg Latency: {_mean(hist.mean)}",
        f"Min Latency: {_exact(hist.min)}",
        f"Max Latency: {_exact(hist.max)}",
        f"P50 Latency: {_quantile(hist, 0.5)}",
        f"P90 Latency: {_quantile(hist, 0.9)}",
        f"P95 Latency: {_quantile(hist, 0.95)}",
        f"P99 Latency: {_quantile(hist, 0.99)}",
        f"P99.9 Latency: {_quantile(hist, 0.999)}",
        f"Throughput: {_two_decimals(metrics.throughput)} req/s",
        f"Tokens Processed: {metrics.tokens_processed}",
        f"Avg Tokens/Request: {_two_decimals(metrics.avg_tokens_per_req)}",
        f"Last Updated: {_time(metrics.last_updated)}",
    ]
    if metrics.cancelled_reqs:
        lines.append(f"Cancelled Requests: {metrics.cancelled_reqs}")
    if metrics.latency_unknown:
        lines.append(f"Latency Unknown: {metrics.latency_unknown}")
    if metrics.errors:
        lines += ("Errors:", *_counts(metrics.errors))
    for call in metrics.calls.values():
        lines += ("", *_call_lines(call))
    return "\n".join(lines) + "\n"


def _two_decimals(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


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


_RESOURCES: Final = ("Memory Usage", "CPU Usage", "Goroutines")
_MODEL_COLUMNS: Final = (
    *("Model", "Requests", "Errors", "Avg", "P50", "P95", "P99", "Tokens", "req/s"),
)


def _model_row(metrics: PerformanceMetrics) -> Sequence[str]:
    hist = metrics.latency_hist
    return (
        harmless(metrics.model, NAME_WIDTH) or '""',
        str(metrics.total_requests),
        str(metrics.failed_reqs),
        _mean(hist.mean),
        *(_quantile(hist, q) for q in (0.5, 0.95, 0.99)),
        str(metrics.tokens_processed),
        _two_decimals(metrics.throughput),
    )


def _call_lines(call: CallMetrics) -> Iterator[str]:
    yield f"--- Calls: {harmless(call.operation)} ---"
    yield (
        f"Outcomes: {call.successful_reqs} succeeded, {call.failed_reqs} failed,"
        f" {call.cancelled_reqs} cancelled"
    )
    oldest = call.oldest_in_flight_seconds
    age = "" if oldest is None else f" (oldest {_rounded(oldest, MEAN_DIGITS)})"
    yield f"In Flight: {call.in_flight}{age}"
    yield (
        f"Tokens: {_known(call.prompt_tokens)} prompt"
        f" ({_known(call.cached_tokens)} cached),"
        f" {_known(call.completion_tokens)} completion"
    )
    yield (
        f"Token Rates: {_rate(call.prefill_tokens_per_second)} prefill,"
        f" {_rate(call.decode_tokens_per_second)} decode"
    )
    if call.done_reasons:
        yield "Done Reasons:"
        yield from _counts(call.done_reasons)
    if call.errors:
        yield "Errors:"
        yield from _counts(call.errors)
    times = (
        ("latency", call.latency),
        ("first chunk", call.time_to_first_chunk),
        ("first answer", call.time_to_first_answer),
        ("per output chunk", call.time_per_output_chunk),
    )
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
    phases = [(name, getattr(call, field)) for name, field in _PHASES]
    if not any(h.count for _, h in phases):
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
                f"{percentage(h.sum_ns, whole):.2f}%" if h.count else UNKNOWN,
                _bar(h.sum_ns, whole),
            )
            for name, h in phases
        ),
    )


def _losses(snapshot: Snapshot) -> Iterator[str]:
    for reason, count in snapshot.invalid_values.items():
        if count:
            yield f"Invalid Values ({harmless(reason)}): {count}"
    counts = (
        ("Requests Past The Limit Of Models", snapshot.overflowed_requests),
        ("Names Cut", snapshot.truncated_names),
        ("Sums At Their Limit", snapshot.saturated),
        ("Events Dropped", snapshot.events_dropped),
        ("Internal Errors", snapshot.internal_errors),
    )
    for name, count in counts:
        if count:
            yield f"{name}: {count}"


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


def _known(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _rate(tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return UNKNOWN
    return f"{tokens_per_second:.1f} tokens/s"


def _time(moment: datetime | None) -> str:
    """RFC 3339 in UTC, to the second, as in the original."""
    if moment is None:
        return UNKNOWN
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
