# SPDX-License-Identifier: MIT
"""One call from its request to the last of its answer, for one or more collectors."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import pytest
from instrumenting import CANCELLED, FAILED, MODEL, NOTHING, SUCCEEDED, outcomes

from ometrics import MetricsCollector
from ometrics.instrumentation import exchange as exchanges
from ometrics.instrumentation.endpoints import ApiEndpoint, endpoint_of
from ometrics.instrumentation.exchange import Exchange, TrackedCall
from ometrics.instrumentation.usage import Usage
from ometrics.testing import FakeClock, chat_chunk, chat_done

NDJSON = "application/x-ndjson"


def endpoint(path: str = "/api/chat") -> ApiEndpoint:
    """A kind of call."""
    found = endpoint_of("POST", path)
    assert found is not None
    return found


def line(payload: Any) -> bytes:
    """One line of a stream."""
    return json.dumps(payload).encode() + b"\n"


@pytest.fixture
def collector() -> MetricsCollector:
    """A collector."""
    return MetricsCollector()


@pytest.fixture
def exchange(collector: MetricsCollector) -> Exchange:
    """A request that has gone out."""
    exchange = Exchange((collector,), MODEL, endpoint())
    exchange.begin()
    return exchange


def test_a_stream(exchange: Exchange, collector: MetricsCollector) -> None:
    """Counted once, at its last line, whatever is told afterwards."""
    exchange.connected()
    exchange.answered(200, NDJSON)
    exchange.data(line(chat_chunk("a")))
    running = outcomes(collector)
    exchange.data(line(chat_done()))
    ended = outcomes(collector)
    exchange.finished()
    exchange.closed()
    exchange.broke(OSError())
    call = collector.snapshot().models[MODEL].calls["chat"]

    assert [(0, 0, 0, 1), SUCCEEDED, SUCCEEDED] == [running, ended, outcomes(collector)]
    assert (16, 8) == (call.prompt_tokens, call.completion_tokens)
    assert 1 == call.time_to_first_chunk.count
    assert exchange._call.connect_ns is not None


def test_several_collectors_and_one_that_fails() -> None:
    """Each counts for itself."""

    class Broken(MetricsCollector):
        def start_call(self, *_: Any) -> Any:
            raise OSError

    broken, first, second = Broken(), MetricsCollector(), MetricsCollector()
    exchange = Exchange((broken, first, second), "m:latest", endpoint())
    exchange.begin()
    exchange.answered(200, NDJSON)
    exchange.data(line(chat_chunk("a")) + line(chat_done()))

    assert [SUCCEEDED] * 2 == [outcomes(c, model="m") for c in (first, second)]
    assert [1, 0, 0] == [c.snapshot().internal_errors for c in (broken, first, second)]


@pytest.mark.parametrize(
    ("status", "code"), [(404, "INVALID_MODEL"), (500, "MODEL_NOT_LOADED")]
)
@pytest.mark.parametrize("way", ["finished", "closed"])
def test_statuses(
    exchange: Exchange, collector: MetricsCollector, way: str, status: int, code: str
) -> None:
    """A status is a failure, whether or not its body is read to the end."""
    exchange.answered(status)
    exchange.data(b'{"error":"model failed to load"}')
    getattr(exchange, way)()

    assert FAILED == outcomes(collector)
    assert {code: 1} == collector.snapshot().models[MODEL].errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), FAILED),
        (asyncio.CancelledError(), CANCELLED),
        (KeyboardInterrupt(), CANCELLED),
        (GeneratorExit(), CANCELLED),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_exceptions(
    exchange: Exchange,
    collector: MetricsCollector,
    error: BaseException,
    expected: Any,
    begun: bool,
) -> None:
    """What is no `Exception` is the caller's going away."""
    if begun:
        exchange.answered(200, NDJSON)
        exchange.data(line(chat_chunk("a")))
    exchange.broke(error)

    assert expected == outcomes(collector)


