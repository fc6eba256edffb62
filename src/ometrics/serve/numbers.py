# SPDX-License-Identifier: MIT
"""Numbers of the process that serves, beside those of the snapshot that it serves.

An endpoint counts whom it turned away; a proxy or a sidecar has numbers of its own.
They are on the Prometheus pages only: `/metrics.json` is one snapshot, as it is
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ometrics.export.names import Family, Labels, MetricRow

#: What a process tells of itself, asked at each rendering, from any thread. Names must
#: not be among those of `ometrics.export.names.METRICS`.
Numbers = Callable[[], Iterable[Family[Labels]]]


def counter(name: str, unit: str, help: str, labels: tuple[str, ...] = ()) -> MetricRow:
    """
    Describes a counter of the process itself.

    Args:
        name: With dots, as OpenTelemetry has it: `ometrics.proxy.requests`.
        unit: UCUM: `s`, `By` or `{thing}`.
        help: One sentence for people.
        labels: Keys of its labels.
    """
    return MetricRow("snapshot", name, "counter", unit, help, "", (), labels)


def gauge(name: str, unit: str, help: str, labels: tuple[str, ...] = ()) -> MetricRow:
    """Describes a gauge of the process itself; the arguments are those of `counter`."""
    return MetricRow("snapshot", name, "gauge", unit, help, "", (), labels)


TURNED_AWAY: Final = counter(
    "ometrics.endpoint.turned_away",
    "{connection}",
    "Connections without a page: busy were answered 503, slow took too long to ask or"
    " to read, full had to make room.",
    ("reason",),
)
#: All that an endpoint tells of itself.
METRICS: Final = (TURNED_AWAY,)


def turned_away(by_reason: Mapping[Any, int]) -> Family[Labels]:
    """The family of `Listener.turned_away`."""
    samples: list[tuple[Labels, int]] = [
        ((("reason", reason),), count) for reason, count in by_reason.items()
    ]
    return Family.of(TURNED_AWAY, samples)
