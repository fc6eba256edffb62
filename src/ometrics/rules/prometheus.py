# SPDX-License-Identifier: MIT
"""The same rules for Prometheus: what fires here fires there.

Each rule becomes a recording rule of its number, absent while that is unknown, and an
alert on it. `for` and `keep_firing_for` are Prometheus's own (2.42 or newer). What it
lacks, the alert says with its own `ALERTS` series: an incident that has begun goes on
until `clear` is reached, and while nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ometrics.fields import fields_of
from ometrics.histogram import DEFAULT_BUCKETS
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.rules.objectives import Burn, burns
from ometrics.rules.promql import (
    MODEL,
    count_of,
    labels_of,
    length_of,
    limit_of,
    matcher_of,
    matchers_of,
    number_of,
    quoted,
    requests_of,
    selector,
)
from ometrics.rules.rule import Objective, Rule
from ometrics.rules.words import describe

_VALUE: Final = "ometrics:rule:value"
_GOOD: Final = "ometrics:objective:good"
_ALL: Final = "ometrics:objective:all"
_BAD: Final = "ometrics:objective:bad_ratio"


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
    labels = labels_of(rule.quantity.scope)
    known = f"(\n{number_of(rule)}\n) >= 0"  # drops NaN: a ratio of nothing
    if rule.min_requests:
        known += f"\nand on ({labels}) ({requests_of(rule)} >= {rule.min_requests})"
    yield {"record": _VALUE, "expr": known, "labels": {"rule": rule.name}}
    value = f"{_VALUE}{{rule={quoted(rule.name)}}}"
    firing = f'ALERTS{{alertname={quoted(rule.name)}, alertstate="firing"}}'
    sign = ">" if rule.rises else "<"
    limit, clear = (limit_of(rule, n) for n in (rule.limit, rule.clear_limit))
    branches = [f"{value} {sign} {limit:g}"]
    if rule.clear_limit != rule.limit:
        branches.append(f"({value} {sign} {clear:g} and on ({labels}) {firing})")
    branches.append(
        f"(max by ({labels}, rule) ({firing}) unless on ({labels}) {value})"
    )
    row: dict[str, Any] = {"alert": rule.name, "expr": "\nor\n".join(branches)}
    if rule.hold:
        row["for"] = length_of(rule.hold)
    if rule.clear_hold:
        row["keep_firing_for"] = length_of(rule.clear_hold)
    yield row | {
        "labels": {"severity": rule.severity},
        "annotations": {"summary": _summary(rule)},
    }


def _summary(rule: Rule | Objective) -> str:
    """A template of Prometheus, in which `{{` begins an expression."""
    text = describe(rule).replace("{{", '{{"{{"}}')
    if rule.quantity.scope == "snapshot":
        return text
    return f"{{{{ $labels.{MODEL} }}}}: {text}"


# --- Objectives


def _of_objective(objective: Objective) -> Iterator[dict[str, Any]]:
    pairs = burns(objective)
    for window in sorted({w for burn in pairs for w in (burn.long, burn.short)}):
        labels = {"objective": objective.name, "window": length_of(window)}
        series = f"{{{', '.join(matcher_of(*pair) for pair in labels.items())}}}"
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
    series = f"objective={quoted(objective.name)}, window={quoted(length_of(window))}"
    return f"{_BAD}{{{series}}} > {burn.rate * objective.budget:.6g}"


def _outcome(objective: Objective, name: str, window: float) -> str:
    """Rate of requests that ended so."""
    scope = objective.quantity.scope
    owner = CallMetrics if scope == "call" else PerformanceMetrics
    field = next(field for field in fields_of(owner) if field.name == name)
    return count_of(scope, field, window, matchers_of(objective), function="rate")


def _times(objective: Objective, window: float, suffix: str = "", le: str = "") -> str:
    """Rate of an objective's histogram, or of a part of a classic one."""
    quantity = objective.quantity
    if quantity.declared is None:
        raise ValueError(f"{quantity.name} is not exported, so Prometheus has no such")
    matchers = matchers_of(objective) | ({"le": le} if le else {})
    series = selector(quantity.declared, matchers, suffix)
    return f"sum by ({labels_of(quantity.scope)}) (rate({series}[{length_of(window)}]))"


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
    return f"sum by ({labels_of(objective.quantity.scope)}) (\n{marked}\n)"
