# SPDX-License-Identifier: MIT
"""Snapshots to test readers with: one rich and hand-made, and any that could be."""

from __future__ import annotations

from array import array
from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from ometrics.gpus import GpuMetrics
from ometrics.histogram import (
    DEFAULT_BUCKETS,
    GENAI_DURATION_BUCKETS,
    UINT64_MAX,
    LatencyHistogram,
    TokenHistogram,
)
from ometrics.loaded import LoadedModel
from ometrics.snapshot import (
    CALL_HISTOGRAMS,
    OPERATIONS,
    OVERFLOW_MODEL,
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)

# Quotes, a newline, braces, a terminal escape, right-to-left override, markup, NUL.
HOSTILE_NAME = 'evil"} 1\n\x1b[31m\u202e<b>&\\{\x00'
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def sample_snapshot() -> Snapshot:
    """
    A snapshot with something in every field, the same at every call.

    `qwen2.5:0.5b` has instrumented calls (chat and embeddings), `llama3.2` has plain
    records; one model has a hostile name and failures only, `__overflow__` the rest.
    """
    now = START + timedelta(seconds=120)
    chat = CallMetrics(
        operation="chat",
        successful_reqs=4,
        failed_reqs=2,
        cancelled_reqs=1,
        latency=LatencyHistogram.of([0.61, 0.73, 1.2, 2.75]),
        time_to_first_chunk=LatencyHistogram.of([0.11, 0.13, 0.21, 0.35, 0.4]),
        time_to_first_answer=LatencyHistogram.of([0.12, 0.14, 0.9, 1.35]),
        time_per_output_chunk=LatencyHistogram.of([0.021, 0.022, 0.024, 0.05] * 16),
        load=LatencyHistogram.of([0.011, 0.012, 0.012, 0.95]),
        prefill=LatencyHistogram.of([0.08, 0.09, 0.15, 0.3]),
        decode=LatencyHistogram.of([0.5, 0.61, 1.0, 1.45]),
        residual=LatencyHistogram.of([0.0, 0.001, 0.002, 0.003]),
        network=LatencyHistogram.of([0.004, 0.005, 0.007, 0.02]),
        failed_latency=LatencyHistogram.of([0.4, 30.0]),
        cancelled_latency=LatencyHistogram.of([0.25]),
        retries=2,
        retries_known=5,
        prompt_tokens=412,
        prompt_tokens_known=4,
        prompt_tokens_hist=TokenHistogram.of([100, 104, 104, 104]),
        cached_tokens=128,
        cached_tokens_known=3,
        completion_tokens=256,
        completion_tokens_known=4,
        completion_tokens_hist=TokenHistogram.of([32, 64, 64, 96]),
        connect=LatencyHistogram.of([0.0001, 0.0002, 0.0002, 0.0003]),
        decode_tokens=240,
        decode_ns=3_560_000_000,
        prefill_tokens=284,
        prefill_ns=620_000_000,
        done_reasons={"stop": 3, "length": 1},
        errors={"TIMEOUT": 1, "STREAM_ERROR": 1},
        in_flight=2,
        oldest_in_flight_seconds=3.25,
        oldest_silence_seconds=0.5,
        longest_silence_seconds=0.5,
        silent_in_flight_seconds=3.25,
        longest_wait_seconds=1.75,
        newest_chunk_seconds=0.5,
    )
    embeddings = CallMetrics(
        operation="embeddings",
        successful_reqs=2,
        latency=LatencyHistogram.of([0.031, 0.044]),
        prompt_tokens=20,
        prompt_tokens_known=2,
        prompt_tokens_hist=TokenHistogram.of([8, 12]),
    )
    qwen = PerformanceMetrics(
        model="qwen2.5:0.5b",
        successful_reqs=6,
        failed_reqs=2,
        cancelled_reqs=1,
        tokens_processed=256,
        errors={"TIMEOUT": 1, "STREAM_ERROR": 1},
        last_updated=now - timedelta(seconds=1),
        latency_hist=LatencyHistogram.of([0.031, 0.044, 0.61, 0.73, 1.2, 2.75]),
        failed_latency_hist=LatencyHistogram.of([0.4, 30.0]),
        uptime_seconds=120.0,
        calls={"chat": chat, "embeddings": embeddings},
    )
    llama = PerformanceMetrics(
        model="llama3.2",
        successful_reqs=8,
        failed_reqs=1,
        latency_unknown=1,
        tokens_processed=1500,
        errors={"ValueError": 1},
        last_updated=now - timedelta(seconds=7),
        latency_hist=LatencyHistogram.of([0.0, 5e-7, 0.001, 0.1, 0.15, 7.5, 5000.0]),
        uptime_seconds=120.0,
    )
    hostile = PerformanceMetrics(
        model=HOSTILE_NAME,
        failed_reqs=3,
        errors={"INVALID_MODEL": 2, 'Weird"Error\n': 1},
        last_updated=now - timedelta(seconds=30),
        uptime_seconds=120.0,
    )
    overflow = PerformanceMetrics(
        model=OVERFLOW_MODEL,
        successful_reqs=2,
        last_updated=now - timedelta(seconds=60),
        latency_hist=LatencyHistogram.of([0.25, 0.5]),
        uptime_seconds=120.0,
    )
    return Snapshot(
        instance_id="0123456789abcdef",
        start_time=START,
        collection_time=now,
        uptime_seconds=120.0,
        models={m.model: m for m in (qwen, llama, hostile, overflow)},
        task_statistics=TaskStatistics(
            completed_tasks=9,
            failed_tasks=1,
            duration_unknown=1,
            sum_ns=1_350_000_000,
            min_completion_ms=50.0,
            max_completion_ms=400.5,
            last_updated=now - timedelta(seconds=2),
        ),
        resource_metrics=ResourceMetrics(
            memory_usage_mb=512.0,
            cpu_usage_percent=45.5,
            goroutine_count=10,
            timestamp=now - timedelta(seconds=3),
        ),
        loaded_models={
            "llama3.2:latest": LoadedModel(
                name="llama3.2:latest",
                size=3_000_000_000,
                size_vram=1_000_000_000,
                context_length=4096,
                longest_context=131_072,
                quantization="Q4_K_M",
                parameters="3.2B",
                expires_at=now + timedelta(seconds=300),
                loads=3,
                evictions=2,
            ),
            "gone:1b": LoadedModel(name="gone:1b", loaded=False),
        },
        gpus={
            "0 NVIDIA L4": GpuMetrics(
                name="0 NVIDIA L4",
                memory_used=6_000_000_000,
                memory_total=24_000_000_000,
                utilization=0.75,
                temperature=61.0,
                power=70.5,
                energy_mj=1_234_567,
            ),
            "1 GPU": GpuMetrics(name="1 GPU"),
        },
        invalid_values={"nan": 1, "negative": 2},
        truncated_names=1,
        segment_failures=3,
        segments_bad={"damaged": 1, "version": 2},
        saturated=2,
        events_emitted=40,
        events_dropped=5,
        internal_errors=1,
    )


