# SPDX-License-Identifier: MIT
"""`Snapshot` to OTLP: the messages of the official `opentelemetry-proto` package.

What each number becomes:

- A counter is a cumulative monotonic sum since `snapshot.start_time`: an `int` exact up
  to 2^63 - 1, the protocol's limit, where it stops; seconds are doubles.
- A gauge is a gauge. `info` is a non-monotonic sum of 1, as OpenTelemetry's rules for
  Prometheus have it: adding it up over labels counts instances.
- A histogram is exponential, scale 5, in the very buckets that were counted; what lies
  outside their range is where `_otel_points` says, and the zero threshold is told.
- Or it is explicit, where a backend cannot read exponential ones: exact counts at the
  bounds of the GenAI conventions or the user's.

A snapshot becomes as many requests as it takes to keep each one small: collectors limit
the size (20 MB is common), memory stays bounded, and serializing holds the GIL for a
moment only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

try:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as Message
except ImportError:
    raise ImportError("OTLP needs more: pip install 'ollama-metrics[otlp]'") from None

from ometrics.export._otel_points import (
    INT64_MAX,
    Histogram,
    explicit,
    exponential,
    unix_nano,
)
from ometrics.export.names import Family, families, version
from ometrics.histogram import UINT64_MAX
from ometrics.snapshot import Snapshot
from ometrics.text import valid

HistogramKind: TypeAlias = Literal["exponential", "explicit"]
Attributes: TypeAlias = tuple[KeyValue, ...]

# Points of one request. An exponential histogram of 150 buckets takes about 400 bytes,
# so a request stays around a megabyte.
MAX_POINTS: Final = 2_000

_CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def requests(
    snapshot: Snapshot,
    resource: Mapping[str, str],
    *,
    histograms: HistogramKind = "exponential",
    max_points: int = MAX_POINTS,
) -> Iterator[ExportMetricsServiceRequest]:
    """
    The snapshot as OTLP export requests, each point in exactly one of them.

    Args:
        snapshot: What to export.
        resource: Attributes of who tells this. `service.instance.id` is the snapshot's
            whatever this says: one that processes share would mix up their counts.
        histograms: `exponential` or `explicit`.
        max_points: Data points in one request, at least 1.

    Thread-safety:
        Pure; the iterator is for one thread.
    """
    encoder = _Encoder(snapshot, histograms)
    # Any: the table's types know no messages, but tuples of them join as well.
    encode: Any = _attributes
    for batch in _batches(families(snapshot, encode), max_points):
        request = ExportMetricsServiceRequest()
        whole = request.resource_metrics.add()
        attributes = {**resource, "service.instance.id": valid(snapshot.instance_id)}
        whole.resource.attributes.extend(_attributes(attributes.items()))
        scope = whole.scope_metrics.add()
        scope.scope.name = "ometrics"
        scope.scope.version = version()
        for family in batch:
            encoder.fill(scope.metrics.add(), family)
        yield request


def _batches(
    whole: Iterable[Family[Any]], max_points: int
) -> Iterator[list[Family[Any]]]:
    """The families in lists of at most so many samples; one that is cut is in two."""
    batch: list[Family[Any]] = []
    room = max_points
    for family in whole:
        samples = iter(family.samples)
        while part := list(islice(samples, room)):
            batch.append(Family.of(family.metric, part))
            room -= len(part)
            if not room:
                yield batch
                batch, room = [], max_points
    if batch:
        yield batch


class _Encoder:
    """The messages of one snapshot: what all its points share."""

    def __init__(self, snapshot: Snapshot, histograms: HistogramKind) -> None:
        start = unix_nano(snapshot.start_time)
        # A wall clock that was set back in between: no point ends before it began.
        end = max(start, unix_nano(snapshot.collection_time))
        self._times: dict[str, Any] = {
            "start_time_unix_nano": start,
            "time_unix_nano": end,
        }
        self._exponential = histograms == "exponential"

    # Everything is made in its place: to append a message is to copy it.

    def fill(self, message: Message, family: Family[Any]) -> None:
        """One metric with these samples."""
        row = family.metric
        message.name, message.description, message.unit = row.name, row.help, row.unit
        if row.kind == "gauge":
            self._numbers(message.gauge.data_points, family)
        elif row.kind != "histogram":
            message.sum.aggregation_temporality = _CUMULATIVE
            message.sum.is_monotonic = row.kind == "counter"
            self._numbers(message.sum.data_points, family)
        elif self._exponential:
            message.exponential_histogram.aggregation_temporality = _CUMULATIVE
            self._exponentials(message.exponential_histogram.data_points, family)
        else:
            message.histogram.aggregation_temporality = _CUMULATIVE
            self._explicits(message.histogram.data_points, family)

    def _numbers(self, points: Any, family: Family[Any]) -> None:
        for labels, value in family.samples:
            point = points.add(attributes=labels, **self._times)
            if isinstance(value, int):
                point.as_int = min(value, INT64_MAX)
            else:
                point.as_double = value

    def _exponentials(self, points: Any, family: Family[Any]) -> None:
        for labels, value in family.samples:
            offset, counts, underflow = exponential(value)
            point = points.add(
                attributes=labels,
                scale=value.scale,
                zero_count=underflow,
                zero_threshold=value.zero_threshold,
                **self._summary(value),
            )
            point.positive.offset = offset
            point.positive.bucket_counts.extend(counts)

    def _explicits(self, points: Any, family: Family[Any]) -> None:
        for labels, value in family.samples:
            bounds, counts = explicit(family.metric, value)
            points.add(
                attributes=labels,
                explicit_bounds=bounds,
                bucket_counts=counts,
                **self._summary(value),
            )

    def _summary(self, value: Histogram) -> dict[str, Any]:
        """Count, sum, and the extremes as far as they are known."""
        summary = {"count": min(value.count, UINT64_MAX), "sum": value.total}
        if value.min is not None:
            summary["min"] = value.min
        if value.max is not None:
            summary["max"] = value.max
        return {**summary, **self._times}


def _attributes(labels: Iterable[tuple[str, str]]) -> Attributes:
    return tuple(
        KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in labels
    )
