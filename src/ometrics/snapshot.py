# SPDX-License-Identifier: MIT
"""The narrow waist: everything a reader sees, at one instant, immutable.

A `Snapshot` merges (processes, machines) and subtracts (windows); all else in the
package takes one and knows nothing of the core or its lock. The core hands over counts
in packed bytes; `Snapshot.models` unpacks them when someone looks.

Counts are exact integers and sums are integer nanoseconds, so `merge` is associative
and commutative and `delta` undoes it. What nobody told is `None`, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ometrics.histogram import UINT64_MAX, LatencyHistogram

# The read types are built with gc=False: they hold numbers, names and each other, never
# a cycle, and the collector need not look at the thousands of them in a snapshot.

OVERFLOW_MODEL: Final = "__overflow__"

# Histograms of a call, in the core's order after the latency (see `_core.pxd`).
CALL_HISTOGRAMS: Final = (
    "latency",
    "time_to_first_chunk",
    "time_to_first_answer",
    "time_per_output_chunk",
    "load",
    "prefill",
    "decode",
    "residual",
    "network",
)
OPERATIONS: Final = ("chat", "text_completion", "embeddings")


def utc(ns: int) -> datetime:
    """Nanoseconds since 1970 as an aware UTC time (microsecond resolution)."""
    return datetime.fromtimestamp(ns // 1000 / 1e6, tz=timezone.utc)


def percentage(part: int, whole: int) -> float:
    """`part` of `whole` in percent; 0.0 of nothing."""
    return 100.0 * part / whole if whole else 0.0


def _add(one: int, other: int) -> int:
    return min(one + other, UINT64_MAX)


def _take(name: str, later: int, earlier: int) -> int:
    if later < earlier:
        raise ValueError(
            f"not an earlier snapshot of the same start: {name} went back"
            f" from {earlier} to {later}"
        )
    return later - earlier


def _add_counts(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    total = dict(one)
    for key, count in other.items():
        total[key] = _add(total.get(key, 0), count)
    return total


def _take_counts(
    name: str, later: Mapping[str, int], earlier: Mapping[str, int]
) -> dict[str, int]:
    missing = earlier.keys() - later.keys()
    if any(earlier[key] for key in missing):
        raise ValueError(f"not an earlier snapshot: {name} lost {sorted(missing)}")
    left = {
        key: _take(f"{name}[{key!r}]", count, earlier.get(key, 0))
        for key, count in later.items()
    }
    return {key: count for key, count in left.items() if count}


def _sum_known(one: int | None, other: int | None) -> int | None:
    """Sum of what is known; `None` if nothing is."""
    if one is None or other is None:
        return other if one is None else one
    return _add(one, other)


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((t for t in (one, other) if t is not None), default=None)


class CallMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What finished and running calls of one model and operation told.

    Only calls seen from their start to their end count here (an instrumented client, or
    `record_response`); `PerformanceMetrics` counts these and all others.

    Attributes:
        operation: OpenTelemetry `gen_ai.operation.name`: `chat`, `text_completion` or
            `embeddings`.
        successful_reqs: Calls that succeeded.
        failed_reqs: Calls that failed.
        cancelled_reqs: Calls whose caller went away: neither success nor failure.
        latency: Call to last byte, of successes.
        time_to_first_chunk: Streams only.
        time_to_first_answer: Streams only; the first chunk that is not thinking.
        time_per_output_chunk: Streams only; one value for each chunk after the first.
        load: The server's load duration, which is waiting for a slot and loading.
        prefill: The server's prompt evaluation.
        decode: The server's generation.
        residual: The server's total less load, prefill and decode.
        network: Latency less the server's total: network and client.
        prompt_tokens: Whole prompts, cached tokens included; `None` if nobody told.
        cached_tokens: Part of these that came from the cache; `None` if nobody told.
        completion_tokens: Thinking included; `None` if nobody told.
        decode_tokens: Completion tokens of calls that also told the decode duration.
        decode_ns: Decode duration of those calls, in nanoseconds.
        prefill_tokens: Uncached prompt tokens of calls that told cache and duration.
        prefill_ns: Prefill duration of those calls, in nanoseconds.
        done_reasons: Calls by the server's `done_reason`.
        errors: Failures by code.
        in_flight: Calls running at the instant of the snapshot.
        oldest_in_flight_seconds: Age of the oldest of these; `None` if there is none.
    """

    operation: str
    successful_reqs: int = 0
    failed_reqs: int = 0
    cancelled_reqs: int = 0
    latency: LatencyHistogram = LatencyHistogram()
    time_to_first_chunk: LatencyHistogram = LatencyHistogram()
    time_to_first_answer: LatencyHistogram = LatencyHistogram()
    time_per_output_chunk: LatencyHistogram = LatencyHistogram()
    load: LatencyHistogram = LatencyHistogram()
    prefill: LatencyHistogram = LatencyHistogram()
    decode: LatencyHistogram = LatencyHistogram()
    residual: LatencyHistogram = LatencyHistogram()
    network: LatencyHistogram = LatencyHistogram()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    decode_tokens: int = 0
    decode_ns: int = 0
    prefill_tokens: int = 0
    prefill_ns: int = 0
    done_reasons: dict[str, int] = {}
    errors: dict[str, int] = {}
    in_flight: int = 0
    oldest_in_flight_seconds: float | None = None

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Completion tokens over the server's decode time; `None` if nobody told."""
        return self.decode_tokens / self.decode_ns * 1e9 if self.decode_ns else None

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Uncached prompt tokens over the server's prefill time; `None` if unknown."""
        return self.prefill_tokens / self.prefill_ns * 1e9 if self.prefill_ns else None

    def merge(self, other: CallMetrics) -> CallMetrics:
        """Both together; running calls add up, the oldest is the older of the two."""
        ages = [
            age
            for age in (self.oldest_in_flight_seconds, other.oldest_in_flight_seconds)
            if age is not None
        ]
        return CallMetrics(
            operation=self.operation,
            prompt_tokens=_sum_known(self.prompt_tokens, other.prompt_tokens),
            cached_tokens=_sum_known(self.cached_tokens, other.cached_tokens),
            completion_tokens=_sum_known(
                self.completion_tokens, other.completion_tokens
            ),
            done_reasons=_add_counts(self.done_reasons, other.done_reasons),
            errors=_add_counts(self.errors, other.errors),
            in_flight=self.in_flight + other.in_flight,
            oldest_in_flight_seconds=max(ages, default=None),
            **_each(self, other, _CALL_COUNTS, _add),
            **_each(self, other, CALL_HISTOGRAMS, LatencyHistogram.merge),
        )

    def __sub__(self, earlier: CallMetrics) -> CallMetrics:
        """What came after `earlier`; running calls stay as they are now."""
        return CallMetrics(
            operation=self.operation,
            prompt_tokens=_take_known(self, earlier, "prompt_tokens"),
            cached_tokens=_take_known(self, earlier, "cached_tokens"),
            completion_tokens=_take_known(self, earlier, "completion_tokens"),
            done_reasons=_take_counts(
                "done_reasons", self.done_reasons, earlier.done_reasons
            ),
            errors=_take_counts("errors", self.errors, earlier.errors),
            oldest_in_flight_seconds=self.oldest_in_flight_seconds,
            in_flight=self.in_flight,
            **_each_taken(self, earlier, _CALL_COUNTS),
            **_each(self, earlier, CALL_HISTOGRAMS, LatencyHistogram.__sub__),
        )


