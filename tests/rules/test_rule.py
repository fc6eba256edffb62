# SPDX-License-Identifier: MIT
"""Rules and objectives: what is refused, where, and with which hint."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics import PerformanceMetrics
from ometrics.fields import fields_of
from ometrics.models import CallMetrics
from ometrics.rules import Rule, RuleError, expect, quantities, resolve
from ometrics.rules.load import RulesFileError, load, loads
from ometrics.rules.quantities import quantile_of
from ometrics.rules.words import describe

GOOD = """\
# What wakes us.
[[rule]]
name = "slow answers"
metric = "latency.p95"
above = "2s"
over = "5m"
for = "1m"
model = "llama3*"
min_requests = 20
severity = "warning"

[[objective]]
name = "first chunk"
metric = "time_to_first_chunk"
within = "500ms"
target = 0.99
"""


def test_a_good_file() -> None:
    """Every field arrives in its own unit."""
    slow, chunk = loads(GOOD).rules

    assert (
        Rule(
            *("slow answers", "latency.p95"),
            above=2.0,
            over=300.0,
            for_=60.0,
            model="llama3*",
            min_requests=20,
        )
        == slow
    )
    assert (0.5, 0.99, 30 * 86_400.0) == (chunk.within, chunk.target, chunk.window)


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        (4, 'metric = "latencyy.p95"', "did you mean 'latency.p95'"),
        (4, 'metric = "latency"', "did you mean 'latency.p95' or 'latency.mean'"),
        (4, 'metrik = "latency.p95"', "a rule has no 'metrik'; did you mean 'metric'"),
        (5, 'above = "5%"', "'5%' is no limit for latency.p95; write it like '2s'"),
        (5, 'above = "two"', "'two' is no limit"),
        (5, "above = true", "True is not a number"),
        (5, "above = inf", "inf is not a finite number"),
        (5, "above = -1", "never negative, so it is always above -1"),
        (5, "below = 0", "never below 0"),
        (6, 'over = "5 minutes"', "'5 minutes' is not a length"),
        (6, "over = 0", "must be longer than 0 s"),
        (7, 'for = "-1m"', "'-1m' is not a length"),
        (7, 'clear = "3s"', "'clear' 3 must not be past the limit 2 of 'above'"),
        (8, "model = 5", "'model' must be text, not 5"),
        (8, 'operation = "chats"', "operation 'chats' is none of chat, "),
        (8, 'operation = "chat"', "latency.p95 is not kept by operation"),
        (9, "min_requests = 1.5", "min_requests 1.5 must be a whole number"),
        (10, 'severity = "page"', "severity 'page' is none of info, warning, critical"),
        (12, "[[objektive]]", "no section 'objektive'; did you mean [[objective]]"),
        (13, 'name = "slow answers"', "'slow answers' is taken on line 3"),
        (13, r'name = "\u001b[2J"', "must be text that can be printed"),
        (14, 'metric = "latency.p95"', "there is no metric 'latency.p95'"),
        (14, 'metric = "requests"', "'within' is for times such as 'latency'"),
        (15, 'within = "0s"', "nothing is within 0 s"),
        (16, "target = 99", "target 99 must be a share above 0 and below 1"),
        (16, "target = 0.99 x", "not TOML"),
    ],
)
def test_a_bad_line_is_named(line: int, changed: str, message: str) -> None:
    """A wrong line is refused with its number and what to write instead."""
    lines = GOOD.splitlines()
    lines[line - 1] = changed

    with pytest.raises(RulesFileError) as refused:
        loads("\n".join(lines), name="rules.toml")

    assert message in str(refused.value)
    expected = {8: (2, 8), 14: (12, 14)}.get(line, (line,))
    where = str(refused.value).split(": ")[0]
    assert where in {f"rules.toml:{number}" for number in (*expected, line)} | {
        # What is wrong with several fields together is said of the first or the table.
        *("rules.toml:15", "rules.toml:12", "rules.toml:2"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no [[rule]], no [[objective]] and no [stalls]"),
        ("[rule]\nname = 'x'", "write [[rule]] with two brackets"),
        ("[[rule]]\nmetric = 'in_flight'", ":1: this rule has no 'name'"),
        ("[[rule]]\nname = 'x'", ":1: this rule has no 'metric'"),
        ("[[rule]]\nname='x'\nmetric='in_flight'", "either 'above' or 'below'"),
        (
            "[[rule]]\nname='x'\nmetric='events_dropped'\nabove=0\nmodel='a'",
            ":5: events_dropped is no model's; leave 'model' out",
        ),
        (
            "[[rule]]\nname='x'\nmetric='error_rate'\nabove=100",
            ":4: error_rate is never above 100%, so 'above = 100' can never be met",
        ),
        ("[[objective]]\nname='x'\nmetric='latency'", "'latency' needs 'within'"),
    ],
)
def test_a_bad_file_is_refused(text: str, message: str) -> None:
    """What cannot be meant is refused with what to do."""
    with pytest.raises(RulesFileError) as refused:
        loads(text)

    assert message in str(refused.value)


def test_no_line_is_better_than_a_wrong_one() -> None:
    """A header inside a string makes lines unsure, and they are left out."""
    text = '[[rule]]\nname = """\n[[rule]]\n"""\nmetric = "in_flight"\nabove = 1\n'

    with pytest.raises(RulesFileError, match=r"^<rules>: name '\[\[rule"):
        loads(text)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """A file of more than a megabyte is no file of rules."""
    path = tmp_path / "rules.toml"
    path.write_bytes(b"#" * (1 << 21))

    with pytest.raises(RulesFileError, match="larger than 1,048,576 bytes"):
        load(path)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever stands in a file, there are rules or one kind of error."""
    try:
        assert loads(text).rules
    except RulesFileError as error:
        assert str(error).startswith("<rules>")  # noqa: PT017


