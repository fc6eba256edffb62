# SPDX-License-Identifier: MIT
"""Any script of chunks and any way of ending: one record, and its times add up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instrumenting import CHAT, HI, MODEL, SETTINGS, call_metrics, outcomes

import ometrics.ollama
from ometrics import CallMetrics, MetricsCollector
from ometrics.outcomes import Outcome
from ometrics.testing import (
    FakeClock,
    Line,
    Reset,
    ScriptedOllama,
    Send,
    chat_chunk,
    chat_done,
)

OUTCOMES = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED)
SECOND = 1_000_000_000
# A float of seconds on the fake clock is a nanosecond off here and there.
ROUNDING_NS = 5

steps = st.lists(
    st.tuples(st.integers(0, 10 * SECOND), st.sampled_from([True, False])),
    max_size=100,
)
durations = st.none() | st.integers(0, 20 * SECOND)
counts = st.none() | st.integers(0, 10_000)


@given(
    steps=steps,
    after_ns=st.integers(0, 10 * SECOND),
    outcome=st.sampled_from(
        [Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED, "discard", "drop"]
    ),
    told=st.tuples(*[durations] * 4, *[counts] * 3),
    ends=st.integers(1, 3),
)
def test_one_record_of_any_call(
    steps: list[tuple[int, bool]],
    after_ns: int,
    outcome: Any,
    told: tuple[int | None, ...],
    ends: int,
) -> None:
    """Whatever comes in whatever order, the first end counts and its parts add up."""
    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    call = collector.start_call(MODEL, "chat")
    running = outcomes(collector)
    arrivals = []
    elapsed = 0
    for wait_ns, answer in steps:
        clock.advance(wait_ns / SECOND)
        elapsed += wait_ns
        arrivals.append((elapsed, answer))
        call.chunk(answer)
    clock.advance(after_ns / SECOND)
    elapsed += after_ns
    if outcome == "discard":
        call.discard()
    elif outcome != "drop":
        code = "CODE" if outcome == Outcome.FAILURE else None
        first = [call.end(outcome, code, *told, "stop") for _ in range(ends)]

        assert [True] + [False] * (ends - 1) == first
    del call
    gc.collect()
    ended = Outcome.CANCELLED if outcome == "drop" else outcome

    assert (0, 0, 0, 1) == running
    assert (
        ended == Outcome.SUCCESS,
        ended == Outcome.FAILURE,
        ended == Outcome.CANCELLED,
        0,
    ) == outcomes(collector)
    if outcome != "discard":
        check_times(call_metrics(collector), arrivals, elapsed, ended, told)


def check_times(
    call: CallMetrics,
    arrivals: list[tuple[int, bool]],
    elapsed: int,
    outcome: int,
    told: tuple[int | None, ...],
) -> None:
    """The times of one call, against what the script says."""
    rounding = ROUNDING_NS * (len(arrivals) + 2)
    answered = [at for at, answer in arrivals if answer]

    assert min(len(arrivals), 1) == call.time_to_first_chunk.count
    assert max(len(arrivals) - 1, 0) == call.time_per_output_chunk.count
    assert min(len(answered), 1) == call.time_to_first_answer.count
    if arrivals:
        chunks = call.time_to_first_chunk.sum_ns + call.time_per_output_chunk.sum_ns
        assert abs(chunks - arrivals[-1][0]) <= rounding
    if answered:
        assert abs(call.time_to_first_answer.sum_ns - answered[0]) <= rounding
    assert (outcome == Outcome.SUCCESS) == call.latency.count
    if outcome == Outcome.SUCCESS:
        assert abs(call.latency.sum_ns - elapsed) <= rounding
        if call.residual.count and call.network.count:
            parts = [call.load, call.prefill, call.decode, call.residual, call.network]
            assert call.latency.sum_ns == sum(part.sum_ns for part in parts)
            assert told[0] == call.latency.sum_ns - call.network.sum_ns


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[ScriptedOllama, ollama.Client]]:
    """A server and a client that all examples share, as agents would."""
    with (
        ScriptedOllama() as server,
        ollama.Client(host=server.url, **SETTINGS) as client,
    ):
        yield server, client


CHUNKS = {
    "answer": chat_chunk("a"),
    "thought": chat_chunk(thinking="b"),
    "tool": chat_chunk(tool_calls=[{"function": {"name": "f", "arguments": {}}}]),
    "empty": chat_chunk(""),
}
ENDINGS: dict[str, tuple[Any, str]] = {
    "done": (chat_done(), "success"),
    "load": (chat_done(done_reason="load"), "nothing"),
    "error line": (Line({"error": "x"}), "STREAM_ERROR"),
    "no done": (Send(b""), "TRUNCATED"),
    "reset": (Reset(), "CONNECTION_FAILED"),
    "not JSON": (Send(b"{...\n"), "JSONDecodeError"),
}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    script=st.lists(st.sampled_from(sorted(CHUNKS)), max_size=8),
    ending=st.sampled_from(sorted(ENDINGS)),
    leave_at=st.none() | st.integers(0, 9),
    way=st.sampled_from(["close", "drop"]),
)
def test_one_record_of_any_stream(
    ends: tuple[ScriptedOllama, ollama.Client],
    script: list[str],
    ending: str,
    leave_at: int | None,
    way: str,
) -> None:
    """Through the official client, for any chunks, any end, and leaving anywhere."""
    server, client = ends
    last, expected = ENDINGS[ending]
    server.script(CHAT, [*[CHUNKS[name] for name in script], last])
    collector = ometrics.ollama.instrument(MetricsCollector())
    stream: Any = client.chat(MODEL, HI, stream=True)
    taken = 0
    try:
        while leave_at is None or taken < leave_at:
            next(stream)
            taken += 1
    except (StopIteration, ollama.ResponseError, httpx.TransportError, ValueError):
        leave_at = None
    if way == "close":
        stream.close()
    del stream
    gc.collect()
    ometrics.ollama.uninstrument()
    if leave_at is not None and taken <= len(script):
        expected = "cancelled" if taken else "nothing"

    assert 0 == collector.snapshot().internal_errors
    assert 0 == outcomes(collector)[3]
    if expected == "nothing":
        assert 0 == sum(outcomes(collector))
        return
    call = call_metrics(collector)
    failed = {} if expected in ("success", "cancelled") else {expected: 1}

    assert (expected == "success", len(failed), expected == "cancelled") == (
        outcomes(collector)[:3]
    )
    assert failed == call.errors
    check_stream(call, script[:taken] if expected == "cancelled" else script)


def check_stream(call: CallMetrics, seen: list[str]) -> None:
    """Counts and times of a stream whose chunks were seen."""
    output = [name for name in seen if name != "empty"]
    lost = call.errors.get("CONNECTION_FAILED", 0)  # a reset may overtake what was sent
    chunks = call.time_to_first_chunk.count + call.time_per_output_chunk.count

    assert chunks <= len(output) if lost else chunks == len(output)
    if not lost:
        answers = any(name in ("answer", "tool") for name in output)
        assert answers == call.time_to_first_answer.count
    if call.latency.count:
        spent = call.time_to_first_chunk.sum_ns + call.time_per_output_chunk.sum_ns
        assert spent <= call.latency.sum_ns
    if call.network.count:
        parts = [
            call.connect,
            call.load,
            call.prefill,
            call.decode,
            call.residual,
            call.network,
        ]
        assert call.latency.sum_ns == sum(part.sum_ns for part in parts)
