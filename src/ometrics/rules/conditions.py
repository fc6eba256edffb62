# SPDX-License-Identifier: MIT
"""What the engine watches: a number of each model, a limit, and how long is too long.

A rule is one condition. An objective is three: its error budget burns too fast by each
pair of windows of the SRE workbook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeAlias

from ometrics.events import StalledCall
from ometrics.rules.objectives import Burn, attained, burns
from ometrics.rules.rule import Objective, Rule
from ometrics.snapshot import CallMetrics, PerformanceMetrics, Snapshot

# Gives what was counted in the last so many seconds.
Window: TypeAlias = Callable[[float], Snapshot]
# Model -> value, for all models of whom the number is known.
Column: TypeAlias = Mapping[str, float]

# The key of a number that is no model's.
NO_MODEL: Final = ""


class EvaluatedWindows:
    """
    The windows of one evaluation: each is taken once, and each column read once.

    Args:
        window: Where they come from.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._taken: dict[float, Snapshot] = {}
        self._columns: dict[tuple[str, str | None, float, int], Column] = {}

    def __call__(self, seconds: float) -> Snapshot:
        """What was counted in the last so many seconds."""
        if seconds not in self._taken:
            self._taken[seconds] = self._window(seconds)
        return self._taken[seconds]

    def column(self, rule: Rule) -> Column:
        """The number that a rule watches, of every model that it is for."""
        key = rule.metric, rule.operation, rule.window, rule.min_requests
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = read(rule, self(rule.window))
        if rule.model is None:
            return column
        return {model: value for model, value in column.items() if rule.matches(model)}


def read(rule: Rule, window: Snapshot) -> dict[str, float]:
    """The number that a rule watches, of all models of whom it is known."""
    quantity, least = rule.quantity, rule.min_requests
    if quantity.scope == "snapshot":
        value = quantity.read(window) if window.total_requests >= least else None
        return {} if value is None else {NO_MODEL: value}
    of = quantity.read
    if quantity.scope == "call":
        operation = rule.operation

        def of(model: PerformanceMetrics) -> float | None:
            call = calls_of(model, operation)
            if call is None or call.successful_reqs + call.failed_reqs < least:
                return None
            return quantity.read(call)

    column = {}
    for name, model in window.models.items():
        if not least or model.total_requests >= least:
            value = of(model)
            if value is not None:
                column[name] = value
    return column


def calls_of(model: PerformanceMetrics, operation: str | None) -> CallMetrics | None:
    """A model's calls of one operation, or of all together; `None` for none."""
    if operation is not None:
        return model.calls.get(operation)
    if not model.calls:
        return None
    return reduce(CallMetrics.merge, model.calls.values())


@dataclass(frozen=True, kw_only=True)
class Condition:
    """
    One thing to watch.

    Attributes:
        name: Unique among all.
        severity: Of its alerts.
        metric: What is watched, for people.
        unit: Of values and limits.
        limit: What the number must not be past.
        clear: Where it counts as good again.
        rises: Whether too high is wrong, rather than too low.
        hold: Seconds past the limit that make an incident.
        clear_hold: Seconds of good that end it.
        read: Its values.
        call: Of a model, the call in flight that is past the limit.
    """

    name: str
    severity: str
    metric: str
    unit: str
    limit: float
    clear: float
    rises: bool = True
    hold: float = 0.0
    clear_hold: float = 0.0
    read: Callable[[EvaluatedWindows], Column]
    call: Callable[[str], StalledCall | None] = lambda model: None  # noqa: ARG005

    def past(self, column: Column) -> dict[str, float]:
        """The values that are past the limit."""
        limit = self.limit
        if self.rises:
            return {model: value for model, value in column.items() if value > limit}
        return {model: value for model, value in column.items() if value < limit}

    def is_clear(self, value: float) -> bool:
        """Whether a value may end an incident."""
        return value <= self.clear if self.rises else value >= self.clear


def conditions_of(rule: Rule | Objective) -> list[Condition]:
    """What to watch for a rule or an objective."""
    if isinstance(rule, Objective):
        return [_burning(rule, burn) for burn in burns(rule)]
    return [
        Condition(
            name=rule.name,
            severity=rule.severity,
            metric=rule.metric,
            unit=rule.quantity.unit,
            limit=rule.limit,
            clear=rule.clear_limit,
            rises=rule.rises,
            hold=rule.hold,
            clear_hold=rule.clear_hold,
            read=lambda windows: windows.column(rule),
        )
    ]


def _burning(objective: Objective, burn: Burn) -> Condition:
    def column(windows: EvaluatedWindows) -> dict[str, float]:
        long = attained(objective, windows(burn.long))
        short = attained(objective, windows(burn.short))
        rates = {}
        for model, there in long.items():
            pair = there.burn_rate, short[model].burn_rate if model in short else None
            if pair[0] is not None and pair[1] is not None:
                rates[model] = min(pair[0], pair[1])
        return rates

    return Condition(
        name=f"{objective.name}: burns {burn.rate:g} x too fast",
        severity=burn.severity,
        metric="burn rate",
        unit="",
        limit=burn.rate,
        clear=burn.rate,
        rises=True,
        hold=0.0,
        clear_hold=0.0,
        read=column,
    )


def removed(name: str) -> Condition:
    """What stands for a rule that is no more, so that its incidents can end."""
    return Condition(
        name=name,
        severity="info",
        metric="",
        unit="",
        limit=0.0,
        clear=0.0,
        read=lambda windows: {},  # noqa: ARG005
    )