@given(
    st.dictionaries(
        st.sampled_from(
            (
                *("name", "metric", "above", "below", "over", "for_", "clear"),
                *("clear_for", "model", "operation", "min_requests", "severity"),
            )
        ),
        st.sampled_from(["latency.p95", "2s", "5%", "x", ""])
        | st.floats()
        | st.integers()
        | st.booleans()
        | st.none(),
    )
)
def test_any_value_is_taken_or_refused(values: dict[str, object]) -> None:
    """Whatever a field is given, there is a rule or one kind of error."""
    fields = {"name": "a", "metric": "latency.p95", **values}
    try:
        rule = Rule(**fields)  # type: ignore[arg-type]
    except RuleError:
        return

    assert 0 <= rule.limit
    assert describe(rule)


def test_every_declared_number_has_a_name() -> None:
    """What the read types declare is found, but for dates and what is spelled else."""
    names = {number.field for number in quantities().values()}
    missing = [
        field.name
        for owner in (PerformanceMetrics, CallMetrics)
        for field in fields_of(owner)
        if field.metric is not None and field.name not in names
    ]

    assert {"decode_ns", "prefill_ns", "last_updated"} | {
        *("min_latency", "max_latency", "errors", "done_reasons"),
        *("latency", "failed_latency"),  # a call's: the model's stand for both
    } == set(missing)


@pytest.mark.parametrize(
    ("statistic", "quantile"),
    [
        *(("p5", 0.05), ("p50", 0.5), ("p95", 0.95), ("p999", 0.999)),
        *(("p99.9", 0.999), ("p", None), ("p1234567", None), ("x", None)),
    ],
)
def test_quantiles_by_name(statistic: str, quantile: float | None) -> None:
    """Digits after the second are decimals: `p999` is 0.999."""
    found = quantile_of(statistic)

    assert quantile == (None if found is None else pytest.approx(found))


def test_ratios_of_nothing_are_unknown() -> None:
    """An error rate of no requests is not 0 %."""
    nothing = PerformanceMetrics(model="m")

    assert None is resolve("error_rate").read(nothing)
    assert None is resolve("latency.p95").read(nothing)
    assert 0 == resolve("errors.TIMEOUT").read(nothing)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("latency.p95 < 2s", 1.9, True),
        ("latency.p95 < 2s", 2.0, False),
        ("errors == 0", 0, True),
        ("error_rate<=1%", 1.0, True),
        ("decode_tokens_per_second >= 20 tokens/s", 19.0, False),
        ("errors.TIMEOUT != 3", 3, False),
    ],
)
def test_expectations(text: str, value: float, holds: bool) -> None:
    """An expectation compares in the metric's own unit."""
    assert holds is expect(text).holds(value)


@pytest.mark.parametrize("text", ["", "latency.p95", "latency.p95 < ", "< 2s", "a = 1"])
def test_bad_expectations(text: str) -> None:
    """What is no expectation is refused."""
    with pytest.raises(ValueError, match=r"no expectation|no limit|no metric"):
        expect(text)


def test_the_documented_rules_are_right() -> None:
    """The TOML of the documentation is accepted as it stands."""
    page = Path(__file__).parents[2] / "docs" / "rules.md"
    if not page.exists():
        pytest.skip("no documentation beside the installed package")
    blocks = page.read_text(encoding="utf-8").split("```toml\n")[1:]

    assert [loads(block.split("```")[0]).rules for block in blocks]
