# SPDX-License-Identifier: MIT
"""The same rules for Prometheus: what fires here fires there.

Each rule becomes a recording rule of its number, absent while that is unknown, and an
alert on it. `for` and `keep_firing_for` are Prometheus's own (2.42 or newer). What it
lacks, the alert says with its own `ALERTS` series: an incident that has begun goes on
until `clear` is reached, and while nothing is known.

Quantiles come from native histograms, or from the buckets of classic ones, which are
coarser than ours. Counts are `increase()`, which extrapolates to the window's edges.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import replace

from ometrics.export import names
from ometrics.fields import Counter, Counts, Field, Gauge, fields_of
from ometrics.histogram import DEFAULT_BUCKETS
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.rules.objectives import Burn, burns
from ometrics.rules.quantities import Quantity, Scope, quantile_of
from ometrics.rules.rule import Objective, Rule
from ometrics.rules.words import describe, span
from ometrics.snapshot import TaskStatistics

_VALUE: Final = "ometrics:rule:value"
_GOOD: Final = "ometrics:objective:good"
_ALL: Final = "ometrics:objective:all"
_BAD: Final = "ometrics:objective:bad_ratio"
_MODEL: Final = names.prometheus_label(names.MODEL)
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


def rules_file(rules: Iterable[Rule | Objective]) -> str:
    """
    A file of Prometheus rules, in YAML.

    Raises:
        ValueError: A rule watches a number that no metric of ours has.
    """
    groups: list[dict[str, Any]] = []
    for rule in rules:
        made = _of_rule(rule) if isinstance(rule, Rule) else _of_objective(rule)
        groups.append({"name": f"ometrics: {rule.name}", "rules": list(made)})
    lines = [
        "# Written by `ometrics rules show --prometheus`: change the rules it was",
        "# written from. Needs Prometheus 2.42 or newer.",
        "groups:",
    ]
    for group in groups:
        lines += [f"  - name: {_yaml(group['name'])}", "    rules:"]
        for row in group["rules"]:
            lines += _entry(row)
    return "\n".join(lines) + "\n"


def _entry(row: Mapping[str, Any]) -> Iterator[str]:
    """One rule as lines of YAML; JSON strings are YAML's too."""
    lead = "      - "
    for key, value in row.items():
        if key == "expr":
            yield f"{lead}expr: |-"
            yield from (f"          {line}" for line in value.splitlines())
        elif isinstance(value, dict):
            yield f"{lead}{key}:"
            yield from (f"          {k}: {_yaml(v)}" for k, v in value.items())
        else:
            yield f"{lead}{key}: {_yaml(value)}"
        lead = "        "


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# --- Rules


def _of_rule(rule: Rule) -> Iterator[dict[str, Any]]:
    labels = _labels(rule.quantity.scope)
    known = f"(\n{_value(rule)}\n) >= 0"  # drops NaN: a ratio of nothing
    if rule.min_requests:
        known += f"\nand on ({labels}) ({_requests(rule)} >= {rule.min_requests})"
    yield {"record": _VALUE, "expr": known, "labels": {"rule": rule.name}}
    value = f"{_VALUE}{{rule={_quoted(rule.name)}}}"
    firing = f'ALERTS{{alertname={_quoted(rule.name)}, alertstate="firing"}}'
    sign = ">" if rule.rises else "<"
    limit, clear = (_converted(rule, n) for n in (rule.limit, rule.clear_limit))
    branches = [f"{value} {sign} {limit:g}"]
    if rule.clear_limit != rule.limit:
        branches.append(f"({value} {sign} {clear:g} and on ({labels}) {firing})")
    branches.append(
        f"(max by ({labels}, rule) ({firing}) unless on ({labels}) {value})"
    )
    row: dict[str, Any] = {"alert": rule.name, "expr": "\nor\n".join(branches)}
    if rule.hold:
        row["for"] = _length(rule.hold)
    if rule.clear_hold:
        row["keep_firing_for"] = _length(rule.clear_hold)
    yield row | {
        "labels": {"severity": rule.severity},
        "annotations": {"summary": _summary(rule)},
    }


def _summary(rule: Rule | Objective) -> str:
    """A template of Prometheus, in which `{{` begins an expression."""
    text = describe(rule).replace("{{", '{{"{{"}}')
    if rule.quantity.scope == "snapshot":
        return text
    return f"{{{{ $labels.{_MODEL} }}}}: {text}"


def _value(rule: Rule) -> str:
    """A rule's number in PromQL."""
    quantity, matchers = rule.quantity, _matchers(rule)
    if quantity.declared is None:
        return _made_of(quantity, rule.window, matchers)
    scope, field = quantity.scope, quantity.declared
    if quantity.statistic:
        return _of_histogram(quantity, field, rule.window, matchers)
    if isinstance(field, Counts):
        matchers = {**matchers, names.prometheus_label(str(field.by)): quantity.key}
    if isinstance(field, Counter | Counts):
        return _counted(scope, field, rule.window, matchers)
    combine = (
        "sum" if isinstance(field, Gauge) and field.combine is operator.add else "max"
    )
    return f"{combine} by ({_labels(scope)}) ({_series(field, matchers)})"


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
        return _counted(*self._parts, function=spec or "increase")


def _counted(
    scope: Scope,
    field: Field,
    window: float,
    matchers: Mapping[str, str],
    *,
    function: str = "increase",
) -> str:
    series = _series(field, matchers)
    return f"sum by ({_labels(scope)}) ({function}({series}[{_length(window)}]))"


