# SPDX-License-Identifier: MIT
"""The one table of names: each number of a snapshot -> metric, type, unit and labels.

The exporters walk `families(snapshot)` and know no field of the snapshot; the page
`docs/metrics.md` is written from the same table. What is not in `METRICS` leaves in no
format but JSON.

The contract for an exporter:

- A `Family` is one metric with all its samples, which are pairs of labels and a value.
  Each metric comes at most once, in the order of the table, and not at all when it has
  no sample. `None` never arrives: what nobody told has no sample (law 5).
- `Metric.name` is OpenTelemetry's (dots), `Metric.prometheus` its standard translation
  (underscores, unit, `_total`). `Metric.unit` is UCUM: `s`, `By`, `1`, `{things}`, or
  empty for `info`.
- `Metric.kind` says what the value is. `counter`: an int, or a float of seconds,
  that never goes back since `snapshot.start_time`; `gauge`: an int or a float; `info`:
  always 1, the content is in the labels; `histogram`: a `LatencyHistogram`, not empty
  except for `ometrics.request.duration`, cumulative since `snapshot.start_time`.
- Explicit bounds of a histogram: `metric.bounds`, or the user's `value.bucket_bounds`
  where that is `None`; `value.cumulative(bounds)` is exact for both. The exponential
  view is `value.exponential()`; what lies above its range (`overflow`) belongs into the
  bucket right above 2^12 s, so that every bucket view adds up to the count.
- Labels are a tuple of `(OpenTelemetry attribute, value)`, unique within its family, or
  what the exporter's `encode` makes of it. Values are valid Unicode and otherwise as
  recorded: they may hold quotes, line ends, NUL and a megabyte of text.
  `prometheus_label` translates a key.

Left out, because a snapshot cannot tell them honestly: `gen_ai.server.*` (duration of a
request, time to first token, time per output token) want one value of each call, and a
server tells phases; these leave as `ometrics.call.phase.duration` instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from operator import attrgetter
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    overload,
)

from ometrics.histogram import GENAI_DURATION_BUCKETS, LatencyHistogram
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]
Scope: TypeAlias = Literal["snapshot", "model", "call"]
Labels: TypeAlias = tuple[tuple[str, str], ...]
# What an exporter makes of labels; joined by `+`.
L = TypeVar("L", Labels, str, bytes)

# Attributes of the OpenTelemetry GenAI conventions.
MODEL: Final = "gen_ai.request.model"
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
MODALITY: Final = "gen_ai.token.modality"
ERROR: Final = "error.type"

# `ollama` is a custom value: the conventions list no provider for it and allow one.
_PROVIDER: Final = (PROVIDER, "ollama")

SCOPE_LABELS: Final[Mapping[Scope, tuple[str, ...]]] = {
    "snapshot": (),
    "model": (MODEL,),
    "call": (MODEL, OPERATION, PROVIDER),
}

_UNIT_SUFFIXES: Final = {"s": "seconds", "By": "bytes", "1": "ratio"}
_BYTES_PER_MB: Final = 1_000_000


def prometheus_label(key: str) -> str:
    """The Prometheus label of an attribute: dots become underscores."""
    return key.replace(".", "_")


class Metric(NamedTuple):
    """
    One row of the table.

    Attributes:
        scope: What the reader is given: the snapshot, each model, or each model and
            operation; `SCOPE_LABELS` names the labels that come with it.
        name: OpenTelemetry name.
        kind: `counter`, `gauge`, `histogram` or `info`.
        unit: UCUM unit.
        help: One sentence for people.
        source: The field of the snapshot, for the documentation.
        read: Value of the field: a number or histogram, `None` if nobody told, or a
            mapping from the values of the own `labels` to numbers.
        labels: Labels beside those of the scope.
        bounds: Explicit bounds in seconds; `None` for the user's own.
    """

    scope: Scope
    name: str
    kind: Kind
    unit: str
    help: str
    source: str
    read: Callable[[Any], Any]
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] | None = None

    @property
    def prometheus(self) -> str:
        """The Prometheus name, as OpenTelemetry's compatibility rules translate it."""
        name = self.prometheus_family
        return name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    @property
    def prometheus_family(self) -> str:
        """The same without `_total` or `_info`, as OpenMetrics names the family."""
        name = self.name.replace(".", "_")
        suffix = self.prometheus_unit
        return f"{name}_{suffix}" if suffix else name

    @property
    def prometheus_unit(self) -> str:
        """Unit for OpenMetrics: `seconds`, `bytes`, `ratio`, or empty."""
        return _UNIT_SUFFIXES.get(self.unit, "")


