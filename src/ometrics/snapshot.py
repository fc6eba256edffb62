# SPDX-License-Identifier: MIT
"""The narrow waist: everything a reader sees, at one instant, immutable.

A `Snapshot` merges (processes, machines) and subtracts (windows); all else in the
package takes one and knows nothing of the core or its lock. The core hands over counts
in packed bytes; `Snapshot.models` unpacks them when someone looks.

Each field is declared by its annotation, as in `models.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from operator import attrgetter
from typing import Annotated, Final

import msgspec
from msgspec.structs import replace

from ometrics import fields
from ometrics.fields import (
    Counter,
    Counts,
    Elapsed,
    Extreme,
    Gauge,
    Info,
    Members,
    Metric,
    Part,
    percentage,
    seconds_of_ns,
    since_1970,
)
from ometrics.gpus import GpuMetrics
from ometrics.loaded import LoadedModel
from ometrics.models import (
    CALL_HISTOGRAMS,
    OPERATIONS,
    CallMetrics,
    PerformanceMetrics,
)

__all__ = [
    "CALL_HISTOGRAMS",
    "OPERATIONS",
    "OVERFLOW_MODEL",
    "CallMetrics",
    "PerformanceMetrics",
    "ResourceMetrics",
    "Snapshot",
    "TaskStatistics",
    "percentage",
    "utc",
]

OVERFLOW_MODEL: Final = "__overflow__"

_SUCCESSFUL: Final[Callable[[PerformanceMetrics], int]] = attrgetter("successful_reqs")
_FAILED: Final[Callable[[PerformanceMetrics], int]] = attrgetter("failed_reqs")

_TASKS: Final = Metric("ometrics.tasks", "{task}", "Finished tasks by outcome.")


def utc(ns: int) -> datetime:
    """Nanoseconds since 1970 as an aware UTC time (microsecond resolution)."""
    return datetime.fromtimestamp(ns // 1000 / 1e6, tz=timezone.utc)


class TaskStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How tasks went."""

    completed_tasks: Annotated[
        int, Counter("Tasks reported as a success.", _TASKS, {"outcome": "success"})
    ] = 0
    failed_tasks: Annotated[
        int, Counter("Tasks reported as a failure.", _TASKS, {"outcome": "failure"})
    ] = 0
    sum_ns: Annotated[
        int,
        Counter(
            "Sum of the known task durations.",
            Metric("ometrics.task.time", "s"),
            convert=seconds_of_ns,
        ),
    ] = 0
    duration_unknown: Annotated[
        int,
        Counter(
            "Tasks whose duration was not a number or negative.",
            Metric("ometrics.task.duration_unknown", "{task}"),
        ),
    ] = 0
    min_completion_ms: Annotated[
        float | None,
        Extreme(
            "Shortest known task since the start.",
            Metric("ometrics.task.min_duration", "s"),
            choose=min,
            count="known_durations",
            convert=lambda ms: ms / 1e3,
        ),
    ] = None
    max_completion_ms: Annotated[
        float | None,
        Extreme(
            "Longest known task since the start.",
            Metric("ometrics.task.max_duration", "s"),
            choose=max,
            count="known_durations",
            convert=lambda ms: ms / 1e3,
        ),
    ] = None
    last_updated: Annotated[
        datetime | None,
        Gauge(
            "When a task was last reported (UTC).",
            Metric(
                *("ometrics.task.last_update_timestamp", "s"),
                "When a task was last reported, since 1970.",
            ),
            convert=since_1970,
        ),
    ] = None

    @property
    def total_tasks(self) -> int:
        """Completed and failed."""
        return self.completed_tasks + self.failed_tasks

    @property
    def known_durations(self) -> int:
        """Tasks whose duration is known."""
        return self.total_tasks - self.duration_unknown

    @property
    def avg_completion_ms(self) -> float | None:
        """Mean of known durations in milliseconds; `None` of nothing."""
        known = self.known_durations
        return self.sum_ns / known / 1e6 if known else None

    @property
    def success_rate(self) -> float:
        """Completed tasks in percent; 0.0 of nothing."""
        return percentage(self.completed_tasks, self.total_tasks)

    def merge(self, *others: TaskStatistics) -> TaskStatistics:
        """All together."""
        return fields.merge((self, *others))

    def __sub__(self, earlier: TaskStatistics) -> TaskStatistics:
        """What came after `earlier`; extremes only where they must be of the window."""
        return fields.delta(self, earlier)


class ResourceMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the process used when it was last reported."""

    memory_usage_mb: Annotated[
        float,
        Gauge(
            "Memory in MB.",
            Metric(*("ometrics.process.memory", "By"), "Memory that the process used."),
            convert=lambda mb: mb * 1_000_000,
        ),
    ]
    cpu_usage_percent: Annotated[
        float,
        Gauge(
            "CPU in percent of one core.",
            Metric(
                *("ometrics.process.cpu.utilization", "1"),
                "CPU that the process used, 1 for one core.",
            ),
            convert=lambda percent: percent / 100,
        ),
    ]
    goroutine_count: Annotated[
        int,
        Gauge(
            "Threads and asyncio tasks; the name is the original package's.",
            Metric("ometrics.process.goroutines", "{thread}"),
        ),
    ]
    timestamp: Annotated[
        datetime,
        Gauge(
            "When this was reported (UTC).",
            Metric(
                *("ometrics.process.sample_timestamp", "s"),
                "When the process was last looked at, since 1970.",
            ),
            convert=since_1970,
        ),
    ]

    def merge(self, *others: ResourceMetrics) -> ResourceMetrics:
        """The one reported last: two processes at two times have no sum."""
        return max((self, *others), key=_RESOURCE_ORDER)

    def __sub__(self, earlier: ResourceMetrics) -> ResourceMetrics:
        """As it is now."""
        return self


# The rest only makes the choice independent of the order.
_RESOURCE_ORDER: Final = attrgetter(
    "timestamp", "memory_usage_mb", "cpu_usage_percent", "goroutine_count"
)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything a collector knows, at one instant.

    Thread-safety:
        Immutable.
    """

    instance_id: Annotated[
        str,
        Info(
            "Which collector: new for each one and in each forked child. Of a merged"
            " snapshot: the distinct ids, sorted and joined by `+`.",
            Metric(
                *("ometrics.instance", ""),
                "Which collector these are of: new for each one and in each forked"
                " child.",
            ),
        ),
    ]
    start_time: Annotated[
        datetime,
        Gauge(
            "When counting began (UTC).",
            Metric(
                *("ometrics.start_timestamp", "s"),
                "When counting began, at creation or at the last reset, since 1970.",
            ),
            convert=since_1970,
            combine=min,
        ),
    ]
    collection_time: Annotated[
        datetime,
        Gauge(
            "The instant (UTC).",
            Metric(
                *("ometrics.collection_timestamp", "s"),
                "The instant of these numbers, since 1970.",
            ),
            convert=since_1970,
        ),
    ]
    uptime_seconds: Annotated[
        float,
        Elapsed(
            "Length of the window that was counted, by the monotonic clock.",
            Metric("ometrics.uptime", "s"),
        ),
    ]
    models: Annotated[
        Mapping[str, PerformanceMetrics],
        Members("Name -> `PerformanceMetrics`, in order of first record."),
    ] = {}
    loaded_models: Annotated[
        dict[str, LoadedModel],
        Members(
            "Name -> `LoadedModel`, as the server said last; empty unless somebody asks"
            " it (`poll_ollama`)."
        ),
    ] = {}
    gpus: Annotated[
        dict[str, GpuMetrics],
        Members("Name -> `GpuMetrics`; empty unless somebody looks (`sample_gpus`)."),
    ] = {}
    task_statistics: Annotated[TaskStatistics, Part("How tasks went.")] = (
        TaskStatistics()
    )
    resource_metrics: Annotated[
        ResourceMetrics | None,
        Part("What the process used; `None` before the first update."),
    ] = None
    invalid_values: Annotated[
        dict[str, int],
        Counts(
            "Values that were not counted, by reason: nan, infinite or negative.",
            Metric("ometrics.invalid_values", "{value}"),
            by="reason",
            stored=False,
        ),
    ] = {}
    truncated_names: Annotated[
        int,
        Counter(
            "Records under a model name that had to be cut or repaired.",
            Metric("ometrics.truncated_names", "{record}"),
        ),
    ] = 0
    saturated: Annotated[
        int,
        Counter(
            "Times that a 64-bit number stopped at its limit.",
            Metric("ometrics.saturated", "{event}"),
        ),
    ] = 0
    segment_failures: Annotated[
        int,
        Counter(
            "Times that records could not be where other processes read them.",
            Metric("ometrics.segment_failures", "{event}"),
        ),
    ] = 0
    segments_bad: Annotated[
        dict[str, int],
        Counts(
            "Files of a directory that were left out, by reason.",
            Metric("ometrics.segments_bad", "{file}"),
            by="reason",
            stored=False,
        ),
    ] = {}
    events_emitted: Annotated[
        int,
        Counter(
            "Events since the start.",
            Metric("ometrics.events.emitted", "{event}"),
            stored=False,
        ),
    ] = 0
    events_dropped: Annotated[
        int,
        Counter(
            "Events that slow readers of channels lost.",
            Metric("ometrics.events.dropped", "{event}"),
            stored=False,
        ),
    ] = 0
    internal_errors: Annotated[
        int,
        Counter(
            "Failures of instrumentation that were kept from the caller.",
            Metric("ometrics.internal_errors", "{error}"),
        ),
    ] = 0

    def __repr__(self) -> str:
        """What a person would ask for, in one line."""
        from ometrics.view.lines import snapshot_line

        return snapshot_line(self)

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ometrics.view.html import of_snapshot

        return of_snapshot(self)

    @property
    def total_requests(self) -> int:
        """Requests of all models."""
        return sum(map(_SUCCESSFUL, self.models.values())) + self.total_errors

    @property
    def total_errors(self) -> int:
        """Failed requests of all models."""
        return sum(map(_FAILED, self.models.values()))

    @property
    def overall_error_rate(self) -> float:
        """Failed requests in percent; 0.0 of nothing."""
        return percentage(self.total_errors, self.total_requests)

    @property
    def overflowed_requests(
        self,
    ) -> Annotated[
        int,
        Counter(
            "Requests of models past the limit, counted as model __overflow__.",
            Metric("ometrics.overflowed_requests", "{request}"),
        ),
    ]:
        """Requests counted under `__overflow__`, past the limit of models."""
        overflow = self.models.get(OVERFLOW_MODEL)
        return overflow.total_requests if overflow is not None else 0

    @property
    def energy_per_token(
        self,
    ) -> Annotated[
        float | None,
        Gauge(
            "Energy of all GPUs over completion tokens of all models.",
            Metric("ometrics.energy_per_token", "J"),
        ),
    ]:
        """
        Joules of all GPUs for each completion token; `None` if either is unknown.

        Of a window (`delta`) it is exact; else energy counts from when sampling began.
        Whatever else the GPUs did is in it.
        """
        energies = [g.energy_mj for g in self.gpus.values() if g.energy_mj is not None]
        tokens = sum(
            call.completion_tokens or 0
            for model in self.models.values()
            for call in model.calls.values()
        )
        return sum(energies) / 1e3 / tokens if energies and tokens else None

    def merge(self, *others: Snapshot) -> Snapshot:
        """
        This and other processes, machines or windows as one. Associative, commutative.

        Counts add up, the window spans all, resources are the latest reported. Several
        at once take less time than one after another.

        Raises:
            ValueError: Two have different latency buckets.
        """
        if not others:
            return self
        every = (self, *others)
        start_time = min(one.start_time for one in every)
        collection_time = max(one.collection_time for one in every)
        uptime = max(
            (collection_time - start_time).total_seconds(),
            *(one.uptime_seconds for one in every),
        )
        merged = fields.merge(every, uptime_seconds=uptime)
        models = {
            name: replace(model, uptime_seconds=uptime)
            for name, model in merged.models.items()
        }
        return replace(merged, models=models)

    def delta(self, earlier: Snapshot) -> Snapshot:
        """
        What was counted after `earlier`, a snapshot of the same collector and start.

        A model that was removed since then is left out; one that was removed and
        recorded again starts anew, which shows as a count that went back.

        Raises:
            ValueError: A count of `earlier` is above this one's: it is later, of
                another collector, or there was a reset in between.
        """
        if (
            self.instance_id == earlier.instance_id
            and self.start_time > earlier.start_time
        ):
            raise ValueError(
                f"not an earlier snapshot of the same start: counting began anew at"
                f" {self.start_time.isoformat()}"
            )
        return fields.delta(self, earlier, start_time=earlier.collection_time)

    def to_json(self) -> bytes:
        """This snapshot in the original's JSON format with our additions (UTF-8)."""
        from ometrics.export import json

        return json.dump(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Snapshot:
        """
        Read what `to_json` wrote, in this version or an earlier one.

        Nothing is lost on the way. What an earlier version did not count is `None`
        where a number can be unknown, else as if nothing had been counted.

        Raises:
            ValueError: Not such a document; the message names the field.
        """
        from ometrics.export import json

        return json.load(data)


fields.document(TaskStatistics, ResourceMetrics, Snapshot)
