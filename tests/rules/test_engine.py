# SPDX-License-Identifier: MIT
"""The state machine of incidents against a definition that tries all pasts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics import MetricsCollector, PerformanceMetrics, Snapshot
from ometrics.rules import Alert, Engine, Rule

MODEL = "llama3.2"
LIMIT, CLEAR = 10.0, 5.0
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
EMPTY = MetricsCollector().snapshot()

Value: TypeAlias = "float | None"
# What a number may be: unknown, good, between, at the limits, past.
VALUES = st.sampled_from([None, 0.0, CLEAR, 7.0, LIMIT, 11.0, 100.0])
SERIES = st.lists(st.tuples(st.integers(0, 40), VALUES), max_size=40)


def window(**values: float | None) -> Callable[[float], Snapshot]:
    """Windows in which models have so many tokens a success; `None` for no success."""
    models = {
        name: PerformanceMetrics(
            model=name,
            successful_reqs=0 if value is None else 1,
            tokens_processed=int(value or 0),
        )
        for name, value in values.items()
    }
    snapshot = Snapshot(
        instance_id=EMPTY.instance_id,
        start_time=EMPTY.start_time,
        collection_time=EMPTY.collection_time,
        uptime_seconds=1.0,
        models=models,
    )
    return lambda seconds: snapshot


def rule(**changes: object) -> Rule:
    """A rule with all that an incident can have."""
    fields: dict[str, object] = {
        "name": "many tokens",
        "metric": "avg_tokens_per_req",
        "above": LIMIT,
        "clear": CLEAR,
        "for_": 30,
        "clear_for": 50,
    }
    return Rule(**{**fields, **changes})  # type: ignore[arg-type]


def at(second: float) -> datetime:
    """The wall clock at a second of the test."""
    return BEGIN + timedelta(seconds=second)


def run(
    engine: Engine, samples: Sequence[tuple[float, Value]]
) -> list[tuple[float, str]]:
    """When the engine says what of one model."""
    return [
        (second, alert.state)
        for second, value in samples
        for alert in engine.evaluate(window(m=value), now=second, at=at(second))
    ]


def expected(
    samples: Sequence[tuple[float, Value]], hold: float, clear_hold: float
) -> list[tuple[float, str]]:
    """The same by the definition: look back over all pasts at every moment."""
    found: list[tuple[float, str]] = []
    begin = 0  # nothing before counts towards the next change
    for now in range(len(samples)):
        firing = bool(found) and found[-1][1] == "firing"
        for start in range(begin, now + 1):
            values = [value for _, value in samples[start : now + 1]]
            lasted = samples[now][0] - samples[start][0]
            if firing:
                good = all(value is not None and value <= CLEAR for value in values)
                if good and lasted >= clear_hold:
                    found.append((samples[now][0], "resolved"))
                    begin = now + 1
                    break
            elif lasted >= hold and all(v is not None and v > LIMIT for v in values):
                found.append((samples[now][0], "firing"))
                begin = now + 1
                break
    return found


def series(
    steps: Sequence[tuple[int, Value]],
) -> list[tuple[float, Value]]:
    """Gaps and values -> instants and values."""
    second, samples = 0.0, []
    for gap, value in steps:
        second += gap
        samples.append((second, value))
    return samples


@given(SERIES, st.sampled_from([0, 10, 30]), st.sampled_from([0, 10, 50]))
def test_incidents_are_those_of_the_definition(
    steps: list[tuple[int, Value]], hold: int, clear_hold: int
) -> None:
    """Over any series, incidents begin and end when the definition says so."""
    samples = series(steps)
    engine = Engine([rule(for_=hold, clear_for=clear_hold)])

    assert expected(samples, hold, clear_hold) == run(engine, samples)


@given(SERIES)
def test_every_incident_fires_once_and_ends_once(
    steps: list[tuple[int, Value]],
) -> None:
    """Firing and resolved take turns, whatever happens between."""
    states = [state for _, state in run(Engine([rule()]), series(steps))]

    assert (["firing", "resolved"] * len(states))[: len(states)] == states


@given(SERIES, st.lists(st.booleans(), min_size=40, max_size=40))
def test_a_restart_changes_nothing(
    steps: list[tuple[int, Value]], restarts: list[bool]
) -> None:
    """An engine made from the JSON of another's state goes on as that would have."""
    samples = series(steps)
    engine, found = Engine([rule()]), []
    offset = 0.0
    for (second, value), restart in zip(samples, restarts, strict=False):
        if restart:
            # The clock of the new process began elsewhere, three seconds earlier.
            state = json.loads(json.dumps(engine.state()))
            last = engine.now
            offset += 1_000.0
            engine = Engine([rule()])
            engine.restore(state, now=last + 1_000.0)
        alerts = engine.evaluate(window(m=value), now=second + offset, at=at(second))
        found += [(second, alert.state) for alert in alerts]

    assert run(Engine([rule()]), samples) == found


