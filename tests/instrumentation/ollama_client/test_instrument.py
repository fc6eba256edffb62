# SPDX-License-Identifier: MIT
"""`ometrics.ollama`: who is watched, what the caller holds, and the way back."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import ollama
import pytest
from instrumenting import (
    CHAT,
    FAILED,
    HI,
    MODEL,
    SUCCEEDED,
    Driver,
    call_metrics,
    opentelemetry_instrumented,
    outcomes,
)

import ometrics.ollama
from ometrics import MetricsCollector
from ometrics.errors import classify
from ometrics.testing import (
    Hang,
    ScriptedOllama,
    Status,
    chat_chunk,
    chat_done,
)

KINDS = ollama.Client, ollama.AsyncClient


# --- who is watched ---


def test_every_kind_of_call(collector: MetricsCollector, ask: Driver) -> None:
    """Inference counts under its operation, streamed or not."""
    ask("chat")
    ask("chat", stream=True)
    ask("generate", prompt="hi")
    ask("generate", prompt="hi", stream=True)
    ask("embed", input="hi")
    ask("embeddings", prompt="hi")
    model = collector.snapshot().models[MODEL]

    assert {"chat": 2, "text_completion": 2, "embeddings": 2} == {
        name: call.successful_reqs for name, call in model.calls.items()
    }
    assert 6 == model.total_requests
    assert {"stop": 2} == model.calls["chat"].done_reasons


def test_what_is_not_inference(
    collector: MetricsCollector, client: ollama.Client
) -> None:
    """Listing is no request to a model."""
    client.list()
    client.ps()

    assert {} == dict(collector.snapshot().models)


def test_module_level_functions(
    server: ScriptedOllama,
    collector: MetricsCollector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ollama.chat` was bound at import, and is seen nevertheless."""
    default = ollama.chat.__self__  # type: ignore[attr-defined]
    with httpx.Client(base_url=server.url) as http:
        monkeypatch.setattr(default, "_client", http)
        ollama.chat(MODEL, HI)
        list(ollama.chat(MODEL, HI, stream=True))

    assert (2, 0, 0, 0) == outcomes(collector)


