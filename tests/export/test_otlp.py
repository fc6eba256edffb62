"""OTLP messages: decoded by the official package, they say what the snapshot says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")
pytest.importorskip("opentelemetry.sdk", reason="no opentelemetry-sdk to compare with")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.resources import Resource
from otlp_collector import attributes, key, metrics_of, points_of, resource_of
from strategies import HOSTILE_NAME, START, sample_snapshot, snapshots

from ometrics import LatencyHistogram
from ometrics.export import _otlp_env
from ometrics.export.names import METRICS, families
from ometrics.export.otlp import PeriodicExporter, requests
from ometrics.histogram import UINT64_MAX, TokenHistogram
from ometrics.snapshot import PerformanceMetrics, Snapshot

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
START_NS = 1_767_323_045_678_901_000
END_NS = START_NS + 120_000_000_000
BASE = 2 ** (1 / 32)
# Snapshots are large: a few dozen, however long a loaded machine takes for each.
ANY_SNAPSHOT = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
MODEL = ("gen_ai.request.model", "m")


def decoded(snapshot: Snapshot, **options: Any) -> list[ExportMetricsServiceRequest]:
    """Encode, and read the bytes back."""
    return [
        ExportMetricsServiceRequest.FromString(request.SerializeToString())
        for request in requests(snapshot, {"service.name": "test"}, **options)
    ]


def of_model(**fields: Any) -> Snapshot:
    """A snapshot of one model `m`."""
    return Snapshot(
        instance_id="i",
        start_time=START,
        collection_time=START,
        uptime_seconds=0.0,
        models={"m": PerformanceMetrics(model="m", **fields)},
    )


def of_latencies(*values: float) -> Any:
    """The exponential point of these latencies."""
    snapshot = of_model(latency_hist=LatencyHistogram.of(values))
    return points_of(decoded(snapshot))["ometrics.request.duration"][key(MODEL)]


def check_number(metric: Any, point: Any, value: float) -> None:
    """The point has this value, as the type that it has."""
    if isinstance(value, int):
        assert "as_int" == point.WhichOneof("value"), metric.name
        assert min(value, 2**63 - 1) == point.as_int, metric.name
    else:
        assert value == point.as_double, metric.name


def check_histogram(point: Any, value: LatencyHistogram | TokenHistogram) -> None:
    """The exponential point has all that the histogram has."""
    counts = list(point.positive.bucket_counts)

    assert value.count == point.count == sum(counts) + point.zero_count
    assert 5 == point.scale
    assert value.total == point.sum
    assert value.underflow == point.zero_count
    lowest = 2.0**-6 if isinstance(value, TokenHistogram) else 2.0**-20
    assert lowest == point.zero_threshold
    assert 0 == len(point.negative.bucket_counts)
    assert value.min == (point.min if point.HasField("min") else None)
    assert value.max == (point.max if point.HasField("max") else None)

    end = 832 if isinstance(value, TokenHistogram) else 384
    inside = counts[: max(end - point.positive.offset, 0)]

    assert value.overflow == sum(counts) - sum(inside)
    assert tuple(inside) == value.counts + (0,) * (len(inside) - len(value.counts))
    if value.counts:
        assert value.offset == point.positive.offset


def check(snapshot: Snapshot, sent: list[ExportMetricsServiceRequest]) -> None:
    """Every number of the snapshot is there, under its name, and nothing else is."""
    points = points_of(sent)
    kinds = {m.name: m for request in sent for m in metrics_of(request)}
    expected = {family.metric.name: family for family in families(snapshot)}

    assert expected.keys() == points.keys()
    for name, family in expected.items():
        row, metric = family.metric, kinds[name]
        samples = {frozenset(labels): value for labels, value in family.samples}

        assert (row.help, row.unit) == (metric.description, metric.unit)
        assert samples.keys() == points[name].keys()
        for labels, value in samples.items():
            point = points[name][labels]
            if row.kind == "histogram":
                check_histogram(point, value)
            else:
                check_number(metric, point, value)


@ANY_SNAPSHOT
@given(snapshots(), st.sampled_from([1, 3, 50, 2000]))
def test_any_snapshot(snapshot: Snapshot, max_points: int) -> None:
    """Read back, everything equals the snapshot, however it was cut into requests."""
    sent = decoded(snapshot, max_points=max_points)

    check(snapshot, sent)
    sizes = [
        sum(
            len(getattr(metric, metric.WhichOneof("data")).data_points)
            for metric in metrics_of(request)
        )
        for request in sent
    ]

    assert [max_points] * (len(sizes) - 1) == sizes[:-1]
    assert 0 < sizes[-1] <= max_points


def test_sample() -> None:
    """The rich sample: kind, temporality, times, resource and scope of every metric."""
    (request,) = decoded(sample_snapshot())

    check(sample_snapshot(), [request])
    assert {
        "service.name": "test",
        "service.instance.id": "0123456789abcdef",
    } == resource_of(request)
    assert "ometrics" == request.resource_metrics[0].scope_metrics[0].scope.name
    rows = {row.name: row for row in METRICS}
    for metric in metrics_of(request):
        kind, row = metric.WhichOneof("data"), rows[metric.name]
        data = getattr(metric, kind)

        assert {
            "counter": "sum",
            "info": "sum",
            "gauge": "gauge",
            "histogram": "exponential_histogram",
        }[row.kind] == kind
        if kind != "gauge":
            assert CUMULATIVE == data.aggregation_temporality
        if kind == "sum":
            assert (row.kind == "counter") == data.is_monotonic
        for point in data.data_points:
            assert (START_NS, END_NS) == (
                point.start_time_unix_nano,
                point.time_unix_nano,
            )


def test_hostile_name() -> None:
    """A name is text to OTLP: quotes, line ends, NUL and markup arrive as they are."""
    points = points_of(decoded(sample_snapshot()))["ometrics.request.errors"]

    assert 2 == (
        points[
            key(("gen_ai.request.model", HOSTILE_NAME), ("error.type", "INVALID_MODEL"))
        ].as_int
    )


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "x" * 1_000_000, "\x00", ""])
def test_name_that_is_no_text(name: str) -> None:
    """Lone surrogates are replaced, a megabyte is carried; no name breaks the rest."""
    snapshot = Snapshot(
        instance_id=name,
        start_time=START,
        collection_time=START,
        uptime_seconds=0.0,
        models={name: PerformanceMetrics(model=name, successful_reqs=3)},
    )
    clean = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    sent = decoded(snapshot)
    labels = key(("gen_ai.request.model", clean), ("outcome", "success"))

    assert 3 == points_of(sent)["ometrics.requests"][labels].as_int


@pytest.mark.parametrize("count", [2**53 + 1, 2**63 - 1, 2**63, UINT64_MAX])
def test_counter_at_its_limit(count: int) -> None:
    """Exact to 2^63 - 1; there a counter stops, where OTLP has no more bits."""
    point = points_of(decoded(of_model(tokens_processed=count)))["ometrics.tokens"]

    assert min(count, 2**63 - 1) == point[key(MODEL)].as_int


def test_wall_clock_set_back() -> None:
    """A snapshot from before its own start is no point that ends before it begins."""
    late = sample_snapshot()
    snapshot = Snapshot(
        instance_id="i",
        start_time=late.collection_time,
        collection_time=late.start_time,
        uptime_seconds=1.0,
    )
    for series in points_of(decoded(snapshot)).values():
        for point in series.values():
            assert END_NS == point.start_time_unix_nano == point.time_unix_nano


# --- histograms ---


def test_every_value_is_within_its_bucket() -> None:
    """Bucket i is (base^i, base^(i+1)], by OpenTelemetry's definition."""
    for value in (1.5e-6, 0.001, 0.3, 0.7500001, 1.1, 59.9, 4000.0):
        point = of_latencies(value)
        index = point.positive.offset

        assert [1] == list(point.positive.bucket_counts)
        assert BASE**index < value <= BASE ** (index + 1)


