# SPDX-License-Identifier: MIT
"""LiteLLM: its own handlers for Ollama, and OpenAI's client."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm

litellm.suppress_debug_info = True
HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def ask(url: str, model: str = "ollama_chat/llama3.2", **more: Any) -> Any:
    """One completion."""
    return litellm.completion(
        model=model, messages=HI, api_base=url, api_key="x", max_retries=0, **more
    )


def text(chunks: Any) -> str:
    """A stream's text."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def aask(url: str) -> list[str]:
    """Asynchronous, whole and streamed."""
    about = {"model": "ollama_chat/llama3.2", "messages": HI, "api_base": url}
    answer = await litellm.acompletion(**about)
    stream = await litellm.acompletion(**about, stream=True)
    return [answer.choices[0].message.content, text([chunk async for chunk in stream])]


def route(url: str) -> str:
    """By a router."""
    about = {"model": "ollama_chat/llama3.2", "api_base": url}
    router = litellm.Router([{"model_name": "m", "litellm_params": about}])
    answer: str = router.completion("m", HI).choices[0].message.content
    return answer


SCENARIOS = {
    "plain": lambda url: [
        ask(url).choices[0].message.content,
        ask(url, "ollama/llama3.2").choices[0].message.content,
        ask(f"{url}/v1", "openai/llama3.2").choices[0].message.content,
        route(url),
    ],
    "streamed": lambda url: [
        text(ask(url, stream=True)),
        text(ask(url, "ollama/llama3.2", stream=True)),
        text(ask(f"{url}/v1", "openai/llama3.2", stream=True)),
    ],
    "async": lambda url: asyncio.run(aask(url)),
    "tool": lambda url: ask(url, tools=[TOOL]).choices[0].finish_reason,
    "embeddings": lambda url: len(
        litellm.embedding("ollama/llama3.2", ["a", "b"], api_base=url).data
    ),
    "unknown": lambda url: ask(url, "ollama_chat/made-up"),
}
