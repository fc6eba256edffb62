# SPDX-License-Identifier: MIT
"""`Rule` and `Objective`: what is wrong, and what is promised; checked when made."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, TypeAlias

from ometrics.rules import limits
from ometrics.rules.quantities import (
    Quantity,
    UnknownQuantityError,
    histograms,
    resolve,
)

# Operations of `CallMetrics.operation`, as a rule may name one.
_OPERATIONS: Final = ("chat", "text_completion", "embeddings")
_LONGEST_NAME: Final = 128
SEVERITIES: Final = ("info", "warning", "critical")

Span: TypeAlias = "str | float"
Limit: TypeAlias = "str | float"


class RuleError(ValueError):
    """
    A rule that cannot mean anything.

    Attributes:
        field: Which of its fields is wrong; empty if it is the rule as a whole.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Rule:
    """
    An incident begins when a number is past a limit for some time.

        Rule("slow answers", "latency.p95", above="2s", over="5m", for_="1m")

    It ends when the number has been back within `clear` for `clear_for`. While nothing
    is known of the number, an incident neither begins nor ends.

    Attributes:
        name: For people and for the label of an alert; unique among rules.
        metric: Any number that `quantities()` lists, such as `latency.p95`.
        above: The number must not be above this, in its own unit or with one: `"2s"`.
        below: It must not be below this. Exactly one of the two.
        over: Length of the window that the number is of.
        for_: How long it must be past the limit without a break.
        clear: Where it counts as good again, at or within the limit; the limit itself
            if `None`.
        clear_for: How long it must be good without a break; as `for_` if `None`.
        model: Which models, as a shell pattern: `llama3*`; all if `None`. Each model is
            an incident of its own.
        operation: Only these calls: `chat`, `text_completion` or `embeddings`.
        min_requests: With fewer requests in the window nothing is known.
        severity: `info`, `warning` or `critical`.

    Raises:
        RuleError: A field makes no sense; the message names value and bound.
    """

    name: str
    metric: str
    above: Limit | None = None
    below: Limit | None = None
    over: Span = 300.0
    for_: Span = 0.0
    clear: Limit | None = None
    clear_for: Span | None = None
    model: str | None = None
    operation: str | None = None
    min_requests: int = 0
    severity: str = "warning"

    def __post_init__(self) -> None:
        """Check all fields and bring them to their own units."""
        _check_name(self.name)
        quantity = _field("metric", resolve, _text("metric", self.metric))
        if (self.above is None) == (self.below is None):
            raise RuleError("a rule needs one limit: either 'above' or 'below'")
        for limit in ("above", "below", "clear"):
            self._set_limit(limit, quantity)
        for span in ("over", "for_", "clear_for"):
            self._set_span(span)
        if not self.over:
            raise RuleError("'over' must be longer than 0 s", "over")
        if self.clear_for is None:
            object.__setattr__(self, "clear_for", self.for_)
        self._check_reach(quantity)
        _check_scope(self.model, self.operation, quantity)
        _check_count("min_requests", self.min_requests)
        _check_severity(self.severity)

    def _set_limit(self, name: str, quantity: Quantity) -> None:
        value = getattr(self, name)
        if value is not None:
            value = _field(name, limits.limit, value, quantity)
        object.__setattr__(self, name, value)

    def _set_span(self, name: str) -> None:
        value = getattr(self, name)
        if value is not None:
            value = _field(name.rstrip("_"), limits.seconds, value)
        object.__setattr__(self, name, value)

    def _check_reach(self, quantity: Quantity) -> None:
        """Refuse limits that no value can be past, and a `clear` on the wrong side."""
        highest = quantity.highest
        if self.above is not None:
            if highest is not None and self.limit >= highest:
                raise RuleError(
                    f"{quantity.name} is never above {highest:g}{quantity.unit},"
                    f" so 'above = {self.limit:g}' can never be met",
                    "above",
                )
            if self.limit < 0:
                raise RuleError(
                    f"{quantity.name} is never negative, so it is always above"
                    f" {self.limit:g}",
                    "above",
                )
        elif self.limit <= 0 or (highest is not None and self.limit > highest):
            raise RuleError(
                f"{quantity.name} is {'never' if self.limit <= 0 else 'always'} below"
                f" {self.limit:g}{quantity.unit}",
                "below",
            )
        if (
            (self.clear_limit > self.limit)
            if self.rises
            else (self.clear_limit < self.limit)
        ):
            side = "above" if self.rises else "below"
            raise RuleError(
                f"'clear' {self.clear_limit:g} must not be past the limit"
                f" {self.limit:g} of '{side}'",
                "clear",
            )

    @cached_property
    def quantity(self) -> Quantity:
        """The number it watches."""
        return resolve(self.metric)

    @property
    def rises(self) -> bool:
        """Whether too high is wrong, rather than too low."""
        return self.above is not None

    @property
    def limit(self) -> float:
        """The limit in the metric's unit."""
        value = self.above if self.above is not None else self.below
        return float(value)  # type: ignore[arg-type]

    @property
    def clear_limit(self) -> float:
        """Where an incident may end, in the metric's unit."""
        return self.limit if self.clear is None else float(self.clear)

    @property
    def window(self) -> float:
        """`over` in seconds."""
        return float(self.over)

    @property
    def hold(self) -> float:
        """`for_` in seconds."""
        return float(self.for_)

    @property
    def clear_hold(self) -> float:
        """`clear_for` in seconds."""
        return float(self.for_ if self.clear_for is None else self.clear_for)

    @cached_property
    def matches(self) -> Callable[[str], bool]:
        """Whether the rule is for a model of this name."""
        return _pattern(self.model)