@dataclass(frozen=True)
class Family(Generic[L]):
    """
    One metric with all its samples.

    Attributes:
        metric: The row of the table.
        samples: Pairs of labels and a value; `metric.kind` tells the value's type.
    """

    metric: Metric
    samples: list[tuple[L, Any]]


def _info(snapshot: Snapshot) -> Mapping[tuple[str, str], int]:
    return {(clean(snapshot.instance_id), version()): 1}


def _requests(model: PerformanceMetrics) -> Mapping[str, int]:
    return {
        "success": model.successful_reqs,
        "failure": model.failed_reqs,
        "cancelled": model.cancelled_reqs,
    }


def _calls(call: CallMetrics) -> Mapping[str, int]:
    return {
        "success": call.successful_reqs,
        "failure": call.failed_reqs,
        "cancelled": call.cancelled_reqs,
    }


def _tasks(snapshot: Snapshot) -> Mapping[str, int]:
    tasks = snapshot.task_statistics
    return {"success": tasks.completed_tasks, "failure": tasks.failed_tasks}


def _task(
    read: Callable[[TaskStatistics], float | None],
) -> Callable[[Snapshot], float | None]:
    return lambda snapshot: read(snapshot.task_statistics)


def _resource(
    read: Callable[[ResourceMetrics], float],
) -> Callable[[Snapshot], float | None]:
    def of(snapshot: Snapshot) -> float | None:
        resources = snapshot.resource_metrics
        return None if resources is None else read(resources)

    return of


def _histogram(name: str) -> Callable[[CallMetrics], LatencyHistogram | None]:
    """A call's histogram; an empty one is unknown, not zero."""
    get = attrgetter(name)

    def of(call: CallMetrics) -> LatencyHistogram | None:
        histogram: LatencyHistogram = get(call)
        return histogram if histogram.cells else None

    return of


def _phases(call: CallMetrics) -> Mapping[str, LatencyHistogram | None]:
    return {name: read(call) for name, read in _PHASES}


_PHASES: Final = tuple(
    (name, _histogram(name))
    for name in ("load", "prefill", "decode", "residual", "network")
)


def _text(name: str) -> Callable[[CallMetrics], Mapping[str, int | None]]:
    """A token counter; Ollama's clients count text only, whatever went into it."""
    get = attrgetter(name)
    return lambda call: {"text": get(call)}


def _timestamp(name: str) -> Callable[[Any], float | None]:
    get = attrgetter(name)

    def of(owner: Any) -> float | None:
        time = get(owner)
        return None if time is None else float(time.timestamp())

    return of


def _seconds(ns: int) -> float:
    return ns / 1e9


def _from_ms(ms: float | None) -> float | None:
    return None if ms is None else ms / 1e3


_D: Final = GENAI_DURATION_BUCKETS

