# SPDX-License-Identifier: MIT
"""Whatever fails in instrumentation, the caller never notices; no text goes out."""

from __future__ import annotations

import gc
import logging
import sys
import types
from typing import Any

import pytest
from instrumenting import (
    CHAT,
    MODEL,
    Driver,
    outcomes,
)

import ometrics.ollama
from ometrics import MetricsCollector
from ometrics.instrumentation import answers, endpoints, exchange, registry
from ometrics.testing import (
    Line,
    ScriptedOllama,
    Status,
    chat_chunk,
    chat_done,
    chat_response,
)


class InjectedError(Exception):
    """A failure of ours that a test brought about."""


class Countdown:
    """Lets every step pass but the n-th."""

    def __init__(self, n: int) -> None:
        self.left = n

    def step(self) -> None:
        """Raise when it is this one's turn."""
        self.left -= 1
        if self.left == 0:
            raise InjectedError("the prompt was: canary-8b1f")


class FaultyCall:
    """A call in flight whose every method may fail."""

    def __init__(self, call: Any, countdown: Countdown) -> None:
        self._call = call
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        self._countdown.step()
        return getattr(self._call, name)


STEPS: list[tuple[Any, str]] = [
    (registry, "endpoint_of"),
    (registry, "is_local_ollama"),
    (registry, "asked_by"),
    (registry, "provider_of"),
    (registry, "Exchange"),
    (endpoints, "_asked"),
    (exchange, "canonical"),
    (exchange, "AnswerReader"),
    (exchange, "classify"),
    (answers, "count_texts"),
    (answers.AnswerReader, "feed"),
    (answers.AnswerReader, "complete"),
    (answers.AnswerReader, "finish"),
]
# Whatever is called from these cannot harm the caller.
GUARDS = {
    method.__code__
    for method in (
        registry.Registry.exchange_for,
        exchange.Exchange.answered,
        exchange.Exchange.data,
        exchange.Exchange.finished,
        exchange.TrackedCall.start,
        exchange.TrackedCall.chunk,
        exchange.TrackedCall._end,
        exchange.TrackedCall.discard,
    )
}


