# SPDX-License-Identifier: MIT
"""Two runs compared: no alarm for noise, and no change overlooked."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from math import log, sqrt

from ometrics import CallMetrics, LatencyHistogram, PerformanceMetrics, Snapshot
from ometrics.comparison import Change, compare

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def snapshot(*models: PerformanceMetrics) -> Snapshot:
    """A run."""
    return Snapshot(
        instance_id="i",
        start_time=NOW,
        collection_time=NOW,
        uptime_seconds=10.0,
        models={model.model: model for model in models},
    )


def run(
    rng: random.Random, requests: int = 200, *, slower: float = 1.0, errors: float = 0.0
) -> Snapshot:
    """A run of streamed calls whose times vary by 30 %."""
    spread = sqrt(log(1 + 0.3**2))
    latencies = [slower * rng.lognormvariate(0, spread) for _ in range(requests)]
    decode = [0.6 * seconds for seconds in latencies]
    prefill = [0.1 * seconds * rng.uniform(0.5, 1.5) for seconds in latencies]
    call = CallMetrics(
        operation="chat",
        successful_reqs=requests,
        latency=LatencyHistogram.of(latencies),
        time_to_first_chunk=LatencyHistogram.of(
            0.2 * seconds * rng.uniform(0.8, 1.2) for seconds in latencies
        ),
        decode=LatencyHistogram.of(decode),
        decode_tokens=sum(rng.randrange(30, 90) for _ in latencies),
        decode_ns=round(sum(decode) * 1e9),
        prefill=LatencyHistogram.of(prefill),
        prefill_tokens=100 * requests,
        prefill_ns=round(sum(prefill) * 1e9),
    )
    return snapshot(
        PerformanceMetrics(
            model="m",
            successful_reqs=requests,
            failed_reqs=sum(rng.random() < errors for _ in range(requests)),
            latency_hist=call.latency,
            calls={"chat": call},
        )
    )


def alarm(before: Snapshot, after: Snapshot, percent: float) -> bool:
    """Whether `diff --fail-above` would fail."""
    return any(change.is_worse(percent) for change in compare(before, after).changes)


def changes(before: Snapshot, after: Snapshot) -> dict[str, Change]:
    """Of the one model, by title."""
    return {change.title: change for change in compare(before, after).changes}


def test_equal_runs_raise_no_alarm() -> None:
    """Of 200 pairs of equal runs at most 5 % fail, even without any threshold."""
    rng = random.Random(20)
    alarms = sum(
        alarm(run(rng, errors=0.02), run(rng, errors=0.02), 0) for _ in range(200)
    )

    assert alarms <= 10


def test_small_equal_runs_raise_no_alarm() -> None:
    """The demo's 13 requests a run, of which one pair of three used to fail."""
    rng = random.Random(13)
    alarms = sum(alarm(run(rng, 13), run(rng, 13), 10) for _ in range(200))

    assert alarms <= 10


def test_a_true_change_is_found() -> None:
    """20 % is found in 95 % of pairs of 200 requests, with a limit of 10 %."""
    rng = random.Random(95)
    found = sum(alarm(run(rng), run(rng, slower=1.2), 10) for _ in range(200))

    assert found >= 190


def test_every_figure_that_got_slower_is_worse() -> None:
    """First chunk and both speeds are compared as latencies are."""
    rng = random.Random(3)
    found = changes(run(rng, 1000), run(rng, 1000, slower=1.5, errors=0.1))

    assert {
        "p50": "worse",
        "p95": "worse",
        "p99": "worse",
        "mean": "worse",
        "first chunk": "worse",
        "tokens/s": "worse",
        "prefill/s": "worse",
        "error rate": "worse",
    } == {title: change.verdict for title, change in found.items()}


def test_the_other_way_round_it_is_better() -> None:
    """And better is never worse than a limit."""
    rng = random.Random(4)
    found = changes(run(rng, 1000, slower=1.5, errors=0.1), run(rng, 1000))

    assert {"better"} == {change.verdict for change in found.values()}
    assert not any(change.is_worse(0) for change in found.values())


def test_too_few_values_are_unknown() -> None:
    """A p99 of 200 requests says how many it takes; it neither fails nor passes."""
    rng = random.Random(5)
    change = changes(run(rng), run(rng, slower=3.0))["p99"]

    assert ("unknown", None, 200) == (change.verdict, change.change, change.count)
    assert change.least > 368
    assert not change.is_worse(0)


def test_one_error_is_noise_and_twenty_are_not() -> None:
    """Errors where there were none fail only where chance cannot explain them."""
    rng = random.Random(6)
    before = run(rng, 100)

    def failing(number: int) -> Change:
        """The error rate after so many failures."""
        (model,) = before.models.values()
        after = PerformanceMetrics(
            model="m",
            successful_reqs=model.successful_reqs,
            failed_reqs=number,
            latency_hist=model.latency_hist,
        )
        return changes(before, snapshot(after))["error rate"]

    assert not failing(1).is_worse(50)
    assert failing(20).is_worse(50)
    assert failing(20).percent == float("inf")


def test_models_that_came_and_went() -> None:
    """They are named, and nothing of them is compared."""
    one, other = PerformanceMetrics(model="one"), PerformanceMetrics(model="other")
    comparison = compare(snapshot(one), snapshot(other))

    assert ([], ["one"], ["other"]) == tuple(comparison)
    assert 0 == comparison.tests


def test_times_of_zero_are_not_compared() -> None:
    """There is no ratio of nothing."""
    zero = PerformanceMetrics(
        model="m", successful_reqs=50, latency_hist=LatencyHistogram.of([0.0] * 50)
    )
    found = changes(snapshot(zero), snapshot(zero))

    assert {"unknown", "same"} == {change.verdict for change in found.values()}
