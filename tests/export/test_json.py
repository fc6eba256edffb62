# SPDX-License-Identifier: MIT
"""The JSON document: the original's keys and types, nothing lost, atomic on disk."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    BUCKETS,
    HOSTILE_NAME,
    histograms,
    performance_metrics,
    sample_snapshot,
    snapshots,
)

from ometrics.collector import MetricsCollector
from ometrics.durations import format_duration
from ometrics.export import _document
from ometrics.export import json as json_format
from ometrics.histogram import (
    UINT64_MAX,
    LatencyHistogram,
    TokenHistogram,
    layout_of,
)
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)

DATA = Path(__file__).parents[1] / "data"
NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=timezone.utc)
SCHEMA = json.loads(_document.SCHEMA_FILE.read_text(encoding="utf-8"))


def strict(data: bytes) -> Any:
    """Parse as RFC 8259 has it: no NaN, no infinity, no repeated key."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(data, parse_constant=refuse, object_pairs_hook=unique)


def snapshot_of(*models: PerformanceMetrics) -> Snapshot:
    """A snapshot of these models and nothing else."""
    return Snapshot(
        instance_id="i",
        start_time=NOW,
        collection_time=NOW,
        uptime_seconds=1.5,
        models={model.model: model for model in models},
    )


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
    return msgspec.structs.replace(
        snapshot_of(model),
        task_statistics=TaskStatistics(completed_tasks=1, sum_ns=150_000_000),
        resource_metrics=ResourceMetrics(
            memory_usage_mb=512.25,
            cpu_usage_percent=45.5,
            goroutine_count=10,
            timestamp=NOW,
        ),
    )


# --- The original's document


def test_keys_and_types_of_the_original() -> None:
    """Every key of the original is there, with its type; durations as in Go."""
    document = strict(example().to_json())
    model = document["model_metrics"]["llama2"]
    expected = {
        "model": "llama2",
        "total_requests": 3,
        "successful_reqs": 2,
        "failed_reqs": 1,
        "avg_latency": "125ms",
        "throughput": 2.0,
        "error_rate": 100 / 3,
        "tokens_processed": 500,
        "avg_tokens_per_req": 250.0,
    }

    assert list(expected.items()) == list(model.items())[: len(expected)]
    assert [type(value) for value in expected.values()] == [
        type(model[key]) for key in expected
    ]
    assert {
        "start_time": "2026-03-04T05:06:07.000089Z",
        "collection_time": "2026-03-04T05:06:07.000089Z",
        "uptime_seconds": 1.5,
        "total_requests": 3,
        "total_errors": 1,
        "overall_error_rate": 100 / 3,
    }.items() <= document.items()
    assert {
        "total_tasks": 1,
        "completed_tasks": 1,
        "failed_tasks": 0,
        "success_rate": 100.0,
    }.items() <= document["task_statistics"].items()
    assert {
        "memory_usage_mb": 512,
        "cpu_usage_percent": 45.5,
        "goroutine_count": 10,
    }.items() <= document["resource_metrics"].items()
    assert int is type(document["resource_metrics"]["memory_usage_mb"])


def test_mean_of_nothing() -> None:
    """The original's string says `0s`; ours beside it says that nobody knows."""
    model = PerformanceMetrics(model="m", failed_reqs=1)
    document = strict(snapshot_of(model).to_json())["model_metrics"]["m"]

    assert "0s" == document["avg_latency"]
    assert [None] * 5 == [
        document[key]
        for key in (
            *("avg_latency_seconds", "min_latency", "min_latency_seconds"),
            *("max_latency", "max_latency_seconds"),
        )
    ]


def test_additions() -> None:
    """Every view of the histogram, errors by code, and what was lost."""
    snapshot = sample_snapshot()
    document = strict(snapshot.to_json())
    model = document["model_metrics"]["llama3.2"]
    hist = snapshot.models["llama3.2"].latency_hist

    assert hist.buckets == model["latency_hist"]["buckets"]
    assert {"ValueError": 1} == model["errors"]
    assert "1h23m20s" == model["max_latency"]
    assert 5000.0 == model["max_latency_seconds"]
    assert hist.sum_ns == model["latency_hist"]["sum_ns"]
    assert (
        snapshot.models["llama3.2"].latency_p99
        == (model["latency_hist"]["percentiles_seconds"]["p99"])
    )
    assert {
        "schema_version": 1,
        "instance_id": "0123456789abcdef",
        "invalid_values": {"nan": 1, "negative": 2},
        "overflowed_requests": 2,
        "truncated_names": 1,
        "saturated": 2,
        "events_emitted": 40,
        "events_dropped": 5,
        "internal_errors": 1,
    }.items() <= document.items()
    assert HOSTILE_NAME in document["model_metrics"]


