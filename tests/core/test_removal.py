# SPDX-License-Identifier: MIT
"""Removed models, discarded calls and bad input: what they leave behind."""

from __future__ import annotations

import pytest

from ometrics import MetricsCollector
from ometrics.testing import FakeClock


def test_a_model_that_is_removed_during_a_call_starts_anew() -> None:
    """The end of a call counts in a new record, not in the removed one."""
    mc = MetricsCollector()
    mc.record_latency("m", 1.0)
    call = mc.start_call("m")

    assert mc.remove_model("m")

    call.end("success", prompt_tokens=5)
    model = mc.snapshot().models["m"]

    assert (1, 5) == (model.total_requests, model.tokens_processed)
    assert model.calls["chat"].successful_reqs == 1


def test_a_bound_recorder_outlives_removal() -> None:
    """It counts in the model's new record."""
    mc = MetricsCollector()
    bound = mc.model("m")
    for _ in range(3):
        bound.record_latency(1.0)
        mc.remove_model("m")
        bound.record_tokens(5)

    model = mc.snapshot().models["m"]

    assert (0, 5) == (model.total_requests, model.tokens_processed)


def test_discarded_calls_use_up_no_models() -> None:
    """A thousand models that were only loaded leave room for one that answers."""
    mc = MetricsCollector(max_models=2)
    for i in range(1000):
        mc.start_call(f"loaded{i}").discard()
    mc.record_latency("m", 1.0)

    assert {"m"} == set(mc.snapshot().models)


def test_a_discarded_call_leaves_the_others_alone() -> None:
    """Another running call of the model, and what was counted, stay."""
    mc = MetricsCollector()
    first, second = mc.start_call("m"), mc.start_call("m")
    first.discard()

    assert mc.snapshot().models["m"].calls["chat"].in_flight == 1

    second.end("success")

    assert mc.snapshot().models["m"].total_requests == 1


def test_a_repaired_name_counts_once_a_record() -> None:
    """Also when the table of records has to grow for it."""
    mc = MetricsCollector()
    for i in range(64):
        mc.record_latency(f"m{i}", 1.0)
    mc.record_latency("x" * 300, 1.0)

    assert mc.snapshot().truncated_names == 1


def test_a_clock_that_stands_at_zero_is_a_clock() -> None:
    """The year 1970 is a time like any other."""
    clock = FakeClock(time=0.0, monotonic=0.0)
    mc = MetricsCollector(clock=clock)
    mc.record_latency("m", 1.0)
    mc.record_task_completion(True, 1.0)
    mc.update_resource_metrics(1, 1, 1)
    snapshot = mc.snapshot()

    assert snapshot.collection_time.timestamp() == 0.0
    times = [
        snapshot.models["m"].last_updated,
        snapshot.task_statistics.last_updated,
        snapshot.resource_metrics and snapshot.resource_metrics.timestamp,
    ]
    assert [0.0] * 3 == [time and time.timestamp() for time in times]


class Index:
    """An integer in all but name."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __index__(self) -> int:
        return self._n


@pytest.mark.parametrize("n", [5, 2**63, 2**64 - 1, 2**64, 2**70])
def test_any_index_is_a_number_of_tokens(n: int) -> None:
    """What has `__index__` counts; past 2^64 - 1 the sum stops and says so."""
    mc = MetricsCollector()
    mc.record_tokens("m", Index(n))
    snapshot = mc.snapshot()

    assert snapshot.models["m"].tokens_processed == min(n, 2**64 - 1)
    assert snapshot.saturated == (n >= 2**64)


def test_failures_have_a_duration_of_their_own() -> None:
    """No percentile of successes improves because requests time out (law 12)."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    mc.record_latency("m", 1.0)
    mc.record_error("m", TimeoutError, latency=30.0)
    with pytest.raises(ValueError, match="x"), mc.time("m"):  # noqa: PT012
        clock.advance(7.0)
        raise ValueError("x")
    failed, cancelled = mc.start_call("m"), mc.start_call("m")
    clock.advance(3.0)
    failed.end("failure", "E")
    cancelled.end("cancelled")
    model = mc.snapshot().models["m"]
    call = model.calls["chat"]

    assert (1, 1.0) == (model.latency_hist.count, model.latency_hist.max)
    assert (3, 40.0) == (
        model.failed_latency_hist.count,
        model.failed_latency_hist.total,
    )
    assert (0, 1, 1) == (
        call.latency.count,
        call.failed_latency.count,
        call.cancelled_latency.count,
    )
    assert 3.0 == call.failed_latency.max == call.cancelled_latency.max


