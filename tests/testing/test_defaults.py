# SPDX-License-Identifier: MIT
"""The official clients are content with `ScriptedOllama`, one and many at once."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import ollama
import openai
import pytest

from ometrics.testing import (
    OPENAI_DONE,
    Delay,
    Event,
    Hang,
    Reset,
    ScriptedOllama,
    Split,
    Status,
    chat_chunk,
    chat_done,
    chat_response,
    embed_response,
    openai_chunk,
    openai_response,
    openai_usage,
)

CHAT = "/api/chat"
ASK: dict[str, Any] = {
    "model": "llama3.2",
    "messages": [{"role": "user", "content": "Hi"}],
}


def test_chat_answers_by_default(server: ScriptedOllama, client: ollama.Client) -> None:
    """Whole or streamed, with a model name, tokens and durations."""
    whole = client.chat(**ASK)
    chunks = list(client.chat(**ASK, stream=True))
    last = chunks[-1]
    split = (last.load_duration, last.prompt_eval_duration, last.eval_duration)

    assert "Hello, world!" == whole.message.content
    assert "Hello, world!" == "".join(chunk.message.content for chunk in chunks)
    assert ("llama3.2", True, "stop", 4) == (
        last.model,
        last.done,
        last.done_reason,
        last.eval_count,
    )
    assert 0 < sum(split) < last.total_duration


def test_generate_answers_by_default(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Whole or streamed."""
    chunks = client.generate("m", "Hi", stream=True)

    assert "Hello, world!" == client.generate("m", "Hi").response
    assert "Hello, world!" == "".join(chunk.response for chunk in chunks)


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
def test_an_empty_prompt_loads_or_unloads(
    server: ScriptedOllama, client: ollama.Client, keep_alive: int | None, reason: str
) -> None:
    """As the genuine server says it, with no metrics."""
    answers = [
        client.chat("m", keep_alive=keep_alive),
        client.generate("m", keep_alive=keep_alive),
    ]

    assert [(reason, None)] * 2 == [(a.done_reason, a.total_duration) for a in answers]