def test_powers_of_two_close_their_bucket() -> None:
    """The upper bound belongs to the bucket: 1 s is the last of bucket -1."""
    assert -1 == of_latencies(1.0).positive.offset
    assert 31 == of_latencies(2.0).positive.offset
    assert 383 == of_latencies(4096.0).positive.offset


def test_out_of_range() -> None:
    """Underflow is the zero bucket, overflow the bucket above 2^12 s; `max` is true."""
    point = of_latencies(0.0, 2.0**-20, 1.0, 4096.1, 1e6)

    assert 2 == point.zero_count
    assert -1 == point.positive.offset
    assert [1, *[0] * 384, 2] == list(point.positive.bucket_counts)
    assert (5, 0.0, 1e6) == (point.count, point.min, point.max)


def test_overflow_only() -> None:
    """With nothing else there, the one bucket is the overflow's."""
    point = of_latencies(5000.0, 6000.0)

    assert (384, [2]) == (point.positive.offset, list(point.positive.bucket_counts))


def test_no_latency() -> None:
    """An empty histogram has no extremes and no buckets."""
    point = of_latencies()

    assert (0, 0.0, 0) == (point.count, point.sum, point.zero_count)
    assert not point.HasField("min")
    assert not point.HasField("max")


@ANY_SNAPSHOT
@given(snapshots())
def test_explicit_buckets(snapshot: Snapshot) -> None:
    """On demand: the exact bounds of the conventions, and counts that add up."""
    points = points_of(decoded(snapshot, histograms="explicit"))
    for family in families(snapshot):
        if family.metric.kind != "histogram":
            continue
        for labels, value in family.samples:
            point = points[family.metric.name][frozenset(labels)]
            bounds = family.metric.bounds or value.bucket_bounds
            counts = list(point.bucket_counts)
            below = [sum(counts[: i + 1]) for i in range(len(bounds))]

            assert bounds == tuple(point.explicit_bounds)
            assert list(value.cumulative(bounds)) == below
            assert value.count == point.count == sum(counts)


