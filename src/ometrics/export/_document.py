# SPDX-License-Identifier: MIT
"""The JSON document: its keys, derived from the declared fields of the read types.

Listed here is only what no declaration says: which keys come first, as in the original
package, and which are computed. Every other declared field follows under its own name,
so that a new one needs no line here. From the keys follow the structs that validate a
document, its schema, and the plan by which `_json.pyx` writes one.
`python -m ometrics.export._document` writes the JSON Schema anew.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ometrics import _json_plan
from ometrics.fields import UINT64_MAX, Field, fields_of
from ometrics.gpus import GpuMetrics
from ometrics.histogram import (
    TOKEN_SECONDS,
    LatencyHistogram,
    TokenHistogram,
    labels_of,
)
from ometrics.loaded import LoadedModel
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.snapshot import ResourceMetrics, Snapshot, TaskStatistics

SCHEMA_VERSION: Final = 1
SCHEMA_FILE: Final = Path(__file__).with_name("metrics.schema.json")
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}

Count = Annotated[int, Meta(ge=0)]
Counts = dict[str, Count]
Float = Annotated[float, Meta(ge=0.0)]
Seconds = Annotated[float, Meta(ge=0.0, description="seconds")]
Duration = Annotated[
    str,
    Meta(
        description="as Go writes it: 150ms, 1m1.5s",
        pattern=r"^(([0-9]+(\.[0-9]+)?)(h|ms|µs|ns|m|s))+$",
    ),
]
Percent = Annotated[float, Meta(ge=0.0, description="percent")]
Time = Annotated[datetime, Meta(tz=True, description="UTC, microseconds")]


# --- Histograms


class Percentiles(msgspec.Struct, gc=False):
    """Quantiles, each within 1.1 % of the exact sample quantile."""

    p50: Float | None
    p90: Float | None
    p95: Float | None
    p99: Float | None
    p999: Float | None


class Explicit(msgspec.Struct, gc=False):
    """
    Exact counts at every explicit bound: the user's and OpenTelemetry's.

    `counts[i]` holds the values above `bounds_seconds[i-1]` up to and including
    `bounds_seconds[i]`; one more count is for what is above the last bound.
    """

    bounds_seconds: list[Seconds]
    counts: list[Count]


class Exponential(msgspec.Struct, gc=False):
    """
    Base-2 exponential histogram in OpenTelemetry's numbering, base = 2^(2^-scale).

    `counts[i]` holds the values in `(base^(offset+i), base^(offset+i+1)]` seconds;
    `underflow` those up to 2^-20 s, zero included, and `overflow` those above 2^12 s.
    """

    scale: Annotated[int, Meta(ge=5, le=5)]
    offset: Annotated[int, Meta(ge=-640, le=383)]
    counts: Annotated[list[Count], Meta(max_length=1024)]
    underflow: Count
    overflow: Count


class Histogram(msgspec.Struct, gc=False):
    """One set of durations; all views count the same values."""

    count: Count
    sum_ns: Annotated[int, Meta(ge=0, description="nanoseconds")]
    total_seconds: Seconds
    mean_seconds: Seconds | None
    min_seconds: Seconds | None
    max_seconds: Seconds | None
    percentiles_seconds: Percentiles
    buckets: Annotated[Counts, Meta(description="by label, not cumulative")]
    bucket_bounds_seconds: Annotated[tuple[Seconds, ...], Meta(min_length=1)]
    explicit: Explicit
    exponential: Exponential


class TokenExplicit(msgspec.Struct, gc=False):
    """
    Exact counts at the bounds that cut the cells, here in tokens.

    `counts[i]` holds the values above `bounds[i-1]` up to and including `bounds[i]`;
    one more count is for what is above the last bound.
    """

    bounds: list[Float]
    counts: list[Count]


class TokenExponential(msgspec.Struct, gc=False):
    """
    Base-2 exponential histogram in OpenTelemetry's numbering, base = 2^(2^-scale).

    `counts[i]` holds the values in `(base^(offset+i), base^(offset+i+1)]` tokens;
    `underflow` those up to 2^-6, so none but 0, and `overflow` those above 2^26.
    """

    scale: Annotated[int, Meta(ge=5, le=5)]
    offset: Annotated[int, Meta(ge=-192, le=831)]
    counts: Annotated[list[Count], Meta(max_length=1024)]
    underflow: Count
    overflow: Count


class Tokens(msgspec.Struct, gc=False):
    """One set of numbers of tokens; all views count the same values."""

    count: Count
    total: Count
    mean: Float | None
    min: Float | None
    max: Float | None
    percentiles: Percentiles
    bucket_bounds_seconds: Annotated[tuple[Seconds, ...], Meta(min_length=1)]
    explicit: TokenExplicit
    exponential: TokenExponential


# What a histogram is made of; all else in its object follows from this.


class _ExplicitSource(msgspec.Struct, gc=False):
    counts: list[int]


class _ExponentialSource(msgspec.Struct, gc=False):
    offset: int
    counts: list[int]
    underflow: int
    overflow: int


class _HistogramSource(msgspec.Struct, gc=False):
    sum_ns: int
    min_seconds: float | None
    max_seconds: float | None
    bucket_bounds_seconds: tuple[float, ...]
    explicit: _ExplicitSource
    exponential: _ExponentialSource


class _TokensSource(msgspec.Struct, gc=False):
    total: int
    min: float | None
    max: float | None
    bucket_bounds_seconds: tuple[float, ...]
    explicit: _ExplicitSource
    exponential: _ExponentialSource


# --- Keys


Source = str | tuple[str, ...] | _json_plan.Ratio | Callable[[Any], Any]


@dataclass(frozen=True)
class DocumentKey:
    """
    A key of an object of the document.

    Attributes:
        name: The key.
        type: What it holds, for msgspec.
        source: The attribute that it shows, several for their sum, a ratio, or a
            function of the owner.
        fact: `mean`, `min`, `max` or `total` of the histogram that the attribute is.
        duration: Whether the fact is written as Go writes durations.
        field: The declaration of what it shows; `None` of what is computed.
        is_later: Whether there are documents without it, of versions that did not
            count it: what is missing is then as its read type declares, `None` where
            a number can be unknown, else nothing counted.
    """

    name: str
    type: Any
    source: Source
    fact: str | None = None
    duration: bool = False
    field: Field | None = None
    is_later: bool = False


def _saturated(get: Callable[[Any], int]) -> Callable[[Any], int]:
    """A computed sum that stops where a 64-bit counter does."""
    return lambda owner: min(get(owner), UINT64_MAX)


_REQUESTS: Final = ("successful_reqs", "failed_reqs")
_TASKS: Final = ("completed_tasks", "failed_tasks")


def _latency(name: str, fact: str, *, seconds: bool = False) -> DocumentKey:
    kind: Any = Seconds if seconds else Duration
    known = fact == "total" or (fact == "mean" and not seconds)
    kind = kind if known else kind | None
    return DocumentKey(name, kind, "latency_hist", fact, duration=not seconds)


# Of each read type: the keys that come first, in the order of the original package and
# of its first version here, with those that are computed. A string is a declared field.
_FIRST: Final[dict[type, tuple[str | DocumentKey, ...]]] = {
    Snapshot: (
        *("start_time", "collection_time", "uptime_seconds", "models"),
        *("task_statistics", "resource_metrics"),
        DocumentKey("total_requests", Count, _saturated(lambda s: s.total_requests)),
        DocumentKey("total_errors", Count, _saturated(lambda s: s.total_errors)),
        DocumentKey("overall_error_rate", Percent, "overall_error_rate"),
        DocumentKey(
            "schema_version",
            Annotated[int, Meta(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)],
            lambda _: SCHEMA_VERSION,
        ),
        *("instance_id", "invalid_values"),
        DocumentKey(
            "overflowed_requests", Count, _saturated(lambda s: s.overflowed_requests)
        ),
    ),
    PerformanceMetrics: (
        "model",
        DocumentKey("total_requests", Count, _REQUESTS),
        *("successful_reqs", "failed_reqs"),
        _latency("avg_latency", "mean"),
        DocumentKey(
            "throughput", Float, _json_plan.Ratio(_REQUESTS, ("uptime_seconds",))
        ),
        DocumentKey(
            "error_rate",
            Percent,
            _json_plan.Ratio(("failed_reqs",), _REQUESTS, percent=True),
        ),
        "tokens_processed",
        DocumentKey(
            "avg_tokens_per_req",
            Float,
            _json_plan.Ratio(("tokens_processed",), ("successful_reqs",)),
        ),
        _latency("avg_latency_seconds", "mean", seconds=True),
        _latency("min_latency", "min"),
        _latency("min_latency_seconds", "min", seconds=True),
        _latency("max_latency", "max"),
        _latency("max_latency_seconds", "max", seconds=True),
        _latency("total_latency", "total"),
        _latency("total_latency_seconds", "total", seconds=True),
        *("cancelled_reqs", "latency_unknown", "errors", "last_updated"),
        *("uptime_seconds", "latency_hist", "calls"),
    ),
    CallMetrics: (
        *("operation", "successful_reqs", "failed_reqs", "cancelled_reqs"),
        *("in_flight", "oldest_in_flight_seconds"),
        *("prompt_tokens", "cached_tokens", "completion_tokens"),
        *("decode_tokens", "decode_ns"),
        DocumentKey(
            "decode_tokens_per_second", Float | None, "decode_tokens_per_second"
        ),
        *("prefill_tokens", "prefill_ns"),
        DocumentKey(
            "prefill_tokens_per_second", Float | None, "prefill_tokens_per_second"
        ),
        *("done_reasons", "errors"),
    ),
    TaskStatistics: (
        DocumentKey("total_tasks", Count, _TASKS),
        *("completed_tasks", "failed_tasks"),
        DocumentKey("success_rate", Percent, "success_rate"),
        DocumentKey("avg_completion_ms", Float | None, "avg_completion_ms"),
        *("min_completion_ms", "max_completion_ms", "duration_unknown", "sum_ns"),
    ),
    LoadedModel: (),
    GpuMetrics: (),
    ResourceMetrics: (
        # The original's megabytes are an integer; `memory_usage_mb_exact` is the rest.
        DocumentKey(
            "memory_usage_mb",
            Annotated[int, Meta(ge=0, description="MB, rounded")],
            lambda used: min(round(used.memory_usage_mb), UINT64_MAX),
        ),
        *("cpu_usage_percent", "goroutine_count", "memory_usage_mb", "timestamp"),
    ),
}
_NAMES: Final[dict[Any, str]] = {
    Snapshot: "Document",
    PerformanceMetrics: "Model",
    CallMetrics: "Call",
    TaskStatistics: "Tasks",
    ResourceMetrics: "Resources",
    LoadedModel: "LoadedModel",
    GpuMetrics: "Gpu",
}
# Where the original has another name than the field, or another meaning of it.
_RENAMED: Final[dict[tuple[Any, str], str]] = {
    (Snapshot, "models"): "model_metrics",
    (ResourceMetrics, "memory_usage_mb"): "memory_usage_mb_exact",
}
OWNERS: Final = tuple(_FIRST)


@cache
def keys_of(owner: type) -> tuple[DocumentKey, ...]:
    """All keys of the object of a read type, in order."""
    made_of = set(owner.__struct_fields__)  # type: ignore[attr-defined]
    hints = get_type_hints(owner)
    declared = {
        field.name: DocumentKey(
            _RENAMED.get((owner, field.name), field.name),
            _described(_translated(hints[field.name], _json_type), field.help),
            field.name,
            field=field,
        )
        for field in fields_of(owner)
        if field.name in made_of
    }
    first = [
        declared.pop(key) if isinstance(key, str) else key for key in _FIRST[owner]
    ]
    return (*first, *(replace(key, is_later=True) for key in declared.values()))


def _described(kind: Any, text: str) -> Any:
    return Annotated[kind, Meta(description=text)]


def _translated(hint: Any, leaf: Callable[[Any], Any]) -> Any:
    """The type of a field, with `leaf` in place of each type that it consists of."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not types.NoneType)
        return _translated(inner, leaf) | None
    if origin is not None and issubclass(origin, Mapping):
        return dict[str, _translated(arguments[1], leaf)]  # type: ignore[misc]
    return leaf(hint)