def test_embeddings_answer_by_default(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """The new endpoint has a vector an input and metrics, the old one neither."""
    new = client.embed("m", ["a", "b"])
    old = client.embeddings("m", "a")

    assert (2, None) == (len(new.embeddings), new.eval_count)
    assert new.total_duration > 0
    assert list(new.embeddings[0]) == list(old.embedding)
    assert 3 == len(embed_response(3)["embeddings"])


def test_the_lists_answer_by_default(
    client: ollama.Client, server: ScriptedOllama
) -> None:
    """Models on disk, in memory, and the version."""
    assert ["llama3.2:latest"] == [model.model for model in client.list().models]
    assert [0] == [model.size_vram for model in client.ps().models]
    assert "version" in httpx.get(server.url + "/api/version").json()
    assert 404 == httpx.get(server.url + "/metrics").status_code


def test_only_the_models_named_are_known() -> None:
    """A model the server does not have is a 404, with or without its tag."""
    with (
        ScriptedOllama(models=["a", "b:1b"]) as server,
        ollama.Client(host=server.url) as client,
    ):
        for known in ("a", "a:latest", "b:1b"):
            client.generate(known, "x")
        with pytest.raises(ollama.ResponseError, match="model 'b' not found") as caught:
            client.generate("b", "x")
        with (
            openai.OpenAI(base_url=server.openai_url, api_key="-") as other,
            pytest.raises(openai.NotFoundError, match="model 'c' not found"),
        ):
            other.embeddings.create(model="c", input="x")

        assert 404 == caught.value.status_code
        assert ["a:latest", "b:1b"] == [model.model for model in client.list().models]


def test_the_official_client_survives_a_split_final_line(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """A line cut anywhere is put together by the client."""
    size = len(json.dumps(chat_done(), separators=(",", ":")))
    server.script(CHAT, [chat_chunk("a"), Split(chat_done(), at=range(1, size))])
    chunks = list(client.chat(**ASK, stream=True))

    assert (2, True, 8) == (len(chunks), chunks[-1].done, chunks[-1].eval_count)


def test_the_official_client_sees_errors_in_a_stream(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """An error after 200 has no status; a reset is a transport error."""
    server.queue(
        CHAT,
        [chat_chunk("a"), {"error": "llama-server process has terminated"}],
        [chat_chunk("a"), Delay(0.02), Reset()],
    )
    with pytest.raises(ollama.ResponseError, match="terminated") as caught:
        list(client.chat(**ASK, stream=True))
    with pytest.raises(httpx.ReadError):
        list(client.chat(**ASK, stream=True))

    assert -1 == caught.value.status_code


def test_the_asynchronous_client(server: ScriptedOllama) -> None:
    """Streams, leaves one early, and is cancelled while another hangs."""

    async def scenario() -> str:
        async with ollama.AsyncClient(host=server.url, timeout=5) as client:
            parts = [part async for part in await client.chat(**ASK, stream=True)]
            server.script(CHAT, [chat_chunk("a"), Hang()])
            stream = await client.chat(**ASK, stream=True)
            await anext(stream)
            await stream.aclose()
            await asyncio.to_thread(server.wait_for_disconnect)
            task = asyncio.create_task(client.generate("m", "x"))
            server.script("/api/generate", [Hang()])
            await asyncio.to_thread(server.wait_for_requests, 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return "".join(part.message.content for part in parts)

    assert "Hello, world!" == asyncio.run(scenario())
    server.wait_for(lambda s: [r.disconnected for r in s.requests][1:] == [True, True])


def test_the_openai_client(server: ScriptedOllama) -> None:
    """Streams events, with usage only when asked for, and understands errors."""
    with openai.OpenAI(
        base_url=server.openai_url, api_key="-", max_retries=0, timeout=5
    ) as client:
        create = client.chat.completions.create
        whole = create(**ASK)
        plain = list(create(**ASK, stream=True))
        options = {"include_usage": True}
        counted = list(create(**ASK, stream=True, stream_options=options))
        vectors = client.embeddings.create(model="m", input=["a", "b"])
        busy = Status(429, {"error": {"message": "busy"}})
        server.script("/v1/chat/completions", [busy])
        with pytest.raises(openai.RateLimitError):
            create(**ASK)

    assert "Hello, world!" == whole.choices[0].message.content
    assert 4 == whole.usage.completion_tokens
    assert "Hello, world!" == "".join(c.choices[0].delta.content for c in plain)
    assert ["stop", None] == [plain[-1].choices[0].finish_reason, plain[-1].usage]
    assert ([], 4) == (counted[-1].choices, counted[-1].usage.completion_tokens)
    assert 2 == len(vectors.data)


def test_a_script_of_openai_events(server: ScriptedOllama) -> None:
    """A `dict` is an event under `/v1/`; usage may tell cached tokens."""
    server.script(
        "/v1/chat/completions",
        [
            openai_chunk("a"),
            Split(openai_chunk("b", finish_reason="stop"), at=[10, 60]),
            Event(openai_usage(5, 2, cached_tokens=0)),
            OPENAI_DONE,
        ],
    )
    with openai.OpenAI(base_url=server.openai_url, api_key="-") as client:
        chunks = list(client.chat.completions.create(**ASK, stream=True))

    assert ["a", "b"] == [chunk.choices[0].delta.content for chunk in chunks[:2]]
    assert (7, 0) == (
        chunks[2].usage.total_tokens,
        chunks[2].usage.prompt_tokens_details.cached_tokens,
    )
    assert "prompt_tokens_details" not in openai_response()["usage"]


def test_eight_threads_share_a_server(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Every call gets its own answer and every request is in the log."""
    server.script(CHAT, lambda request: [chat_response(request.json["model"])])

    def call(number: int) -> str:
        return client.chat(f"m{number}", ASK["messages"]).message.content

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(80)))

    assert [f"m{number}" for number in range(80)] == answers
    assert 80 == len(server.requests)


def test_fifty_tasks_stream_at_once(server: ScriptedOllama) -> None:
    """All of them hang in the middle of their stream at the same time."""
    server.script(CHAT, [chat_chunk("a"), Hang(), chat_chunk("b"), chat_done()])

    async def call(client: ollama.AsyncClient) -> int:
        return len([part async for part in await client.chat(**ASK, stream=True)])

    async def scenario() -> list[int]:
        async with ollama.AsyncClient(host=server.url, timeout=10) as client:
            tasks = [asyncio.create_task(call(client)) for _ in range(50)]
            await asyncio.to_thread(server.wait_for, lambda s: s.hanging == 50, 10.0)
            server.release()
            return await asyncio.gather(*tasks)

    assert [3] * 50 == asyncio.run(scenario())


def test_a_long_answer_arrives_whole() -> None:
    """A thousand chunks in one write are a thousand chunks to the client."""
    with (
        ScriptedOllama(answer=["tok "] * 1_000) as server,
        ollama.Client(host=server.url) as client,
    ):
        chunks = list(client.chat(**ASK, stream=True))

        assert (1_001, 1_000) == (len(chunks), chunks[-1].eval_count)