def test_models_are_incidents_of_their_own() -> None:
    """One model's incident begins and ends whatever another's does."""
    engine = Engine([rule(for_=0, clear_for=0)])
    rounds = [{"a": 11.0, "b": 1.0}, {"a": 11.0, "b": 11.0}, {"a": 1.0, "b": 11.0}]
    found = [
        (second, alert.model, alert.state)
        for second, values in enumerate(rounds)
        for alert in engine.evaluate(window(**values), now=second, at=at(second))
    ]

    assert [(0, "a", "firing"), (1, "b", "firing"), (2, "a", "resolved")] == found


def test_begin_and_end_are_one_incident() -> None:
    """Both alerts of an incident have its id and beginning; the next has another."""
    engine = Engine([rule(for_=0, clear_for=0)])
    alerts: list[Alert] = []
    for second, value in enumerate([11.0, 1.0, 11.0]):
        alerts += engine.evaluate(window(m=value), now=second, at=at(second))

    first, end, second_begin = alerts
    assert (first.id, first.began) == (end.id, end.began)
    assert first.id != second_begin.id
    assert (11.0, 1.0) == (first.value, end.value)


def test_missing_is_a_phase_of_its_own() -> None:
    """What is not known is neither fine nor an incident; an incident goes on."""
    engine = Engine([rule(for_=0)])
    phases = []
    for second, value in enumerate([None, 1.0, 11.0, None]):
        engine.evaluate(window(m=value), now=second, at=at(second))
        phases += [(s.phase, s.missing) for s in engine.statuses()]

    assert [
        ("missing", True),
        ("ok", False),
        ("firing", False),
        ("firing", True),
    ] == phases


def test_a_removed_rule_ends_its_incident() -> None:
    """An incident of a rule that the new configuration lacks ends once."""
    before = Engine([rule(for_=0)])
    before.evaluate(window(m=11.0), now=0.0, at=at(0))
    after = Engine([])
    after.restore(before.state(), now=1.0)
    found = [
        alert.state
        for second in (1, 2)
        for alert in after.evaluate(window(m=11.0), now=second, at=at(second))
    ]

    assert ["resolved"] == found


@pytest.mark.parametrize(
    "state",
    [{}, {"version": 2, "incidents": []}, {"version": 1, "incidents": [{"rule": 1}]}],
)
def test_a_bad_state_is_refused(state: dict[str, object]) -> None:
    """What is no state of ours is an error that says so."""
    with pytest.raises(ValueError, match="no state of rules"):
        Engine([]).restore(state, now=0.0)


def test_names_are_unique() -> None:
    """Two rules of one name are refused by that name."""
    with pytest.raises(ValueError, match="two rules are named 'many tokens'"):
        Engine([rule(), rule()])


def test_a_clock_that_goes_back_is_held() -> None:
    """An evaluation in the past counts as one now: no incident begins before it."""
    engine = Engine([rule(for_=10)])
    found = []
    for now, value in ((100.0, 0.0), (50.0, 11.0), (105.0, 11.0), (110.0, 11.0)):
        alerts = engine.evaluate(window(m=value), now=now, at=at(now))
        found += [(now, alert.state) for alert in alerts]

    assert [(110.0, "firing")] == found


def test_an_end_that_was_near_stays_near() -> None:
    """Restarts while the number is good again do not put off the end."""
    engine, found = Engine([rule(for_=0)]), []
    for second, value in [(0, 11.0), *((10 * i, 0.0) for i in range(1, 8))]:
        state = engine.state()
        engine = Engine([rule(for_=0)])
        engine.restore(state, now=float(second - 10))
        alerts = engine.evaluate(window(m=value), now=float(second), at=at(second))
        found += [(second, alert.state) for alert in alerts]

    assert [(0, "firing"), (60, "resolved")] == found
