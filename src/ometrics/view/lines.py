# SPDX-License-Identifier: MIT
"""One short line each, for `repr` in a terminal: what a person would ask first."""

from __future__ import annotations

from typing import Final

from ometrics.histogram import LatencyHistogram
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.snapshot import Snapshot
from ometrics.view.calls import all_calls
from ometrics.view.escape import harmless
from ometrics.view.units import UNKNOWN, counted, duration, number

NAME_WIDTH: Final = 40  # characters of a name; names may have 256


def snapshot_line(snapshot: Snapshot) -> str:
    """Models, requests, errors, and the window."""
    parts = (
        counted(len(snapshot.models), "model"),
        counted(snapshot.total_requests, "request"),
        counted(snapshot.total_errors, "error"),
    )
    return f"<Snapshot {', '.join(parts)} in {duration(snapshot.uptime_seconds)}>"


def model_line(metrics: PerformanceMetrics) -> str:
    """A model's requests, errors, latencies and speed."""
    parts = [
        counted(metrics.total_requests, "request"),
        counted(metrics.failed_reqs, "error"),
        *_quantiles(metrics.latency_hist),
    ]
    speed = all_calls(metrics).decode_tokens_per_second
    if speed is not None:
        parts.append(f"{number(speed)} tokens/s")
    name = harmless(metrics.model, NAME_WIDTH)
    return f"<PerformanceMetrics '{name}' {', '.join(parts)}>"


def call_line(call: CallMetrics) -> str:
    """One operation's calls."""
    finished = call.successful_reqs + call.failed_reqs + call.cancelled_reqs
    parts = [
        counted(finished, "call"),
        counted(call.failed_reqs, "error"),
        *_quantiles(call.latency),
    ]
    return f"<CallMetrics {harmless(call.operation, NAME_WIDTH)} {', '.join(parts)}>"


def histogram_line(hist: LatencyHistogram) -> str:
    """How many values, and where they lie."""
    parts = [counted(hist.count, "value")]
    if hist.count:
        parts += (
            f"min {duration(hist.min)}",
            *_quantiles(hist),
            f"max {duration(hist.max)}",
        )
    return f"<LatencyHistogram {', '.join(parts)}>"


def _quantiles(hist: LatencyHistogram) -> list[str]:
    values = {name: hist.quantile(q) for name, q in (("p50", 0.5), ("p99", 0.99))}
    return [
        f"{name} {text}"
        for name, value in values.items()
        if (text := duration(value)) != UNKNOWN
    ]
