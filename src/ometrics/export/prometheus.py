# SPDX-License-Identifier: MIT
"""Snapshots for Prometheus: text 0.0.4, OpenMetrics 1.0, and protobuf.

Only protobuf carries native histograms: one series for 1,024 exact buckets, so that
quantiles are within 1.1 % over any set of processes. Prometheus asks for protobuf by
itself once its native histograms are switched on. The classic buckets stand beside the
native ones in the same message.

    page = prometheus.render(mc.snapshot(), prometheus.negotiate(accept_header))
    REGISTRY.register(prometheus.Bridge(mc))    # on a page of prometheus_client's

Names, types and labels: `docs/metrics.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from ometrics import _protobuf
from ometrics.export import _prometheus_text
from ometrics.export._prometheus_text import encoded
from ometrics.export.names import (
    METRICS,
    Family,
    Labels,
    MetricRow,
    Shown,
    families,
    prometheus_label,
)
from ometrics.histogram import LatencyHistogram, TokenHistogram
from ometrics.snapshot import Snapshot
from ometrics.sources import Source

if TYPE_CHECKING:
    from prometheus_client import Metric as ClientMetric


class Format(NamedTuple):
    """A format of the page, by its media type."""

    content_type: str


TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8")
OPENMETRICS: Final = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8"
)
PROTOBUF: Final = Format(
    "application/vnd.google.protobuf;"
    " proto=io.prometheus.client.MetricFamily; encoding=delimited"
)

# Media type -> format and the parameters that must have these values if they are there.
_MEDIA: Final[dict[str, tuple[Format, dict[str, str]]]] = {
    "application/vnd.google.protobuf": (
        PROTOBUF,
        {"proto": "io.prometheus.client.metricfamily", "encoding": "delimited"},
    ),
    "application/openmetrics-text": (OPENMETRICS, {"version": "1.0.0"}),
    "application/*": (OPENMETRICS, {}),
    "text/plain": (TEXT, {"version": "0.0.4"}),
    "text/*": (TEXT, {}),
    "*/*": (TEXT, {}),
}


def negotiate(accept: str | None) -> Format:
    """
    The format that an HTTP `Accept` header prefers.

    Args:
        accept: The header; `None` or empty if there was none.

    Returns:
        The acceptable format with the highest `q`, the first of several; text 0.0.4 if
        there is none, since a page in any format helps more than an error.
    """
    best, best_q = TEXT, 0.0
    for media_range in (accept or "").lower().split(","):
        media, *parameters = (part.strip() for part in media_range.split(";"))
        given = {
            key.strip(): value.strip(' "')
            for key, _, value in (parameter.partition("=") for parameter in parameters)
        }
        found, required = _MEDIA.get(media, (None, {}))
        if found is None or any(given.get(k, v) != v for k, v in required.items()):
            continue
        q = _quality(given.get("q", "1"))
        if q > best_q:
            best, best_q = found, q
    return best


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def render(
    snapshot: Shown,
    page_format: Format = TEXT,
    more: Iterable[Family[Labels]] = (),
    *,
    pace: Callable[[], object] | None = None,
) -> bytes:
    """
    The whole page.

    Args:
        snapshot: What to show; or several by name, each under its label `instance`.
        page_format: `TEXT`, `OPENMETRICS` or `PROTOBUF`.
        more: Families of other origin to show behind it, under names of their own.
        pace: Called several times a millisecond while the GIL is held, so that other
            threads can be let run; it may sleep.
    """
    if page_format == PROTOBUF:
        return _render_protobuf(snapshot, more, pace)
    openmetrics = page_format == OPENMETRICS
    return _prometheus_text.render(snapshot, more, openmetrics=openmetrics, pace=pace)


def _render_protobuf(
    snapshot: Shown,
    more: Iterable[Family[Labels]],
    pace: Callable[[], object] | None,
) -> bytes:
    created = b""  # several began at several times
    if isinstance(snapshot, Snapshot):
        start = snapshot.start_time
        created = _protobuf.timestamp(int(start.timestamp()), start.microsecond * 1000)
    return b"".join(
        _protobuf.family(
            family.metric.prometheus,
            family.metric.help,
            # As in text 0.0.4, information is a gauge that is always 1.
            "gauge" if family.metric.kind == "info" else family.metric.kind,
            family.metric.prometheus_unit,
            family.columns,
            created,
            family.metric.bounds,
            pace,
        )
        for family in chain(
            families(snapshot, _prometheus_text.paced(_protobuf.labels, pace)),
            encoded(more, _protobuf.labels),
        )
    )


class Bridge:
    """
    Shows a collector on a page of `prometheus_client`: `REGISTRY.register(Bridge(mc))`.

    Its histograms are classic ones, since `prometheus_client` knows no other; and it
    renders a series in microseconds where `render` takes a fraction of one.

    Args:
        source: Whose state to show.

    Thread-safety:
        Any thread; each collection is one snapshot.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> Iterator[ClientMetric]:
        """All metrics without samples: the registry refuses names that are taken."""
        return map(_client_metric, METRICS)

    def collect(self) -> Iterator[ClientMetric]:
        """All metrics at this instant."""
        for family in families(self._source.snapshot()):
            metric = _client_metric(family.metric)
            for labels, value in family.samples:
                named = {prometheus_label(key): text for key, text in labels}
                if family.metric.kind == "histogram":
                    _add_histogram(metric, named, value, family.metric.bounds)
                else:
                    metric.add_sample(family.metric.prometheus, named, value)
            yield metric


def _client_metric(metric: MetricRow) -> ClientMetric:
    from prometheus_client import Metric as ClientMetric

    return ClientMetric(
        metric.prometheus_family, metric.help, metric.kind, metric.prometheus_unit
    )


def _add_histogram(
    metric: ClientMetric,
    labels: dict[str, str],
    histogram: LatencyHistogram | TokenHistogram,
    bounds: tuple[float, ...] | None,
) -> None:
    bounds = bounds or histogram.bucket_bounds
    counts = [*histogram.cumulative(bounds), histogram.count]
    for bound, count in zip((*bounds, inf), counts, strict=True):
        le = {"le": _prometheus_text.number(bound)}
        metric.add_sample(metric.name + "_bucket", labels | le, count)
    metric.add_sample(metric.name + "_count", labels, histogram.count)
    metric.add_sample(metric.name + "_sum", labels, histogram.total)