# fmt: off
METRICS: Final = (
    # The collector itself.
    Metric("snapshot", "ometrics.instance", "info", "",
        "Which collector told this: new for each one and in each forked child.",
        "instance_id", _info, ("service.instance.id", "version")),
    Metric("snapshot", "ometrics.start_timestamp", "gauge", "s",
        "When counting began, at creation or at the last reset, since 1970.",
        "start_time", _timestamp("start_time")),
    Metric("snapshot", "ometrics.collection_timestamp", "gauge", "s",
        "The instant of these numbers, since 1970.",
        "collection_time", _timestamp("collection_time")),
    Metric("snapshot", "ometrics.uptime", "gauge", "s",
        "Length of the window that was counted, by the monotonic clock.",
        "uptime_seconds", attrgetter("uptime_seconds")),
    # All requests of a model, however they were recorded.
    Metric("model", "ometrics.requests", "counter", "{request}",
        "Requests by outcome; a cancelled one is neither success nor failure.",
        "models.*.successful_reqs, failed_reqs, cancelled_reqs",
        _requests, ("outcome",)),
    Metric("model", "ometrics.request.errors", "counter", "{error}",
        "Failed requests by error code.",
        "models.*.errors", attrgetter("errors"), (ERROR,)),
    Metric("model", "ometrics.request.duration", "histogram", "s",
        "Latency of successful requests.",
        "models.*.latency_hist", attrgetter("latency_hist")),
    Metric("model", "ometrics.request.min_duration", "gauge", "s",
        "Smallest latency since the start.",
        "models.*.min_latency", attrgetter("min_latency")),
    Metric("model", "ometrics.request.max_duration", "gauge", "s",
        "Largest latency since the start.",
        "models.*.max_latency", attrgetter("max_latency")),
    Metric("model", "ometrics.request.latency_unknown", "counter", "{request}",
        "Successful requests whose latency was not a number or negative.",
        "models.*.latency_unknown", attrgetter("latency_unknown")),
    Metric("model", "ometrics.tokens", "counter", "{token}",
        "Tokens recorded.",
        "models.*.tokens_processed", attrgetter("tokens_processed")),
    Metric("model", "ometrics.model.last_update_timestamp", "gauge", "s",
        "When the model was last recorded, since 1970.",
        "models.*.last_updated", _timestamp("last_updated")),
    # Calls seen from their start to their end, in the names of the GenAI conventions.
    Metric("call", "gen_ai.client.operation.duration", "histogram", "s",
        "Call to last byte, of successful calls.",
        "models.*.calls.*.latency", _histogram("latency"), (), _D),
    Metric("call", "gen_ai.client.operation.time_to_first_chunk", "histogram", "s",
        "Call to the first chunk; streams only.",
        "models.*.calls.*.time_to_first_chunk",
        _histogram("time_to_first_chunk"), (), _D),
    Metric("call", "gen_ai.client.operation.time_per_output_chunk", "histogram", "s",
        "Time of each chunk after the first; streams only.",
        "models.*.calls.*.time_per_output_chunk",
        _histogram("time_per_output_chunk"), (), _D),
    Metric("call", "gen_ai.client.inference.usage.input_tokens", "counter", "{token}",
        "Prompt tokens, cached ones included.",
        "models.*.calls.*.prompt_tokens", _text("prompt_tokens"), (MODALITY,)),
    Metric("call", "gen_ai.client.inference.usage.cache_read.input_tokens",
        "counter", "{token}",
        "Prompt tokens that came from the cache: a part of the input tokens.",
        "models.*.calls.*.cached_tokens", _text("cached_tokens"), (MODALITY,)),
    Metric("call", "gen_ai.client.inference.usage.output_tokens", "counter", "{token}",
        "Completion tokens, thinking included.",
        "models.*.calls.*.completion_tokens", _text("completion_tokens"), (MODALITY,)),
    # What the conventions have no name for.
    Metric("call", "ometrics.calls", "counter", "{call}",
        "Finished calls by outcome; all of them are requests as well.",
        "models.*.calls.*.successful_reqs, failed_reqs, cancelled_reqs",
        _calls, ("outcome",)),
    Metric("call", "ometrics.call.errors", "counter", "{error}",
        "Failed calls by error code.",
        "models.*.calls.*.errors", attrgetter("errors"), (ERROR,)),
    Metric("call", "ometrics.call.done_reasons", "counter", "{call}",
        "Calls by the reason that the server gave for their end.",
        "models.*.calls.*.done_reasons", attrgetter("done_reasons"), ("reason",)),
    Metric("call", "ometrics.call.time_to_first_answer", "histogram", "s",
        "Call to the first chunk that is not thinking; streams only.",
        "models.*.calls.*.time_to_first_answer",
        _histogram("time_to_first_answer"), (), _D),
    Metric("call", "ometrics.call.phase.duration", "histogram", "s",
        "Where the time went; the phases of a call add up to its latency.",
        "models.*.calls.*.load, prefill, decode, residual, network",
        _phases, ("phase",), _D),
    Metric("call", "ometrics.call.decode.tokens", "counter", "{token}",
        "Completion tokens of calls that also told their decode time.",
        "models.*.calls.*.decode_tokens", attrgetter("decode_tokens")),
    Metric("call", "ometrics.call.decode.time", "counter", "s",
        "Decode time of those calls: tokens over time is the decode rate.",
        "models.*.calls.*.decode_ns", lambda call: _seconds(call.decode_ns)),
    Metric("call", "ometrics.call.prefill.tokens", "counter", "{token}",
        "Prompt tokens not from the cache, of calls that told cache and prefill time.",
        "models.*.calls.*.prefill_tokens", attrgetter("prefill_tokens")),
    Metric("call", "ometrics.call.prefill.time", "counter", "s",
        "Prefill time of those calls: tokens over time is the prefill rate.",
        "models.*.calls.*.prefill_ns", lambda call: _seconds(call.prefill_ns)),
    Metric("call", "ometrics.call.in_flight", "gauge", "{call}",
        "Calls that are running.",
        "models.*.calls.*.in_flight", attrgetter("in_flight")),
    Metric("call", "ometrics.call.oldest_age", "gauge", "s",
        "Age of the oldest running call.",
        "models.*.calls.*.oldest_in_flight_seconds",
        attrgetter("oldest_in_flight_seconds")),
    # Tasks.
    Metric("snapshot", "ometrics.tasks", "counter", "{task}",
        "Finished tasks by outcome.",
        "task_statistics.completed_tasks, failed_tasks", _tasks, ("outcome",)),
    Metric("snapshot", "ometrics.task.time", "counter", "s",
        "Sum of the known task durations.",
        "task_statistics.sum_ns", _task(lambda t: _seconds(t.sum_ns))),
    Metric("snapshot", "ometrics.task.duration_unknown", "counter", "{task}",
        "Tasks whose duration was not a number or negative.",
        "task_statistics.duration_unknown", _task(attrgetter("duration_unknown"))),
    Metric("snapshot", "ometrics.task.min_duration", "gauge", "s",
        "Shortest known task since the start.",
        "task_statistics.min_completion_ms",
        _task(lambda t: _from_ms(t.min_completion_ms))),
    Metric("snapshot", "ometrics.task.max_duration", "gauge", "s",
        "Longest known task since the start.",
        "task_statistics.max_completion_ms",
        _task(lambda t: _from_ms(t.max_completion_ms))),
    Metric("snapshot", "ometrics.task.last_update_timestamp", "gauge", "s",
        "When a task was last reported, since 1970.",
        "task_statistics.last_updated", _task(_timestamp("last_updated"))),
    # The process, as it was last told.
    Metric("snapshot", "ometrics.process.memory", "gauge", "By",
        "Memory that the process used.",
        "resource_metrics.memory_usage_mb",
        _resource(lambda r: r.memory_usage_mb * _BYTES_PER_MB)),
    Metric("snapshot", "ometrics.process.cpu.utilization", "gauge", "1",
        "CPU that the process used, 1 for one core.",
        "resource_metrics.cpu_usage_percent",
        _resource(lambda r: r.cpu_usage_percent / 100)),
    Metric("snapshot", "ometrics.process.goroutines", "gauge", "{thread}",
        "Threads and asyncio tasks; the name is the original package's.",
        "resource_metrics.goroutine_count", _resource(attrgetter("goroutine_count"))),
    Metric("snapshot", "ometrics.process.sample_timestamp", "gauge", "s",
        "When the process was last looked at, since 1970.",
        "resource_metrics.timestamp", _resource(lambda r: r.timestamp.timestamp())),
    # Nothing is lost silently (law 6).
    Metric("snapshot", "ometrics.invalid_values", "counter", "{value}",
        "Values that were not counted, by reason: nan, infinite or negative.",
        "invalid_values", attrgetter("invalid_values"), ("reason",)),
    Metric("snapshot", "ometrics.overflowed_requests", "counter", "{request}",
        "Requests of models past the limit, counted as model __overflow__.",
        "overflowed_requests", attrgetter("overflowed_requests")),
    Metric("snapshot", "ometrics.truncated_names", "counter", "{record}",
        "Records under a model name that had to be cut or mended.",
        "truncated_names", attrgetter("truncated_names")),
    Metric("snapshot", "ometrics.saturated", "counter", "{event}",
        "Times that a 64-bit number stopped at its limit.",
        "saturated", attrgetter("saturated")),
    Metric("snapshot", "ometrics.events.emitted", "counter", "{event}",
        "Events since the start.",
        "events_emitted", attrgetter("events_emitted")),
    Metric("snapshot", "ometrics.events.dropped", "counter", "{event}",
        "Events that slow readers of channels lost.",
        "events_dropped", attrgetter("events_dropped")),
    Metric("snapshot", "ometrics.internal_errors", "counter", "{error}",
        "Failures of instrumentation that were kept from the caller.",
        "internal_errors", attrgetter("internal_errors")),
)
# fmt: on


