# SPDX-License-Identifier: MIT
"""Rules over one snapshot, as after a benchmark or a test: which hold, and by how much.

The snapshot is the window: `over`, `for_` and the alerts of objectives do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ometrics.rules.conditions import NO_MODEL, calls_of, conditions_of, read
from ometrics.rules.limits import Expectation
from ometrics.rules.objectives import Attainment, attained
from ometrics.rules.rule import Objective, Rule
from ometrics.snapshot import Snapshot

Verdict: TypeAlias = Literal["ok", "failed", "missing"]
PERCENT: Final = 100.0


@dataclass(frozen=True)
class Result:
    """
    What came of one rule for one model.

    Attributes:
        name: The rule, objective or expectation.
        model: Whose number; empty if it is no model's.
        verdict: `ok`, `failed`, or `missing` where nothing is known: never `ok`.
        value: The number; `None` if missing.
        symbol: What the number must be to the bound: `<=`, `>=` and so on.
        bound: In the same unit.
        unit: Of both: `s`, `ms`, `%`, `MB`, `1/s`, `tokens/s` or empty.
        metric: What was looked at.
    """

    name: str
    model: str
    verdict: Verdict
    value: float | None
    symbol: str
    bound: float
    unit: str
    metric: str

    @property
    def excess(self) -> float | None:
        """By how many percent of the bound it failed; `None` if that says nothing."""
        if self.verdict != "failed" or self.value is None or not self.bound:
            return None
        return PERCENT * (self.value - self.bound) / self.bound


def check(
    rules: Iterable[Rule | Objective | Expectation], snapshot: Snapshot
) -> list[Result]:
    """
    Hold a snapshot against rules.

    Args:
        rules: Rules, objectives and expectations, in any mixture.
        snapshot: All of it counts as one window.

    Returns:
        A result for each rule and model; one that is `missing` for a rule that no model
        has a number for.
    """
    results = []
    for rule in rules:
        found = list(_results(rule, snapshot))
        results += found or [_missing(rule)]
    return results


def _results(
    rule: Rule | Objective | Expectation, snapshot: Snapshot
) -> Iterator[Result]:
    if isinstance(rule, Objective):
        for attainment in attained(rule, snapshot).values():
            yield _of_objective(rule, attainment)
    elif isinstance(rule, Rule):
        yield from _of_rule(rule, snapshot)
    else:
        yield from _of_expectation(rule, snapshot)


def _of_objective(objective: Objective, attainment: Attainment) -> Result:
    ratio = attainment.ratio
    return Result(
        name=objective.name,
        model=attainment.model,
        verdict=_verdict(attainment.is_met),
        value=None if ratio is None else PERCENT * ratio,
        symbol=">=",
        bound=PERCENT * objective.target,
        unit="%",
        metric=objective.metric,
    )


def _of_rule(rule: Rule, snapshot: Snapshot) -> Iterator[Result]:
    column = read(rule, snapshot)
    (condition,) = conditions_of(rule)
    past = condition.past(column)
    names = [*snapshot.models] if rule.quantity.scope != "snapshot" else [NO_MODEL]
    for model in filter(rule.matches, names):
        value = column.get(model)
        yield Result(
            name=rule.name,
            model=model,
            verdict=_verdict(None if value is None else model not in past),
            value=value,
            symbol="<=" if rule.rises else ">=",
            bound=rule.limit,
            unit=rule.quantity.unit,
            metric=rule.metric,
        )


def _of_expectation(expectation: Expectation, snapshot: Snapshot) -> Iterator[Result]:
    quantity = expectation.quantity
    owners: list[tuple[str, object]] = [(NO_MODEL, snapshot)]
    if quantity.scope != "snapshot":
        owners = list(snapshot.models.items())
    for model, owner in owners:
        if quantity.scope == "call":
            owner = calls_of(owner, None)  # type: ignore[arg-type]  # noqa: PLW2901
        value = None if owner is None else quantity.read(owner)
        yield Result(
            name=expectation.text,
            model=model,
            verdict=_verdict(None if value is None else expectation.holds(value)),
            value=value,
            symbol=expectation.symbol,
            bound=expectation.bound,
            unit=quantity.unit,
            metric=quantity.name,
        )


def _missing(rule: Rule | Objective | Expectation) -> Result:
    """What stands for a rule that there is no number for at all."""
    if isinstance(rule, Objective):
        bound, symbol, unit, name = PERCENT * rule.target, ">=", "%", rule.name
    elif isinstance(rule, Rule):
        bound, symbol = rule.limit, "<=" if rule.rises else ">="
        unit, name = rule.quantity.unit, rule.name
    else:
        bound, symbol, unit = rule.bound, rule.symbol, rule.quantity.unit
        name = rule.text
    metric = rule.quantity.name if isinstance(rule, Expectation) else rule.metric
    return Result(name, rule_model(rule), "missing", None, symbol, bound, unit, metric)


def rule_model(rule: Rule | Objective | Expectation) -> str:
    """The pattern of models that a rule is for; empty for all."""
    return "" if isinstance(rule, Expectation) else rule.model or ""


def _verdict(holds: bool | None) -> Verdict:
    return "missing" if holds is None else "ok" if holds else "failed"
