# SPDX-License-Identifier: MIT
"""Every way out of a stream is counted once, as what it is."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
from typing import Any

import ollama
import pytest
from instrumenting import (
    CANCELLED,
    CHAT,
    FAILED,
    HI,
    MODEL,
    NOTHING,
    SUCCEEDED,
    call_metrics,
    outcomes,
)

import ometrics.ollama
from ometrics import MetricsCollector
from ometrics.testing import (
    Hang,
    ScriptedOllama,
    chat_chunk,
    chat_done,
)


def test_stream_never_started(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """It sent nothing, so it is no request, closed or dropped."""
    stream: Any = client.chat(MODEL, HI, stream=True)
    stream.close()
    client.chat(MODEL, HI, stream=True)

    async def of_async() -> None:
        async with ollama.AsyncClient(host=server.url) as other:
            stream: Any = await other.chat(MODEL, HI, stream=True)
            await stream.aclose()
            await other.chat(MODEL, HI, stream=True)

    asyncio.run(of_async())
    gc.collect()

    assert () == server.requests
    assert NOTHING == outcomes(collector)


def leave_by_break(client: ollama.Client, chunks: int) -> None:
    """Break out of a stream and let go of it."""
    for number, _ in enumerate(client.chat(MODEL, HI, stream=True), 1):
        if number == chunks:
            break


def leave_by_close(client: ollama.Client, chunks: int) -> None:
    """Close a stream that is still held."""
    stream: Any = client.chat(MODEL, HI, stream=True)
    for _ in range(chunks):
        next(stream)
    stream.close()


def leave_by_collection(client: ollama.Client, chunks: int) -> None:
    """Drop a stream in a reference cycle."""
    stream: Any = client.chat(MODEL, HI, stream=True)
    for _ in range(chunks):
        next(stream)
    cycle: list[Any] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()


def leave_by_exception(client: ollama.Client, chunks: int) -> None:
    """Raise in the loop's body."""

    def loop() -> None:
        for number, _ in enumerate(client.chat(MODEL, HI, stream=True), 1):
            if number == chunks:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    gc.collect()


WAYS = [leave_by_break, leave_by_close, leave_by_collection, leave_by_exception]


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_leaving_in_the_middle(
    server: ScriptedOllama,
    collector: MetricsCollector,
    client: ollama.Client,
    leave: Any,
    chunks: int,
) -> None:
    """Cancelled once, the first chunk's time is kept, and the server is told."""
    server.script(CHAT, [*[chat_chunk("x")] * 3, Hang()])
    leave(client, chunks)
    call = call_metrics(collector)

    assert CANCELLED == outcomes(collector)
    assert [1, chunks - 1, 0] == [
        call.time_to_first_chunk.count,
        call.time_per_output_chunk.count,
        call.latency.count,
    ]
    assert server.wait_for_disconnect().disconnected


@pytest.mark.parametrize("leave", WAYS)
def test_leaving_after_done(
    server: ScriptedOllama,
    collector: MetricsCollector,
    client: ollama.Client,
    leave: Any,
) -> None:
    """Who has got the last chunk has got it all: a success."""
    server.script(CHAT, [chat_chunk("x"), chat_done(eval_count=5), Hang()])
    leave(client, 2)

    assert SUCCEEDED == outcomes(collector)
    assert 5 == call_metrics(collector).completion_tokens


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer here")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_leaving_before_the_first_chunk(
    server: ScriptedOllama,
    collector: MetricsCollector,
    client: ollama.Client,
    streamed: bool,
    leaving: type[BaseException],
) -> None:
    """Ctrl-C while waiting is a cancellation, and stays what it is for the caller."""
    server.script(CHAT, [Hang()])

    def interrupt(*_: Any) -> None:
        raise leaving

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(leaving):
            list(client.chat(MODEL, HI, stream=streamed))
    finally:
        signal.signal(signal.SIGALRM, before)

    assert CANCELLED == outcomes(collector)


async def leave_as(way: str, stream: Any) -> None:
    """Take one more step in a stream that hangs, and leave it."""
    if way == "aclose":
        await stream.aclose()
    elif way == "break":
        async for _ in stream:  # pragma: no branch
            break
    elif way == "cancel":
        task = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif way == "timeout":
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.02)


@pytest.mark.parametrize("chunks", [0, 1, 2])
@pytest.mark.parametrize("way", ["cancel", "timeout", "aclose", "break", "drop"])
def test_leaving_async(
    server: ScriptedOllama, collector: MetricsCollector, chunks: int, way: str
) -> None:
    """The same for every way out of an asynchronous stream, before and after chunks."""
    sent = chunks + (way == "break")
    server.script(CHAT, [*[chat_chunk("x")] * sent, Hang()])

    async def leave() -> None:
        async with ollama.AsyncClient(host=server.url) as client:
            stream: Any = await client.chat(MODEL, HI, stream=True)
            for _ in range(chunks):
                await stream.__anext__()
            await leave_as(way, stream)
            del stream
            gc.collect()
            await asyncio.sleep(0.02)  # dropped, the loop closes it

    asyncio.run(asyncio.wait_for(leave(), 10))

    if not sent and way in ("aclose", "drop"):
        assert NOTHING == outcomes(collector)  # never started
        return
    assert CANCELLED == outcomes(collector)
    assert min(sent, 1) == call_metrics(collector).time_to_first_chunk.count