@dataclass(frozen=True)
class Objective:
    """
    A promise: this share of requests is good, over a time.

        Objective("first chunk", "time_to_first_chunk", within="500ms", target=0.99)

    A failed request keeps no promise; a cancelled one is not counted. Without `within`
    the promise is success itself.

    Attributes:
        name: For people; unique among rules and objectives.
        metric: A histogram such as `latency`, or `requests` for success itself.
        within: What is good, as a duration; to the cell of the histogram (1.1 %),
            exact where it is a bound of its buckets.
        target: Share of good requests, above 0 and below 1.
        over: The time that the promise is for.
        model: Which models, as a shell pattern; each on its own.
        operation: Only these calls.
        min_requests: With fewer requests nothing is known.

    Raises:
        RuleError: A field makes no sense; the message names value and bound.
    """

    name: str
    metric: str = "requests"
    within: Span | None = None
    target: float = 0.99
    over: Span = 30 * 86_400.0
    model: str | None = None
    operation: str | None = None
    min_requests: int = 0

    def __post_init__(self) -> None:
        """Check all fields and bring them to their own units."""
        _check_name(self.name)
        quantity = _field("metric", self._resolve, _text("metric", self.metric))
        timed = bool(quantity.statistic)
        if timed != (self.within is not None):
            raise RuleError(
                f"{self.metric!r} needs 'within', the time that is good"
                if timed
                else "'within' is for times such as 'latency', not for success",
                "within",
            )
        if self.within is not None:
            within = _field("within", limits.seconds, self.within)
            if not within:
                raise RuleError("nothing is within 0 s", "within")
            object.__setattr__(self, "within", within)
        object.__setattr__(self, "over", _field("over", limits.seconds, self.over))
        if not self.over:
            raise RuleError("'over' must be longer than 0 s", "over")
        if not isinstance(self.target, float) or not 0.0 < self.target < 1.0:
            raise RuleError(
                f"target {self.target!r} must be a share above 0 and below 1, such as"
                " 0.99",
                "target",
            )
        _check_scope(self.model, self.operation, quantity)
        _check_count("min_requests", self.min_requests)

    @staticmethod
    def _resolve(metric: str) -> Quantity:
        """The count of a histogram, or that of requests."""
        if metric == "requests":
            return resolve(metric)
        times = [name for name in histograms() if resolve(f"{name}.mean").unit == "s"]
        if metric not in times:
            raise UnknownQuantityError(metric, [*times, "requests"])
        return resolve(f"{metric}.count")

    @cached_property
    def quantity(self) -> Quantity:
        """The count that its requests are of."""
        return self._resolve(self.metric)

    @property
    def window(self) -> float:
        """`over` in seconds."""
        return float(self.over)

    @property
    def budget(self) -> float:
        """Share of requests that may be bad."""
        return 1.0 - self.target

    @cached_property
    def matches(self) -> Callable[[str], bool]:
        """Whether the objective is for a model of this name."""
        return _pattern(self.model)


def _pattern(model: str | None) -> Callable[[str], bool]:
    if model is None:
        return lambda name: True  # noqa: ARG005 - any
    matches = re.compile(fnmatch.translate(model)).match
    return lru_cache(maxsize=4096)(lambda name: matches(name) is not None)


def _field(name: str, read: Callable[..., Any], *values: object) -> Any:
    """`read(*values)`, whose complaint becomes one about this field."""
    try:
        return read(*values)
    except ValueError as error:
        raise RuleError(str(error), name) from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise RuleError(f"{name!r} must be text, not {value!r}", name)
    return value


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise RuleError(f"name {name!r} must be text that can be printed", "name")
    if len(name) > _LONGEST_NAME:
        raise RuleError(
            f"name of {len(name)} characters is longer than {_LONGEST_NAME}", "name"
        )


def _check_scope(model: object, operation: object, quantity: Quantity) -> None:
    if model is not None:
        _text("model", model)
        if quantity.scope == "snapshot":
            raise RuleError(
                f"{quantity.name} is no model's; leave 'model' out", "model"
            )
    if operation is None:
        return
    if operation not in _OPERATIONS:
        raise RuleError(
            f"operation {operation!r} is none of {', '.join(_OPERATIONS)}", "operation"
        )
    if quantity.scope != "call":
        raise RuleError(
            f"{quantity.name} is not kept by operation; leave 'operation' out",
            "operation",
        )


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RuleError(f"{name} {value!r} must be a whole number of 0 or more", name)


def _check_severity(severity: object) -> None:
    if severity not in SEVERITIES:
        raise RuleError(
            f"severity {severity!r} is none of {', '.join(SEVERITIES)}", "severity"
        )
