# SPDX-License-Identifier: MIT
"""`ometrics.openai`: the official client against a compatible server."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from healthy_runs import assert_nothing_found
from instrumenting import (
    CANCELLED,
    FAILED,
    HI,
    MODEL,
    NOTHING,
    SUCCEEDED,
    OpenAIDriver,
    call_metrics,
    outcomes,
)

import ometrics.ollama
import ometrics.openai
from ometrics import MetricsCollector
from ometrics.instrumentation import answers, dialects, exchange, registry
from ometrics.testing import (
    OPENAI_DONE,
    Event,
    Hang,
    Reset,
    ScriptedOllama,
    Status,
    openai_chunk,
    openai_response,
    openai_usage,
)

CHAT = "/v1/chat/completions"
CREATE = "chat.completions.create"
# What the client's connections are made of: httpx, or its successor.
HTTP = importlib.import_module(
    openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0]
)
KINDS = [HTTP.HTTPTransport, HTTP.AsyncHTTPTransport, openai.OpenAI, openai.AsyncOpenAI]


class Thought(pydantic.BaseModel):
    """What an answer is to be parsed into."""

    text: str


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the client as it was."""
    before = [dict(vars(kind)) for kind in KINDS]
    yield
    ometrics.openai.uninstrument()
    assert before == [dict(vars(kind)) for kind in KINDS]


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server."""
    with ScriptedOllama() as server:
        yield server


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """A collector that watches the official client."""
    collector = ometrics.openai.instrument(MetricsCollector())
    yield collector
    assert 0 == collector.snapshot().internal_errors
    assert_nothing_found(collector.snapshot())


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: ScriptedOllama) -> OpenAIDriver:
    """The official client, sync and async."""
    return OpenAIDriver(server.openai_url, is_async=request.param == "async")


@pytest.fixture
def client(server: ScriptedOllama) -> Iterator[openai.OpenAI]:
    """A client that was there before anybody instrumented it."""
    with openai.OpenAI(
        base_url=server.openai_url, api_key="none", max_retries=0, timeout=10
    ) as client:
        yield client


def ended(content: str = "b", **extra: Any) -> dict[str, Any]:
    """The last chunk of a choice."""
    return openai_chunk(content, finish_reason="stop", **extra)


# --- what is counted ---


def test_answer_in_one_piece(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """Tokens are known, the server's durations are not."""
    server.script(CHAT, [openai_response(prompt_tokens=7, cached_tokens=3)])
    answer = ask(CREATE)
    call = call_metrics(collector)

    assert "Hello, world!" == answer.choices[0].message.content
    assert SUCCEEDED == outcomes(collector)
    assert (7, 3, 8) == (
        call.prompt_tokens,
        call.cached_tokens,
        call.completion_tokens,
    )
    assert {"stop": 1} == call.done_reasons
    assert [1, 0, 0, 0, 0, 0] == [
        getattr(call, name).count
        for name in (
            *("latency", "time_to_first_chunk", "load"),
            *("prefill", "decode", "network"),
        )
    ]
    assert call.decode_tokens_per_second is None


def test_stream(collector: MetricsCollector, ask: OpenAIDriver) -> None:
    """Chunks are timed; without `include_usage` the tokens stay unknown."""
    ask(CREATE, stream=True)
    call = call_metrics(collector)

    assert SUCCEEDED == outcomes(collector)
    assert [1, 1, 3] == [
        call.time_to_first_chunk.count,
        call.time_to_first_answer.count,
        call.time_per_output_chunk.count,
    ]
    assert [None, None] == [call.prompt_tokens, call.completion_tokens]
    assert {"stop": 1} == call.done_reasons


