# SPDX-License-Identifier: MIT
"""Two runs compared: what changed beyond noise.

    comparison = compare(before, after)
    [change.title for change in comparison.changes if change.is_worse(10)]

Each figure of each model has the confidence interval of its change; see `intervals` for
the methods. Together all intervals of a comparison hold with `CONFIDENCE` (Bonferroni),
so that comparing many models and figures raises no more false alarms than one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, NamedTuple

from ometrics import intervals
from ometrics.histogram import LatencyHistogram
from ometrics.intervals import Interval
from ometrics.models import PerformanceMetrics
from ometrics.snapshot import Snapshot
from ometrics.view.calls import all_calls

CONFIDENCE: Final = 0.95

Kind = Literal["time", "speed", "share"]
Estimate = Callable[[PerformanceMetrics, float], Interval | None]


@dataclass(frozen=True)
class Figure:
    """
    One thing to compare of a model.

    Attributes:
        title: Its name.
        kind: `time` in seconds and `share` from 0 to 1 are worse when they grow,
            `speed` a second when it falls.
        read: Its value; `None` for unknown.
        estimate: The same with its interval for a given chance to miss; `None` of too
            few values.
        count: How many values it is of.
        least: How many it takes, for a given chance to miss.
    """

    title: str
    kind: Kind
    read: Callable[[PerformanceMetrics], float | None]
    estimate: Estimate
    count: Callable[[PerformanceMetrics], int]
    least: Callable[[float], int]


def _quantile(
    title: str, q: float, hist: Callable[[PerformanceMetrics], LatencyHistogram]
) -> Figure:
    return Figure(
        title,
        "time",
        read=lambda model: hist(model).quantile(q),
        estimate=lambda model, alpha: intervals.quantile(hist(model), q, alpha),
        count=lambda model: hist(model).count,
        least=lambda alpha: intervals.least_for_quantile(q, alpha),
    )


def _mean(title: str, hist: Callable[[PerformanceMetrics], LatencyHistogram]) -> Figure:
    return Figure(
        title,
        "time",
        read=lambda model: hist(model).mean,
        estimate=lambda model, alpha: intervals.mean(hist(model), alpha),
        count=lambda model: hist(model).count,
        least=_least_for_mean,
    )


def _speed(title: str, phase: str) -> Figure:
    def estimate(model: PerformanceMetrics, alpha: float) -> Interval | None:
        calls = all_calls(model)
        tokens, ns = (getattr(calls, f"{phase}_{unit}") for unit in ("tokens", "ns"))
        return intervals.speed(tokens, ns, getattr(calls, phase), alpha)

    def read(model: PerformanceMetrics) -> float | None:
        speed: float | None = getattr(all_calls(model), f"{phase}_tokens_per_second")
        return speed

    def count(model: PerformanceMetrics) -> int:
        number: int = getattr(all_calls(model), phase).count
        return number

    return Figure(title, "speed", read, estimate, count, _least_for_mean)


def _least_for_mean(alpha: float) -> int:  # noqa: ARG001 - the same for every chance
    return intervals.LEAST_FOR_MEAN


def _latency(model: PerformanceMetrics) -> LatencyHistogram:
    return model.latency_hist


FIGURES: Final = (
    _quantile("p50", 0.5, _latency),
    _quantile("p95", 0.95, _latency),
    _quantile("p99", 0.99, _latency),
    _mean("mean", _latency),
    _quantile("first chunk", 0.5, lambda model: all_calls(model).time_to_first_chunk),
    _speed("tokens/s", "decode"),
    _speed("prefill/s", "prefill"),
    Figure(
        "error rate",
        "share",
        read=lambda m: m.failed_reqs / m.total_requests if m.total_requests else None,
        estimate=lambda m, alpha: intervals.share(
            m.failed_reqs, m.total_requests, alpha
        ),
        count=lambda m: m.total_requests,
        least=lambda alpha: 1,  # noqa: ARG005
    ),
)


@dataclass(frozen=True)
class Change:
    """
    How one figure of one model went from one run to another.

    Attributes:
        model: Name of the model.
        figure: What is compared.
        old: Its value before; `None` for unknown.
        new: Its value after.
        change: By how much it changed: the ratio of new to old, of a `share` the
            difference; with its interval. `None` if there is too little data.
        count: Values behind the poorer side.
        least: How many it would take to tell noise from change.
    """

    model: str
    figure: Figure
    old: float | None
    new: float | None
    change: Interval | None
    count: int
    least: int

    @property
    def title(self) -> str:
        """Name of the figure."""
        return self.figure.title

    @property
    def percent(self) -> float | None:
        """Change relative to the old value; infinite from 0, `None` if unknown."""
        if self.old is None or self.new is None:
            return None
        if not self.old:
            return inf if self.new else 0.0
        return 100.0 * (self.new - self.old) / self.old

    @property
    def verdict(self) -> Literal["worse", "better", "same", "unknown"]:
        """What is certain: `same` is a change that noise may have made."""
        if self.change is None:
            return "unknown"
        still = 0.0 if self.figure.kind == "share" else 1.0
        if self.change.low > still:
            return "better" if self.figure.kind == "speed" else "worse"
        if self.change.high < still:
            return "worse" if self.figure.kind == "speed" else "better"
        return "same"

    def is_worse(self, percent: float) -> bool:
        """Whether it is worse beyond noise, and by more than this many percent."""
        return self.verdict == "worse" and abs(self.percent or 0.0) > percent


class Comparison(NamedTuple):
    """
    Two runs compared.

    Attributes:
        changes: Every figure of every model that both have, where both know it or one
            does.
        lost: Models that only the old run has.
        gained: Models that only the new run has.
    """

    changes: Sequence[Change]
    lost: Sequence[str]
    gained: Sequence[str]

    @property
    def tests(self) -> int:
        """How many changes have an interval: what the confidence is shared by."""
        return sum(change.change is not None for change in self.changes)


def compare(before: Snapshot, after: Snapshot) -> Comparison:
    """
    Compare two runs, model by model.

    Args:
        before: The old one.
        after: The new one.
    """
    pairs = [
        (name, figure, old, after.models[name])
        for name, old in before.models.items()
        if name in after.models
        for figure in FIGURES
        if figure.count(old) or figure.count(after.models[name])
    ]
    alpha = (1 - CONFIDENCE) / max(len(pairs), 1)
    return Comparison(
        changes=[_change(*pair, alpha) for pair in pairs],
        lost=[name for name in before.models if name not in after.models],
        gained=[name for name in after.models if name not in before.models],
    )


def _change(
    model: str,
    figure: Figure,
    old: PerformanceMetrics,
    new: PerformanceMetrics,
    alpha: float,
) -> Change:
    before, after = figure.estimate(old, alpha), figure.estimate(new, alpha)
    change = None
    if before is not None and after is not None:
        if figure.kind == "share":
            change = intervals.difference(before, after)
        elif before.value > 0 and after.value > 0:
            change = intervals.ratio(before, after)
    return Change(
        model=model,
        figure=figure,
        old=figure.read(old),
        new=figure.read(new),
        change=change,
        count=min(figure.count(old), figure.count(new)),
        least=figure.least(alpha),
    )