@overload
def families(snapshot: Snapshot) -> Iterator[Family[Labels]]: ...
@overload
def families(
    snapshot: Snapshot, encode: Callable[[Labels], L]
) -> Iterator[Family[L]]: ...
def families(
    snapshot: Snapshot, encode: Callable[[Labels], Any] = tuple
) -> Iterator[Family[Any]]:
    """
    Every number of `snapshot`, metric by metric, as this module's docstring promises.

    Args:
        snapshot: What to export. Only this one instant is read, so the numbers of all
            families belong together.
        encode: What to make of labels. It is called once a model and once an own label
            of a metric, and results are joined by `+`: far fewer calls than samples.
    """
    models = _by_clean_name(snapshot.models)
    owners: dict[Scope, list[tuple[Any, Any]]] = {
        "snapshot": [(encode(()), snapshot)],
        "model": [(encode(((MODEL, name),)), model) for name, model in models.items()],
        "call": [
            (encode(((MODEL, name), (OPERATION, operation), _PROVIDER)), call)
            for name, model in models.items()
            for operation, call in _by_clean_name(model.calls).items()
        ],
    }
    for metric in METRICS:
        samples = _samples(metric, owners[metric.scope], encode)
        if samples:
            yield Family(metric, samples)


def _samples(
    metric: Metric, owners: list[tuple[Any, Any]], encode: Callable[[Labels], Any]
) -> list[tuple[Any, Any]]:
    read = metric.read
    if not metric.labels:
        return [
            (labels, value)
            for labels, owner in owners
            if (value := read(owner)) is not None
        ]
    own = _OwnLabels(metric.labels, encode)
    return [
        (labels + own[key], value)
        for labels, owner in owners
        for key, value in _clean_keys(read(owner)).items()
        if value is not None
    ]


