# SPDX-License-Identifier: MIT
"""Values, limits and alerts as people read them."""

from __future__ import annotations

from ometrics.rules.engine import Alert
from ometrics.rules.rule import Objective, Rule
from ometrics.rules.stalls import Stalls
from ometrics.view.escape import harmless
from ometrics.view.units import UNKNOWN, duration, number, percent


def amount(value: float | None, unit: str) -> str:
    """A value with its unit: `2.31s`, `5.2%`, `34 tokens/s`, `12`."""
    if value is None:
        return UNKNOWN
    if unit == "s":
        return duration(value)
    if unit == "ms":
        return duration(value / 1e3)
    if unit == "%":
        return percent(value)
    if unit == "1/s":
        return f"{number(value)}/s"
    return f"{number(value)} {unit}".rstrip()


def sentence(alert: Alert) -> str:
    """One line that says it all; safe to print."""
    if alert.unit == "finding":
        return _finding(alert)
    model = f" of {harmless(alert.model)}" if alert.model else ""
    what = f"{harmless(alert.rule)}: {alert.metric}{model}"
    if alert.state == "firing":
        side = "above" if alert.rises else "below"
        return (
            f"{what} is {amount(alert.value, alert.unit)},"
            f" {side} {amount(alert.limit, alert.unit)}{_of_call(alert)}"
        )
    lasted = duration((alert.at - alert.began).total_seconds())
    if alert.value is None:
        return f"{what} is over after {lasted}: the rule is gone"
    return f"{what} is back at {amount(alert.value, alert.unit)} after {lasted}"


def _finding(alert: Alert) -> str:
    model = harmless(alert.model) or "all models"
    if alert.state == "firing":
        return f"{alert.rule}: {model}: {alert.metric}"
    lasted = duration((alert.at - alert.began).total_seconds())
    return f"{alert.rule}: {model}: over after {lasted}"


def _of_call(alert: Alert) -> str:
    """Which call in flight it is about."""
    call = alert.call
    if call is None:
        return ""
    last = "no chunk yet"
    if call.silence is not None:
        last = f"last chunk {duration(call.silence)} ago"
    return f" ({call.operation}, {duration(call.age)} old, {last})"


def describe(rule: Rule | Objective) -> str:
    """What a rule says, in a sentence."""
    of = f" of {harmless(rule.model)}" if rule.model else " of each model"
    if isinstance(rule, Objective):
        good = f"within {duration(float(rule.within))}" if rule.within else "successful"
        return (
            f"{percent(100 * rule.target)} of {rule.metric}{of} {good},"
            f" over {span(rule.window)}"
        )
    if rule.quantity.scope == "snapshot":
        of = ""
    side = "above" if rule.rises else "below"
    text = f"{rule.metric}{of} {side} {amount(rule.limit, rule.quantity.unit)}"
    text += f" over {span(rule.window)}"
    return text + (f" for {span(rule.hold)}" if rule.hold else "")


def describe_stalls(stalls: Stalls) -> str:
    """What limits for calls in flight say, in a sentence."""
    parts = []
    if stalls.chunk is not None:
        parts.append(f"a stream without a chunk for {span(float(stalls.chunk))}")
    if stalls.answer is not None:
        parts.append(f"a model that answers nobody for {span(float(stalls.answer))}")
    if stalls.times is not None:
        parts.append(
            f"a call over {span(float(stalls.least))} that takes {stalls.times:g} x its"
            " p99"
        )
    if stalls.queue is not None:
        parts.append(f"calls in flight that only grow for {span(float(stalls.queue))}")
    return "; ".join(parts) or "nothing"


def span(seconds: float) -> str:
    """A round time as people set it: `30s`, `5m`, `30d`."""
    for name, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length and not seconds % length:
            return f"{seconds / length:g}{name}"
    return f"{seconds:g}s"
