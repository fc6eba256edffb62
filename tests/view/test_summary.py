# SPDX-License-Identifier: MIT
"""Text for people: the original's lines, in bucket order, harmless and aligned."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HOSTILE_NAME, sample_snapshot, snapshots

from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)
from ometrics.view.escape import harmless
from ometrics.view.summary import histogram_summary, model_summary, summary

NOW = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=timezone.utc)


def example() -> Snapshot:
    """What the original's README records: two latencies, a failure, a task."""
    model = PerformanceMetrics(
        model="llama2",
        successful_reqs=2,
        failed_reqs=1,
        tokens_processed=500,
        errors={"TIMEOUT": 1},
        last_updated=NOW,
        latency_hist=LatencyHistogram.of([0.1, 0.15]),
        uptime_seconds=1.5,
    )
    return Snapshot(
        instance_id="i",
        start_time=NOW,
        collection_time=NOW,
        uptime_seconds=1.5,
        models={"llama2": model},
        task_statistics=TaskStatistics(completed_tasks=1),
        resource_metrics=ResourceMetrics(
            memory_usage_mb=512,
            cpu_usage_percent=45.5,
            goroutine_count=10,
            timestamp=NOW,
        ),
    )


# --- The original's lines


@pytest.mark.parametrize(
    "line",
    [
        "Total Requests: 3",
        "Total Errors: 1",
        "Error Rate: 33.33%",
        "Average Latency: 125ms",
        "Task Completion Rate: 100.00%",
        "Memory Usage: 512 MB",
        "CPU Usage: 45.50%",
        "Goroutines: 10",
        "Models Tracked: 1",
    ],
)
def test_summary_has_the_originals_line(line: str) -> None:
    """Each of the original's lines, as it is."""
    assert line in summary(example()).splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "Total Requests: 3",
        "Successful Requests: 2",
        "Failed Requests: 1",
        "Error Rate: 33.33%",
        "Min Latency: 100ms",
        "Max Latency: 150ms",
        "Avg Latency: 125ms",
        "P50 Latency: 100ms",
        "P99 Latency: 150ms",
        "Throughput: 2.00 req/s",
        "Tokens Processed: 500",
        "Avg Tokens/Request: 250.00",
        "Last Updated: 2026-03-04T05:06:07Z",
        "  TIMEOUT: 1",
    ],
)
def test_model_summary_has_the_originals_line(line: str) -> None:
    """The same for one model, percentiles and errors beside it."""
    assert line in model_summary(example().models["llama2"]).splitlines()


def test_histogram_rows_are_in_bucket_order() -> None:
    """The original sorts them as text; a bar shows each share of the largest."""
    text = histogram_summary(example().models["llama2"])
    rows = [line.split("  #")[0].strip() for line in text.splitlines()[2:]]

    assert [
        "1ms: 0 (0.00%)",
        "5ms: 0 (0.00%)",
        "10ms: 0 (0.00%)",
        "25ms: 0 (0.00%)",
        "50ms: 0 (0.00%)",
        "100ms: 1 (50.00%)",
        "250ms: 1 (50.00%)",
        "500ms: 0 (0.00%)",
        "1s: 0 (0.00%)",
        "5s: 0 (0.00%)",
        "10s+: 0 (0.00%)",
    ] == rows
    assert [30, 30] == [line.count("#") for line in text.splitlines() if "#" in line]


def test_small_counts_have_a_bar() -> None:
    """One in a million can be seen."""
    hist = LatencyHistogram.of([0.1] * 10_000 + [1.0])
    text = histogram_summary(PerformanceMetrics(model="m", latency_hist=hist))

    assert [30, 1] == [line.count("#") for line in text.splitlines() if "#" in line]


def test_rows_are_aligned() -> None:
    """Colons stand below each other, and so do the bars."""
    text = histogram_summary(sample_snapshot().models["llama3.2"])
    rows = text.splitlines()[2:]

    assert 1 == len({row.index(":") for row in rows})
    assert 1 == len({row.index("#") for row in rows if "#" in row})


# --- Beyond the original


