# SPDX-License-Identifier: MIT
"""Rules over a series that somebody makes up."""

from __future__ import annotations

import pytest

from ometrics.rules import Objective, Rule, RuleError, synthetic
from ometrics.rules.synthetic import MODEL, parse, run

SLOW = Rule("slow", "latency.p95", above="2s", for_="1m", clear_for="2m")


def told(text: str, *rules: Rule | Objective, step: float = 30.0) -> list[object]:
    """State and second of each alert."""
    start = synthetic._START
    return [
        (alert.state, (alert.at - start).total_seconds())
        for alert in run(rules or (SLOW,), parse(text), step)
    ]


def test_a_series_says_when_it_would_alert() -> None:
    """Past the limit for a minute; over after two minutes of good; `_` ends nothing."""
    assert [("firing", 90.0), ("resolved", 330.0)] == told(
        "latency.p95 = 1 3x4 _x2 1x6"
    )
    assert [] == told("latency.p95 = 3 1 3 1 3 1")
    assert [("firing", 60.0)] == told("latency.p95 = 3sx3 _x100")


def test_values_have_the_units_of_the_metric() -> None:
    """As limits do: with a unit or without."""
    assert (0.1, 0.1, None, 3.0) == parse("latency.p95=100ms 0.1 _ 3s").values
    assert (5.0,) * 3 == parse("error_rate = 5%x3").values


def test_the_alert_is_of_the_model_that_the_rule_is_for() -> None:
    """Or of a model, or of none where the number is no model's."""
    rules = [
        Rule("a", "errors", above=1),
        Rule("b", "errors", above=1, model="llama3*"),
    ]
    models = [alert.model for alert in run(rules, parse("errors = 2"), 1.0)]

    assert [MODEL, "llama3*"] == models
    (alert,) = run(
        [Rule("c", "internal_errors", above=0)], parse("internal_errors = 2"), 1.0
    )
    assert "" == alert.model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency.p95", "is no series"),
        ("latency.p95 = ", "is no series"),
        ("latencyy.p95 = 1", "did you mean"),
        ("latency.p95 = fastx3", "is no limit"),
        ("latency.p95 = 5%", "is no limit"),
        ("latency.p95 = 1x1000000", "at most 100,000"),
        ("latency.p95 = infx3", "not a finite number"),
    ],
)
def test_what_is_no_series_is_refused(text: str, message: str) -> None:
    """The message quotes what is wrong."""
    with pytest.raises((ValueError, RuleError), match=message):
        parse(text)


def test_a_metric_without_a_rule_is_refused() -> None:
    """Silence would look like a rule that holds."""
    with pytest.raises(ValueError, match="no rule is for error_rate"):
        list(run([SLOW], parse("error_rate = 1"), 1.0))