def test_every_field_of_the_read_types_is_there() -> None:
    """No field of a model, a call, the tasks or the snapshot is left out."""
    snapshot = sample_snapshot()
    document = strict(snapshot.to_json())
    model = document["model_metrics"]["qwen2.5:0.5b"]
    pairs = [
        (snapshot, document | {"models": ()}),
        (snapshot.models["qwen2.5:0.5b"], model),
        (snapshot.models["qwen2.5:0.5b"].calls["chat"], model["calls"]["chat"]),
        (snapshot.task_statistics, document["task_statistics"]),
        (snapshot.resource_metrics, document["resource_metrics"]),
    ]

    for struct, shown in pairs:
        assert set() == set(struct.__struct_fields__) - shown.keys()


@given(performance_metrics("m"))
def test_computed_keys_are_the_properties(model: PerformanceMetrics) -> None:
    """What the writer computes in C is what the read types say, to the last bit."""
    document = strict(snapshot_of(model).to_json())["model_metrics"]["m"]
    latency = model.latency_hist

    assert {
        "total_requests": min(model.total_requests, UINT64_MAX),
        "throughput": model.throughput or 0.0,
        "error_rate": model.error_rate,
        "avg_tokens_per_req": model.avg_tokens_per_req or 0.0,
        "avg_latency_seconds": latency.mean,
        "min_latency_seconds": latency.min,
        "max_latency_seconds": latency.max,
        "total_latency_seconds": latency.total,
        "total_latency": format_duration(latency.sum_ns),
    }.items() <= document.items()


# --- The text


def spread(value: Any, indent: str = "") -> str:
    """Plain oracle of the layout: arrays on one line."""
    if not isinstance(value, dict) or not value:
        return msgspec.json.encode(value).decode()
    inner = indent + "  "
    lines = [
        f"{inner}{msgspec.json.encode(key).decode()}: {spread(item, inner)}"
        for key, item in value.items()
    ]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def test_two_space_indent() -> None:
    """As `json.dumps(indent=2)`, but an array stays on one line."""
    text = sample_snapshot().to_json()

    assert spread(strict(text)) + "\n" == text.decode()


@given(histograms())
def test_views_are_those_of_the_histogram(hist: LatencyHistogram) -> None:
    """What one pass writes equals what the read type says, quantiles included."""
    model = PerformanceMetrics(model="m", latency_hist=hist)
    shown = strict(snapshot_of(model).to_json())["model_metrics"]["m"]["latency_hist"]
    bounds = layout_of(hist.bucket_bounds).bounds
    offset, counts, underflow, overflow = hist.exponential()
    below = [0, *hist.cumulative(bounds), hist.count]

    assert {
        "count": hist.count,
        "sum_ns": hist.sum_ns,
        "total_seconds": hist.total,
        "mean_seconds": hist.mean,
        "min_seconds": hist.min,
        "max_seconds": hist.max,
        "percentiles_seconds": {
            f"p{str(100 * q).replace('.0', '').replace('.', '')}": hist.quantile(q)
            for q in (0.5, 0.9, 0.95, 0.99, 0.999)
        },
        "buckets": hist.buckets,
        "bucket_bounds_seconds": list(hist.bucket_bounds),
        "explicit": {
            "bounds_seconds": list(bounds),
            "counts": [b - a for a, b in pairwise(below)],
        },
        "exponential": {
            "scale": 5,
            "offset": offset,
            "counts": counts,
            "underflow": underflow,
            "overflow": overflow,
        },
    } == shown


# --- Nothing is lost


