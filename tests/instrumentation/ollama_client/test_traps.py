# SPDX-License-Identifier: MIT
"""Twenty-four traps of Ollama's interface, each of which breaks some other package."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
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
    Driver,
    call_metrics,
    opentelemetry_instrumented,
    outcomes,
)

import ometrics.ollama
from ometrics import MetricsCollector, Snapshot
from ometrics.instrumentation import answers
from ometrics.testing import (
    Close,
    Delay,
    FakeClock,
    Hang,
    Line,
    Reset,
    ScriptedOllama,
    Send,
    Status,
    chat_chunk,
    chat_done,
    chat_response,
    embed_response,
    generate_done,
)

MS = 1_000_000  # nanoseconds


def test_trap_01_stream_omitted_means_streaming(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """What the client reads as a stream is one, whatever the request's body says."""
    body = {"model": MODEL, "messages": HI}

    async def without_the_word() -> None:
        async with ollama.AsyncClient(host=server.url) as client:
            chunks = await client._request(
                ollama.ChatResponse, "POST", CHAT, json=body, stream=True
            )
            assert 5 == len([chunk async for chunk in chunks])

    if ask.is_async:
        asyncio.run(without_the_word())
    else:
        with ollama.Client(host=server.url) as client:
            chunks = client._request(
                ollama.ChatResponse, "POST", CHAT, json=body, stream=True
            )
            assert 5 == len(list(chunks))

    assert "stream" not in server.requests[0].json
    assert 1 == call_metrics(collector).time_to_first_chunk.count
    assert SUCCEEDED == outcomes(collector)


@pytest.mark.parametrize("cut", [1, 40, -40, -1])
def test_trap_02_final_line_split_over_two_reads(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver, cut: int
) -> None:
    """The numbers of the last line are whole wherever the network cut it."""
    done = json.dumps(chat_done(eval_count=77)).encode() + b"\n"
    server.script(
        CHAT, [chat_chunk("a"), Send(done[:cut]), Delay(0.02), Send(done[cut:])]
    )
    ask("chat", stream=True)

    assert SUCCEEDED == outcomes(collector)
    assert 77 == call_metrics(collector).completion_tokens


