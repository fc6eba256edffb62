"""The table of names: complete, in the conventions' words, and consistent."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
from hypothesis import given
from strategies import START, sample_snapshot, snapshots

from ometrics.export.names import METRICS, families, prometheus_label
from ometrics.gpus import GpuMetrics
from ometrics.histogram import (
    GENAI_DURATION_BUCKETS,
    GENAI_TOKEN_BUCKETS,
    LatencyHistogram,
    TokenHistogram,
)
from ometrics.loaded import LoadedModel
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)

HIGH, LOW = "\ud800", "\udfff"  # surrogates
ROOT = Path(__file__).parents[2]

# Fields that are not numbers of their own: keys, containers, and windows of a model.
NOT_NUMBERS = {
    *("models", "task_statistics", "resource_metrics", "loaded_models", "gpus"),
    "gpus.*.name",
    *("loaded_models.*.name", "loaded_models.*.quantization"),
    "loaded_models.*.parameters",
    *("models.*.model", "models.*.calls", "models.*.uptime_seconds"),
    "models.*.calls.*.operation",
    "models.*.calls.*.provider",
}


def by_name(snapshot: Snapshot) -> dict[str, dict[tuple[str, ...], object]]:
    """Prometheus name -> values of the labels -> value."""
    return {
        family.metric.prometheus: {
            tuple(text for _, text in labels): value for labels, value in family.samples
        }
        for family in families(snapshot)
    }


def of_model(name: str, model: PerformanceMetrics) -> Snapshot:
    """A snapshot of one model."""
    return Snapshot(
        instance_id="i",
        start_time=START,
        collection_time=START,
        uptime_seconds=0.0,
        models={name: model},
    )


def test_every_field_of_the_snapshot_has_a_metric() -> None:
    """A field that is added to a read type must get a row, or this test fails."""
    fields = {
        prefix + field
        for prefix, struct in (
            ("", Snapshot),
            ("models.*.", PerformanceMetrics),
            ("models.*.calls.*.", CallMetrics),
            ("task_statistics.", TaskStatistics),
            ("resource_metrics.", ResourceMetrics),
            ("loaded_models.*.", LoadedModel),
            ("gpus.*.", GpuMetrics),
        )
        for field in struct.__struct_fields__
    }
    told = set()
    for metric in METRICS:
        first, *more = metric.source.split(", ")
        prefix = first[: first.rfind(".") + 1]
        told |= {first, *(prefix + field for field in more)}

    assert set() == fields - told - NOT_NUMBERS


def test_every_read_type_is_looked_at() -> None:
    """The test above sees each struct that a snapshot holds."""
    inner = {
        hint
        for struct in (Snapshot, PerformanceMetrics, CallMetrics)
        for hint in get_type_hints(struct).values()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct)
    }

    assert {TaskStatistics, LatencyHistogram, TokenHistogram} == inner


def test_names_are_unique_and_well_formed() -> None:
    """In each format, no two metrics share a name or differ in a suffix only."""
    assert len(METRICS) == len({metric.name for metric in METRICS})
    assert len(METRICS) == len({metric.prometheus_family for metric in METRICS})
    for metric in METRICS:
        assert re.fullmatch(r"(ometrics|gen_ai)(\.[a-z]+(_[a-z]+)*)+", metric.name)
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.prometheus)
        units = ("s", "By", "1", "J", "W", "Cel", "")
        assert metric.unit in units or metric.unit[0] == "{"
        for key in metric.labels:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", prometheus_label(key))


@pytest.mark.parametrize(
    ("name", "prometheus"),
    [
        ("ometrics.requests", "ometrics_requests_total"),
        ("ometrics.instance", "ometrics_instance_info"),
        ("ometrics.process.memory", "ometrics_process_memory_bytes"),
        ("ometrics.process.cpu.utilization", "ometrics_process_cpu_utilization_ratio"),
        ("ometrics.call.decode.time", "ometrics_call_decode_time_seconds_total"),
        (
            "gen_ai.client.operation.duration",
            "gen_ai_client_operation_duration_seconds",
        ),
        (
            "gen_ai.client.inference.usage.cache_read.input_tokens",
            "gen_ai_client_inference_usage_cache_read_input_tokens_total",
        ),
    ],
)
def test_standard_translation(name: str, prometheus: str) -> None:
    """Dots become underscores; unit and `_total` are appended."""
    metric = next(metric for metric in METRICS if metric.name == name)

    assert prometheus == metric.prometheus


def test_genai_metrics_have_the_bounds_and_attributes_of_the_conventions() -> None:
    """Required attributes, and the conventions' bounds for durations and tokens."""
    for family in families(sample_snapshot()):
        if family.metric.name.startswith("gen_ai."):
            keys = {key for labels, _ in family.samples for key, _ in labels}
            assert {
                *("gen_ai.operation.name", "gen_ai.provider.name"),
                "gen_ai.request.model",
            } <= keys
            if family.metric.kind == "histogram":
                tokens = family.metric.unit == "{token}"
                bounds = GENAI_TOKEN_BUCKETS if tokens else GENAI_DURATION_BUCKETS
                assert bounds == family.metric.bounds
            else:
                assert "gen_ai.token.modality" in keys