def test_sample_round_trip() -> None:
    """A snapshot with something in every field comes back equal."""
    snapshot = sample_snapshot()

    assert snapshot == Snapshot.from_json(snapshot.to_json())
    assert snapshot == json_format.load(snapshot.to_json().decode())


@given(snapshots())
@settings(max_examples=100, deadline=None)
def test_round_trip(snapshot: Snapshot) -> None:
    """Any snapshot comes back equal, and the document is strict JSON of the schema."""
    data = json_format.dump(snapshot)

    assert snapshot == json_format.load(data)
    jsonschema.Draft202012Validator(SCHEMA).validate(strict(data))


def test_largest_counts() -> None:
    """64-bit counters are exact; sums beyond stop there."""
    model = PerformanceMetrics(
        model="m",
        successful_reqs=UINT64_MAX,
        latency_unknown=UINT64_MAX,
        failed_reqs=1,
        errors={"TIMEOUT": 1},
        tokens_processed=2**53 + 1,
    )
    snapshot = snapshot_of(model)
    document = strict(snapshot.to_json())

    assert snapshot == Snapshot.from_json(snapshot.to_json())
    assert UINT64_MAX == document["total_requests"]
    assert 2**53 + 1 == document["model_metrics"]["m"]["tokens_processed"]


def test_half_a_surrogate_pair_is_replaced() -> None:
    """A hand-made snapshot may hold one; a document cannot."""
    snapshot = snapshot_of(PerformanceMetrics(model="a\ud800", errors={"b\udfff": 1}))
    model = strict(snapshot.to_json())["model_metrics"]["a?"]

    assert ("a?", {"b?": 1}) == (model["model"], model["errors"])
    assert {"count", "buckets"} <= model["latency_hist"].keys()


def test_unknown_keys_are_ignored() -> None:
    """A later version may add keys."""
    snapshot = sample_snapshot()
    document = json.loads(snapshot.to_json())
    document["later"] = {"a": [1]}
    document["model_metrics"]["llama3.2"]["later"] = None
    document["model_metrics"]["llama3.2"]["latency_hist"]["later"] = 1.5

    assert snapshot == Snapshot.from_json(json.dumps(document))


# --- Bad input

MODEL = "$.model_metrics['llama3.2']"
HIST = f"{MODEL}.latency_hist"
BAD: list[tuple[str, Any, str]] = [
    ("total_requests", "many", "$.total_requests"),
    ("total_requests", 5, "$.total_requests"),
    ("total_errors", -1, "$.total_errors"),
    ("start_time", "yesterday", "$.start_time"),
    ("start_time", "2026-01-01T00:00:00", "$.start_time"),
    ("uptime_seconds", None, "$.uptime_seconds"),
    ("uptime_seconds", -1.0, "$.uptime_seconds"),
    ("instance_id", 5, "$.instance_id"),
    ("invalid_values", {"nan": 2**64}, "$.invalid_values['nan']"),
    ("invalid_values", {"nan": 1.5}, "$.invalid_values"),
    ("task_statistics.total_tasks", 1, "$.task_statistics.total_tasks"),
    ("task_statistics.sum_ns", -1, "$.task_statistics.sum_ns"),
    ("resource_metrics.timestamp", 0, "$.resource_metrics.timestamp"),
    ("model_metrics", [], "$.model_metrics"),
    (f"{MODEL}.failed_reqs", -1, f"{MODEL}.failed_reqs"),
    (f"{MODEL}.failed_reqs", 1.5, f"{MODEL}.failed_reqs"),
    (f"{MODEL}.total_requests", 1, f"{MODEL}.total_requests"),
    (f"{MODEL}.avg_latency", "fast", f"{MODEL}.avg_latency"),
    (f"{MODEL}.latency_hist", None, HIST),
    (f"{HIST}.count", 1, f"{HIST}.count"),
    (f"{HIST}.sum_ns", 2**64, f"{HIST}.sum_ns"),
    (f"{HIST}.min_seconds", 1e9, f"{HIST}.min_seconds"),
    (f"{HIST}.buckets", {}, f"{HIST}.buckets"),
    (f"{HIST}.bucket_bounds_seconds", [2.0, 1.0], f"{HIST}.bucket_bounds_seconds"),
    (f"{HIST}.explicit.bounds_seconds", [1.0], f"{HIST}.explicit.bounds_seconds"),
    (f"{HIST}.explicit.counts", [7], f"{HIST}.explicit.counts"),
    (f"{HIST}.exponential.scale", 4, f"{HIST}.exponential.scale"),
    (f"{HIST}.exponential.offset", 2**70, f"{HIST}.exponential.offset"),
    (f"{HIST}.exponential.offset", 380, f"{HIST}.exponential"),
    (f"{HIST}.exponential.underflow", 0, f"{HIST}.exponential"),
    (f"{HIST}.exponential.overflow", 5, f"{HIST}.exponential"),
    (f"{HIST}.exponential.counts", [-1], f"{HIST}.exponential.counts"),
]


