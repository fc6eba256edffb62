# SPDX-License-Identifier: MIT
"""Objectives: what counts as good, and how fast the error budget burns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics import CallMetrics, LatencyHistogram, MetricsCollector, Snapshot
from ometrics.histogram import DEFAULT_BUCKETS
from ometrics.rules import Engine, Objective, attained
from ometrics.rules.objectives import at_most, burns

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = 3600.0
SECONDS = st.floats(1e-6, 4000.0)


@given(st.lists(SECONDS), st.sampled_from(DEFAULT_BUCKETS[:-1]))
def test_a_bound_of_the_buckets_is_exact(values: list[float], bound: float) -> None:
    """As many values are within a bucket's bound as there are."""
    assert sum(value <= bound for value in values) == at_most(
        LatencyHistogram.of(values), bound
    )


@given(st.lists(SECONDS), SECONDS)
def test_any_other_bound_is_exact_to_a_cell(values: list[float], bound: float) -> None:
    """Values within 2.2 % of the bound may be counted either way, no others."""
    counted = at_most(LatencyHistogram.of(values), bound)

    assert sum(value <= bound / 1.022 for value in values) <= counted
    assert counted <= sum(value <= bound * 1.022 for value in values)


def snapshot(good: int, slow: int, failed: int) -> Snapshot:
    """A collector's snapshot of one model."""
    collector = MetricsCollector()
    for latency, count in ((0.1, good), (3.0, slow)):
        for _ in range(count):
            collector.record_latency("m", latency)
    for _ in range(failed):
        collector.record_error("m", TimeoutError)
    return collector.snapshot()


def test_a_failure_keeps_no_promise() -> None:
    """Failed requests count as bad, so that timeouts make nothing look faster."""
    objective = Objective("quick", "latency", within="1s", target=0.9)
    kept = attained(objective, snapshot(good=90, slow=5, failed=5))["m"]

    assert (90, 100) == (kept.good, kept.total)
    assert kept.is_met
    assert pytest.approx(1.0) == kept.burn_rate
    assert pytest.approx(0.0) == kept.budget_left


def test_success_itself() -> None:
    """Without a time the promise is that requests succeed, however slowly."""
    kept = attained(Objective("up", target=0.95), snapshot(90, 5, 5))["m"]

    assert (95, 100, True) == (kept.good, kept.total, kept.is_met)


def test_too_few_requests_say_nothing() -> None:
    """Below the minimum nothing is met and nothing is missed."""
    objective = Objective("up", target=0.95, min_requests=101)
    kept = attained(objective, snapshot(90, 5, 5))["m"]

    assert (None, None, None) == (kept.is_met, kept.burn_rate, kept.budget_left)


def test_only_the_named_operation_counts() -> None:
    """An objective of chats does not look at embeddings."""
    model = snapshot(1, 0, 0).models["m"]
    calls = {
        name: CallMetrics(
            operation=name, latency=LatencyHistogram.of(values), failed_reqs=1
        )
        for name, values in (("chat", [0.1, 3.0]), ("embeddings", [0.1]))
    }
    window = snapshot(0, 0, 0)
    window = Snapshot(
        **{name: getattr(window, name) for name in window.__struct_fields__}
        | {"models": {"m": replace_calls(model, calls)}}
    )
    chats = Objective(*("chats", "time_to_first_chunk"), within="1s", operation="chat")

    assert (0, 1) == (
        attained(chats, window)["m"].good,
        attained(chats, window)["m"].total,
    )


def replace_calls(model: object, calls: dict[str, CallMetrics]) -> object:
    """A model with these calls."""
    from msgspec.structs import replace

    return replace(model, calls=calls)  # type: ignore[type-var]


def test_the_windows_are_the_workbook_s() -> None:
    """For 30 days: 14.4 in 1 h and 5 min, 6 in 6 h and 30 min, 1 in 3 d and 6 h."""
    found = [(b.long / HOUR, b.short / HOUR, b.rate) for b in burns(Objective("up"))]

    assert [(1, 1 / 12, 14.4), (6, 0.5, 6.0), (72, 6, 1.0)] == found


def windows(bad: dict[float, float]) -> Callable[[float], Snapshot]:
    """Windows by hours, of a thousand requests with so many percent bad."""

    def window(seconds: float) -> Snapshot:
        failed = round(bad[seconds / HOUR] * 10)
        return snapshot(good=1000 - failed, slow=0, failed=failed)

    return window


@pytest.mark.parametrize(
    ("bad", "fires"),
    [
        # Of 0.1 % that may be bad: 2 % in the last hour and still now.
        ({1: 2, 1 / 12: 2, 6: 0.4, 0.5: 2, 72: 0, 6 * 1.0: 0.4}, ["14.4"]),
        # It was bad, but is over.
        ({1: 2, 1 / 12: 0, 6: 0.4, 0.5: 2, 72: 0}, []),
        # A short peak.
        ({1: 1, 1 / 12: 9, 6: 0.2, 0.5: 1, 72: 0}, []),
        # A slow leak.
        ({1: 0.2, 1 / 12: 0.2, 6: 0.2, 0.5: 0.2, 72: 0.2}, ["1"]),
    ],
)
def test_what_burns_fires(bad: dict[float, float], fires: list[str]) -> None:
    """An alert needs the long window and the short one."""
    engine = Engine([Objective("up", target=0.999)])
    alerts = engine.evaluate(windows(bad), now=0.0, at=NOW)

    assert [f"up: burns {rate} x too fast" for rate in fires] == [
        alert.rule for alert in alerts
    ]
