# SPDX-License-Identifier: MIT
"""Durations and limits as people write them: `"5m"`, `"30d"`, `"2s"`, `"5%"`, `20`.

A limit is in its metric's own unit, so `"2s"` for an error rate is refused rather than
taken for 2 %.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Final

from ometrics.durations import parse_duration, parse_length
from ometrics.rules.quantities import Quantity, Unit, resolve

_NUMBER: Final = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)
_MS: Final = 1e3

Comparison: Final = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_EXPECTATION: Final = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|==|!=|<|>)\s*(.*?)\s*")


def seconds(value: object) -> float:
    """
    A span of time in seconds.

    Args:
        value: Text such as `5m`, `1m30s`, `30d`, or a number of seconds.

    Raises:
        ValueError: It is neither, or negative; the message quotes it.
    """
    if value in {0, "0", "0s"} and not isinstance(value, bool):
        return 0.0
    try:
        return parse_length(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(str(error)) from None


def limit(value: object, quantity: Quantity) -> float:
    """
    A limit in the unit of its metric.

    Args:
        value: A number in the metric's unit, or text with the unit: `2s`, `500ms`,
            `5%`, `100 tokens/s`.
        quantity: The metric.

    Raises:
        ValueError: No number, or of another unit; the message says which is wanted.
    """
    if not isinstance(value, str):
        return number(value)
    unit = quantity.unit
    if unit in {"s", "ms"}:
        try:
            span = parse_duration(value.strip()) / 1e9
        except ValueError:
            raise ValueError(_wrong_unit(value, quantity)) from None
        return span * _MS if unit == "ms" else span
    match = _NUMBER.fullmatch(value.strip())
    if match is None or match[2] not in {"", unit}:
        raise ValueError(_wrong_unit(value, quantity))
    try:
        return number(float(match[1]))
    except ValueError:
        raise ValueError(_wrong_unit(value, quantity)) from None


def _wrong_unit(value: str, quantity: Quantity) -> str:
    return (
        f"{value!r} is no limit for {quantity.name}; write it like"
        f" {_EXAMPLES[quantity.unit]!r}"
    )


_EXAMPLES: Final[dict[Unit, str]] = {
    "s": "2s",
    "ms": "500ms",
    "%": "5%",
    "MB": "512 MB",
    "1/s": "10",
    "tokens/s": "20 tokens/s",
    "": "20",
}


def number(value: object) -> float:
    """
    A plain number.

    Raises:
        ValueError: It is none, or not a finite one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004 - of a file
    if not isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


@dataclass(frozen=True)
class Expectation:
    """
    What a number should be, such as `latency.p95 < 2s`; made by `expect()`.

    Attributes:
        text: As it was written.
        quantity: The number.
        symbol: `<`, `<=`, `==`, `!=`, `>=` or `>`.
        bound: In the unit of the number.
    """

    text: str
    quantity: Quantity
    symbol: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether it is so."""
        compare: Callable[[float, float], bool] = Comparison[self.symbol]
        return compare(value, self.bound)


def expect(text: str) -> Expectation:
    """
    Read an expectation: a metric, a comparison and a limit.

    Raises:
        ValueError: It is none; the message says what is wrong with it.
    """
    match = _EXPECTATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no expectation; write it like 'latency.p95 < 2s'"
        )
    name, symbol, bound = match.groups()
    quantity = resolve(name)
    return Expectation(text.strip(), quantity, symbol, limit(bound, quantity))