_CALL_COUNTS: Final = (
    *("successful_reqs", "failed_reqs", "cancelled_reqs"),
    *("decode_tokens", "decode_ns", "prefill_tokens", "prefill_ns"),
)


def _each(
    one: Any, other: Any, names: Iterable[str], combine: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    return {name: combine(getattr(one, name), getattr(other, name)) for name in names}


def _each_taken(later: Any, earlier: Any, names: Iterable[str]) -> dict[str, Any]:
    return {
        name: _take(name, getattr(later, name), getattr(earlier, name))
        for name in names
    }


def _take_known(later: Any, earlier: Any, name: str) -> int | None:
    now: int | None = getattr(later, name)
    before: int | None = getattr(earlier, name)
    if now is None or before is None:
        return now
    return _take(name, now, before)


class PerformanceMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One model's requests.

    Attributes:
        model: Name as recorded; cut at 256 characters, lone surrogates replaced.
        successful_reqs: Requests that succeeded, their latency known or not.
        failed_reqs: Requests that failed.
        cancelled_reqs: Calls whose caller went away; not part of `total_requests`.
        latency_unknown: Successes whose latency was not a number or negative.
        tokens_processed: Sum of recorded tokens.
        errors: Failures by code; at most 32 codes, the rest as `_OTHER`.
        last_updated: When the model was last recorded (UTC, a few ms coarse).
        latency_hist: Latencies of successes.
        uptime_seconds: Length of the window that these counts cover.
        calls: Operation -> `CallMetrics` of instrumented calls.
    """

    model: str
    successful_reqs: int = 0
    failed_reqs: int = 0
    cancelled_reqs: int = 0
    latency_unknown: int = 0
    tokens_processed: int = 0
    errors: dict[str, int] = {}
    last_updated: datetime | None = None
    latency_hist: LatencyHistogram = LatencyHistogram()
    uptime_seconds: float = 0.0
    calls: dict[str, CallMetrics] = {}

    @property
    def total_requests(self) -> int:
        """Successes and failures."""
        return self.successful_reqs + self.failed_reqs

    @property
    def total_latency(self) -> float:
        """Sum of recorded latencies in seconds."""
        return self.latency_hist.total

    @property
    def min_latency(self) -> float | None:
        """Smallest latency in seconds; `None` of nothing."""
        return self.latency_hist.min

    @property
    def max_latency(self) -> float | None:
        """Largest latency in seconds; `None` of nothing."""
        return self.latency_hist.max

    @property
    def avg_latency(self) -> float | None:
        """Mean of recorded latencies in seconds; `None` of nothing."""
        return self.latency_hist.mean

    @property
    def throughput(self) -> float:
        """Requests a second since start or reset."""
        return self.total_requests / self.uptime_seconds if self.uptime_seconds else 0.0

    @property
    def error_rate(self) -> float:
        """Failures in percent of requests; 0.0 of nothing."""
        return percentage(self.failed_reqs, self.total_requests)

    @property
    def avg_tokens_per_req(self) -> float:
        """Tokens per success; 0.0 of nothing."""
        if not self.successful_reqs:
            return 0.0
        return self.tokens_processed / self.successful_reqs

    @property
    def latency_p50(self) -> float | None:
        """Median latency in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.5)

    @property
    def latency_p90(self) -> float | None:
        """90th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.9)

    @property
    def latency_p95(self) -> float | None:
        """95th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.95)

    @property
    def latency_p99(self) -> float | None:
        """99th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.99)

    @property
    def latency_p999(self) -> float | None:
        """99.9th percentile in seconds, to 1.1 %; `None` of nothing."""
        return self.latency_hist.quantile(0.999)

    def merge(self, other: PerformanceMetrics) -> PerformanceMetrics:
        """Both together; the window is the longer of the two."""
        calls = dict(self.calls)
        for operation, theirs in other.calls.items():
            ours = calls.get(operation)
            calls[operation] = theirs if ours is None else ours.merge(theirs)
        return PerformanceMetrics(
            model=self.model,
            errors=_add_counts(self.errors, other.errors),
            last_updated=_latest(self.last_updated, other.last_updated),
            latency_hist=self.latency_hist.merge(other.latency_hist),
            uptime_seconds=max(self.uptime_seconds, other.uptime_seconds),
            calls=calls,
            **_each(self, other, _MODEL_COUNTS, _add),
        )

    def __sub__(self, earlier: PerformanceMetrics) -> PerformanceMetrics:
        """What came after `earlier`."""
        calls = {}
        for operation, now in self.calls.items():
            before = earlier.calls.get(operation)
            calls[operation] = now if before is None else now - before
        return PerformanceMetrics(
            model=self.model,
            errors=_take_counts("errors", self.errors, earlier.errors),
            last_updated=self.last_updated,
            latency_hist=self.latency_hist - earlier.latency_hist,
            uptime_seconds=max(self.uptime_seconds - earlier.uptime_seconds, 0.0),
            calls=calls,
            **_each_taken(self, earlier, _MODEL_COUNTS),
        )


_MODEL_COUNTS: Final = (
    *("successful_reqs", "failed_reqs", "cancelled_reqs"),
    *("latency_unknown", "tokens_processed"),
)


class TaskStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    How tasks went.

    Attributes:
        completed_tasks: Tasks reported as a success.
        failed_tasks: Tasks reported as a failure.
        duration_unknown: Tasks whose duration was not a number or negative.
        sum_ns: Sum of known durations in nanoseconds.
        min_completion_ms: Shortest known duration; `None` of nothing.
        max_completion_ms: Longest known duration; `None` of nothing.
        last_updated: When a task was last reported (UTC).
    """

    completed_tasks: int = 0
    failed_tasks: int = 0
    duration_unknown: int = 0
    sum_ns: int = 0
    min_completion_ms: float | None = None
    max_completion_ms: float | None = None
    last_updated: datetime | None = None

    @property
    def total_tasks(self) -> int:
        """Completed and failed."""
        return self.completed_tasks + self.failed_tasks

    @property
    def avg_completion_ms(self) -> float | None:
        """Mean of known durations in milliseconds; `None` of nothing."""
        known = self.total_tasks - self.duration_unknown
        return self.sum_ns / known / 1e6 if known else None

    @property
    def success_rate(self) -> float:
        """Completed tasks in percent; 0.0 of nothing."""
        return percentage(self.completed_tasks, self.total_tasks)

    def merge(self, other: TaskStatistics) -> TaskStatistics:
        """Both together."""
        return TaskStatistics(
            min_completion_ms=self._extreme(other, "min_completion_ms", min),
            max_completion_ms=self._extreme(other, "max_completion_ms", max),
            last_updated=_latest(self.last_updated, other.last_updated),
            **_each(self, other, _TASK_COUNTS, _add),
        )

    def _extreme(
        self, other: TaskStatistics, name: str, choose: Callable[..., float]
    ) -> float | None:
        """The extreme of both; `None` if one has values and does not know its own."""
        sides = [t for t in (self, other) if t.total_tasks > t.duration_unknown]
        known = [getattr(t, name) for t in sides]
        return None if not known or None in known else choose(known)

    def __sub__(self, earlier: TaskStatistics) -> TaskStatistics:
        """What came after `earlier`; extremes only where they must be of the window."""
        taken = _each_taken(self, earlier, _TASK_COUNTS)
        known = taken["completed_tasks"] + taken["failed_tasks"]
        known -= taken["duration_unknown"]
        low, high = self.min_completion_ms, self.max_completion_ms
        return TaskStatistics(
            min_completion_ms=(
                low if known and low != earlier.min_completion_ms else None
            ),
            max_completion_ms=(
                high if known and high != earlier.max_completion_ms else None
            ),
            last_updated=self.last_updated,
            **taken,
        )


