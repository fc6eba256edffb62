# SPDX-License-Identifier: MIT
"""A snapshot as Prometheus text 0.0.4 or OpenMetrics 1.0.

A page is mostly bucket lines. So the lines of a histogram are one template into which
Python's `%` puts all counts at once, and labels are escaped once a model: some 200 ns a
line, which needs no compiled code; `prometheus_client` takes several microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import inf
from typing import Final

from ometrics.export.names import Family, L, Labels, Metric, families, prometheus_label
from ometrics.snapshot import Snapshot

# Stands for the labels in a template; replaced last, so labels may contain it.
_LABELS: Final = "\0"
_SPECIAL: Final = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
_ESCAPES: Final = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
_ESCAPED: Final = re.compile(r'[\\"\n]')


def number(value: float) -> str:
    """`value` as both formats write it; integers keep every digit."""
    text = str(value)
    return _SPECIAL.get(text, text)


def encoded(
    found: Iterable[Family[Labels]], encode: Callable[[Labels], L]
) -> Iterator[Family[L]]:
    """Families of other origin with their labels as `families` gives them."""
    for family in found:
        samples = [(encode(labels), value) for labels, value in family.samples]
        yield Family(family.metric, samples)


def render(
    snapshot: Snapshot, more: Iterable[Family[Labels]] = (), *, openmetrics: bool
) -> bytes:
    """
    The page as UTF-8.

    Args:
        snapshot: What to show.
        more: Families of other origin to show behind it.
        openmetrics: OpenMetrics 1.0 with units, creation times and `# EOF`, instead of
            text 0.0.4.
    """
    created = number(snapshot.start_time.timestamp()) if openmetrics else None
    parts: list[str] = []
    for family in chain(families(snapshot, _label_text), encoded(more, _label_text)):
        parts.append(_header(family.metric, openmetrics=openmetrics))
        lines = _histograms if family.metric.kind == "histogram" else _numbers
        parts.extend(lines(family, created))
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _label_text(labels: Labels) -> str:
    """`,key="value"` for each label: with the comma first they can be joined."""
    return "".join(
        [f',{prometheus_label(key)}="{_escape(value)}"' for key, value in labels]
    )


def _escape(value: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], value)


def _header(metric: Metric, *, openmetrics: bool) -> str:
    name = metric.prometheus_family if openmetrics else metric.prometheus
    # Text 0.0.4 knows no info: there it is a gauge that is always 1.
    kind = "gauge" if metric.kind == "info" and not openmetrics else metric.kind
    unit = metric.prometheus_unit if openmetrics else ""
    unit_line = f"# UNIT {name} {unit}\n" if unit else ""
    return f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n{unit_line}"


def _numbers(family: Family[str], created: str | None) -> Iterator[str]:
    metric = family.metric
    name = metric.prometheus
    with_created = created is not None and metric.kind == "counter"
    for labels, value in family.samples:
        braced = f"{{{labels[1:]}}}" if labels else ""
        yield f"{name}{braced} {number(value)}\n"
        if with_created:
            yield f"{metric.prometheus_family}_created{braced} {created}\n"


def _histograms(family: Family[str], created: str | None) -> Iterator[str]:
    metric = family.metric
    name = metric.prometheus
    buckets: dict[tuple[float, ...], str] = {}
    for labels, histogram in family.samples:
        bounds = metric.bounds or histogram.bucket_bounds
        template = buckets.get(bounds)
        if template is None:
            template = buckets[bounds] = _bucket_lines(name, bounds)
        count = histogram.count
        text = template % (*histogram.cumulative(bounds), count)
        braced = f"{{{labels[1:]}}}"
        yield text.replace(_LABELS, labels)
        yield f"{name}_count{braced} {count}\n"
        yield f"{name}_sum{braced} {number(histogram.total)}\n"
        if created is not None:
            yield f"{name}_created{braced} {created}\n"


def _bucket_lines(name: str, bounds: tuple[float, ...]) -> str:
    return "".join(
        f'{name}_bucket{{le="{number(bound)}"{_LABELS}}} %d\n'
        for bound in (*bounds, inf)
    )