BUCKETS = st.sampled_from(
    [DEFAULT_BUCKETS, GENAI_DURATION_BUCKETS, (0.1,), (1e-6, 0.00037, 0.3, 5000.0)]
)
COUNTS = st.one_of(st.integers(0, 100), st.integers(0, 2**53), st.just(UINT64_MAX))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CODES = st.dictionaries(NAMES, st.integers(1, 2**53), max_size=4)
TIMES = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - Hypothesis takes naive limits
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(timezone.utc),
)
SECONDS = st.just(0.0) | st.floats(1e-6, 1e9)
# Most values where latencies are; some on a bound, tiny, or beyond the range.
LATENCIES = st.one_of(
    st.floats(1e-4, 60.0),
    st.sampled_from(DEFAULT_BUCKETS + GENAI_DURATION_BUCKETS),
    st.floats(0.0, 1e-6),
    st.floats(1e3, 1e9),
)


@st.composite
def histograms(
    draw: st.DrawFn, buckets: tuple[float, ...] = DEFAULT_BUCKETS
) -> LatencyHistogram:
    """Any histogram; counts of one cell up to 2^50, extremes sometimes unknown."""
    values = draw(st.lists(LATENCIES, max_size=20))
    if not values:
        return LatencyHistogram(bucket_bounds=buckets)
    times = draw(st.sampled_from([1, 1, 7, 2**50]))
    hist = LatencyHistogram.of(values, buckets)
    cells = array("Q", hist.cells)
    return LatencyHistogram(
        bucket_bounds=buckets,
        sum_ns=min(hist.sum_ns * times, UINT64_MAX),
        min=draw(st.sampled_from([hist.min, None])),
        max=draw(st.sampled_from([hist.max, None])),
        first_cell=hist.first_cell,
        cells=array("Q", (count * times for count in cells)).tobytes(),
    )


@st.composite
def token_histograms(
    draw: st.DrawFn, buckets: tuple[float, ...] = DEFAULT_BUCKETS
) -> TokenHistogram:
    """Any histogram of up to 20 numbers of tokens."""
    return TokenHistogram.of(
        draw(st.lists(st.integers(0, 2**28), max_size=20)), buckets
    )


# What is known of the chunks of running calls.
CHUNKS = (
    *("oldest_silence_seconds", "longest_silence_seconds", "silent_in_flight_seconds"),
    *("longest_wait_seconds", "newest_chunk_seconds"),
)