class _OwnLabels(dict[Any, Any]):
    """Value of the own label, or a tuple of values -> encoded labels."""

    def __init__(
        self, keys: tuple[str, ...], encode: Callable[[Labels], object]
    ) -> None:
        self._keys = keys
        self._encode = encode

    def __missing__(self, key: str | tuple[str, ...]) -> object:
        values = (key,) if isinstance(key, str) else key
        labels = self[key] = self._encode(tuple(zip(self._keys, values, strict=True)))
        return labels


def _clean_keys(values: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Valid keys; counts whose keys differ in nothing but surrogates are added up."""
    if all(key.isascii() for key in values if isinstance(key, str)):
        return values
    counts: dict[str, int] = {}
    for key, count in values.items():
        counts[clean(key)] = counts.get(clean(key), 0) + count
    return counts


def _by_clean_name(owners: Mapping[str, Any]) -> dict[str, Any]:
    """By valid name; two whose names differ in nothing but surrogates become one."""
    by_name: dict[str, Any] = {}
    for raw_name, owner in owners.items():
        name = clean(raw_name)
        there = by_name.get(name)
        by_name[name] = owner if there is None else there.merge(owner)
    return by_name


def clean(text: str) -> str:
    """`text` as valid Unicode: each lone surrogate becomes U+FFFD."""
    if text.isascii():
        return text
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


_SURROGATES: Final = re.compile("[\ud800-\udfff]")


@lru_cache(maxsize=1)
def version() -> str:
    """Version of the installed package; `unknown` when it runs from bare source."""
    try:
        return metadata.version("ometrics")
    except metadata.PackageNotFoundError:
        return "unknown"