def test_values_of_the_sample() -> None:
    """Spot checks by hand against the fields."""
    told = by_name(sample_snapshot())
    qwen = "qwen2.5:0.5b"
    chat = (qwen, "chat", "ollama")

    requests = told["ometrics_requests_total"]
    assert [6, 2, 1] == [
        requests[qwen, outcome] for outcome in ("success", "failure", "cancelled")
    ]
    assert 3 == told["ometrics_call_done_reasons_total"][(*chat, "stop")]
    assert (
        412 == told["gen_ai_client_inference_usage_input_tokens_total"][(*chat, "text")]
    )
    assert 3.56 == told["ometrics_call_decode_time_seconds_total"][chat]
    assert 3.25 == told["ometrics_call_oldest_age_seconds"][chat]
    assert 4 == told["ometrics_call_phase_duration_seconds"][(*chat, "load")].count
    assert 5000.0 == told["ometrics_request_max_duration_seconds"]["llama3.2",]
    assert 9 == told["ometrics_tasks_total"]["success",]
    assert 0.05 == told["ometrics_task_min_duration_seconds"][()]
    assert 512e6 == told["ometrics_process_memory_bytes"][()]
    assert 0.455 == told["ometrics_process_cpu_utilization_ratio"][()]
    assert 2 == told["ometrics_invalid_values_total"]["negative",]
    assert 2 == told["ometrics_overflowed_requests_total"][()]
    assert START.timestamp() == told["ometrics_start_timestamp_seconds"][()]


def test_unknown_has_no_sample() -> None:
    """Law 5: what nobody told is absent, not 0."""
    told = by_name(sample_snapshot())
    embeddings = ("qwen2.5:0.5b", "embeddings", "ollama")

    cached = told["gen_ai_client_inference_usage_cache_read_input_tokens_total"]
    assert (*embeddings, "text") not in cached
    assert embeddings not in told["ometrics_call_oldest_age_seconds"]
    assert embeddings not in told["ometrics_call_time_to_first_answer_seconds"]
    assert (*embeddings, "load") not in told["ometrics_call_phase_duration_seconds"]
    empty = by_name(of_model("m", PerformanceMetrics(model="m")))
    assert "ometrics_request_min_duration_seconds" not in empty
    assert "ometrics_process_memory_bytes" not in empty
    assert 0 == empty["ometrics_request_duration_seconds"]["m",].count


@given(snapshots())
def test_any_snapshot_is_consistent(snapshot: Snapshot) -> None:
    """Each metric once, each set of labels once, values of the kind, no `None`."""
    seen = set()
    for family in families(snapshot):
        metric = family.metric
        assert metric.name not in seen
        seen.add(metric.name)
        assert len(family.samples) == len({labels for labels, _ in family.samples}) > 0
        for labels, value in family.samples:
            assert all(text.encode() is not None for _, text in labels)
            if metric.kind == "histogram":
                assert isinstance(value, LatencyHistogram | TokenHistogram)
            else:
                assert isinstance(value, int | float)
            if metric.kind == "counter":
                assert value >= 0


@given(snapshots())
def test_labels_may_be_encoded_by_the_exporter(snapshot: Snapshot) -> None:
    """`encode` changes how labels look, nothing else."""

    def encode(labels: tuple[tuple[str, str], ...]) -> str:
        return "".join(f"{key}\0{text}\1" for key, text in labels)

    plain = [
        (family.metric.name, [(encode(labels), v) for labels, v in family.samples])
        for family in families(snapshot)
    ]
    encoded = [(f.metric.name, f.samples) for f in families(snapshot, encode)]

    assert plain == encoded


def test_names_that_differ_in_surrogates_only_become_one() -> None:
    """
    Two series with the same labels would make Prometheus refuse the whole page.

    Seen to fail (two samples with equal labels) with `_by_clean_name` and `_clean_keys`
    replaced by `dict`.
    """
    one = PerformanceMetrics(
        model="m" + HIGH,
        successful_reqs=1,
        failed_reqs=3,
        errors={HIGH: 1, LOW: 2},
    )
    other = msgspec.structs.replace(one, model="m" + LOW)
    snapshot = msgspec.structs.replace(
        of_model(one.model, one), models={one.model: one, other.model: other}
    )

    told = by_name(snapshot)
    assert 2 == told["ometrics_requests_total"]["m\ufffd", "success"]
    assert {("m\ufffd", "\ufffd"): 6} == told["ometrics_request_errors_total"]


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not in the source tree")
def test_the_page_of_the_documentation_is_current() -> None:
    """`docs/metrics.md` is what `tools/metrics_page.py` writes today."""
    command = [sys.executable, "tools/metrics_page.py", "--check"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert "" == result.stdout + result.stderr
    assert 0 == result.returncode


def test_timestamps_are_seconds_since_1970() -> None:
    """A datetime leaves as a float of seconds."""
    told = by_name(of_model("m", PerformanceMetrics(model="m", last_updated=START)))
    value = told["ometrics_model_last_update_timestamp_seconds"]["m",]

    assert START == datetime.fromtimestamp(value, tz=START.tzinfo)