def test_clients_made_before_and_after(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Both are watched."""
    client.chat(MODEL, HI)
    collector = ometrics.ollama.instrument(MetricsCollector())
    client.chat(MODEL, HI)
    with ollama.Client(host=server.url) as after:
        after.chat(MODEL, HI)

    assert (2, 0, 0, 0) == outcomes(collector)


def test_subclass_of_the_client(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """A user's subclass is watched, streams too, and keeps its attributes."""

    class Mine(ollama.Client):
        def _request(self, *args: Any, **kwargs: Any) -> Any:
            self.asked = getattr(self, "asked", 0) + 1
            return super()._request(*args, **kwargs)

    with Mine(host=server.url) as mine:
        mine.chat(MODEL, HI)
        list(mine.chat(MODEL, HI, stream=True))

    assert 2 == mine.asked
    assert (2, 0, 0, 0) == outcomes(collector)


def test_one_client_only(client: ollama.Client, ask: Driver) -> None:
    """With `client=` the others are left alone."""
    collector = ometrics.ollama.instrument(MetricsCollector(), client=client)
    client.chat(MODEL, HI)
    ask("chat")
    ask("chat", stream=True)

    assert SUCCEEDED == outcomes(collector)


def test_instrument_refuses_what_is_no_client() -> None:
    """Something else would never be seen, so it is refused at once."""
    with pytest.raises(TypeError, match="not a client"):
        ometrics.ollama.instrument(client=object())


def test_a_watched_client_may_be_collected(server: ScriptedOllama) -> None:
    """Nobody keeps a client alive for having been watched."""
    client = ollama.Client(host=server.url)
    ometrics.ollama.instrument(MetricsCollector(), client=client)
    list(client.chat(MODEL, HI, stream=True))
    client.close()
    gone = weakref.ref(client)
    del client
    gc.collect()

    assert gone() is None


def test_several_collectors(client: ollama.Client) -> None:
    """Each counts everything it watches, once."""
    everything = ometrics.ollama.instrument(MetricsCollector())
    again = ometrics.ollama.instrument(everything)
    second = ometrics.ollama.instrument(MetricsCollector())
    one = ometrics.ollama.instrument(MetricsCollector(), client=client)
    ometrics.ollama.instrument(second, client=client)
    list(client.chat(MODEL, HI, stream=True))
    ometrics.ollama.uninstrument(second)
    client.chat(MODEL, HI)

    assert everything is again
    assert [(2, 0, 0, 0), SUCCEEDED, (2, 0, 0, 0)] == [
        outcomes(collector) for collector in (everything, second, one)
    ]


def test_default_collector() -> None:
    """Without a collector there is one for the process, the same each time."""
    first = ometrics.ollama.instrument()
    ometrics.ollama.uninstrument()

    assert first is ometrics.ollama.instrument()


@pytest.mark.parametrize("streamed", [False, True])
def test_wrap(server: ScriptedOllama, streamed: bool) -> None:
    """A wrapped client is a client, and shares the other's connections."""
    before = [vars(kind)["_request"] for kind in KINDS]
    collector, second = MetricsCollector(), MetricsCollector()
    with ollama.Client(host=server.url) as plain:
        wrapped = ometrics.ollama.wrap(plain, collector)
        twice = ometrics.ollama.wrap(wrapped, second)
        for client in (plain, wrapped, twice):
            answer = client.chat(MODEL, HI, stream=streamed)
            if streamed:
                list(answer)

        assert isinstance(wrapped, ollama.Client)
        assert plain._client is wrapped._client
    assert before == [vars(kind)["_request"] for kind in KINDS]
    assert (2, 0, 0, 0) == outcomes(collector)
    assert SUCCEEDED == outcomes(second)
    assert 1 == server.requests[-1].connection + 1


def test_wrap_async(server: ScriptedOllama) -> None:
    """So is the asynchronous one."""
    collector = MetricsCollector()

    async def calls() -> None:
        async with ollama.AsyncClient(host=server.url) as plain:
            wrapped = ometrics.ollama.wrap(plain, collector)
            await plain.chat(MODEL, HI)
            await wrapped.chat(MODEL, HI)
            async for _ in await wrapped.chat(MODEL, HI, stream=True):
                pass

    asyncio.run(calls())

    assert (2, 0, 0, 0) == outcomes(collector)


# --- what the caller has in hand ---


def test_generators_are_the_clients_own(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """The very kind of generator, its code and its class of chunks are unchanged."""
    stream: Any = client.chat(MODEL, HI, stream=True)

    async def of_async() -> Any:
        async with ollama.AsyncClient(host=server.url) as other:
            stream: Any = await other.chat(MODEL, HI, stream=True)
            chunks = [chunk async for chunk in stream]
            return inspect.isasyncgen(stream), stream.ag_code.co_name, chunks

    is_generator, name, chunks = asyncio.run(of_async())

    assert [True, "inner"] == [inspect.isgenerator(stream), stream.gi_code.co_name]
    assert [True, "inner"] == [is_generator, name]
    assert {ollama.ChatResponse} == {type(chunk) for chunk in [*stream, *chunks]}


def test_results_and_signatures_are_unchanged(
    client: ollama.Client, server: ScriptedOllama
) -> None:
    """The answer is equal to the bare client's, and so is the method's signature."""
    bare = client.chat(MODEL, HI), list(client.chat(MODEL, HI, stream=True))
    patched = [
        *[kind._request for kind in KINDS],
        httpx.HTTPTransport.handle_request,
        httpx.AsyncHTTPTransport.handle_async_request,
    ]
    signatures = [inspect.signature(method) for method in patched]
    ometrics.ollama.instrument(MetricsCollector())

    assert bare == (client.chat(MODEL, HI), list(client.chat(MODEL, HI, stream=True)))
    patched[2:] = [
        httpx.HTTPTransport.handle_request,
        httpx.AsyncHTTPTransport.handle_async_request,
    ]

    assert signatures == [inspect.signature(method) for method in patched]
    assert [False, True, False, True] == [
        inspect.iscoroutinefunction(method) for method in patched
    ]
    assert ["chat"] == server.requests[-1].path.split("/")[-1:]


def test_back_pressure_is_unchanged(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """Nothing is read ahead of the caller: the server waits between two chunks."""
    server.script(CHAT, [chat_chunk("a"), Hang(), chat_chunk("b"), chat_done()])
    stream = client.chat(MODEL, HI, stream=True)
    first = next(iter(stream))
    server.wait_for(lambda server: server.hanging)
    server.release()

    assert "ab" == first.message.content + "".join(c.message.content for c in stream)
    assert SUCCEEDED == outcomes(collector)


@pytest.mark.parametrize(
    "answer",
    [
        (400, "bad parameters", "INVALID_REQUEST"),
        (401, "sign in", "HTTP_401"),
        (404, "model 'x' not found", "INVALID_MODEL"),
        (429, "slow down", "RESOURCE_EXHAUSTED"),
        (500, "model failed to load, this may be due to", "MODEL_NOT_LOADED"),
        (500, "llama runner process has terminated: exit 2", "MODEL_NOT_LOADED"),
        (500, "something else", "HTTP_500"),
        (502, "bad gateway", "HTTP_502"),
        (503, "server busy", "RESOURCE_EXHAUSTED"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_codes_of_statuses(
    server: ScriptedOllama,
    collector: MetricsCollector,
    ask: Driver,
    answer: tuple[int, str, str],
    streamed: bool,
) -> None:
    """Each status has its code; the exception is the client's."""
    status, body, code = answer
    server.script(CHAT, [Status(status, {"error": body})])
    with pytest.raises(ollama.ResponseError) as caught:
        ask("chat", stream=streamed)

    assert (status, body) == (caught.value.status_code, caught.value.error)
    assert FAILED == outcomes(collector)
    assert {code: 1} == call_metrics(collector).errors


@pytest.mark.parametrize("streamed", [False, True])
def test_code_of_a_timeout(
    server: ScriptedOllama, collector: MetricsCollector, streamed: bool
) -> None:
    """A server that hangs is a timeout, whether or not it has begun to answer."""
    server.script(CHAT, [chat_chunk("a"), Hang()] if streamed else [Hang()])
    with (
        ollama.Client(host=server.url, timeout=0.05) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        list(client.chat(MODEL, HI, stream=streamed))

    assert {"TIMEOUT": 1} == call_metrics(collector).errors


def test_code_of_an_answer_that_is_no_answer(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """What the client cannot read counts under the class of its exception."""
    server.script(CHAT, [{"model": MODEL, "message": "no object", "done": True}])
    with pytest.raises(ValueError, match="message"):
        ask("chat", stream=False)

    assert {"ValidationError": 1} == call_metrics(collector).errors


def test_classify_knows_old_and_new_names() -> None:
    """Asyncio's, Python's and the clients' exceptions have the same codes."""
    request = httpx.Request("POST", "http://x")
    response = httpx.Response(404, request=request)

    assert "TIMEOUT" == classify(TimeoutError())
    assert "TIMEOUT" == classify(asyncio.TimeoutError())
    assert "TIMEOUT" == classify(httpx.PoolTimeout(""))
    assert "CONNECTION_FAILED" == classify(ConnectionResetError())
    assert "CONNECTION_FAILED" == classify(httpx.RemoteProtocolError(""))
    assert "LocalProtocolError" == classify(httpx.LocalProtocolError(""))
    assert "ZeroDivisionError" == classify(ZeroDivisionError())
    assert "TIMEOUT" == classify(ometrics.ErrorTimeout())
    assert "INVALID_MODEL" == classify(
        httpx.HTTPStatusError("", request=request, response=response)
    )


def test_thinking_is_not_answering(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """The first chunk may be thought; the first answer is text or a tool's call."""
    tool = [{"function": {"name": "f", "arguments": {}}}]
    server.script(
        CHAT,
        [
            chat_chunk(thinking="hm"),
            chat_chunk(thinking="so"),
            chat_chunk(tool_calls=tool),
            chat_done(),
        ],
    )
    ask("chat", stream=True)
    call = call_metrics(collector)

    assert [1, 1, 2] == [
        call.time_to_first_chunk.count,
        call.time_to_first_answer.count,
        call.time_per_output_chunk.count,
    ]
    assert call.time_to_first_chunk.sum_ns < call.time_to_first_answer.sum_ns
    assert call.time_to_first_answer.sum_ns == (
        call.time_to_first_chunk.sum_ns + call.time_per_output_chunk.sum_ns
    )


def test_thinking_only(
    server: ScriptedOllama, collector: MetricsCollector, ask: Driver
) -> None:
    """Who never answers has no time to first answer."""
    server.script(CHAT, [chat_chunk(thinking="hm"), chat_done()])
    ask("chat", stream=True)

    assert 0 == call_metrics(collector).time_to_first_answer.count
    assert 1 == call_metrics(collector).time_to_first_chunk.count


# --- beside others, and back ---


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_beside_opentelemetry(
    server: ScriptedOllama, ask: Driver, ours_first: bool, streamed: bool
) -> None:
    """In either order both see the call once; leaving first or last restores all."""
    collector = MetricsCollector()
    before = [vars(kind)["_request"] for kind in KINDS]
    if ours_first:
        ometrics.ollama.instrument(collector)
    with opentelemetry_instrumented():
        if not ours_first:
            ometrics.ollama.instrument(collector)
        ask("chat", stream=streamed)
        ometrics.ollama.uninstrument()
        ask("chat", stream=streamed)
        theirs = [vars(kind)["_request"] for kind in KINDS]
        ometrics.ollama.instrument(collector)
        ask("chat", stream=streamed)
        ometrics.ollama.uninstrument()

        assert [True, True] == [
            method.__wrapped__ is original
            for method, original in zip(theirs, before, strict=True)
        ]

    assert (2, 0, 0, 0) == outcomes(collector)


def test_beneath_a_patch_that_hides_ours(
    client: ollama.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrapper of ours that can no longer be found counts no more."""
    collector = ometrics.ollama.instrument(MetricsCollector())
    inner = httpx.HTTPTransport.handle_request

    def hiding(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", hiding)
    ometrics.ollama.instrument(collector)
    client.chat(MODEL, HI)
    list(client.chat(MODEL, HI, stream=True))

    assert (2, 0, 0, 0) == outcomes(collector)

    ometrics.ollama.uninstrument()
    monkeypatch.undo()
    client.chat(MODEL, HI)
    httpx.HTTPTransport.handle_request = inner.__wrapped__  # type: ignore[method-assign]

    assert (2, 0, 0, 0) == outcomes(collector)


def test_beneath_a_patch_that_cannot_be_undone(
    client: ollama.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under somebody's plain function ours stays, does nothing, and comes back."""
    collector = ometrics.ollama.instrument(MetricsCollector())
    inner = httpx.HTTPTransport.handle_request

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return inner(self, *args, **kwargs)

    theirs.__wrapped__ = inner  # type: ignore[attr-defined]
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", theirs)
    client.chat(MODEL, HI)
    ometrics.ollama.uninstrument()
    client.chat(MODEL, HI)
    ometrics.ollama.instrument(collector)
    client.chat(MODEL, HI)

    assert (2, 0, 0, 0) == outcomes(collector)

    monkeypatch.undo()
    ometrics.ollama.uninstrument()


# --- many at once ---


@pytest.mark.threads
def test_threads(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """Eight threads that share a client count all they do."""

    def work(number: int) -> None:
        if number % 3 == 0:
            client.chat(MODEL, HI)
        elif number % 3 == 1:
            list(client.chat(MODEL, HI, stream=True))
        else:
            stream: Any = client.chat(MODEL, HI, stream=True)
            next(stream)
            stream.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(90)))

    assert (60, 0, 30, 0) == outcomes(collector)


def test_tasks(server: ScriptedOllama, collector: MetricsCollector) -> None:
    """So do sixty tasks of one event loop."""

    async def work(client: ollama.AsyncClient, number: int) -> None:
        if number % 2:
            await client.chat(MODEL, HI)
            return
        stream: Any = await client.chat(MODEL, HI, stream=True)
        async for _ in stream:
            if number % 4:
                await stream.aclose()
                break

    async def main() -> None:
        async with ollama.AsyncClient(host=server.url) as client:
            await asyncio.gather(*(work(client, number) for number in range(60)))

    asyncio.run(main())

    assert (45, 0, 15, 0) == outcomes(collector)


@pytest.mark.threads
def test_instrument_and_uninstrument_under_load(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Coming and going of collectors harms no call."""
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            ometrics.ollama.instrument(MetricsCollector())
            ometrics.ollama.instrument(MetricsCollector(), client=client)
            ometrics.ollama.uninstrument()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(30):
            assert client.chat(MODEL, HI).done
            assert 5 == len(list(client.chat(MODEL, HI, stream=True)))
    finally:
        stop.set()
        thread.join()


def test_memory_does_not_grow_with_a_stream(
    server: ScriptedOllama, collector: MetricsCollector, client: ollama.Client
) -> None:
    """Between two chunks of a long stream nothing of the first is left behind."""
    server.script(CHAT, [*[chat_chunk("x")] * 6000, chat_done()])
    blocks: list[int] = []
    for number, _ in enumerate(client.chat(MODEL, HI, stream=True)):
        if number in (500, 5500):
            gc.collect()
            blocks.append(sys.getallocatedblocks())

    assert blocks[1] - blocks[0] < 500
    assert 5999 == call_metrics(collector).time_per_output_chunk.count