@st.composite
def call_metrics(
    draw: st.DrawFn,
    operation: str | None = None,
    buckets: tuple[float, ...] = DEFAULT_BUCKETS,
) -> CallMetrics:
    """Any `CallMetrics`; `operation` is drawn unless given."""
    counts = (
        *("cancelled_reqs", "decode_tokens", "decode_ns"),
        *("prefill_tokens", "prefill_ns"),
    )
    errors, in_flight = draw(CODES), draw(st.integers(0, 2**53))
    latency = draw(histograms(buckets))
    tokens: dict[str, int | None] = {}
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        tokens[name] = draw(st.none() | COUNTS)
        known = st.just(0) if tokens[name] is None else st.integers(1, 2**53)
        tokens[f"{name}_known"] = draw(known)
    return CallMetrics(
        operation=operation or draw(st.sampled_from(OPERATIONS)),
        done_reasons=draw(CODES),
        successful_reqs=latency.count + draw(st.integers(0, 2**53)),
        failed_reqs=sum(errors.values()),
        errors=errors,
        latency=latency,
        in_flight=in_flight,
        oldest_in_flight_seconds=draw(SECONDS) if in_flight else None,
        **{name: draw(st.none() | SECONDS) if in_flight else None for name in CHUNKS},
        **{name: draw(st.integers(0, 2**53)) for name in counts},
        **tokens,
        **{
            name: draw(token_histograms(buckets))
            if name.endswith("tokens_hist")
            else draw(histograms(buckets))
            for name in CALL_HISTOGRAMS
            if name != "latency"
        },
    )


@st.composite
def performance_metrics(
    draw: st.DrawFn,
    model: str | None = None,
    buckets: tuple[float, ...] = DEFAULT_BUCKETS,
) -> PerformanceMetrics:
    """Any model's metrics, sometimes with calls; `model` is drawn unless given."""
    operations = draw(st.lists(st.sampled_from(OPERATIONS), unique=True, max_size=1))
    errors, unknown, latencies = draw(CODES), draw(COUNTS), draw(histograms(buckets))
    return PerformanceMetrics(
        model=draw(NAMES) if model is None else model,
        successful_reqs=min(latencies.count + unknown, UINT64_MAX),
        failed_reqs=sum(errors.values()),
        cancelled_reqs=draw(st.integers(0, 2**53)),
        latency_unknown=unknown,
        tokens_processed=draw(COUNTS),
        errors=errors,
        last_updated=draw(st.none() | TIMES),
        latency_hist=latencies,
        failed_latency_hist=draw(histograms(buckets)),
        uptime_seconds=draw(SECONDS),
        calls={name: draw(call_metrics(name, buckets)) for name in operations},
    )


@st.composite
def task_statistics(draw: st.DrawFn) -> TaskStatistics:
    """Any task statistics."""
    completed, failed = draw(st.integers(0, 2**53)), draw(st.integers(0, 2**53))
    unknown = draw(st.integers(0, completed + failed))
    known = completed + failed - unknown
    low, high = sorted([draw(SECONDS), draw(SECONDS)])
    limit = min(known * int(high * 1e6), UINT64_MAX)
    return TaskStatistics(
        completed_tasks=completed,
        failed_tasks=failed,
        duration_unknown=unknown,
        sum_ns=draw(st.integers(0, limit)),
        min_completion_ms=draw(st.sampled_from([None, low])) if known else None,
        max_completion_ms=draw(st.sampled_from([None, high])) if known else None,
        last_updated=draw(st.none() | TIMES),
    )


@st.composite
def snapshots(draw: st.DrawFn, buckets: tuple[float, ...] | None = None) -> Snapshot:
    """Any snapshot; the same buckets throughout, drawn unless given."""
    buckets = draw(BUCKETS) if buckets is None else buckets
    names = draw(st.lists(NAMES | st.just(OVERFLOW_MODEL), unique=True, max_size=3))
    start = draw(TIMES)
    losses = (
        *("truncated_names", "saturated", "events_emitted"),
        *("events_dropped", "internal_errors"),
    )
    resources = st.builds(
        ResourceMetrics,
        memory_usage_mb=SECONDS,
        cpu_usage_percent=SECONDS,
        goroutine_count=st.integers(0, 2**53),
        timestamp=TIMES,
    )
    loaded = st.builds(
        LoadedModel,
        name=NAMES,
        loaded=st.booleans(),
        size=st.none() | st.integers(0, 2**53),
        context_length=st.none() | st.integers(0, 2**53),
        quantization=st.none() | NAMES,
        expires_at=st.none() | TIMES,
        loads=st.integers(0, 2**53),
    )
    return Snapshot(
        instance_id=draw(st.from_regex(r"[0-9a-f]{16}", fullmatch=True)),
        start_time=start,
        collection_time=start + draw(st.timedeltas(timedelta(0), timedelta(days=999))),
        uptime_seconds=draw(SECONDS),
        models={name: draw(performance_metrics(name, buckets)) for name in names},
        task_statistics=draw(task_statistics()),
        resource_metrics=draw(st.none() | resources),
        loaded_models=draw(st.dictionaries(NAMES, loaded, max_size=2)),
        invalid_values=draw(CODES),
        **{name: draw(st.integers(0, 2**53)) for name in losses},
    )
