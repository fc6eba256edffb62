# SPDX-License-Identifier: MIT
"""From the core's packed bytes to the read types: the lower side of the waist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ometrics._unpack import unpack
from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import (
    CALL_HISTOGRAMS,
    OPERATIONS,
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
    utc,
)

Running = list[tuple[str, int, float]]


class PackedModels(Mapping[str, PerformanceMetrics]):
    """
    The models of one snapshot; made from the packed records when first looked at.

    Thread-safety:
        Immutable; two threads that look at once make the same twice.
    """

    __slots__ = ("_buckets", "_codes", "_models", "_packed", "_running", "_uptime")

    def __init__(
        self,
        packed: bytes,
        codes: list[str],
        buckets: tuple[float, ...],
        uptime: float,
        running: Running,
    ) -> None:
        self._packed = packed
        self._codes = codes
        self._buckets = buckets
        self._uptime = uptime
        self._running = running
        self._models: dict[str, PerformanceMetrics] | None = None

    def _all(self) -> dict[str, PerformanceMetrics]:
        if self._models is None:
            rows = unpack(self._packed, self._codes)
            self._models = models_of(rows, self._buckets, self._uptime, self._running)
        return self._models

    def __getitem__(self, name: str) -> PerformanceMetrics:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._all(),)


def models_of(
    rows: list[dict[str, Any]],
    buckets: tuple[float, ...],
    uptime: float,
    running: Running,
) -> dict[str, PerformanceMetrics]:
    """Read types of unpacked records; running calls appear even before any record."""
    calls: dict[str, dict[str, CallMetrics]] = {}
    for row in rows:
        if row["operation"]:
            call = _call(row, buckets)
            calls.setdefault(row["name"], {})[call.operation] = call
    _add_running(calls, buckets, running)
    models = {
        row["name"]: _model(row, buckets, uptime, calls.pop(row["name"], {}))
        for row in rows
        if not row["operation"]
    }
    for name, operations in calls.items():  # running, nothing recorded yet
        models[name] = PerformanceMetrics(
            model=name,
            latency_hist=LatencyHistogram(bucket_bounds=buckets),
            uptime_seconds=uptime,
            calls=operations,
        )
    return models


def _histogram(row: tuple[Any, ...], buckets: tuple[float, ...]) -> LatencyHistogram:
    sum_ns, low, high, first, cells = row
    return LatencyHistogram(
        bucket_bounds=buckets,
        sum_ns=sum_ns,
        min=low,
        max=high,
        first_cell=first,
        cells=cells,
    )


def _time(ns: int) -> datetime | None:
    return utc(ns) if ns else None


def _model(
    row: dict[str, Any],
    buckets: tuple[float, ...],
    uptime: float,
    calls: dict[str, CallMetrics],
) -> PerformanceMetrics:
    return PerformanceMetrics(
        model=row["name"],
        successful_reqs=row["successes"],
        failed_reqs=row["failures"],
        cancelled_reqs=row["cancelled"],
        latency_unknown=row["latency_unknown"],
        tokens_processed=row["tokens"],
        errors=row["errors"],
        last_updated=_time(row["updated_ns"]),
        latency_hist=_histogram(row["histograms"][0], buckets),
        uptime_seconds=uptime,
        calls=calls,
    )


def _call(row: dict[str, Any], buckets: tuple[float, ...]) -> CallMetrics:
    histograms = {
        name: _histogram(histogram, buckets)
        for name, histogram in zip(CALL_HISTOGRAMS, row["histograms"], strict=True)
    }
    return CallMetrics(
        operation=OPERATIONS[row["operation"] - 1],
        successful_reqs=row["successes"],
        failed_reqs=row["failures"],
        cancelled_reqs=row["cancelled"],
        prompt_tokens=row["prompt_tokens"],
        cached_tokens=row["cached_tokens"],
        completion_tokens=row["completion_tokens"],
        decode_tokens=row["decode_tokens"],
        decode_ns=row["decode_ns"],
        prefill_tokens=row["prefill_tokens"],
        prefill_ns=row["prefill_ns"],
        done_reasons=row["done_reasons"],
        errors=row["errors"],
        **histograms,
    )


def _add_running(
    calls: dict[str, dict[str, CallMetrics]],
    buckets: tuple[float, ...],
    running: Running,
) -> None:
    """Count running calls; they come oldest first."""
    seen: dict[tuple[str, int], tuple[int, float]] = {}
    for name, operation, age in running:
        count, oldest = seen.get((name, operation), (0, age))
        seen[name, operation] = count + 1, max(oldest, age)
    for (name, number), (count, oldest) in seen.items():
        operation_name = OPERATIONS[number - 1]
        operations = calls.setdefault(name, {})
        call = operations.get(operation_name)
        if call is None:
            empty = LatencyHistogram(bucket_bounds=buckets)
            call = CallMetrics(
                operation=operation_name, **dict.fromkeys(CALL_HISTOGRAMS, empty)
            )
        operations[operation_name] = _running(call, count, oldest)


def _running(call: CallMetrics, count: int, oldest: float) -> CallMetrics:
    fields = {name: getattr(call, name) for name in call.__struct_fields__}
    return CallMetrics(
        **fields | {"in_flight": count, "oldest_in_flight_seconds": oldest}
    )


def snapshot_of(
    models: Mapping[str, PerformanceMetrics],
    totals: dict[str, Any],
    instance_id: str,
    events_dropped: int,
) -> Snapshot:
    """The snapshot of what `Core.take` gave."""
    resources = None
    if totals["resources_ns"]:
        resources = ResourceMetrics(
            memory_usage_mb=totals["memory_mb"],
            cpu_usage_percent=totals["cpu_percent"],
            goroutine_count=totals["goroutines"],
            timestamp=utc(totals["resources_ns"]),
        )
    return Snapshot(
        instance_id=instance_id,
        start_time=utc(totals["start_wall_ns"]),
        collection_time=utc(totals["wall_ns"]),
        uptime_seconds=totals["uptime_ns"] / 1e9,
        models=models,
        task_statistics=TaskStatistics(
            completed_tasks=totals["tasks_completed"],
            failed_tasks=totals["tasks_failed"],
            duration_unknown=totals["tasks_unknown"],
            sum_ns=totals["task_sum_ns"],
            min_completion_ms=totals["task_min_ms"],
            max_completion_ms=totals["task_max_ms"],
            last_updated=_time(totals["task_updated_ns"]),
        ),
        resource_metrics=resources,
        invalid_values=totals["invalid_values"],
        truncated_names=totals["truncated_names"],
        saturated=totals["saturated"],
        events_emitted=totals["events_emitted"],
        events_dropped=events_dropped,
        internal_errors=totals["internal_errors"],
    )
