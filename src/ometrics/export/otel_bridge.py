# SPDX-License-Identifier: MIT
"""Our numbers through OpenTelemetry's SDK, for a program that has it set up already.

`bridge(collector)` registers an observable instrument for every counter and gauge with
a `MeterProvider`; its readers and exporters do the rest. All instruments of one
collection are read from one snapshot.

What OpenTelemetry's API and SDK for Python make impossible, and what to do instead:

- There is no observable histogram, and no `MetricProducer` to bring finished ones. So
  the bridge shows the count and sum of each as two counters (`NAME.count`, `NAME.sum`),
  which give rates and means, no quantiles. Where the program makes its exporter itself,
  `HistogramExporter(exporter, collector)` around it adds the histograms, whole.
- The SDK says that counting began when the instrument was made. A `reset_metrics()` is
  a counter that goes back, which a backend takes for a restart.
- The SDK's points have no threshold of the zero bucket: values up to 2^-20 s (1 us)
  arrive as zero.
- The SDK keeps 2,000 attribute sets of an instrument and merges the rest.
- The resource is the provider's: the same `service.instance.id` in a forked child.

None of these holds for `ometrics.export.otlp.PeriodicExporter`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Buckets,
        ExponentialHistogram,
        ExponentialHistogramDataPoint,
        MetricExporter,
        MetricExportResult,
        MetricsData,
        ScopeMetrics,
    )
    from opentelemetry.sdk.metrics.export import Metric as SDKMetric
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ImportError:
    raise ImportError("the bridge needs opentelemetry-sdk") from None

from ometrics.export._otel_points import INT64_MAX, Histogram, exponential, unix_nano
from ometrics.export.names import METRICS, Family, Labels, MetricRow, families, version
from ometrics.snapshot import Snapshot
from ometrics.sources import Source

_SCOPE: Final = "ometrics"
# Its own: of two lists with the same scope the SDK's OTLP encoder keeps the last.
_HISTOGRAM_SCOPE: Final = "ometrics.histograms"
_LOG: Final = logging.getLogger(__name__)


def bridge(
    collector: Source,
    meter_provider: MeterProvider | None = None,
    *,
    histogram_sums: bool = True,
) -> MeterBridge:
    """
    Show a collector through a `MeterProvider`.

    Args:
        collector: What to show.
        meter_provider: Where; the program's global one by default.
        histogram_sums: Whether the count and sum of each histogram are shown as well;
            not wanted where `HistogramExporter` brings the histograms themselves.

    Returns:
        The bridge: `close()` ends it.
    """
    provider = (
        metrics.get_meter_provider() if meter_provider is None else meter_provider
    )
    return MeterBridge(collector, provider, histogram_sums=histogram_sums)


class MeterBridge:
    """
    Observable instruments over a collector; made by `bridge`.

    Thread-safety:
        The SDK runs the callbacks of one collection together, one collection at a time.
    """

    def __init__(
        self, collector: Source, provider: MeterProvider, *, histogram_sums: bool
    ) -> None:
        self._collector: Source | None = collector
        self._families: dict[str, Family[Labels]] = {}
        self._read: set[str] = set()
        meter = provider.get_meter(_SCOPE, version())
        for row in METRICS:
            if row.kind != "histogram":
                self._register(meter, row, row.name, row.unit, _number)
            elif histogram_sums:
                self._register(meter, row, f"{row.name}.count", "{value}", _count)
                self._register(meter, row, f"{row.name}.sum", row.unit, _sum)

    def close(self) -> None:
        """Show nothing any more; the API has no way to take instruments back."""
        self._collector = None
        self._families = {}

    def _register(
        self,
        meter: metrics.Meter,
        row: MetricRow,
        name: str,
        unit: str,
        value_of: Callable[[Any], float],
    ) -> None:
        create = {
            "counter": meter.create_observable_counter,
            "histogram": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
            "info": meter.create_observable_up_down_counter,
        }[row.kind]

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value_of(value), dict(labels))
                for labels, value in self._samples(name, row)
            ]

        create(name, callbacks=[observe], unit=unit, description=row.help)

    def _samples(self, name: str, row: MetricRow) -> Sequence[tuple[Labels, Any]]:
        """
        What this instrument has to tell in the collection that is under way.

        One that was read from this snapshot before is read by the next collection, so a
        new snapshot is taken: a callback cannot see otherwise where one begins.
        """
        if self._collector is None:
            return ()
        if name in self._read or not self._read:
            snapshot = self._collector.snapshot()
            self._families = {f.metric.name: f for f in families(snapshot)}
            self._read = set()
        self._read.add(name)
        family = self._families.get(row.name)
        return () if family is None else family.samples


class HistogramExporter(MetricExporter):
    """
    Adds a collector's histograms to what another exporter is given.

        reader = PeriodicExportingMetricReader(HistogramExporter(exporter, collector))

    They are exponential and cumulative since the collector's start, whatever the
    exporter prefers. They leave with the provider's own metrics, so there must be one,
    such as those of `bridge`.

    Args:
        exporter: Who sends; everything else is as it wants it.
        collector: Whose histograms.
    """

    def __init__(self, exporter: MetricExporter, collector: Source) -> None:
        super().__init__(
            # What the SDK's readers ask of an exporter; there is no public name for it.
            preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001
            preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001
        )
        self._exporter = exporter
        self._collector = collector

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send `metrics_data` and the histograms, or without if they cannot be had."""
        try:
            metrics_data = _with_histograms(metrics_data, self._collector.snapshot())
        except Exception as error:  # noqa: BLE001 - the program's own must go out
            _LOG.warning("histograms are left out: %s", type(error).__name__)
        return self._exporter.export(metrics_data, timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown(timeout_millis, **kwargs)


def _with_histograms(data: MetricsData, snapshot: Snapshot) -> MetricsData:
    """The same with one scope more, of the first resource, which is the provider's."""
    times: dict[str, Any] = {
        "start_time_unix_nano": unix_nano(snapshot.start_time),
        "time_unix_nano": unix_nano(snapshot.collection_time),
    }
    found = [
        SDKMetric(
            name=family.metric.name,
            description=family.metric.help,
            unit=family.metric.unit,
            data=ExponentialHistogram(
                data_points=[_point(*sample, times) for sample in family.samples],
                aggregation_temporality=AggregationTemporality.CUMULATIVE,
            ),
        )
        for family in families(snapshot)
        if family.metric.kind == "histogram"
    ]
    ours = InstrumentationScope(_HISTOGRAM_SCOPE, version())
    scope = ScopeMetrics(ours, found, schema_url="")
    first, *others = data.resource_metrics
    first = replace(first, scope_metrics=[*first.scope_metrics, scope])
    return MetricsData(resource_metrics=[first, *others])


def _point(
    labels: Labels, value: Histogram, times: dict[str, Any]
) -> ExponentialHistogramDataPoint:
    offset, counts, underflow = exponential(value)
    extremes: Any = {"min": value.min, "max": value.max}  # None is what OTLP leaves out
    return ExponentialHistogramDataPoint(
        attributes=dict(labels),
        count=value.count,
        sum=value.total,
        scale=value.scale,
        zero_count=underflow,
        positive=Buckets(offset, counts),
        negative=Buckets(0, []),
        flags=0,
        **times,
        **extremes,
    )


def _number(value: float) -> float:
    # One that OTLP cannot hold would cost the SDK's exporter the whole export.
    return min(value, INT64_MAX) if isinstance(value, int) else value


def _count(value: Histogram) -> int:
    return value.count


def _sum(value: Histogram) -> float:
    return value.total
