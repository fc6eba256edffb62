# SPDX-License-Identifier: MIT
"""Promises kept: attainment, error budget, and how fast the budget burns.

The burn rate is the share of bad requests over the share that may be bad: at 1 the
budget lasts exactly as long as the objective. The alerts are those of the SRE workbook,
chapter 5, "Multiwindow, Multi-Burn-Rate Alerts" (table 5-8): a long window says that it
matters, a short one that it still goes on, so that an alert ends soon after its cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from ometrics.histogram import LatencyHistogram, layout_of
from ometrics.rules.rule import Objective
from ometrics.snapshot import CallMetrics, PerformanceMetrics, Snapshot


class Burn(NamedTuple):
    """
    One pair of windows, by the SRE workbook.

    Attributes:
        long: Seconds of the window that says that it matters.
        short: Seconds of the one that says that it still goes on: a twelfth of it.
        rate: The burn rate that both must be above.
        severity: Of the alert.
    """

    long: float
    short: float
    rate: float
    severity: str


_HOUR: Final = 3600.0
# For an objective of 30 days: 2 % of the budget in 1 h, 5 % in 6 h, 10 % in 3 days.
_MONTH: Final = 30 * 24 * _HOUR
WORKBOOK: Final = (
    Burn(_HOUR, _HOUR / 12, 14.4, "critical"),
    Burn(6 * _HOUR, _HOUR / 2, 6.0, "critical"),
    Burn(72 * _HOUR, 6 * _HOUR, 1.0, "warning"),
)


def burns(objective: Objective) -> tuple[Burn, ...]:
    """The workbook's pairs, in proportion to the objective's own time."""
    scale = objective.window / _MONTH
    return tuple(
        Burn(long * scale, short * scale, rate, severity)
        for long, short, rate, severity in WORKBOOK
    )


@dataclass(frozen=True)
class Attainment:
    """
    How well one model kept an objective.

    Attributes:
        objective: Which.
        model: Whose requests.
        good: Requests that kept it.
        total: Requests that count: good, too slow, and failed.
        seconds: Length of the window, which may be shorter than the objective's time.
    """

    objective: Objective
    model: str
    good: int
    total: int
    seconds: float

    @property
    def ratio(self) -> float | None:
        """Share of good requests; `None` with fewer than `min_requests`."""
        if not self.total or self.total < self.objective.min_requests:
            return None
        return self.good / self.total

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; `None` if that is unknown."""
        return None if self.ratio is None else self.ratio >= self.objective.target

    @property
    def burn_rate(self) -> float | None:
        """Share of bad requests over the share that may be bad."""
        if self.ratio is None:
            return None
        return (self.total - self.good) / self.total / self.objective.budget

    @property
    def budget_left(self) -> float | None:
        """Part of the window's error budget that is left; negative when overspent."""
        return None if self.burn_rate is None else 1.0 - self.burn_rate

    @property
    def goodput(self) -> float | None:
        """Good requests a second; `None` for a window of no length."""
        return self.good / self.seconds if self.seconds else None


def attained(objective: Objective, window: Snapshot) -> dict[str, Attainment]:
    """Model -> how well it kept the objective in this window."""
    count = _counter(objective)
    return {
        name: Attainment(objective, name, *count(model), window.uptime_seconds)
        for name, model in window.models.items()
        if objective.matches(name)
    }


def _counter(
    objective: Objective,
) -> Callable[[PerformanceMetrics], tuple[int, int]]:
    """A function that gives good and countable requests of a model."""
    quantity, within = objective.quantity, objective.within
    if within is None:
        return lambda model: (model.successful_reqs, model.total_requests)
    seconds, field = float(within), quantity.field
    if quantity.scope == "model":
        return lambda model: _kept(model, getattr(model, field), seconds)

    def of_calls(model: PerformanceMetrics) -> tuple[int, int]:
        counts = [
            _kept(call, getattr(call, field), seconds)
            for operation, call in model.calls.items()
            if objective.operation in {None, operation}
        ]
        return sum(good for good, _ in counts), sum(total for _, total in counts)

    return of_calls


def _kept(
    owner: PerformanceMetrics | CallMetrics, times: LatencyHistogram, seconds: float
) -> tuple[int, int]:
    """Good ones; and all, with the failed, which were no time good."""
    return at_most(times, seconds), times.count + owner.failed_reqs


def at_most(histogram: LatencyHistogram, seconds: float) -> int:
    """
    Values up to a bound: exact for a bound of its buckets, else to the cell (1.1 %).

    A cell that the bound cuts counts whole if the bound is past its middle.
    """
    layout = layout_of(histogram.bucket_bounds)
    cells = memoryview(histogram.cells).cast("Q")
    cut = layout.cell(seconds)
    whole = sum(cells[: max(cut - histogram.first_cell, 0)])
    if not 0 <= cut - histogram.first_cell < len(cells):
        return whole
    upper = layout.upper(cut)
    lower = layout.upper(cut - 1) if cut else 0.0
    past_middle = seconds >= upper or seconds * seconds >= lower * upper
    return whole + (cells[cut - histogram.first_cell] if past_middle else 0)