@pytest.mark.parametrize(("path", "value", "named"), BAD)
def test_bad_field_is_named(path: str, value: Any, named: str) -> None:
    """A wrong type, a negative count, counts that contradict each other: the path."""
    document = json.loads(sample_snapshot().to_json())
    steps = path.replace("$.", "").replace("['llama3.2']", ".llama3_2").split(".")
    steps = [step.replace("llama3_2", "llama3.2") for step in steps]
    inner = document
    for step in steps[:-1]:
        inner = inner[step]
    assert steps[-1] in inner
    inner[steps[-1]] = value
    with pytest.raises(ValueError, match="not a metrics document") as caught:
        Snapshot.from_json(json.dumps(document))

    assert f"{named}" in str(caught.value)


@pytest.mark.parametrize("key", ["models", "start_time", "model_metrics"])
def test_missing_field_is_named(key: str) -> None:
    """The message has the key that is not there."""
    document = json.loads(sample_snapshot().to_json())
    if key == "models":
        key = "successful_reqs"
        del document["model_metrics"]["llama3.2"][key]
    else:
        del document[key]
    with pytest.raises(ValueError, match=f"missing required field `{key}`"):
        Snapshot.from_json(json.dumps(document))


def test_a_document_of_an_earlier_version() -> None:
    """
    What was not counted then is unknown where a number can be, else nothing.

    The file has the keys of the version before calls had retries, segments and stalls.
    """
    text = (DATA / "metrics-before-retries.json").read_bytes()
    snapshot, whole = Snapshot.from_json(text), sample_snapshot()
    calls = [call for m in snapshot.models.values() for call in m.calls.values()]

    assert {(None, 0)} == {(call.retries, call.retries_known) for call in calls}
    assert {0} == {model.stalled_calls for model in snapshot.models.values()}
    assert (0, {}) == (snapshot.segment_failures, snapshot.segments_bad)
    assert whole.total_requests == snapshot.total_requests
    assert snapshot == Snapshot.from_json(snapshot.to_json())


def objects_of(document: Any, owner: type) -> list[Any]:
    """All objects of one read type."""
    models = list(document["model_metrics"].values())
    calls = [call for model in models for call in model["calls"].values()]
    return {Snapshot: [document], PerformanceMetrics: models, CallMetrics: calls}[owner]


LATER = [
    (owner, key.name)
    for owner in (Snapshot, PerformanceMetrics, CallMetrics)
    for key in _document.keys_of(owner)
    if key.is_later
]


@pytest.mark.parametrize(("owner", "key"), LATER, ids=[key for _, key in LATER])
def test_a_later_key_may_be_missing(owner: type, key: str) -> None:
    """All other keys read and write as before."""
    document = json.loads(sample_snapshot().to_json())
    for item in objects_of(document, owner):
        del item[key]
    written = json.loads(Snapshot.from_json(json.dumps(document)).to_json())
    for item in objects_of(written, owner):
        del item[key]
    assert document == written


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(text: str) -> None:
    """JSON has no NaN; Python's own parser would let it in."""
    data = sample_snapshot().to_json()
    field = b'"uptime_seconds": '
    bad = data.replace(field + b"120.0", field + text.encode())

    assert bad != data
    with pytest.raises(ValueError, match="not a"):
        Snapshot.from_json(bad)


def test_truncated_anywhere() -> None:
    """A document cut at any place is refused; none of it is taken for all."""
    data = sample_snapshot().to_json().rstrip()
    for length in [*range(40), *range(40, len(data), 97), len(data) - 1]:
        with pytest.raises(ValueError, match="not a"):
            Snapshot.from_json(data[:length])


