# SPDX-License-Identifier: MIT
"""What tests of instrumented clients share: drivers, sync and async, and readings."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ollama
import openai
import pytest

from ometrics import CallMetrics, MetricsCollector

CHAT = "/api/chat"
MODEL = "llama3.2"
HI = [{"role": "user", "content": "hi"}]
# Long past what anything here takes; only a failure waits for it. Seconds.
PATIENCE = 10.0
# To load the certificates of the world takes longer than a call on loopback.
SETTINGS: dict[str, Any] = {"timeout": PATIENCE, "verify": False}

Seen = Callable[[Any], object]


class Driver:
    """
    The official Ollama client: makes one call and takes all of its answer.

    Args:
        url: Where the server is.
        is_async: Which of the two clients.
    """

    def __init__(self, url: str, *, is_async: bool) -> None:
        self.url = url
        self.is_async = is_async

    def __call__(self, method: str, *, seen: Seen | None = None, **options: Any) -> Any:
        """Call a method; of a stream, return the chunks, shown to `seen` on the way."""
        if method == "chat":
            options = {"messages": HI} | options
        options = {"model": MODEL} | options
        if self.is_async:
            return asyncio.run(self._await(method, seen, options))
        with ollama.Client(host=self.url, **SETTINGS) as client:
            answer = getattr(client, method)(**options)
            return _all(answer, seen) if options.get("stream") else answer

    async def _await(self, method: str, seen: Seen | None, options: Any) -> Any:
        async with ollama.AsyncClient(host=self.url, **SETTINGS) as client:
            answer = await getattr(client, method)(**options)
            if not options.get("stream"):
                return answer
            return [_show(chunk, seen) async for chunk in answer]


def _show(chunk: Any, seen: Seen | None) -> Any:
    if seen is not None:
        seen(chunk)
    return chunk


def _all(chunks: Iterable[Any], seen: Seen | None) -> list[Any]:
    return [_show(chunk, seen) for chunk in chunks]


class OpenAIDriver:
    """The official OpenAI client, as `Driver`; a method is named by its dotted path."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self.url = url
        self.is_async = is_async

    def __call__(self, method: str, **options: Any) -> Any:
        """Call a method; of a stream, return the chunks."""
        options = {"model": MODEL} | options
        if method.endswith("chat.completions.create"):
            options = {"messages": HI} | options
        settings: dict[str, Any] = {
            "base_url": self.url,
            "api_key": "none",
            "max_retries": 0,
            "timeout": options.pop("timeout", PATIENCE),
        }
        if self.is_async:
            return asyncio.run(self._await(settings, method, options))
        with openai.OpenAI(**settings) as client:
            answer = _member(client, method)(**options)
            return list(answer) if options.get("stream") else answer

    async def _await(self, settings: Any, method: str, options: Any) -> Any:
        async with openai.AsyncOpenAI(**settings) as client:
            answer = _member(client, method)(**options)
            if inspect.isawaitable(answer):
                answer = await answer
            if not options.get("stream"):
                return answer
            return [chunk async for chunk in answer]


def _member(holder: Any, path: str) -> Any:
    for name in path.split("."):
        holder = getattr(holder, name)
    return holder


def call_metrics(
    collector: MetricsCollector, operation: str = "chat", model: str = MODEL
) -> CallMetrics:
    """What was counted of one model's operation, with whatever provider."""
    calls = collector.snapshot().models[model].calls
    return next(call for call in calls.values() if call.operation == operation)


def outcomes(
    collector: MetricsCollector, operation: str = "chat", model: str = MODEL
) -> tuple[int, int, int, int]:
    """Successes, failures, cancellations, and what is still in flight."""
    try:
        call = call_metrics(collector, operation, model)
    except (KeyError, StopIteration):
        return 0, 0, 0, 0
    return (
        call.successful_reqs,
        call.failed_reqs,
        call.cancelled_reqs,
        call.in_flight,
    )


SUCCEEDED, FAILED, CANCELLED = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
NOTHING = (0, 0, 0, 0)


@contextmanager
def opentelemetry_instrumented() -> Iterator[None]:
    """OpenLLMetry with a tracer that samples nothing; removed by hand afterwards."""
    name = "opentelemetry.instrumentation.ollama"
    module = pytest.importorskip(name, reason="OpenLLMetry is not installed")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    instrumentor = module.OllamaInstrumentor()
    instrumentor.instrument(
        tracer_provider=trace.TracerProvider(
            sampler=trace.sampling.ALWAYS_OFF, shutdown_on_exit=False
        )
    )
    try:
        yield
    finally:
        with suppress(Exception):
            instrumentor.uninstrument()  # leaves its wrappers behind
        client = sys.modules["ollama._client"]
        for owner, name in [
            (ollama.Client, "_request"),
            (ollama.AsyncClient, "_request"),
            (client, "_copy_messages"),
        ]:
            setattr(owner, name, _peeled(vars(owner)[name]))


def _peeled(method: Any) -> Any:
    """The method without wrapt's wrappers, wherever they are among the layers."""
    if not hasattr(method, "__wrapped__"):
        return method
    inner = _peeled(method.__wrapped__)
    if type(method) is not types.FunctionType:  # not isinstance: wrapt's pretends
        return inner
    method.__wrapped__ = inner  # type: ignore[attr-defined]
    return method
