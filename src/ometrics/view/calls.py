# SPDX-License-Identifier: MIT
"""A model's calls of all operations as one, as tables have a row a model."""

from __future__ import annotations

from ometrics.histogram import LatencyHistogram
from ometrics.models import CallMetrics, PerformanceMetrics


def all_calls(metrics: PerformanceMetrics) -> CallMetrics:
    """The calls of a model together; empty if none was instrumented."""
    if not metrics.calls:
        empty = LatencyHistogram(bucket_bounds=metrics.latency_hist.bucket_bounds)
        return CallMetrics(operation="", latency=empty, time_to_first_chunk=empty)
    first, *others = metrics.calls.values()
    return first.merge(*others)