def _json_type(hint: Any) -> Any:
    """What a value of this type is in a document."""
    return struct_of(hint) if hint in _NAMES else _TYPES[hint]


_TYPES: Final[dict[Any, Any]] = {
    bool: bool,
    int: Count,
    float: Float,
    str: str,
    datetime: Time,
    LatencyHistogram: Histogram,
    TokenHistogram: Tokens,
}


def _entry(key: DocumentKey, kind: Any) -> tuple[Any, ...]:
    """The field of a struct that holds a key."""
    if key.is_later:
        return key.name, kind | msgspec.UnsetType, msgspec.UNSET
    return key.name, kind


@cache
def struct_of(owner: type) -> Any:
    """The struct that validates the object of a read type."""
    first_line = (owner.__doc__ or "").strip().partition("\n")[0]
    return msgspec.defstruct(
        _NAMES[owner],
        [_entry(key, key.type) for key in keys_of(owner)],
        kw_only=True,
        gc=False,
        namespace={"__doc__": first_line},
        module=__name__,
    )


# --- What a snapshot is made of


def _source_type(hint: Any) -> Any:
    """The same as `_json_type`, without what is computed and what is validated."""
    return source_of(hint) if hint in _NAMES else _SOURCES.get(hint, hint)


_SOURCES: Final[dict[Any, Any]] = {
    LatencyHistogram: _HistogramSource,
    TokenHistogram: _TokensSource,
}


