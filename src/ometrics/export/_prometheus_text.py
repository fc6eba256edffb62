# SPDX-License-Identifier: MIT
"""A snapshot as Prometheus text 0.0.4 or OpenMetrics 1.0.

Here are names and headers, once a metric; the lines, most of them bucket counts, are
written by `_exposition`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from ometrics import _exposition
from ometrics.export.names import Family, L, Labels, MetricRow, Shown, families
from ometrics.snapshot import Snapshot

number = _exposition.number_text


def encoded(
    found: Iterable[Family[Labels]], encode: Callable[[Labels], L]
) -> Iterator[Family[L]]:
    """Families of other origin with their labels as `families` gives them."""
    for family in found:
        samples = [(encode(labels), value) for labels, value in family.samples]
        yield Family.of(family.metric, samples)


def paced(
    encode: Callable[[Labels], bytes], pace: Callable[[], object] | None
) -> Callable[[Labels], bytes]:
    """The same, with `pace` called each time: once a model."""
    if pace is None:
        return encode

    def encode_at_a_pace(labels: Labels) -> bytes:
        pace()
        return encode(labels)

    return encode_at_a_pace


def render(
    snapshot: Shown,
    more: Iterable[Family[Labels]] = (),
    *,
    openmetrics: bool,
    pace: Callable[[], object] | None = None,
) -> bytes:
    """
    The page as UTF-8.

    Args:
        snapshot: What to show; of several, none says when its counters began.
        more: Families of other origin to show behind it.
        openmetrics: OpenMetrics 1.0 with units, creation times and `# EOF`, instead of
            text 0.0.4.
        pace: As of `prometheus.render`.
    """
    page = _exposition.TextPage(pace)
    since = b""
    if openmetrics and isinstance(snapshot, Snapshot):
        since = number(snapshot.start_time.timestamp()).encode()
    for family in chain(
        families(snapshot, paced(_exposition.labels, pace)),
        encoded(more, _exposition.labels),
    ):
        metric = family.metric
        page.text(_header(metric, openmetrics=openmetrics).encode())
        name = metric.prometheus.encode()
        if metric.kind == "histogram":
            page.histograms(name, family.columns, metric.bounds, since)
        elif metric.kind == "counter" and since:
            created = f"{metric.prometheus_family}_created ".encode() + since
            page.numbers(name, family.columns, created)
        else:
            page.numbers(name, family.columns, b"")
    if openmetrics:
        page.text(b"# EOF\n")
    return page.value()


def _header(metric: MetricRow, *, openmetrics: bool) -> str:
    name = metric.prometheus_family if openmetrics else metric.prometheus
    # Text 0.0.4 knows no info: there it is a gauge that is always 1.
    kind = "gauge" if metric.kind == "info" and not openmetrics else metric.kind
    unit = metric.prometheus_unit if openmetrics else ""
    unit_line = f"# UNIT {name} {unit}\n" if unit else ""
    return f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n{unit_line}"