# --- environment ---


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "agent"},
        {"OTEL_RESOURCE_ATTRIBUTES": "a=1,b=%20x%2C,service.name=from-attributes"},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=x", "OTEL_SERVICE_NAME": "wins"},
        {"OTEL_RESOURCE_ATTRIBUTES": " a = b=c , broken,=x,, d=ä "},
    ],
)
def test_resource_is_the_sdks(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same attributes as OpenTelemetry's SDK, save who made the numbers."""
    for name in ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    theirs = dict(Resource.create().attributes)
    theirs.pop("service.instance.id", None)
    theirs.pop("", None)  # of "=x", which has no name
    ours = _otlp_env.resource()

    assert theirs.keys() == ours.keys()
    assert "ometrics" == ours["telemetry.sdk.name"]
    for name in theirs.keys() - {"telemetry.sdk.name", "telemetry.sdk.version"}:
        assert theirs[name] == ours[name]


def test_instance_id_is_not_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """One id for all processes would mix up their counts: the snapshot's wins."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=shared,x=y")
    (request,) = requests(sample_snapshot(), _otlp_env.resource())
    resource = resource_of(request)

    assert "0123456789abcdef" == resource["service.instance.id"]
    assert "y" == resource["x"]


DEFAULT_URL = "http://localhost:4318/v1/metrics"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, DEFAULT_URL),
        ({"ENDPOINT": "http://c:1"}, "http://c:1/v1/metrics"),
        ({"ENDPOINT": "https://c/base/"}, "https://c/base/v1/metrics"),
        ({"METRICS_ENDPOINT": "http://c/as/is"}, "http://c/as/is"),
        ({"ENDPOINT": "http://a", "METRICS_ENDPOINT": "http://b/x"}, "http://b/x"),
        ({"ENDPOINT": "grpc.example:4317"}, DEFAULT_URL),
    ],
)
def test_endpoint_of_the_environment(
    environment: dict[str, str], url: str, clean_environment: pytest.MonkeyPatch
) -> None:
    """The exact endpoint wins over the base; what is none is not used."""
    for name, value in environment.items():
        clean_environment.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    assert url == _otlp_env.target().url


def test_target_of_the_environment(clean_environment: pytest.MonkeyPatch) -> None:
    """Headers, timeout in seconds as the SDK has it, compression, certificates."""
    for name, value in {
        "OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b=,x=1,bad name=2,cr=a%0Ab,none",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "2.5",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
        "OTEL_METRIC_EXPORT_INTERVAL": "1500",
    }.items():
        clean_environment.setenv(name, value)
    target = _otlp_env.target(headers={"X": "2"})

    assert {"api-key": "a b=", "x": "2"} == target.headers
    assert (2.5, "gzip", "ca.pem") == (
        target.timeout,
        target.compression,
        target.certificate,
    )
    assert 1.5 == _otlp_env.interval(None)


@pytest.mark.parametrize("value", ["", "soon", "nan", "-1", "0", "inf"])
def test_senseless_environment(
    value: str, clean_environment: pytest.MonkeyPatch
) -> None:
    """An operator's slip leaves the default; it keeps no agent from starting."""
    for name in ("TIMEOUT", "COMPRESSION", "HEADERS", "ENDPOINT"):
        clean_environment.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    clean_environment.setenv("OTEL_METRIC_EXPORT_INTERVAL", value)
    target = _otlp_env.target()

    assert (10.0, "none", {}, DEFAULT_URL) == (
        target.timeout,
        target.compression,
        target.headers,
        target.url,
    )
    assert 60.0 == _otlp_env.interval(None)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of OpenTelemetry's but those that the test sets."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    "arguments",
    [
        {"endpoint": "localhost:4318"},
        {"endpoint": "ftp://c"},
        {"endpoint": "http://"},
        {"endpoint": "http://c:99999"},
        {"interval": 0},
        {"interval": math.nan},
        {"interval": math.inf},
        {"timeout": -1},
        {"timeout": math.inf},
        {"compression": "zstd"},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "b\nc"}},
        {"histograms": "summary"},
    ],
)
def test_wrong_argument(arguments: dict[str, Any]) -> None:
    """A wrong argument is a bug, told at once; nothing was started."""
    with pytest.raises(ValueError, match=r".+"):
        PeriodicExporter(_Still(), **arguments)


