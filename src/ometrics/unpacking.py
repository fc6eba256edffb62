# SPDX-License-Identifier: MIT
"""From the core's packed bytes to the read types: the lower side of the waist."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from typing import Any

from msgspec.structs import replace

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
            self._models = models_of(
                self._packed, self._codes, self._buckets, self._uptime, self._running
            )
        return self._models

    def __getitem__(self, name: str) -> PerformanceMetrics:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def keys(self) -> KeysView[str]:
        """The dictionary's own view: faster than the one of `Mapping`."""
        return self._all().keys()

    def values(self) -> ValuesView[PerformanceMetrics]:
        """The same."""
        return self._all().values()

    def items(self) -> ItemsView[str, PerformanceMetrics]:
        """The same."""
        return self._all().items()

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._all(),)


def models_of(
    packed: bytes,
    codes: list[str],
    buckets: tuple[float, ...],
    uptime: float,
    running: Running,
) -> dict[str, PerformanceMetrics]:
    """Read types of packed records; running calls appear even before any record."""
    models = unpack(packed, codes, buckets, uptime)
    seen: dict[tuple[str, int], tuple[int, float]] = {}
    for name, number, age in running:
        count, oldest = seen.get((name, number), (0, age))
        seen[name, number] = count + 1, max(oldest, age)
    for (name, number), (count, oldest) in seen.items():
        if name not in models:  # running, nothing recorded yet
            models[name] = PerformanceMetrics(
                model=name,
                latency_hist=LatencyHistogram(bucket_bounds=buckets),
                uptime_seconds=uptime,
                calls={},
            )
        calls = models[name].calls
        operation = OPERATIONS[number - 1]
        calls[operation] = replace(
            calls.get(operation) or _no_calls(operation, buckets),
            in_flight=count,
            oldest_in_flight_seconds=oldest,
        )
    return models


def _no_calls(operation: str, buckets: tuple[float, ...]) -> CallMetrics:
    histograms: dict[str, Any] = dict.fromkeys(
        CALL_HISTOGRAMS, LatencyHistogram(bucket_bounds=buckets)
    )
    return CallMetrics(operation=operation, **histograms)


def _time(ns: int) -> datetime | None:
    return utc(ns) if ns else None


def snapshot_of(
    models: Mapping[str, PerformanceMetrics],
    totals: dict[str, Any],
    instance_id: str,
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
        events_dropped=totals["events_dropped"],
        internal_errors=totals["internal_errors"],
    )