def test_stream_with_usage(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """The extra chunk without choices tells the tokens, and is no output."""
    server.script(
        CHAT,
        [
            openai_chunk("a"),
            ended(),
            openai_usage(9, 4, cached_tokens=0),
            OPENAI_DONE,
        ],
    )
    chunks = ask(CREATE, stream=True, stream_options={"include_usage": True})
    call = call_metrics(collector)

    assert 3 == len(chunks)
    assert SUCCEEDED == outcomes(collector)
    assert (9, 0, 4) == (
        call.prompt_tokens,
        call.cached_tokens,
        call.completion_tokens,
    )
    assert 1 == call.time_per_output_chunk.count


def test_thinking_is_not_answering(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """What Ollama sends as `reasoning` is thought."""
    thought = openai_chunk("")
    thought["choices"][0]["delta"]["reasoning"] = "hm"
    server.script(CHAT, [openai_chunk(""), thought, ended(), OPENAI_DONE])
    ask(CREATE, stream=True)
    call = call_metrics(collector)

    assert call.time_to_first_chunk.sum_ns < call.time_to_first_answer.sum_ns
    assert 1 == call.time_per_output_chunk.count


def test_embeddings_and_completions(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """Each counts under its operation."""
    head = {"id": "1", "object": "text_completion", "created": 1, "model": MODEL}
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}

    def text(text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        return head | {"choices": [choice]}

    server.queue(
        "/v1/completions",
        [Status(200, text("ab", "stop") | {"usage": usage})],
        [Event(text("a", None)), Event(text("b", "stop")), OPENAI_DONE],
    )
    ask("embeddings.create", input="x")
    ask("completions.create", prompt="x")
    ask("completions.create", prompt="x", stream=True)
    call = call_metrics(collector, "text_completion")

    assert SUCCEEDED == outcomes(collector, "embeddings")
    assert 16 == call_metrics(collector, "embeddings").prompt_tokens
    assert (2, 0, 0, 0) == outcomes(collector, "text_completion")
    assert {"stop": 2} == call.done_reasons
    assert (3, 1) == (call.completion_tokens, call.time_per_output_chunk.count)


def response(status: str) -> dict[str, Any]:
    """A body of `/v1/responses`."""
    details = {"input_tokens_details": {"cached_tokens": 1}}
    usage = {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11} | details
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": MODEL,
        "output": [],
        "status": status,
        "usage": usage if status == "completed" else None,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }


def event(type: str, **fields: Any) -> Event:
    """An event of a stream of `/v1/responses`."""
    return Event({"type": type, "sequence_number": 0} | fields)


def test_responses(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """The newer interface is a chat, with other names for the same numbers."""
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    server.queue(
        "/v1/responses",
        [Status(200, response("completed"))],
        [
            event("response.created", response=response("in_progress")),
            event("response.reasoning_text.delta", delta="hm", **place),
            event("response.output_text.delta", delta="a", logprobs=[], **place),
            event("response.completed", response=response("completed")),
        ],
        [Status(200, response("failed"))],
        [event("response.failed", response=response("failed"))],
    )
    ask("responses.create", input="x")
    ask("responses.create", input="x", stream=True)
    ask("responses.create", input="x")
    ask("responses.create", input="x", stream=True)
    call = call_metrics(collector)

    assert (2, 2, 0, 0) == outcomes(collector)
    assert (10, 2, 12) == (
        call.prompt_tokens,
        call.cached_tokens,
        call.completion_tokens,
    )
    assert [1, 1, 1] == [
        call.time_to_first_chunk.count,
        call.time_to_first_answer.count,
        call.time_per_output_chunk.count,
    ]
    assert {"STREAM_ERROR": 2} == call.errors


def test_model_latest_is_one_series(
    collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """As with Ollama's own client; listing models is no request to one."""
    ask(CREATE, model="llama3.2:latest")

    assert [MODEL] == list(collector.snapshot().models)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_REQUEST"),
        (401, "HTTP_401"),
        (404, "INVALID_MODEL"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "MODEL_NOT_LOADED"),
        (503, "RESOURCE_EXHAUSTED"),
    ],
)
def test_codes_of_statuses(
    server: ScriptedOllama,
    collector: MetricsCollector,
    ask: OpenAIDriver,
    status: int,
    code: str,
) -> None:
    """The same codes as with Ollama's own client."""
    error = {"message": "model failed to load", "type": "api_error"}
    server.script(CHAT, [Status(status, {"error": error})])
    with pytest.raises(openai.APIStatusError):
        ask(CREATE)

    assert FAILED == outcomes(collector)
    assert {code: 1} == call_metrics(collector).errors


def test_retries_are_calls_each(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """What the client tries again is a call again, and known to be a retry."""
    busy = [Status(503, {"error": "busy"}, {"retry-after-ms": "1"})]
    server.queue(CHAT, busy, busy)
    with openai.OpenAI(
        base_url=server.openai_url, api_key="none", max_retries=2
    ) as client:
        client.chat.completions.create(model=MODEL, messages=HI)

    assert 3 == len(server.requests)
    assert (1, 2, 0, 0) == outcomes(collector)
    assert {"RESOURCE_EXHAUSTED": 2} == call_metrics(collector).errors
    assert (2, 3) == (
        *(call_metrics(collector).retries, call_metrics(collector).retries_known),
    )
    assert "Retries: 2 of 3 calls\n" in collector.get_model_summary(MODEL)


def test_usage_of_a_failed_parse(
    server: ScriptedOllama, collector: MetricsCollector, client: openai.OpenAI
) -> None:
    """What the answer cost is counted, though the client can make nothing of it."""
    server.script(CHAT, [openai_response("no JSON", prompt_tokens=7)])

    with pytest.raises(pydantic.ValidationError):
        client.chat.completions.parse(model=MODEL, messages=HI, response_format=Thought)

    assert SUCCEEDED == outcomes(collector)
    assert (7, 8) == (
        *(
            call_metrics(collector).prompt_tokens,
            call_metrics(collector).completion_tokens,
        ),
    )


def test_timeout(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """A server that hangs is a timeout."""
    server.script(CHAT, [Hang()])
    with pytest.raises(openai.APITimeoutError):
        ask(CREATE, timeout=0.05)

    assert {"TIMEOUT": 1} == call_metrics(collector).errors


@pytest.mark.parametrize("streamed", [False, True])
def test_refused_connection(
    server: ScriptedOllama,
    collector: MetricsCollector,
    ask: OpenAIDriver,
    streamed: bool,
) -> None:
    """A server that is not there is a failed connection."""
    server.close()
    with pytest.raises(openai.APIConnectionError):
        ask(CREATE, stream=streamed)

    assert {"CONNECTION_FAILED": 1} == call_metrics(collector).errors


def test_broken_stream(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """So is one that breaks in the middle; the first chunk's time is kept."""
    server.script(CHAT, [openai_chunk("a"), Reset()])
    with pytest.raises(openai.APIConnectionError):
        ask(CREATE, stream=True)

    assert {"CONNECTION_FAILED": 1} == call_metrics(collector).errors


def test_error_in_a_stream(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """An error after HTTP 200."""
    server.script(CHAT, [openai_chunk("a"), Event({"error": {"message": "died"}})])
    with pytest.raises(openai.APIError, match="died"):
        ask(CREATE, stream=True)

    assert {"STREAM_ERROR": 1} == call_metrics(collector).errors
    assert 1 == call_metrics(collector).time_to_first_chunk.count


def test_stream_without_an_end(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """A stream that ends without a reason was cut short."""
    server.script(CHAT, [openai_chunk("a"), openai_chunk("b")])
    ask(CREATE, stream=True)

    assert {"TRUNCATED": 1} == call_metrics(collector).errors


# --- every way out of a stream ---


def break_off(stream: Any) -> None:
    """Break out of the loop and let go."""
    for _ in stream:
        break


def close(stream: Any) -> None:
    """Close it by hand."""
    next(stream)
    stream.close()


def leave_with(stream: Any) -> None:
    """Leave its `with`."""
    with stream:
        next(stream)


@pytest.mark.parametrize("leave", [break_off, close, leave_with])
def test_leaving(
    server: ScriptedOllama,
    collector: MetricsCollector,
    client: openai.OpenAI,
    leave: Any,
) -> None:
    """Cancelled once, with the first chunk's time."""
    server.script(CHAT, [openai_chunk("a"), Hang()])
    leave(client.chat.completions.create(model=MODEL, messages=HI, stream=True))
    gc.collect()

    assert CANCELLED == outcomes(collector)
    assert 1 == call_metrics(collector).time_to_first_chunk.count


def test_leaving_at_once(collector: MetricsCollector, client: openai.OpenAI) -> None:
    """This client sends at once, so a stream that is never read was a request."""
    client.chat.completions.create(model=MODEL, messages=HI, stream=True).close()

    assert CANCELLED == outcomes(collector)


def test_leaving_after_the_reason(
    server: ScriptedOllama, collector: MetricsCollector, client: openai.OpenAI
) -> None:
    """Who has got the whole answer is a success, though the tokens are not known."""
    server.script(CHAT, [openai_chunk("a"), ended(), Hang()])
    stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
    next(stream), next(stream)
    stream.close()

    assert SUCCEEDED == outcomes(collector)
    assert call_metrics(collector).completion_tokens is None


@pytest.mark.parametrize("way", ["cancel", "close", "with", "drop"])
def test_leaving_async(
    server: ScriptedOllama, collector: MetricsCollector, way: str
) -> None:
    """Asynchronous streams likewise."""
    server.script(CHAT, [openai_chunk("a"), Hang()])

    async def leave() -> None:
        async with openai.AsyncOpenAI(
            base_url=server.openai_url, api_key="none"
        ) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=HI, stream=True
            )
            await stream.__anext__()
            if way == "cancel":
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(stream.__anext__(), 0.02)
            elif way == "close":
                await stream.close()
            elif way == "with":
                async with stream:
                    pass
            del stream
            gc.collect()
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(leave(), 10))

    assert CANCELLED == outcomes(collector)


# --- raw answers ---


def test_with_raw_response(collector: MetricsCollector, client: openai.OpenAI) -> None:
    """The numbers are read from the body of bytes; the caller parses it as ever."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)

    assert 200 == raw.status_code
    assert "Hello, world!" == raw.parse().choices[0].message.content
    assert SUCCEEDED == outcomes(collector)
    assert (16, 4) == (
        call_metrics(collector).prompt_tokens,
        call_metrics(collector).completion_tokens,
    )


def test_with_raw_response_of_a_stream(
    collector: MetricsCollector, client: openai.OpenAI
) -> None:
    """Its stream is seen when it is parsed."""
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HI, stream=True
    )
    chunks = list(raw.parse())

    assert isinstance(raw.parse(), openai.Stream)
    assert "Hello, world!" == "".join(c.choices[0].delta.content or "" for c in chunks)
    assert SUCCEEDED == outcomes(collector)
    assert 1 == call_metrics(collector).time_to_first_chunk.count


@pytest.mark.parametrize(
    ("how", "tokens"), [("parse", 4), ("read", 4), ("lines", 4), ("nothing", None)]
)
def test_with_streaming_response(
    collector: MetricsCollector, client: openai.OpenAI, how: str, tokens: int | None
) -> None:
    """A body that is read tells the tokens; not read at all it is a cancellation."""
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HI
    ) as answer:
        if how == "parse":
            assert "Hello, world!" == answer.parse().choices[0].message.content
        elif how == "read":
            assert b"Hello, world!" in answer.read()
        elif how == "lines":
            assert "Hello, world!" in "".join(answer.iter_lines())

    expected = CANCELLED if how == "nothing" else SUCCEEDED
    assert expected == outcomes(collector)
    assert tokens == call_metrics(collector).completion_tokens


def test_with_streaming_response_async(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """Asynchronously, whole and as chunks."""

    async def read() -> None:
        async with openai.AsyncOpenAI(
            base_url=server.openai_url, api_key="none"
        ) as client:
            create = client.chat.completions.with_streaming_response.create
            async with create(model=MODEL, messages=HI) as answer:
                await answer.parse()
            async with create(model=MODEL, messages=HI, stream=True) as answer:
                assert 5 == len([chunk async for chunk in await answer.parse()])

    asyncio.run(read())

    assert (2, 0, 0, 0) == outcomes(collector)
    assert 4 == call_metrics(collector).completion_tokens
    assert 1 == call_metrics(collector).time_to_first_chunk.count


def test_the_clients_own_helper_for_streams(
    collector: MetricsCollector, client: openai.OpenAI
) -> None:
    """`chat.completions.stream()` goes through the same seam."""
    with client.chat.completions.stream(model=MODEL, messages=HI) as stream:
        assert (
            "Hello, world!" == stream.get_final_completion().choices[0].message.content
        )

    assert SUCCEEDED == outcomes(collector)


# --- the way there and back ---


def test_types_and_signatures_are_unchanged(
    server: ScriptedOllama, client: openai.OpenAI
) -> None:
    """The caller holds what the bare client gives."""
    signatures = [
        inspect.signature(method)
        for method in (
            HTTP.HTTPTransport.handle_request,
            HTTP.AsyncHTTPTransport.handle_async_request,
        )
    ]
    bare = client.chat.completions.create(model=MODEL, messages=HI)
    ometrics.openai.instrument(MetricsCollector())
    stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)

    assert bare == client.chat.completions.create(model=MODEL, messages=HI)
    assert openai.Stream is type(stream)
    assert 5 == len(list(stream))
    assert signatures == [
        inspect.signature(method)
        for method in (
            HTTP.HTTPTransport.handle_request,
            HTTP.AsyncHTTPTransport.handle_async_request,
        )
    ]


def test_one_client_only(client: openai.OpenAI, ask: OpenAIDriver) -> None:
    """With `client=` the others are left alone; `uninstrument` ends it."""
    collector = ometrics.openai.instrument(MetricsCollector(), client=client)
    client.chat.completions.create(model=MODEL, messages=HI)
    ask(CREATE)
    ometrics.openai.uninstrument(collector)
    client.chat.completions.create(model=MODEL, messages=HI)

    assert SUCCEEDED == outcomes(collector)


def test_default_collector_is_shared_with_ollama() -> None:
    """Who names no collector gets one record of both clients."""
    try:
        assert ometrics.ollama.instrument() is ometrics.openai.instrument()
    finally:
        ometrics.ollama.uninstrument()


def test_what_is_not_inference(
    server: ScriptedOllama, collector: MetricsCollector, client: openai.OpenAI
) -> None:
    """Listing models and stored completions is no request to a model."""
    page = {"object": "list", "data": [], "has_more": False}
    server.script("/v1/models", [Status(200, page)])
    server.script(CHAT, [Status(200, page)])
    list(client.models.list())
    list(client.chat.completions.list())

    assert NOTHING == outcomes(collector)


# --- no harm ---


class InjectedError(Exception):
    """A failure of ours that a test brought about."""


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (MetricsCollector, "start_call"),
        (registry, "endpoint_of"),
        (registry, "asked_by"),
        (registry, "Exchange"),
        (exchange, "AnswerReader"),
        (answers.AnswerReader, "feed"),
        (answers.AnswerReader, "complete"),
        (dialects, "openai_usage"),
        (dialects._OpenAI, "read_into"),
        (exchange.TrackedCall, "observer"),
    ],
)
def test_nth_failure(  # noqa: PLR0917 - fixtures
    server: ScriptedOllama,
    ask: OpenAIDriver,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    streamed: bool,
) -> None:
    """Whichever step of ours fails, the caller gets what he would have got."""
    bare = ask(CREATE, stream=streamed)
    collector = ometrics.openai.instrument(MetricsCollector())
    failed: list[bool] = []

    def fail(*_: Any, **__: Any) -> Any:
        failed.append(True)
        raise InjectedError

    monkeypatch.setattr(owner, name, fail)

    assert bare == ask(CREATE, stream=streamed)
    gc.collect()
    assert bool(failed) == (0 < collector.snapshot().internal_errors)
    assert 0 == outcomes(collector)[3]


def test_no_pii_in_any_output(
    server: ScriptedOllama, collector: MetricsCollector, ask: OpenAIDriver
) -> None:
    """Nothing that was said comes out."""
    canary = "canary-91cd"
    server.queue(
        CHAT,
        [openai_response(canary)],
        [openai_chunk(canary), ended(canary), OPENAI_DONE],
    )
    said = [{"role": "user", "content": canary}]
    ask(CREATE, messages=said)
    ask(CREATE, messages=said, stream=True)
    out = collector.export_json().decode() + collector.get_summary()

    assert (2, 0, 0, 0) == outcomes(collector)
    assert canary not in out