_TASK_COUNTS: Final = ("completed_tasks", "failed_tasks", "duration_unknown", "sum_ns")


class ResourceMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What the process used when it was last told.

    Attributes:
        memory_usage_mb: Memory in MB.
        cpu_usage_percent: CPU in percent of one core.
        goroutine_count: Threads and asyncio tasks; the original's name is kept.
        timestamp: When this was reported (UTC).
    """

    memory_usage_mb: float
    cpu_usage_percent: float
    goroutine_count: int
    timestamp: datetime


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything a collector knows, at one instant.

    Attributes:
        instance_id: Which collector: new for each one and in each forked child. Of a
            merged snapshot: the distinct ids, sorted and joined by `+`.
        start_time: When counting began (UTC).
        collection_time: The instant (UTC).
        uptime_seconds: Length of the window, by the monotonic clock.
        models: Name -> `PerformanceMetrics`, in order of first record.
        task_statistics: How tasks went.
        resource_metrics: What the process used; `None` before the first update.
        invalid_values: Reason -> values not counted as a number (`nan`, `infinite`,
            `negative`).
        truncated_names: Records made under a name that had to be cut or mended.
        saturated: Times a 64-bit sum stopped at its limit.
        events_emitted: Events since start.
        events_dropped: Events that slow readers of channels lost.
        internal_errors: Failures of instrumentation that were kept from the caller.

    Thread-safety:
        Immutable.
    """

    instance_id: str
    start_time: datetime
    collection_time: datetime
    uptime_seconds: float
    models: Mapping[str, PerformanceMetrics] = {}
    task_statistics: TaskStatistics = TaskStatistics()
    resource_metrics: ResourceMetrics | None = None
    invalid_values: dict[str, int] = {}
    truncated_names: int = 0
    saturated: int = 0
    events_emitted: int = 0
    events_dropped: int = 0
    internal_errors: int = 0

    def __repr__(self) -> str:
        """Identity and size; the fields hold the rest."""
        return (
            f"<Snapshot of {self.instance_id[:8]}"
            f" at {self.collection_time.isoformat()}:"
            f" {len(self.models)} models, {self.total_requests} requests>"
        )

    @property
    def total_requests(self) -> int:
        """Requests of all models."""
        return sum(m.total_requests for m in self.models.values())

    @property
    def total_errors(self) -> int:
        """Failed requests of all models."""
        return sum(m.failed_reqs for m in self.models.values())

    @property
    def overall_error_rate(self) -> float:
        """Failed requests in percent; 0.0 of nothing."""
        return percentage(self.total_errors, self.total_requests)

    @property
    def overflowed_requests(self) -> int:
        """Requests counted under `__overflow__`, past the limit of models."""
        overflow = self.models.get(OVERFLOW_MODEL)
        return overflow.total_requests if overflow is not None else 0

    def merge(self, other: Snapshot) -> Snapshot:
        """
        This and another process, machine or window as one. Associative, commutative.

        Counts add up, the window spans both, resources are the latest reported.

        Raises:
            ValueError: The two have different latency buckets.
        """
        start_time = min(self.start_time, other.start_time)
        collection_time = max(self.collection_time, other.collection_time)
        uptime = max(
            self.uptime_seconds,
            other.uptime_seconds,
            (collection_time - start_time).total_seconds(),
        )
        models = dict(self.models)
        for name, theirs in other.models.items():
            ours = models.get(name)
            models[name] = theirs if ours is None else ours.merge(theirs)
        for name, model in models.items():
            models[name] = replace(model, uptime_seconds=uptime)
        ids = {*self.instance_id.split("+"), *other.instance_id.split("+")}
        resources = [
            r for r in (self.resource_metrics, other.resource_metrics) if r is not None
        ]
        return Snapshot(
            instance_id="+".join(sorted(ids)),
            start_time=start_time,
            collection_time=collection_time,
            uptime_seconds=uptime,
            models=models,
            task_statistics=self.task_statistics.merge(other.task_statistics),
            resource_metrics=max(resources, key=_resource_order, default=None),
            invalid_values=_add_counts(self.invalid_values, other.invalid_values),
            **_each(self, other, _LOSSES, _add),
        )

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
        models = {}
        for name, now in self.models.items():
            before = earlier.models.get(name)
            models[name] = now if before is None else now - before
        return Snapshot(
            instance_id=self.instance_id,
            start_time=earlier.collection_time,
            collection_time=self.collection_time,
            uptime_seconds=max(self.uptime_seconds - earlier.uptime_seconds, 0.0),
            models=models,
            task_statistics=self.task_statistics - earlier.task_statistics,
            resource_metrics=self.resource_metrics,
            invalid_values=_take_counts(
                "invalid_values", self.invalid_values, earlier.invalid_values
            ),
            **_each_taken(self, earlier, _LOSSES),
        )

    def to_json(self) -> bytes:
        """This snapshot in the original's JSON format with our additions (UTF-8)."""
        from ometrics.export import json

        return json.dump(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Snapshot:
        """
        Read what `to_json` wrote; nothing is lost on the way.

        Raises:
            ValueError: Not such a document; the message names the field.
        """
        from ometrics.export import json

        return json.load(data)


_LOSSES: Final = (
    *("truncated_names", "saturated", "events_emitted"),
    *("events_dropped", "internal_errors"),
)


def _resource_order(r: ResourceMetrics) -> tuple[object, ...]:
    """Latest first; the rest only makes the choice independent of the order."""
    return r.timestamp, r.memory_usage_mb, r.cpu_usage_percent, r.goroutine_count