def test_leaving_async_without_a_stream(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """A cancelled task that waits for a whole answer is a cancellation."""
    server.script(CHAT, [Hang()])

    async def leave() -> None:
        async with ollama.AsyncClient(host=server.url) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.chat(MODEL, HI), 0.05)

    asyncio.run(leave())

    assert CANCELLED == outcomes(collector)


def test_leaving_async_at_the_end_of_the_loop(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """A stream that is open when the event loop shuts down is a cancellation."""
    server.script(CHAT, [chat_chunk("x"), Hang()])
    kept: list[Any] = []

    async def leave_open() -> None:
        async with ollama.AsyncClient(host=server.url) as client:
            kept.append(await client.chat(MODEL, HI, stream=True))
            await kept[0].__anext__()

    asyncio.run(leave_open())

    assert CANCELLED == outcomes(collector)


def run(program: str, *values: Any) -> tuple[str, str, int]:
    """Run a program with values for its `%r`; its stdout, stderr and exit code."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program) % values],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip(), done.stderr, done.returncode


@pytest.mark.parametrize("chunks", [1, 4])
def test_leaving_at_interpreter_exit(server: ScriptedOllama, chunks: int) -> None:
    """`sys.exit` in the loop over a stream is a cancellation, known `atexit`."""
    server.script(CHAT, [*[chat_chunk("x")] * 4, Hang()])
    program = """
        import atexit, sys, ollama, ometrics

        collector = ometrics.ollama.instrument(ometrics.MetricsCollector())

        @atexit.register
        def show():
            (model,) = collector.snapshot().models.values()
            call = model.calls["chat"]
            print(model.total_requests, model.cancelled_reqs, call.in_flight)

        client = ollama.Client(host=%r)
        for number, _ in enumerate(client.chat(%r, %r, stream=True), 1):
            if number == %r:
                sys.exit(3)
        """

    assert ("0 1 0", "", 3) == run(program, server.url, MODEL, HI, chunks)


@pytest.mark.parametrize("chunks", [0, 1, 4])
def test_open_at_interpreter_exit(server: ScriptedOllama, chunks: int) -> None:
    """A stream that is left open to the very end makes no noise and ends once at most.

    Whether Python still finalizes what modules hold, and in which order, is its own.
    """
    server.script(CHAT, [*[chat_chunk("x")] * 4, Hang()])
    program = """
        import os, ollama, ometrics

        class Loud:
            def __init__(self, call):
                self.call = call
            def __getattr__(self, name):
                return getattr(self.call, name)
            def end(self, outcome, *rest, write=os.write, **more):
                write(1, outcome.encode())
                return self.call.end(outcome, *rest, **more)

        class Collector(ometrics.MetricsCollector):
            def start_call(self, *about):
                return Loud(super().start_call(*about))

        ometrics.ollama.instrument(Collector())
        stream = ollama.Client(host=%r).chat(%r, %r, stream=True)
        for _ in range(%r):
            next(stream)
        """
    out, err, code = run(program, server.url, MODEL, HI, chunks)

    assert ("", 0) == (err, code)
    assert out in (["", "cancelled"] if chunks else [""])


def test_throwing_into_a_stream(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """An exception thrown into the generator comes out, and ends the call."""
    server.script(CHAT, [chat_chunk("x"), Hang()])
    stream: Any = client.chat(MODEL, HI, stream=True)
    next(stream)
    with pytest.raises(ZeroDivisionError):
        stream.throw(ZeroDivisionError())

    assert {"ZeroDivisionError": 1} == call_metrics(collector).errors
    assert [] == list(stream)
    assert FAILED == outcomes(collector)


def test_in_flight_is_seen(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """While a stream runs it is in flight, with an age."""
    stream: Any = client.chat(MODEL, HI, stream=True)
    next(stream)
    running = call_metrics(collector)
    list(stream)

    assert 1 == running.in_flight
    assert running.oldest_in_flight_seconds is not None
    assert call_metrics(collector).oldest_in_flight_seconds is None
    assert SUCCEEDED == outcomes(collector)


def test_uninstrument_in_the_middle(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """A call under way is counted to its end."""
    stream: Any = client.chat(MODEL, HI, stream=True)
    next(stream)
    ometrics.ollama.uninstrument()
    list(stream)
    client.chat(MODEL, HI)

    assert SUCCEEDED == outcomes(collector)
