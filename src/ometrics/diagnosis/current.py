# SPDX-License-Identifier: MIT
"""Findings of now: for a live table, a page of metrics, and alerts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from ometrics.diagnosis.examine import diagnose
from ometrics.diagnosis.finding import Finding
from ometrics.diagnosis.kinds import KINDS
from ometrics.export.names import MODEL, Family, Labels, MetricRow
from ometrics.rules.conditions import Column, Condition, EvaluatedWindows
from ometrics.text import valid

if TYPE_CHECKING:
    from ometrics.clock import Clock
    from ometrics.sources import Source

#: For the pages of an endpoint: findings are made of a snapshot, not part of one.
FINDINGS: Final = MetricRow(
    *("snapshot", "ometrics.findings", "gauge", "{finding}"),
    *("1 for each finding of the last minutes, as `ometrics doctor` says it.", ""),
    labels=("finding", MODEL),
)
_OVER: Final = 900.0
_FRESH: Final = 5.0


class Findings:
    """
    What `diagnose` finds in a source now; looked for again after five seconds.

    Args:
        source: Of a collector its last 15 minutes count, of others all they have.
        clock: Where to read the time instead of the system, for tests.

    Attributes:
        conditions: What an `Engine` watches: each kind of finding, by model.

    Thread-safety:
        Every method, from any thread.
    """

    def __init__(self, source: Source, *, clock: Clock | None = None) -> None:
        self._source = source
        self._clock: Clock = clock or time
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._found: list[Finding] = []
        self.conditions = [_condition(self, kind) for kind in KINDS]

    def current(self) -> list[Finding]:
        """All of them, problems first."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._looked_at >= _FRESH:
                window = getattr(self._source, "window", None)
                self._found = diagnose(
                    self._source.snapshot() if window is None else window(_OVER)
                )
                self._looked_at = now
            return self._found

    def __call__(self) -> Iterator[Family[Labels]]:
        """As a metric, for `Endpoint.start(numbers=...)`."""
        samples: dict[Labels, int] = {
            (("finding", finding.kind), (MODEL, valid(finding.model))): 1
            for finding in self.current()
        }
        yield Family.of(FINDINGS, list(samples.items()))

    def column(self, kind: str, windows: EvaluatedWindows) -> Column:
        """The models that have such a finding; all others are known to have none."""
        del windows
        return _Known({f.model: 1.0 for f in self.current() if f.kind == kind})


class _Known(dict[str, float]):
    """Model -> 1 for a finding. A model that is not in it has none: that is known."""

    def get(self, model: str, default: object = None) -> float:
        """The value; 0.0 for all others."""
        del default
        return super().get(model, 0.0)


def _condition(findings: Findings, kind: str) -> Condition:
    return Condition(
        name=kind,
        severity="warning" if KINDS[kind].problem else "info",
        metric=KINDS[kind].what,
        unit="finding",
        limit=0.0,
        clear=0.0,
        read=partial(findings.column, kind),
    )
