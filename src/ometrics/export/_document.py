# SPDX-License-Identifier: MIT
"""The JSON document as typed structs: what is encoded, validated, and the schema.

The fields of the original package come first in each struct, with its names and types;
ours follow. `python -m ometrics.export._document` writes the JSON Schema anew.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

SCHEMA_VERSION: Final = 1
SCHEMA_FILE: Final = Path(__file__).with_name("metrics.schema.json")
QUANTILES: Final = (0.5, 0.9, 0.95, 0.99, 0.999)

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


class Percentiles(msgspec.Struct, gc=False):
    """Quantiles in seconds, each within 1.1 % of the exact sample quantile."""

    p50: Seconds | None = None
    p90: Seconds | None = None
    p95: Seconds | None = None
    p99: Seconds | None = None
    p999: Seconds | None = None


NO_PERCENTILES: Final = Percentiles()


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
    bucket_bounds_seconds: Annotated[list[Seconds], Meta(min_length=1)]
    explicit: Explicit
    exponential: Exponential


class Call(msgspec.Struct, gc=False):
    """Instrumented calls of one operation; null is what nobody told."""

    operation: str
    successful_reqs: Count
    failed_reqs: Count
    cancelled_reqs: Count
    in_flight: Count
    oldest_in_flight_seconds: Seconds | None
    prompt_tokens: Count | None
    cached_tokens: Count | None
    completion_tokens: Count | None
    decode_tokens: Count
    decode_ns: Count
    decode_tokens_per_second: Float | None
    prefill_tokens: Count
    prefill_ns: Count
    prefill_tokens_per_second: Float | None
    done_reasons: Counts
    errors: Counts
    latency: Histogram
    time_to_first_chunk: Histogram
    time_to_first_answer: Histogram
    time_per_output_chunk: Histogram
    load: Histogram
    prefill: Histogram
    decode: Histogram
    residual: Histogram
    network: Histogram


class Model(msgspec.Struct, gc=False):
    """One model's requests."""

    model: str
    total_requests: Count
    successful_reqs: Count
    failed_reqs: Count
    avg_latency: Duration
    throughput: Annotated[float, Meta(ge=0.0, description="requests a second")]
    error_rate: Percent
    tokens_processed: Count
    avg_tokens_per_req: Float
    avg_latency_seconds: Seconds | None
    min_latency: Duration | None
    min_latency_seconds: Seconds | None
    max_latency: Duration | None
    max_latency_seconds: Seconds | None
    total_latency: Duration
    total_latency_seconds: Seconds
    cancelled_reqs: Count
    latency_unknown: Count
    errors: Annotated[Counts, Meta(description="failures by code")]
    last_updated: Time | None
    uptime_seconds: Seconds
    latency_hist: Histogram
    calls: Annotated[dict[str, Call], Meta(description="by operation")]


class Tasks(msgspec.Struct, gc=False):
    """How tasks went."""

    total_tasks: Count
    completed_tasks: Count
    failed_tasks: Count
    success_rate: Percent
    avg_completion_ms: Float | None
    min_completion_ms: Float | None
    max_completion_ms: Float | None
    duration_unknown: Count
    sum_ns: Annotated[int, Meta(ge=0, description="nanoseconds")]
    last_updated: Time | None


class Resources(msgspec.Struct, gc=False):
    """What the process used when it was last told."""

    memory_usage_mb: Annotated[int, Meta(description="MB, rounded")]
    cpu_usage_percent: Annotated[float, Meta(description="percent of one core")]
    goroutine_count: Annotated[int, Meta(description="threads and asyncio tasks")]
    memory_usage_mb_exact: Annotated[float, Meta(description="MB")]
    timestamp: Time


class Document(msgspec.Struct, gc=False):
    """Everything an ometrics collector knows, at one instant."""

    start_time: Time
    collection_time: Time
    uptime_seconds: Seconds
    model_metrics: dict[str, Model]
    task_statistics: Tasks
    resource_metrics: Resources | None
    total_requests: Count
    total_errors: Count
    overall_error_rate: Percent
    schema_version: Annotated[int, Meta(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    instance_id: str
    invalid_values: Annotated[Counts, Meta(description="by reason")]
    overflowed_requests: Count
    truncated_names: Count
    saturated: Count
    events_emitted: Count
    events_dropped: Count
    internal_errors: Count


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a document."""
    (root,), parts = msgspec.json.schema_components([Document])
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
