# SPDX-License-Identifier: MIT
"""The numbers of rules in PromQL: selectors of our series, and what is made of them.

Quantiles come from native histograms, or from the buckets of classic ones, which are
coarser than ours. Counts are `increase()`, which extrapolates to the window's edges.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from ometrics.export import names
from ometrics.fields import Counter, Counts, Field, Gauge, fields_of
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.rules.quantities import Quantity, Scope, quantile_of
from ometrics.rules.rule import Objective, Rule
from ometrics.rules.words import span
from ometrics.snapshot import TaskStatistics

MODEL: Final = names.prometheus_label(names.MODEL)
# What becomes of a gauge of several models or operations.
_COMBINED: Final = {operator.add: "sum", min: "min"}
_OPERATION: Final = names.prometheus_label(names.OPERATION)
_WILDCARDS: Final = re.compile(r"(\*|\?|\[!?[^]]+])")

# Numbers that are made of counters: how, in their names; `rate` is a second's.
_MADE: Final[Mapping[str, tuple[type, str]]] = {
    "total_requests": (PerformanceMetrics, "{successful_reqs} + {failed_reqs}"),
    "throughput": (PerformanceMetrics, "{successful_reqs:rate} + {failed_reqs:rate}"),
    "error_rate": (
        PerformanceMetrics,
        "100 * {failed_reqs} / ({successful_reqs} + {failed_reqs})",
    ),
    "avg_tokens_per_req": (
        PerformanceMetrics,
        "{tokens_processed} / {successful_reqs}",
    ),
    "decode_tokens_per_second": (CallMetrics, "{decode_tokens} / {decode_ns}"),
    "prefill_tokens_per_second": (CallMetrics, "{prefill_tokens} / {prefill_ns}"),
    "total_errors": (PerformanceMetrics, "{failed_reqs}"),
    "overall_error_rate": (
        PerformanceMetrics,
        "100 * {failed_reqs} / ({successful_reqs} + {failed_reqs})",
    ),
    "total_tasks": (TaskStatistics, "{completed_tasks} + {failed_tasks}"),
    "known_durations": (
        TaskStatistics,
        "{completed_tasks} + {failed_tasks} - {duration_unknown}",
    ),
    "avg_completion_ms": (
        TaskStatistics,
        "1000 * {sum_ns} / ({completed_tasks} + {failed_tasks} - {duration_unknown})",
    ),
    "success_rate": (
        TaskStatistics,
        "100 * {completed_tasks} / ({completed_tasks} + {failed_tasks})",
    ),
}


def number_of(rule: Rule) -> str:
    """A rule's number in PromQL."""
    quantity, matchers = rule.quantity, matchers_of(rule)
    if quantity.declared is None:
        return _made_of(quantity, rule.window, matchers)
    scope, field = quantity.scope, quantity.declared
    if quantity.statistic:
        return _of_histogram(quantity, field, rule.window, matchers)
    if isinstance(field, Counts):
        matchers = {**matchers, names.prometheus_label(str(field.by)): quantity.key}
    if isinstance(field, Counter | Counts):
        return count_of(scope, field, rule.window, matchers)
    combine = _COMBINED.get(field.combine, "max") if isinstance(field, Gauge) else "max"
    return f"{combine} by ({labels_of(scope)}) ({selector(field, matchers)})"


def _made_of(quantity: Quantity, window: float, matchers: Mapping[str, str]) -> str:
    if quantity.field not in _MADE:
        raise ValueError(f"{quantity.name} is not exported, so Prometheus has no such")
    owner, formula = _MADE[quantity.field]
    fields = {field.name: field for field in fields_of(owner)}
    parts = {
        name: _Formatted(quantity.scope, field, window, matchers)
        for name, field in fields.items()
        if isinstance(field, Counter)
    }
    return formula.format_map(parts)


class _Formatted:
    """A counter in a formula: `{name}` is its increase, `{name:rate}` its rate."""

    def __init__(
        self, scope: Scope, field: Field, window: float, matchers: Mapping[str, str]
    ) -> None:
        self._parts = scope, field, window, matchers

    def __format__(self, spec: str) -> str:
        return count_of(*self._parts, function=spec or "increase")