class _Still:
    """A source that is never asked."""

    def snapshot(self) -> Snapshot:
        raise AssertionError


def test_credentials_are_not_shown() -> None:
    """Neither headers, nor the URL's user and query, are in what people print."""
    target = _otlp_env.target(
        "https://user:secret@c.example/v1?key=secret", {"api-key": "secret"}
    )

    assert "<Target https://c.example/v1>" == repr(target)
    with pytest.raises(ValueError, match="gopher://c'") as caught:
        _otlp_env.target("gopher://user:secret@c/?key=secret")

    assert "secret" not in str(caught.value)


def test_not_loaded_with_the_package() -> None:
    """`import ometrics` loads neither OTLP nor HTTP; the missing extra is named."""
    code = """
import sys
import ometrics
assert not {"opentelemetry", "urllib3", "google.protobuf"} & sys.modules.keys()
sys.modules["urllib3"] = None
try:
    import ometrics.export.otlp
except ImportError as error:
    assert "ollama-metrics[otlp]" in str(error), error
else:
    raise SystemExit("imported without urllib3")
"""

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_attributes_come_once() -> None:
    """The helper's own check, that no attribute comes twice, is not vacuous."""
    request = next(requests(sample_snapshot(), {}))
    pairs = request.resource_metrics[0].resource.attributes
    pairs.extend(list(pairs))
    with pytest.raises(AssertionError):
        attributes(pairs)