def faulty(monkeypatch: pytest.MonkeyPatch, countdown: Countdown) -> MetricsCollector:
    """Make each of our steps take part in the countdown; return the collector."""

    class Faulty(MetricsCollector):
        def start_call(self, *about: str) -> Any:
            countdown.step()
            return FaultyCall(super().start_call(*about), countdown)

    def failing(inner: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            countdown.step()
            return inner(*args, **kwargs)

        return step

    collector = ometrics.ollama.instrument(Faulty())
    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    return collector


SCRIPTS: dict[str, list[Any]] = {
    "answer": [chat_chunk("a"), chat_chunk(thinking="b"), chat_done()],
    "error line": [chat_chunk("a"), Line({"error": "x"})],
    "no done": [chat_chunk("a")],
    "status": [Status(404, {"error": "not found"})],
}


def ending(ask: Driver, *, streamed: bool, **options: Any) -> Any:
    """What the caller gets: the chunks or answer, or the exception."""
    try:
        return ask("chat", stream=streamed, **options)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return type(error), str(error)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_nth_failure(
    server: ScriptedOllama, ask: Driver, script: str, streamed: bool
) -> None:
    """
    Whichever of our steps fails, the caller gets what it would have got.

    Seen to fail without the `except` of `Exchange.data`.
    """
    server.script(
        CHAT,
        SCRIPTS[script]
        if streamed or script == "status"
        else [chat_response() if script == "answer" else chat_chunk("half")],
    )
    bare = ending(ask, streamed=streamed)
    failures = 0
    for n in range(1, 200):
        countdown = Countdown(n)
        with pytest.MonkeyPatch.context() as monkeypatch:
            collector = faulty(monkeypatch, countdown)
            watched = ending(ask, streamed=streamed)
        ometrics.ollama.uninstrument()

        assert bare == watched
        if countdown.left > 0:
            break
        failures += 1
        gc.collect()
        assert 0 < collector.snapshot().internal_errors
        assert outcomes(collector)[3] == 0

    assert failures >= 5


@pytest.mark.parametrize("streamed", [True, False])
def test_nth_line_fails(server: ScriptedOllama, ask: Driver, streamed: bool) -> None:
    """So with a failure at every n-th line that runs inside what is guarded."""
    bare = ending(ask, streamed=streamed)
    collector = ometrics.ollama.instrument(MetricsCollector())
    before = collector.snapshot().internal_errors

    def inside(frame: types.FrameType | None) -> bool:
        while frame is not None and "ometrics" in frame.f_code.co_filename:
            if frame.f_code in GUARDS:
                return True
            frame = frame.f_back
        return False

    for n in range(1, 500):
        countdown = Countdown(n)

        def local(frame: Any, event: str, _: Any, countdown: Any = countdown) -> Any:
            if event == "line":
                countdown.step()
            return local

        def trace(frame: Any, *_: Any, local: Any = local) -> Any:
            ours = "ometrics" in frame.f_code.co_filename
            return local if ours and inside(frame.f_back) else None

        tracing = sys.gettrace()
        sys.settrace(trace)
        try:
            watched = ending(ask, streamed=streamed)
        finally:
            sys.settrace(tracing)

        assert bare == watched
        if countdown.left > 0:
            break
        before += 1
        assert before == collector.snapshot().internal_errors

    assert n > 10


def test_failures_are_logged_once(
    server: ScriptedOllama,
    ask: Driver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a kind and place, by class and function, never with the message."""
    monkeypatch.setattr(exchange, "_reported", set())
    with caplog.at_level(logging.WARNING, "ometrics"):
        for _ in range(3):
            with pytest.MonkeyPatch.context() as patch:
                collector = faulty(patch, Countdown(5))
                ending(ask, streamed=True)
                ometrics.ollama.uninstrument()

    assert 1 == collector.snapshot().internal_errors
    assert 1 == len(caplog.records)
    assert "InjectedError in step" in caplog.text
    assert "canary" not in caplog.text


def test_a_log_handler_that_raises(
    server: ScriptedOllama, ask: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does logging our failure harm the caller."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise InjectedError

    handler = Broken()
    logger = logging.getLogger("ometrics")
    logger.addHandler(handler)
    monkeypatch.setattr(exchange, "_reported", set())
    try:
        collector = faulty(monkeypatch, Countdown(5))
        answer = ending(ask, streamed=True)
    finally:
        logger.removeHandler(handler)

    assert 5 == len(answer)
    assert 1 == collector.snapshot().internal_errors


def test_no_pii_in_any_output(
    server: ScriptedOllama,
    collector: MetricsCollector,
    ask: Driver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Prompts, answers, thoughts, tools and messages of errors are in no output."""
    canary = "canary-4e83"
    channel = collector.subscribe()
    tool = [{"function": {"name": canary, "arguments": {"a": canary}}}]
    said = {"role": "user", "content": canary}
    server.queue(
        CHAT,
        [chat_chunk(canary, thinking=canary, tool_calls=tool), chat_done(canary)],
        [chat_response(canary)],
        [chat_chunk(canary), Line({"error": canary})],
        [Status(500, {"error": f"model failed to load: {canary}"})],
        [{"model": MODEL, "message": canary, "done": True, "done_reason": "stop"}],
    )
    with caplog.at_level(logging.DEBUG, "ometrics"):
        for streamed in (True, False, True, False, True):
            ending(ask, streamed=streamed, messages=[said])
        events = channel.drain()
    snapshot = collector.snapshot()
    out = [
        snapshot.to_json().decode(),
        collector.get_summary(),
        collector.get_model_summary(MODEL),
        repr(snapshot),
        repr(events),
        "".join(r.getMessage() for r in caplog.records if r.name == "ometrics"),
    ]

    assert 5 == snapshot.total_requests
    assert 5 == len(events)
    assert [] == [text for text in out if canary in text]