def count_of(
    scope: Scope,
    field: Field,
    window: float,
    matchers: Mapping[str, str],
    *,
    function: str = "increase",
) -> str:
    """How much a counter gained, or its rate."""
    series = selector(field, matchers)
    return f"sum by ({labels_of(scope)}) ({function}({series}[{length_of(window)}]))"


def _of_histogram(
    quantity: Quantity, field: Field, window: float, matchers: Mapping[str, str]
) -> str:
    by = labels_of(quantity.scope)

    def rate(suffix: str = "", labels: str = by, function: str = "rate") -> str:
        series = selector(field, matchers, suffix)
        return f"sum by ({labels}) ({function}({series}[{length_of(window)}]))"

    if quantity.statistic == "count":
        native = f"histogram_count({rate(function='increase')})"
        return f"{native}\nor\n{rate('_count', function='increase')}"
    if quantity.statistic == "mean":
        native = f"histogram_sum({rate()}) / histogram_count({rate()})"
        return f"{native}\nor\n{rate('_sum')} / {rate('_count')}"
    quantile = {"min": 0.0, "max": 1.0}.get(
        quantity.statistic, quantile_of(quantity.statistic)
    )
    native = f"histogram_quantile({quantile:g}, {rate()})"
    return (
        f"{native}\nor\n"
        f"histogram_quantile({quantile:g}, {rate('_bucket', by + ', le')})"
    )


def requests_of(rule: Rule) -> str:
    """How many requests there were, for `min_requests`."""
    scope = rule.quantity.scope
    owner = CallMetrics if scope == "call" else PerformanceMetrics
    field = next(f for f in fields_of(owner) if f.name == "successful_reqs")
    either = replace(field, labels={"outcome": "~success|failure"})
    return count_of(scope, either, rule.window, matchers_of(rule))


@lru_cache(maxsize=1)
def _rows() -> Mapping[str, names.MetricRow]:
    return {row.name: row for row in names.METRICS}


def selector(field: Field, matchers: Mapping[str, str], suffix: str = "") -> str:
    """A selector of a field's series."""
    if field.metric is None:
        raise ValueError(f"{field.name} is not exported, so Prometheus has no such")
    row = _rows()[field.metric.name]
    # A part of a metric is told from the others by its labels, or by having none.
    own = {
        names.prometheus_label(key): field.labels.get(key, "")
        for key in row.labels
        if key != field.by
    }
    pairs = [matcher_of(key, value) for key, value in {**matchers, **own}.items()]
    return row.prometheus + suffix + (f"{{{', '.join(pairs)}}}" if pairs else "")


def matcher_of(label: str, value: str) -> str:
    """One matcher of a selector; a value that begins with `~` is a pattern."""
    if value.startswith("~"):
        return f"{label}=~{quoted(value[1:])}"
    return f"{label}={quoted(value)}"


def matchers_of(rule: Rule | Objective) -> dict[str, str]:
    """What selects the series that a rule is for."""
    matchers = {}
    if rule.model is not None:
        matchers[MODEL] = "~" + _regex(rule.model)
    if rule.operation is not None:
        matchers[_OPERATION] = rule.operation
    return matchers


def _regex(pattern: str) -> str:
    """A shell pattern as RE2, which Prometheus anchors at both ends."""
    parts = []
    for part in _WILDCARDS.split(pattern):
        if part.startswith("[") and _WILDCARDS.fullmatch(part):
            members = part[1:-1].replace("\\", r"\\")
            parts.append(f"[{'^' * members.startswith('!')}{members.lstrip('!')}]")
        else:
            parts.append({"*": ".*", "?": "."}.get(part) or re.escape(part))
    return "".join(parts)


def length_of(seconds: float) -> str:
    """A duration of Prometheus, which knows no fractions."""
    return span(seconds) if seconds == int(seconds) else f"{round(seconds * 1e3)}ms"


def quoted(text: str) -> str:
    """A string of PromQL, which takes JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)


def labels_of(scope: Scope) -> str:
    """The labels that tell the numbers of a scope apart."""
    return "job" if scope == "snapshot" else f"job, {MODEL}"


def limit_of(rule: Rule, limit: float) -> float:
    """A limit in the unit of the metric that is exported."""
    field = rule.quantity.declared
    if field is None or field.convert is None or rule.quantity.statistic:
        return limit
    return field.convert(limit)