@given(st.binary(max_size=64), st.integers(0, 10**9), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_document(noise: bytes, place: int, data: st.DataObject) -> None:
    """Whatever the damage: a `ValueError` or a snapshot, never another exception."""
    text = sample_snapshot().to_json()
    place %= len(text)
    cut = data.draw(st.integers(0, 40))
    try:
        snapshot = Snapshot.from_json(text[:place] + noise + text[place + cut :])
    except ValueError:
        return

    assert snapshot == Snapshot.from_json(snapshot.to_json())


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"null", b"\xff", b'"a"'])
def test_no_document_at_all(data: bytes) -> None:
    """Other JSON, and what is no JSON."""
    with pytest.raises(ValueError, match="not a"):
        Snapshot.from_json(data)


def test_later_schema_version() -> None:
    """It says what to do, before anything else of the document can fail."""
    with pytest.raises(ValueError, match=r"schema_version: 2 is unknown.*upgrade"):
        Snapshot.from_json('{"schema_version": 2, "start_time": {}}')


def test_document_of_the_original_package() -> None:
    """It has no schema version and not enough to make a snapshot of."""
    with pytest.raises(ValueError, match="those of the original package"):
        Snapshot.from_json('{"start_time": "2026-01-01T00:00:00Z"}')


# --- The schema


def test_schema_is_up_to_date() -> None:
    """`python -m ometrics.export._document` writes it anew."""
    assert _document.schema_text() == _document.SCHEMA_FILE.read_bytes()


def test_schema_itself_is_valid() -> None:
    """It is a schema of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    assert "https://json-schema.org/draft/2020-12/schema" == SCHEMA["$schema"]


def test_schema_refuses() -> None:
    """A schema that takes everything would pass the other tests."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    document = json.loads(sample_snapshot().to_json())

    assert validator.is_valid(document)
    for key, value in (("total_requests", -1), ("start_time", 5), ("saturated", "a")):
        assert not validator.is_valid(document | {key: value})
    assert not validator.is_valid({"schema_version": 1})
    document["model_metrics"]["llama3.2"]["avg_latency"] = "fast"
    assert not validator.is_valid(document)


# --- The file


def test_write(tmp_path: Path) -> None:
    """The file is the document; how files are replaced is tested in `test_files.py`."""
    path = tmp_path / "metrics.json"
    json_format.write(example(), path)

    assert example() == Snapshot.from_json(path.read_bytes())


# --- Tokens


@given(st.lists(st.integers(0, 2**40), max_size=40), BUCKETS)
def test_tokens_round_trip(numbers: list[int], buckets: tuple[float, ...]) -> None:
    """A histogram of tokens is written in tokens, validated, and read back equal."""
    hist = TokenHistogram.of(numbers, buckets)
    text = json_format._writer.write(hist)
    shown = strict(text)
    offset, counts, underflow, overflow = hist.exponential()

    assert hist == json_format._to_tokens(
        msgspec.json.decode(text, type=_document.Tokens)
    )
    assert (hist.count, hist.total, hist.mean, hist.min, hist.max) == tuple(
        shown[key] for key in ("count", "total", "mean", "min", "max")
    )
    assert shown["percentiles"] == {
        name: hist.quantile(q) for name, q in _document.QUANTILES.items()
    }
    assert shown["exponential"] == {
        "scale": 5,
        "offset": offset,
        "counts": counts,
        "underflow": underflow,
        "overflow": overflow,
    }
    assert [bound * 2**14 for bound in layout_of(buckets).bounds] == (
        shown["explicit"]["bounds"]
    )
    assert sum(shown["explicit"]["counts"]) == hist.count


def test_calls_of_another_provider_read_back() -> None:
    """Calls of one operation that two providers served stay apart, there and back."""
    collector = MetricsCollector()
    for provider in ("ollama", "openai"):
        collector.start_call("m", "chat", provider).end("success")
    snapshot = collector.snapshot()

    assert {"chat", "chat@openai"} == set(snapshot.models["m"].calls)
    assert snapshot == Snapshot.from_json(snapshot.to_json())