@cache
def source_of(owner: type) -> Any:
    """The struct that reads only what a read type is made of."""
    hints = get_type_hints(owner)
    return msgspec.defstruct(
        f"_{_NAMES[owner]}Source",
        [
            _entry(key, _translated(hints[key.field.name], _source_type))
            for key in keys_of(owner)
            if key.field is not None
        ],
        kw_only=True,
        gc=False,
        module=__name__,
    )


# --- The plan for writing, and the schema


def plan() -> dict[type, list[_json_plan.Key]]:
    """What `_json.JsonWriter` writes of each read type."""
    return {
        owner: [
            _json_plan.Key(
                *(key.name, owner.__struct_fields__, key.source),  # type: ignore[attr-defined]
                *(key.fact, key.duration),
            )
            for key in keys_of(owner)
        ]
        for owner in OWNERS
    }


UNITS: Final[dict[type, _json_plan.Unit]] = {
    LatencyHistogram: _json_plan.Unit("sum_ns", "_seconds", 1.0, labels_of),
    TokenHistogram: _json_plan.Unit("total", "", TOKEN_SECONDS, None),
}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a document."""
    (root,), parts = msgspec.json.schema_components([struct_of(Snapshot)])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Metrics exported by ometrics",
        **root,
        "$defs": parts,
    }


def schema_text() -> bytes:
    """The text of `metrics.schema.json`."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2) + b"\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_bytes(schema_text())
