"""The bridge into OpenTelemetry's SDK: its readers see what the snapshot says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import sample_snapshot, snapshots

pytest.importorskip("opentelemetry.sdk.metrics", reason="no opentelemetry-sdk")

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from ometrics import MetricsCollector
from ometrics.export.names import families
from ometrics.export.otel_bridge import HistogramExporter, bridge
from ometrics.snapshot import Snapshot

Points = dict[str, dict[frozenset[tuple[str, str]], Any]]
CUMULATIVE = AggregationTemporality.CUMULATIVE
INT64_MAX = 2**63 - 1
# Snapshots are large: a few dozen, however long a loaded machine takes for each.
ANY_SNAPSHOT = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class Source:
    """Snapshots, counted."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.now = snapshot
        self.asked = 0

    def snapshot(self) -> Snapshot:
        """The present one."""
        self.asked += 1
        return self.now


class Memory(MetricExporter):
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []
        self.shut = False

    def export(
        self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any
    ) -> MetricExportResult:
        """Keep it."""
        self.given.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing to do."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Note it."""
        self.shut = True


def metrics_of(data: Any) -> list[Any]:
    """Every metric of what a reader or exporter got."""
    return [
        metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def points_of(data: Any) -> Points:
    """Its points by metric and attributes."""
    return {
        metric.name: {
            frozenset(point.attributes.items()): point
            for point in metric.data.data_points
        }
        for metric in metrics_of(data)
    }


def expected_of(snapshot: Snapshot) -> dict[str, dict[frozenset[Any], float]]:
    """What the bridge should show of a snapshot."""
    expected: dict[str, dict[frozenset[Any], float]] = {}
    for family in families(snapshot):
        for labels, value in family.samples:
            shown = (
                {".count": value.count, ".sum": value.total}
                if family.metric.kind == "histogram"
                else {"": value}
            )
            for suffix, number in shown.items():
                series = expected.setdefault(family.metric.name + suffix, {})
                series[frozenset(labels)] = (
                    min(number, INT64_MAX) if isinstance(number, int) else number
                )
    return expected


@ANY_SNAPSHOT
@given(snapshots())
def test_any_snapshot(snapshot: Snapshot) -> None:
    """Names, attributes and values equal the snapshot's; ints stop where OTLP's do."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    bridge(Source(snapshot), provider)
    points = points_of(reader.get_metrics_data())
    found = {
        name: {labels: point.value for labels, point in series.items()}
        for name, series in points.items()
    }

    assert expected_of(snapshot) == found


def test_kinds_and_units() -> None:
    """Counters are monotonic sums, gauges gauges, and units are told."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    bridge(Source(sample_snapshot()), provider)
    found = {m.name: m for m in metrics_of(reader.get_metrics_data())}

    assert found["ometrics.requests"].data.is_monotonic
    assert "{request}" == found["ometrics.requests"].unit
    assert "s" == found["ometrics.uptime"].unit
    assert not hasattr(found["ometrics.uptime"].data, "is_monotonic")
    assert not found["ometrics.instance"].data.is_monotonic


def test_one_snapshot_a_collection() -> None:
    """All instruments of one collection tell of one instant, the next of the next."""
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    source = Source(sample_snapshot())
    bridge(source, provider)
    readers[0].collect()

    assert 1 == source.asked
    readers[1].collect()

    assert 2 == source.asked
    source.now = source.now.merge(source.now)
    found = points_of(readers[0].get_metrics_data())

    assert 3 == source.asked
    values = {
        labels: point.value for labels, point in found["ometrics.requests"].items()
    }

    assert expected_of(source.now)["ometrics.requests"] == values


def test_closed_bridge_shows_nothing() -> None:
    """After `close` no instrument tells anything and no snapshot is taken."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    source = Source(sample_snapshot())
    bridge(source, provider).close()

    assert {} == points_of(reader.get_metrics_data())
    assert 0 == source.asked


def test_global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a provider it is the program's global one."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    with MetricsCollector() as mc:
        mc.record_latency("m", 0.25)
        bridge(mc)
        points = points_of(reader.get_metrics_data())

    assert 3 == len(points["ometrics.requests"])


# --- HistogramExporter ---


def exported(source: Any, **options: Any) -> tuple[Any, Memory]:
    """What an exporter gets, wrapped, in a program with a metric of its own."""
    memory = Memory()
    reader = PeriodicExportingMetricReader(
        HistogramExporter(memory, source), export_interval_millis=1e9
    )
    provider = MeterProvider(
        metric_readers=[reader],
        resource=Resource({"service.name": "agent"}),
        shutdown_on_exit=False,
    )
    provider.get_meter("theirs").create_counter("their.counter").add(1)
    bridge(source, provider, **options)
    provider.force_flush()
    provider.shutdown()
    return memory.given[0], memory


@ANY_SNAPSHOT
@given(snapshots())
def test_histograms_whole(snapshot: Snapshot) -> None:
    """Every histogram arrives, exponential, with counts that add up."""
    data, memory = exported(Source(snapshot), histogram_sums=False)
    points = points_of(data)

    assert memory.shut
    assert 1 == len(data.resource_metrics)
    assert "agent" == data.resource_metrics[0].resource.attributes["service.name"]
    assert "their.counter" in points
    for family in families(snapshot):
        if family.metric.kind != "histogram":
            continue
        series = points[family.metric.name]

        assert {frozenset(labels) for labels, _ in family.samples} == series.keys()
        for labels, value in family.samples:
            point = series[frozenset(labels)]
            counts = point.positive.bucket_counts

            assert (value.count, value.total) == (point.count, point.sum)
            assert (value.min, value.max, 5) == (point.min, point.max, point.scale)
            assert value.count == sum(counts) + point.zero_count
            assert value.underflow == point.zero_count


def test_our_fault_does_not_cost_theirs() -> None:
    """If there is no snapshot, the program's own metrics go out without ours."""

    class Broken:
        def snapshot(self) -> Snapshot:
            raise MemoryError

    memory = Memory()
    data = object()

    assert MetricExportResult.SUCCESS == HistogramExporter(memory, Broken()).export(
        data  # type: ignore[arg-type]
    )
    assert [data] == memory.given


def test_encoded_by_the_official_exporter() -> None:
    """The encoder of the SDK's OTLP exporter takes all of it, at every limit."""
    encoder = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.common.metrics_encoder"
    )
    data, _ = exported(Source(sample_snapshot()))
    sent = encoder.encode_metrics(data)
    names = {
        metric.name
        for resource in sent.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }

    assert {family.metric.name for family in families(sample_snapshot())} <= names
