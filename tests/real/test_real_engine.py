# SPDX-License-Identifier: MIT
"""Real inference, driven by the official clients: we count what the wire said.

The embedded engine runs llama.cpp on a tiny model. A transport between client and
socket keeps the bytes of each answer; its last line is what the record must equal.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest
import tiny_model
from healthy_runs import assert_nothing_found
from instrumenting import HI, call_metrics, outcomes

import ometrics.ollama
import ometrics.openai
from ometrics import CallMetrics, MetricsCollector
from ometrics.demo.engine import ModelEngine
from ometrics.proxy import Proxy

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None
        or importlib.util.find_spec("gguf") is None,
        reason="xllamacpp or gguf is not installed",
    ),
]

OPTIONS = {"num_predict": 24, "seed": 1}
CUT = {"answers-cut"}  # as they are asked to be


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelEngine]:
    """A running engine with the tiny model."""
    model = tiny_model.build(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with ModelEngine(model) as running:
        yield running


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """A collector that watches both official clients."""
    collector = ometrics.ollama.instrument(MetricsCollector())
    ometrics.openai.instrument(collector)
    yield collector
    ometrics.ollama.uninstrument()
    ometrics.openai.uninstrument()
    assert 0 == collector.snapshot().internal_errors
    assert_nothing_found(collector.snapshot(), but=CUT)


class Tee(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The bytes of an answer, kept on their way."""

    def __init__(self, inner: Any, kept: list[bytes]) -> None:
        self.inner = inner
        self.kept = kept

    def __iter__(self) -> Iterator[bytes]:
        """Pass them on."""
        for part in self.inner:
            self.kept.append(part)
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pass them on."""
        async for part in self.inner:
            self.kept.append(part)
            yield part

    def close(self) -> None:
        """Close what is beneath."""
        self.inner.close()

    async def aclose(self) -> None:
        """Close what is beneath."""
        await self.inner.aclose()


class Wire(httpx.HTTPTransport):
    """A transport that keeps the bytes of the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Keep the body."""
        response = super().handle_request(request)
        response.stream = Tee(response.stream, self.kept)
        return response


class AsyncWire(httpx.AsyncHTTPTransport):
    """As `Wire`."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Keep the body."""
        response = await super().handle_async_request(request)
        response.stream = Tee(response.stream, self.kept)
        return response


def last_line(wire: Wire | AsyncWire) -> dict[str, Any]:
    """The last line that came over the wire."""
    line: dict[str, Any] = json.loads(b"".join(wire.kept).splitlines()[-1])
    return line


def check(call: CallMetrics, line: dict[str, Any]) -> None:
    """The record of one call against the last line of its answer."""
    load, prefill = line.get("load_duration"), line.get("prompt_eval_duration")
    decode, total = line.get("eval_duration"), line["total_duration"]
    rest = total - sum(part or 0 for part in (load, prefill, decode))

    assert line["done"]
    assert (1, 0, 0) == (call.successful_reqs, call.failed_reqs, call.cancelled_reqs)
    assert [
        line.get("prompt_eval_count"),
        line.get("prompt_eval_cached_count"),
        line.get("eval_count"),
    ] == [call.prompt_tokens, call.cached_tokens, call.completion_tokens]
    assert [load or 0, prefill or 0, decode or 0, rest] == [
        getattr(call, name).sum_ns for name in ("load", "prefill", "decode", "residual")
    ]
    outside = call.connect.sum_ns + call.network.sum_ns
    assert total == call.latency.sum_ns - outside
    assert {line["done_reason"]: 1} == call.done_reasons


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("operation", ["chat", "text_completion"])
def test_ollama(
    engine: ModelEngine, collector: MetricsCollector, operation: str, streamed: bool
) -> None:
    """Tokens and durations equal those of the final line."""
    wire = Wire()
    with ollama.Client(host=engine.url, transport=wire) as client:
        answer = (
            client.chat(engine.model, HI, stream=streamed, options=OPTIONS)
            if operation == "chat"
            else client.generate(engine.model, "hi", stream=streamed, options=OPTIONS)
        )
        chunks = list(answer) if streamed else [answer]
    call = call_metrics(collector, operation, engine.model.removesuffix(":latest"))

    check(call, last_line(wire))
    assert 24 == call.completion_tokens
    assert streamed == call.time_to_first_chunk.count
    assert len(chunks) > 1 or not streamed


@pytest.mark.parametrize("streamed", [False, True])
def test_ollama_async(
    engine: ModelEngine, collector: MetricsCollector, streamed: bool
) -> None:
    """So for the asynchronous client."""
    wire = AsyncWire()

    async def ask() -> None:
        async with ollama.AsyncClient(host=engine.url, transport=wire) as client:
            answer = await client.chat(
                engine.model, HI, stream=streamed, options=OPTIONS
            )
            if streamed:
                async for _ in answer:
                    pass

    asyncio.run(ask())

    check(
        call_metrics(collector, "chat", engine.model.removesuffix(":latest")),
        last_line(wire),
    )


def test_cancelled_stream(engine: ModelEngine, collector: MetricsCollector) -> None:
    """Breaking out of real inference is a cancellation, and the next call is fine."""
    name = engine.model.removesuffix(":latest")
    with ollama.Client(host=engine.url) as client:
        for _ in client.chat(engine.model, HI, stream=True):
            break
        client.chat(engine.model, HI, options=OPTIONS)

    assert (1, 0, 1, 0) == outcomes(collector, "chat", name)


def test_unknown_model(engine: ModelEngine, collector: MetricsCollector) -> None:
    """A real 404."""
    with (
        ollama.Client(host=engine.url) as client,
        pytest.raises(ollama.ResponseError),
    ):
        client.chat("made-up", HI)

    assert {"INVALID_MODEL": 1} == call_metrics(collector, "chat", "made-up").errors


@pytest.mark.parametrize("streamed", [False, True])
def test_openai(
    engine: ModelEngine, collector: MetricsCollector, streamed: bool
) -> None:
    """The usage that the OpenAI client hands on is what is counted."""
    options: dict[str, Any] = {"max_tokens": 24, "seed": 1}
    if streamed:
        options |= {"stream": True, "stream_options": {"include_usage": True}}
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:
        answer: Any = client.chat.completions.create(
            model=engine.model, messages=HI, **options
        )
        usage = (list(answer)[-1] if streamed else answer).usage
    name = engine.model.removesuffix(":latest")
    call = call_metrics(collector, "chat", name)

    assert (1, 0, 0, 0) == outcomes(collector, "chat", name)
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        call.prompt_tokens,
        call.completion_tokens,
    )
    assert 24 == call.completion_tokens
    assert streamed == call.time_to_first_chunk.count
    assert 0 == call.decode.count


@pytest.mark.parametrize("streamed", [False, True])
def test_behind_a_proxy(engine: ModelEngine, streamed: bool) -> None:
    """A proxy counts of real inference what the wire says, and so does the client."""
    wire, behind = Wire(), MetricsCollector()
    with (
        Proxy.start(behind, upstream=engine.url, port=0) as proxy,
        ollama.Client(host=proxy.url, transport=wire) as client,
    ):
        answer = client.chat(
            model=engine.model, messages=HI, stream=streamed, options=OPTIONS
        )
        if streamed:
            list(answer)

    check(
        call_metrics(behind, "chat", engine.model.removesuffix(":latest")),
        last_line(wire),
    )
    assert_nothing_found(behind.snapshot(), but=CUT)