def test_models_are_a_table() -> None:
    """One row a model, columns of one width."""
    lines = summary(sample_snapshot()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Model "))
    table = lines[start : start + 5]

    assert 1 == len(set(map(len, table)))
    assert ["qwen2.5:0.5b", "8", "2"] == table[1].split()[:3]
    assert ["256", "0.07"] == table[1].split()[-2:]


def test_losses_only_when_there_are_any() -> None:
    """What was lost is said; nothing is said of nothing."""
    assert "Not Counted In Full" not in summary(example())
    lines = summary(sample_snapshot()).splitlines()
    assert [
        "  invalid values (nan): 1",
        "  invalid values (negative): 2",
        "  requests past the limit of models: 2",
        "  names cut: 1",
        "  sums at their limit: 2",
        "  events dropped: 5",
        "  internal errors: 1",
    ] == lines[lines.index("Not Counted In Full:") + 1 :]


def test_where_the_time_went() -> None:
    """Server and network phases with mean, p95 and share; the shares add up."""
    text = model_summary(sample_snapshot().models["qwen2.5:0.5b"])
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Where The Time"))
    rows = [line.split() for line in lines[start + 1 : start + 7]]

    assert ["connect", "load", "prefill", "decode", "residual", "network"] == [
        r[0] for r in rows
    ]
    assert ["decode", "4", "890ms", "1.45s", "68.36%"] == rows[3][:5]
    shares = [float(cell[:-1]) for row in rows for cell in row if cell.endswith("%")]
    assert 100.0 == pytest.approx(sum(shares), abs=0.03)


@pytest.mark.parametrize(
    "line",
    [
        "Cancelled Requests: 1",
        "--- Calls: chat ---",
        "Outcomes: 4 succeeded, 2 failed, 1 cancelled",
        "In Flight: 2 (oldest 3.25s)",
        "Tokens: 412 prompt, 128 cached, 256 completion",
        "Token Rates: 458.1 tokens/s prefill, 67.4 tokens/s decode",
        "stop: 3",
        "STREAM_ERROR: 1",
        "first chunk 5 240ms 208ms 400ms 400ms",
        "--- Calls: embeddings ---",
        "Tokens: 20 prompt",
        "In Flight: 0",
    ],
)
def test_calls(line: str) -> None:
    """What instrumented calls told, without what they did not tell."""
    text = model_summary(sample_snapshot().models["qwen2.5:0.5b"])

    assert line in [" ".join(shown.split()) for shown in text.splitlines()]


def test_no_table_of_phases_without_durations() -> None:
    """A server that tells none (OpenAI-compatible) has no such table."""
    call = CallMetrics(operation="chat", latency=LatencyHistogram.of([1.0]))
    text = model_summary(PerformanceMetrics(model="m", calls={"chat": call}))

    assert "Where The Time Went" not in text
    assert "first chunk" not in text
    assert "Seen By The Client" in text


def test_what_is_not_known_is_left_out() -> None:
    """Nothing was recorded: no zeros, no `n/a`, and no rate of an instant."""
    empty = Snapshot(
        instance_id="i", start_time=NOW, collection_time=NOW, uptime_seconds=0.0
    )
    assert [
        "=== Metrics Summary ===",
        "Uptime: 0s",
        "Total Requests: 0",
        "Total Errors: 0",
        "Models Tracked: 0",
    ] == summary(empty).splitlines()
    assert [
        "=== Model: m ===",
        "Total Requests: 0",
        "Successful Requests: 0",
        "Failed Requests: 0",
        "Tokens Processed: 0",
    ] == model_summary(PerformanceMetrics(model="m")).splitlines()


def test_no_rate_of_microseconds() -> None:
    """A request 0.1 us after the start is no ten million requests a second."""
    model = PerformanceMetrics(model="m", successful_reqs=1, uptime_seconds=1e-7)
    snapshot = Snapshot(
        instance_id="i",
        start_time=NOW,
        collection_time=NOW,
        uptime_seconds=1e-7,
        models={"m": model},
    )

    assert "Throughput" not in model_summary(model)
    assert "n/a" == summary(snapshot).split()[-1]


def test_precision() -> None:
    """Extremes are exact, means have four digits and estimates three."""
    hist = LatencyHistogram.of([0.123456789, 0.2, 0.200000001, 0.3, 61.234567891])
    lines = model_summary(PerformanceMetrics(model="m", latency_hist=hist)).splitlines()

    assert {
        "Min Latency: 123.456789ms",
        "Max Latency: 1m1.234567891s",
        "Avg Latency: 12.41s",
        "P50 Latency: 201ms",
        "P99 Latency: 1m1.2s",
    } <= set(lines)


def test_time_is_utc() -> None:
    """Whatever the zone of the value."""
    zone = timezone(timedelta(hours=5, minutes=30))
    model = PerformanceMetrics(model="m", last_updated=NOW.astimezone(zone))

    assert "Last Updated: 2026-03-04T05:06:07Z" in model_summary(model)


# --- Hostile names


def test_names_are_harmless() -> None:
    """No control character, escape or direction override reaches a terminal."""
    snapshot = sample_snapshot()
    hostile = snapshot.models[HOSTILE_NAME]
    text = summary(snapshot) + model_summary(hostile) + histogram_summary(hostile)

    assert text.replace("\n", "").isprintable()
    assert 'evil"} 1\\n\\x1b[31m\\u202e<b>&\\{\\x00' in text
    assert '  Weird"Error\\n: 1' in model_summary(hostile).splitlines()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("llama3.2:1b", "llama3.2:1b"),
        ("名前 ü", "名前 ü"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\u2028\u200b\x7f\x9b", "\\u2028\\u200b\\x7f\\x9b"),
        ("\ud800", "\\ud800"),
        ("x" * 50, "x" * 37 + "..."),
    ],
)
def test_harmless(name: str, shown: str) -> None:
    """Letters of any script stay; the rest is written out."""
    assert shown == harmless(name, 40)


@given(st.text())
def test_any_text_becomes_printable(text: str) -> None:
    """On one line, whatever it holds; printable text stays as it is."""
    assert harmless(text).isprintable()
    assert not text.isprintable() or text == harmless(text)


@given(snapshots())
@settings(max_examples=50, deadline=None)
def test_any_snapshot_has_summaries(snapshot: Snapshot) -> None:
    """They never fail, and never break a terminal."""
    text = summary(snapshot)
    for model in snapshot.models.values():
        text += model_summary(model) + histogram_summary(model)

    assert text.replace("\n", "").isprintable()
    assert f"Total Requests: {snapshot.total_requests}" in text.splitlines()
