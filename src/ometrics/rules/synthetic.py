# SPDX-License-Identifier: MIT
"""Rules over numbers that somebody makes up: `latency.p95 = 0.1x60 3sx30 _x10 0.1x60`.

A value, in the metric's unit or with one, or `_` for unknown; `xN` repeats it. So a
rule can be tried before there is anything to measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Final

from ometrics.rules import limits
from ometrics.rules.conditions import NO_MODEL, Column, conditions_of
from ometrics.rules.engine import Alert, Engine
from ometrics.rules.quantities import resolve
from ometrics.rules.rule import Objective, Rule
from ometrics.snapshot import Snapshot

_TERM: Final = re.compile(r"(_|.+?)(?:x(\d+))?")
_MOST: Final = 100_000
_START: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)
# Whose the numbers are, where a rule is for no certain model.
MODEL: Final = "a model"


@dataclass(frozen=True)
class Series:
    """
    The values of one metric, a step apart.

    Attributes:
        metric: Its name.
        values: `None` where nothing is known.
    """

    metric: str
    values: tuple[float | None, ...]


def parse(text: str) -> Series:
    """
    Read a series.

    Raises:
        ValueError: It is none; the message quotes what is wrong with it.
    """
    name, equals, terms = text.partition("=")
    if not equals or not terms.split():
        raise ValueError(
            f"{text!r} is no series; write it like 'latency.p95 = 0.1x60 3sx30 _x10'"
        )
    quantity = resolve(name.strip())
    values: list[float | None] = []
    for term in terms.split():
        match = _TERM.fullmatch(term)
        count = int(match[2] or 1) if match else 0
        if match is None or len(values) + count > _MOST:
            raise ValueError(f"{term!r}: a series has at most {_MOST:,} values")
        value = None if match[1] == "_" else limits.limit(_typed(match[1]), quantity)
        values += [value] * count
    return Series(quantity.name, tuple(values))


def _typed(text: str) -> str | float:
    """A plain number is in the metric's own unit."""
    try:
        return float(text)
    except ValueError:
        return text


def run(
    rules: Sequence[Rule | Objective], series: Series, step: float
) -> Iterator[Alert]:
    """
    What the rules for this metric would say; the first value is at 2000-01-01.

    Args:
        rules: Those for other metrics are left out.
        series: The values.
        step: Seconds between two.

    Raises:
        ValueError: No rule is for this metric.
    """
    now: list[float | None] = [None]

    def column(rule: Rule) -> Column:
        name = NO_MODEL if rule.quantity.scope == "snapshot" else rule.model or MODEL
        return {} if now[0] is None else {name: now[0]}

    conditions = [
        replace(condition, read=lambda windows, rule=rule: column(rule))  # type: ignore[misc]  # noqa: ARG005
        for rule in rules
        if isinstance(rule, Rule) and rule.quantity.name == series.metric
        for condition in conditions_of(rule)
    ]
    if not conditions:
        raise ValueError(f"no rule is for {series.metric}")
    engine = Engine((), conditions)
    for index, value in enumerate(series.values):
        now[0] = value
        at = _START + timedelta(seconds=index * step)
        yield from engine.evaluate(_no_window, now=index * step, at=at)


def _no_window(seconds: float) -> Snapshot:
    raise AssertionError(seconds)  # pragma: no cover - no condition reads one