def test_tokens_say_of_how_many_calls_they_are_known() -> None:
    """Three of four answers had the prompt tokens, one the completion tokens."""
    mc = MetricsCollector()
    for prompt, completion in ((5, None), (7, 2), (0, None), (None, None)):
        call = mc.start_call("m")
        call.end("success", prompt_tokens=prompt, completion_tokens=completion)
    call = mc.snapshot().models["m"].calls["chat"]

    assert (12, 3, 2, 1) == (
        call.prompt_tokens,
        call.prompt_tokens_known,
        call.completion_tokens,
        call.completion_tokens_known,
    )
    assert (None, 0) == (call.cached_tokens, call.cached_tokens_known)
    assert (3, 12, 0.0, 7.0) == (
        call.prompt_tokens_hist.count,
        call.prompt_tokens_hist.total,
        call.prompt_tokens_hist.min,
        call.prompt_tokens_hist.max,
    )


def test_calls_at_another_provider_are_kept_apart() -> None:
    """The same model's name at two servers is two rows, with one model's requests."""
    mc = MetricsCollector()
    mc.start_call("m").end("success")
    mc.start_call("m", provider="openai").end("success")
    running = mc.start_call("m", provider="openai")
    model = mc.snapshot().models["m"]

    assert ["chat", "chat@openai"] == list(model.calls)
    assert ["ollama", "openai"] == [call.provider for call in model.calls.values()]
    assert [0, 1] == [call.in_flight for call in model.calls.values()]
    assert 2 == model.total_requests
    running.end("cancelled")


def test_connecting_is_a_phase_of_its_own() -> None:
    """Waiting for the client's own pool is not the network; the parts still add up."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    call = mc.start_call("m")
    clock.advance(10.0)
    call.end("success", total=int(6e9), decode=int(5e9), connect=int(3e9))
    call_metrics = mc.snapshot().models["m"].calls["chat"]

    assert (3.0, 5.0, 1.0, 1.0) == (
        call_metrics.connect.total,
        call_metrics.decode.total,
        call_metrics.residual.total,
        call_metrics.network.total,
    )


@pytest.mark.parametrize(
    ("connect", "connected", "network", "impossible"),
    [(3.0, 3.0, 1.0, 0), (4.0, 4.0, 0.0, 0), (4.5, 4.0, 0.0, 0), (11.0, 11.0, 0.0, 1)],
)
def test_a_connection_seen_late_was_there_when_the_server_began(
    connect: float, connected: float, network: float, impossible: int
) -> None:
    """Connecting and the server's time cannot overlap, and the parts still add up."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    call = mc.start_call("m")
    clock.advance(10.0)
    call.end("success", total=int(6e9), connect=int(connect * 1e9))
    snapshot = mc.snapshot()
    seen = snapshot.models["m"].calls["chat"]

    assert (connected, network) == (seen.connect.total, seen.network.total)
    assert impossible == sum(snapshot.invalid_values.values())


def test_what_was_read_does_not_change() -> None:
    """Mappings of read types refuse to be changed, and can be copied and pickled."""
    import pickle

    mc = MetricsCollector()
    mc.record_error("m", "E")
    snapshot = mc.snapshot()

    with pytest.raises(TypeError, match="does not change"):
        snapshot.models["m"].errors["x"] = 5

    again = pickle.loads(pickle.dumps(snapshot))
    assert again == snapshot
    assert dict(again.models["m"].errors) == {"E": 1}


def test_the_face_shows_the_public_methods_only() -> None:
    """What a collector completes to is what its documentation has."""
    shown = {name for name in dir(MetricsCollector) if not name.startswith("_")}

    assert not shown & {
        *("take", "take_model", "discard", "head", "forks", "widen_ring"),
        *("stop_events", "read_events", "codes_table", "count_internal_error"),
        *("layout", "slots", "core"),
    }


def test_an_outcome_that_is_none_is_named() -> None:
    """The message lists what there is."""
    call = MetricsCollector().start_call("m")

    with pytest.raises(ValueError, match="'won' is none of success, failure, cancel"):
        call.end("won")  # type: ignore[arg-type]