def test_closing(collector: MetricsCollector) -> None:
    """Who closes early has cancelled, unless it was the answer's fault."""
    for error in (None, ValueError()):
        exchange = Exchange((collector,), MODEL, endpoint())
        exchange.begin()
        exchange.answered(200, NDJSON)
        exchange.closed(error)

    assert (0, 1, 1, 0) == outcomes(collector)
    assert {"ValueError": 1} == collector.snapshot().models[MODEL].errors


def test_closing_after_all_the_output(collector: MetricsCollector) -> None:
    """Who closes when the reason has come had it all."""
    exchange = Exchange((collector,), MODEL, endpoint("/v1/chat/completions"))
    exchange.begin()
    exchange.answered(200, "text/event-stream")
    exchange.data(b'data: {"choices":[{"finish_reason":"stop"}]}\n\n')
    exchange.closed()

    assert SUCCEEDED == outcomes(collector)


def test_a_redirect_is_no_call(exchange: Exchange, collector: MetricsCollector) -> None:
    """The request that follows it is the call."""
    exchange.answered(307)
    exchange.finished()

    assert NOTHING == outcomes(collector)


def test_details_of_a_model(collector: MetricsCollector) -> None:
    """Only a failure counts, as a failed request of that model."""
    for status in (200, 404):
        exchange = Exchange((collector,), MODEL, endpoint("/api/show"))
        exchange.begin()
        exchange.answered(status)
        exchange.finished()
    exchange = Exchange((collector,), MODEL, endpoint("/api/show"))
    exchange.begin()
    exchange.closed()

    assert FAILED == outcomes(collector)


def test_load_is_no_inference(exchange: Exchange, collector: MetricsCollector) -> None:
    """Nor is the answer to a request that only loads the model."""
    exchange.answered(200, NDJSON)
    exchange.data(b'{"done":true,"done_reason":"load"}\n')

    assert NOTHING == outcomes(collector)


def test_dropped_without_an_end(collector: MetricsCollector) -> None:
    """An exchange that nobody ends is a cancellation, at once."""
    exchange = Exchange((collector,), MODEL, endpoint())
    exchange.begin()
    exchange.answered(200, NDJSON)
    gc.disable()
    try:
        del exchange

        assert CANCELLED == outcomes(collector)
    finally:
        gc.enable()


def test_time_to_a_connection() -> None:
    """The time before there is a connection, known once."""
    exchange = Exchange((MetricsCollector(),), MODEL, endpoint())
    before = exchange._call.connect_ns
    exchange.begin()
    exchange.connected()
    first = exchange._call.connect_ns
    exchange.connected()

    assert before is None
    assert first is not None
    assert first >= 0
    assert first == exchange._call.connect_ns


def test_durations_are_the_collectors_clock() -> None:
    """The latency ends with the last line."""
    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    call = TrackedCall((collector,), MODEL, endpoint())
    call.start()
    clock.advance(2)
    call.succeeded(Usage(completion_tokens=3))
    clock.advance(2)
    call.failed("X")

    assert SUCCEEDED == outcomes(collector)
    assert 2.0 == collector.snapshot().models[MODEL].calls["chat"].latency.max


@pytest.mark.parametrize("step", ["feed", "finish", "__init__"])
def test_a_reader_that_fails(
    collector: MetricsCollector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    """A failure of ours is counted and named without its message, and goes no further.

    Seen to fail without the `except` of each step.
    """

    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("canary-77")

    monkeypatch.setattr(exchanges, "_reported", set())
    monkeypatch.setattr(exchanges.AnswerReader, step, fail)
    exchange = Exchange((collector,), MODEL, endpoint())
    exchange.begin()
    with caplog.at_level(logging.WARNING, "ometrics"):
        exchange.answered(200)
        exchange.data(b"x")
        exchange.finished()
        exchange.closed()

    assert 1 == collector.snapshot().internal_errors
    assert SUCCEEDED == outcomes(collector)
    assert "LookupError in fail" in caplog.text
    assert "canary" not in caplog.text