def test_trap_03_stream_ends_without_done(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """A stream that just ends has failed, and keeps its first chunk's time."""
    server.script(CHAT, [chat_chunk("a"), chat_chunk("b")])

    assert 2 == len(ask("chat", stream=True))
    assert FAILED == outcomes(collector)
    assert {"TRUNCATED": 1} == call_metrics(collector).errors
    assert 1 == call_metrics(collector).time_to_first_chunk.count


def test_trap_03_unstreamed_answer_that_is_not_done(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """So has an answer in one piece that says it is not done."""
    server.script(CHAT, [chat_chunk("half an ans")])

    assert "half an ans" == ask("chat").message.content
    assert {"TRUNCATED": 1} == call_metrics(collector).errors


def test_trap_04_error_line_after_http_200(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """An error in mid-stream is a failure; the caller gets the client's exception."""
    server.script(CHAT, [chat_chunk("a"), Line({"error": "the runner died"})])
    with pytest.raises(ollama.ResponseError, match="the runner died") as caught:
        ask("chat", stream=True)

    assert -1 == caught.value.status_code
    assert {"STREAM_ERROR": 1} == call_metrics(collector).errors
    assert FAILED == outcomes(collector)


@pytest.mark.parametrize("streamed", [False, True])
def test_trap_05_connect_error_is_a_connection_error(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver, streamed: bool
) -> None:
    """Two exceptions for a refused connection are one code; each stays what it was."""
    server.close()
    with pytest.raises(httpx.ConnectError if streamed else ConnectionError):
        ask("chat", stream=streamed)

    assert {"CONNECTION_FAILED": 1} == call_metrics(collector).errors
    assert FAILED == outcomes(collector)


@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "closed early"])
def test_trap_05_broken_connection(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver, end: Any
) -> None:
    """A connection that breaks under a stream counts under the same code."""
    server.script(CHAT, [chat_chunk("a"), Delay(0.02), end])
    with pytest.raises(httpx.TransportError):
        ask("chat", stream=True)

    assert {"CONNECTION_FAILED": 1} == call_metrics(collector).errors


def test_trap_06_duration_of_a_stream_is_to_its_last_byte(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """The latency is that of the whole stream, not of making its generator."""
    server.script(CHAT, [chat_chunk("a"), Delay(0.1), chat_chunk("b"), chat_done()])
    ask("chat", stream=True)
    latency = call_metrics(collector).latency.min

    assert latency is not None
    assert latency >= 0.1


def test_trap_06_slow_reader_of_the_last_chunk(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """What the caller does with the last chunk is no part of the latency."""
    seen: list[int] = []

    def look(chunk: Any) -> None:
        if chunk.done:
            seen.append(call_metrics(collector).latency.count)

    ask("chat", stream=True, seen=look)

    assert [1] == seen


def test_trap_07_no_first_chunk_time_without_a_stream(
    collector: MetricsCollector, ask: Driver
) -> None:
    """An answer in one piece has no time to first chunk, rather than its latency."""
    ask("chat")
    call = call_metrics(collector)

    assert [1, 0, 0, 0] == [
        call.latency.count,
        call.time_to_first_chunk.count,
        call.time_to_first_answer.count,
        call.time_per_output_chunk.count,
    ]


def test_trap_08_generator_exit_and_cancelled_error(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """Whoever leaves a stream has cancelled it: no success, no failure."""
    server.script(CHAT, [chat_chunk("a"), Hang()])

    def leave() -> None:
        with ollama.Client(host=server.url) as client:
            for _ in client.chat(MODEL, HI, stream=True):
                break
            gc.collect()

    async def leave_cancelled() -> None:
        async with ollama.AsyncClient(host=server.url) as client:
            stream = await client.chat(MODEL, HI, stream=True)
            await stream.__anext__()
            task = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    if ask.is_async:
        asyncio.run(leave_cancelled())
    else:
        leave()
    model = collector.snapshot().models[MODEL]

    assert CANCELLED == outcomes(collector)
    assert [0, 1] == [model.total_requests, model.cancelled_reqs]
    assert 1 == call_metrics(collector).time_to_first_chunk.count


def test_trap_09_missing_is_none_not_zero(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """A server that tells nothing leaves nothing known."""
    nothing = dict.fromkeys(
        [
            *("total_duration", "load_duration", "prompt_eval_duration"),
            *("eval_duration", "prompt_eval_count", "eval_count"),
        ]
    )
    server.script(CHAT, [chat_response(**nothing)])
    ask("chat")
    call = call_metrics(collector)

    assert [None] * 3 == [
        call.prompt_tokens,
        call.cached_tokens,
        call.completion_tokens,
    ]
    assert [0] * 5 == [
        getattr(call, part).count
        for part in ("load", "prefill", "decode", "residual", "network")
    ]
    assert 1 == call.latency.count


@pytest.mark.parametrize("cached", [None, 0, 5])
def test_trap_09_three_states_of_the_cache(
    server: ScriptedOllama,
    collector: MetricsCollector,
    ask: Driver,
    cached: int | None,
) -> None:
    """Unknown, none cached and some cached differ; the client's model drops them."""
    server.script(CHAT, [chat_done(prompt_eval_cached_count=cached)])
    chunk = ask("chat", stream=True)[-1]

    assert not hasattr(chunk, "prompt_eval_cached_count")
    assert cached == call_metrics(collector).cached_tokens


@pytest.mark.parametrize("reason", ["load", "unload"])
@pytest.mark.parametrize("streamed", [False, True])
def test_trap_10_load_and_unload_are_not_inference(
    server: ScriptedOllama,
    collector: MetricsCollector,
    ask: Driver,
    reason: str,
    streamed: bool,
) -> None:
    """To load or unload a model is no request for an answer."""
    server.script("/api/generate", [generate_done(done_reason=reason)])
    ask("generate", stream=streamed)

    assert NOTHING == outcomes(collector, "text_completion")
    assert 0 == collector.snapshot().total_requests


def test_trap_11_embed_and_embeddings(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """Both are embeddings; the old one tells nothing, the new one no decoding."""
    server.script("/api/embed", [embed_response(3, prompt_eval_count=9)])
    ask("embed", input=["a", "b", "c"])
    ask("embeddings", prompt="a")
    call = call_metrics(collector, "embeddings")

    assert 2 == call.successful_reqs
    assert (9, None) == (call.prompt_tokens, call.completion_tokens)
    assert [1, 0, 0] == [call.load.count, call.prefill.count, call.decode.count]


def test_trap_12_prefill_rate_on_cache_hits(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """The duration covers the uncached tokens only, and so does the rate."""
    prefill = {"prompt_eval_count": 1000, "prompt_eval_duration": 10 * MS}
    server.queue(
        CHAT,
        [chat_done(**prefill, total_duration=20 * MS)],
        [chat_done(**prefill, total_duration=20 * MS, prompt_eval_cached_count=990)],
    )
    ask("chat", stream=True)

    assert call_metrics(collector).prefill_tokens_per_second is None

    ask("chat", stream=True)

    assert 1000.0 == call_metrics(collector).prefill_tokens_per_second


def test_trap_13_load_duration_is_not_only_load(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """Whatever waits where, the parts add up to the latency to the nanosecond."""
    told = {
        "load_duration": 7 * MS,
        "prompt_eval_duration": 3 * MS,
        "eval_duration": 11 * MS,
        "total_duration": 25 * MS,
    }
    server.script(CHAT, [Delay(0.03), chat_response(**told)])
    ask("chat")
    call = call_metrics(collector)
    parts = [call.load, call.prefill, call.decode, call.residual]

    assert [7 * MS, 3 * MS, 11 * MS, 4 * MS] == [part.sum_ns for part in parts]
    assert call.latency.sum_ns == 25 * MS + call.connect.sum_ns + call.network.sum_ns


def test_trap_14_buckets_past_ten_seconds(server: ScriptedOllama, ask: Driver) -> None:
    """A call of ten minutes and 200 tokens a second are read as what they are."""
    clock = FakeClock()
    collector = ometrics.ollama.instrument(MetricsCollector(clock=clock))

    def ten_minutes(_: Any) -> Iterator[Any]:
        clock.advance(600)
        yield chat_response(
            total_duration=600_000 * MS, eval_duration=500_000 * MS, eval_count=100_000
        )

    server.script(CHAT, ten_minutes)
    ask("chat")
    ometrics.ollama.uninstrument()
    call = call_metrics(collector)

    assert 600 == pytest.approx(call.latency.quantile(0.99), rel=0.011)
    assert 500 == pytest.approx(call.decode.quantile(0.5), rel=0.011)
    assert 200.0 == call.decode_tokens_per_second


@pytest.mark.threads
def test_trap_15_no_snapshot_whose_sum_is_not_its_count(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """While four threads call, every snapshot's parts fit together."""
    done = threading.Event()
    bad: list[Snapshot] = []

    def watch() -> None:
        while not done.is_set():
            for model in (snapshot := collector.snapshot()).models.values():
                for call in model.calls.values():
                    ends = call.successful_reqs, call.latency.count, call.network.count
                    if len(set(ends)) > 1 or model.total_requests != ends[0]:
                        bad.append(snapshot)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda n: ask("chat", stream=bool(n % 2)), range(40)):
            pass
    done.set()
    watcher.join()

    assert [] == bad
    assert (40, 0, 0, 0) == outcomes(collector)


def test_trap_16_gc_callback_that_records(
    collector: MetricsCollector, ask: Driver
) -> None:
    """A garbage collection in the midst of a call may record and read, too."""
    during: list[int] = []

    def collected(phase: str, _: Any) -> None:
        collector.record_latency("other", 0.1)
        during.append(collector.snapshot().total_requests)

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        ask("chat", stream=True)
        ask("chat")
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)

    assert during
    assert (2, 0, 0, 0) == outcomes(collector)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer here")
def test_trap_16_signal_handler_that_records(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """So may a signal handler."""
    server.script(CHAT, [chat_chunk("x") for _ in range(2000)] + [chat_done()])
    during: list[int] = []

    def handle(*_: Any) -> None:
        collector.record_error("other", "SIGNAL")
        during.append(collector.snapshot().total_errors)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        ask("chat", stream=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert during
    assert SUCCEEDED == outcomes(collector)
    assert 1999 == call_metrics(collector).time_per_output_chunk.count


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_trap_17_fork_in_the_middle_of_a_call(
    collector: MetricsCollector, ask: Driver
) -> None:
    """The call stays the parent's: a forked child starts at nothing, in flight too."""
    children: list[int] = []

    def fork(_: Any) -> None:
        if children:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads are running
            child = os.fork()
        if child == 0:
            empty = collector.snapshot()
            collector.record_latency("child", 0.1)
            alive = 1 == collector.snapshot().total_requests
            os._exit(
                0
                if alive
                and NOTHING == outcomes(collector)
                and (0 == empty.total_requests)
                else 1
            )
        children.append(child)

    ask("chat", stream=True, seen=fork)
    _, status = os.waitpid(children[0], 0)

    assert 0 == os.waitstatus_to_exitcode(status)
    assert SUCCEEDED == outcomes(collector)


def test_trap_18_hallucinated_model_names(ask: Driver, server: ScriptedOllama) -> None:
    """Names that an agent makes up cannot make the record grow without bound."""
    collector = ometrics.ollama.instrument(MetricsCollector(max_models=3))
    server.script(CHAT, [Status(404, {"error": "model not found"})])
    for number in range(10):
        with pytest.raises(ollama.ResponseError):
            ask("chat", model=f"made-up-{number}")
    ometrics.ollama.uninstrument()
    snapshot = collector.snapshot()

    assert 10 == snapshot.total_errors
    assert 7 == snapshot.overflowed_requests
    assert 4 == len(snapshot.models)
    assert {"INVALID_MODEL": 1} == snapshot.models["made-up-0"].errors


def test_trap_19_model_and_model_latest_are_one_series(
    collector: MetricsCollector, ask: Driver
) -> None:
    """Two names that Ollama takes for one model are one."""
    ask("chat", model="llama3.2")
    ask("chat", model="llama3.2:latest")
    ask("chat", model="llama3.2:1b")

    assert ["llama3.2", "llama3.2:1b"] == sorted(collector.snapshot().models)
    assert (2, 0, 0, 0) == outcomes(collector)


def test_trap_20_uninstall_really_restores(
    collector: MetricsCollector, ask: Driver
) -> None:
    """Afterwards the client has the very attributes it had, and nothing is counted."""
    kinds = (
        *(ollama.Client, ollama.AsyncClient),
        *(httpx.HTTPTransport, httpx.AsyncHTTPTransport),
    )
    ometrics.ollama.uninstrument()
    before = [dict(vars(kind)) for kind in kinds]
    ometrics.ollama.instrument(collector)
    ometrics.ollama.instrument(collector)
    patched = [dict(vars(kind)) for kind in kinds]
    ometrics.ollama.uninstrument()
    after = [dict(vars(kind)) for kind in kinds]
    ask("chat")

    assert patched != before
    assert after == before
    assert all(
        one[name] is other[name]
        for one, other in zip(before, after, strict=True)
        for name in one
    )
    assert NOTHING == outcomes(collector)


@pytest.mark.parametrize("streamed", [False, True])
def test_trap_21_telemetry_error_does_not_reach_the_caller(
    ask: Driver, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails in here is counted, and goes no further."""
    collector = ometrics.ollama.instrument(MetricsCollector())

    def fail(*_: Any) -> None:
        raise TypeError("in a metric")

    monkeypatch.setattr(answers.AnswerReader, "complete", fail)
    answer = ask("chat", stream=streamed)
    ometrics.ollama.uninstrument()

    assert "Hello, world!" == "".join(
        chunk.message.content for chunk in (answer if streamed else [answer])
    )
    assert 1 == collector.snapshot().internal_errors


def test_trap_22_sub_agent_is_not_counted_twice(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """A call counts once, by however many ways the collector came to see it."""

    async def both_ways() -> None:
        async with ollama.AsyncClient(host=server.url) as plain:
            client = ometrics.ollama.wrap(plain, collector)
            client = ometrics.ollama.wrap(client, collector)
            ometrics.ollama.instrument(collector, client=client)
            await client.chat(MODEL, HI)
            async for _ in await client.chat(MODEL, HI, stream=True):
                await client.generate(MODEL, "what a tool asks meanwhile")

    if ask.is_async:
        asyncio.run(both_ways())
    else:
        with ollama.Client(host=server.url) as plain:
            client = ometrics.ollama.wrap(plain, collector)
            client = ometrics.ollama.wrap(client, collector)
            ometrics.ollama.instrument(collector, client=client)
            client.chat(MODEL, HI)
            for _ in client.chat(MODEL, HI, stream=True):
                client.generate(MODEL, "what a tool asks meanwhile")

    assert len(server.requests) == collector.snapshot().total_requests
    assert (2, 0, 0, 0) == outcomes(collector)
    assert (5, 0, 0, 0) == outcomes(collector, "text_completion")


def test_trap_23_recording_does_not_depend_on_trace_sampling(
    collector: MetricsCollector, ask: Driver
) -> None:
    """Beside a tracer that samples nothing, everything is still counted."""
    with opentelemetry_instrumented():
        ask("chat")
        ask("chat", stream=True)
        ask("embed", input="x")

    assert (2, 0, 0, 0) == outcomes(collector)
    assert SUCCEEDED == outcomes(collector, "embeddings")
    assert 8 == call_metrics(collector).completion_tokens


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_trap_24_wall_clock_is_not_used_for_intervals(
    server: ScriptedOllama, ask: Driver, step: float
) -> None:
    """A wall clock that is set in the midst of a stream changes no duration."""
    clock = FakeClock()
    collector = ometrics.ollama.instrument(MetricsCollector(clock=clock))

    def script(_: Any) -> Iterator[Any]:
        clock.advance(0.5)
        yield chat_chunk("a")
        yield Hang()
        yield chat_chunk("b")
        yield chat_done()

    def set_clock(chunk: Any) -> None:
        if chunk.message.content == "a":
            clock.step_wall(step)
            clock.advance(0.25)
            server.wait_for(lambda server: server.hanging)
            server.release()

    server.script(CHAT, script)
    ask("chat", stream=True, seen=set_clock)
    ometrics.ollama.uninstrument()
    call = call_metrics(collector)

    assert 0.5 == pytest.approx(call.time_to_first_chunk.min)
    assert 0.25 == pytest.approx(call.time_per_output_chunk.max)
    assert 0.75 == pytest.approx(call.latency.max)


def test_every_trap_has_its_test() -> None:
    """None of the 24 is forgotten."""
    names = [name for name in globals() if name.startswith("test_trap_")]

    assert set(range(1, 25)) == {int(name.split("_")[2]) for name in names}