def _of_histogram(
    quantity: Quantity, field: Field, window: float, matchers: Mapping[str, str]
) -> str:
    by = _labels(quantity.scope)

    def rate(suffix: str = "", labels: str = by, function: str = "rate") -> str:
        series = _series(field, matchers, suffix)
        return f"sum by ({labels}) ({function}({series}[{_length(window)}]))"

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


def _requests(rule: Rule) -> str:
    """How many requests there were, for `min_requests`."""
    scope = rule.quantity.scope
    owner = CallMetrics if scope == "call" else PerformanceMetrics
    field = next(f for f in fields_of(owner) if f.name == "successful_reqs")
    either = replace(field, labels={"outcome": "~success|failure"})
    return _counted(scope, either, rule.window, _matchers(rule))


# --- Objectives


def _of_objective(objective: Objective) -> Iterator[dict[str, Any]]:
    pairs = burns(objective)
    for window in sorted({w for burn in pairs for w in (burn.long, burn.short)}):
        labels = {"objective": objective.name, "window": _length(window)}
        series = f"{{{', '.join(_matcher(*pair) for pair in labels.items())}}}"
        good, counted = _good(objective, window), _counted_requests(objective, window)
        share = f"({_GOOD}{series} or {_ALL}{series} * 0) / {_ALL}{series}"
        yield {"record": _GOOD, "expr": good, "labels": labels}
        yield {"record": _ALL, "expr": counted, "labels": labels}
        yield {"record": _BAD, "expr": f"(1 - {share}) >= 0", "labels": labels}
    for burn in pairs:
        yield {
            "alert": f"{objective.name}: burns {burn.rate:g} x too fast",
            "expr": "\nand ignoring (window)\n".join(
                _burning(objective, burn, window) for window in (burn.long, burn.short)
            ),
            "labels": {"severity": burn.severity},
            "annotations": {"summary": _summary(objective)},
        }


def _burning(objective: Objective, burn: Burn, window: float) -> str:
    series = f"objective={_quoted(objective.name)}, window={_quoted(_length(window))}"
    return f"{_BAD}{{{series}}} > {burn.rate * objective.budget:.6g}"


def _outcome(objective: Objective, name: str, window: float) -> str:
    """Rate of requests that ended so."""
    scope = objective.quantity.scope
    owner = CallMetrics if scope == "call" else PerformanceMetrics
    field = next(field for field in fields_of(owner) if field.name == name)
    return _counted(scope, field, window, _matchers(objective), function="rate")


def _times(objective: Objective, window: float, suffix: str = "", le: str = "") -> str:
    """Rate of an objective's histogram, or of a part of a classic one."""
    quantity = objective.quantity
    if quantity.declared is None:
        raise ValueError(f"{quantity.name} is not exported, so Prometheus has no such")
    matchers = _matchers(objective) | ({"le": le} if le else {})
    series = _series(quantity.declared, matchers, suffix)
    return f"sum by ({_labels(quantity.scope)}) (rate({series}[{_length(window)}]))"


def _good(objective: Objective, window: float) -> str:
    """Rate of the requests that kept it."""
    if objective.within is None:
        return _outcome(objective, "successful_reqs", window)
    within, native = float(objective.within), _times(objective, window)
    good = f"histogram_fraction(0, {within:g}, {native}) * histogram_count({native})"
    field = objective.quantity.declared
    bounds = field.metric.bounds if field is not None and field.metric else None
    if within in (bounds or DEFAULT_BUCKETS):
        le = f"~{within:g}|{within}"
        good += f"\nor\n{_times(objective, window, '_bucket', le)}"
    return good


def _counted_requests(objective: Objective, window: float) -> str:
    """Rate of all requests that count, though a model may lack one kind of series."""
    parts = [_outcome(objective, "failed_reqs", window)]
    if objective.within is None:
        parts.append(_outcome(objective, "successful_reqs", window))
    else:
        native = f"histogram_count({_times(objective, window)})"
        parts.append(f"({native} or {_times(objective, window, '_count')})")
    marked = "\n  or\n".join(
        f'  label_replace({part}, "part", "{number}", "", "")'
        for number, part in enumerate(parts)
    )
    return f"sum by ({_labels(objective.quantity.scope)}) (\n{marked}\n)"


# --- Series


@lru_cache(maxsize=1)
def _rows() -> Mapping[str, names.Metric]:
    return {row.name: row for row in names.METRICS}


def _series(field: Field, matchers: Mapping[str, str], suffix: str = "") -> str:
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
    pairs = [_matcher(key, value) for key, value in {**matchers, **own}.items()]
    return row.prometheus + suffix + (f"{{{', '.join(pairs)}}}" if pairs else "")


def _matcher(label: str, value: str) -> str:
    if value.startswith("~"):
        return f"{label}=~{_quoted(value[1:])}"
    return f"{label}={_quoted(value)}"


def _matchers(rule: Rule | Objective) -> dict[str, str]:
    matchers = {}
    if rule.model is not None:
        matchers[_MODEL] = "~" + _regex(rule.model)
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


def _length(seconds: float) -> str:
    """A duration of Prometheus, which knows no fractions."""
    return span(seconds) if seconds == int(seconds) else f"{round(seconds * 1e3)}ms"


def _quoted(text: str) -> str:
    """A string of PromQL, which takes JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)


def _labels(scope: Scope) -> str:
    return "job" if scope == "snapshot" else f"job, {_MODEL}"


def _converted(rule: Rule, limit: float) -> float:
    """A limit in the unit of the metric that is exported."""
    field = rule.quantity.declared
    if field is None or field.convert is None or rule.quantity.statistic:
        return limit
    return field.convert(limit)
