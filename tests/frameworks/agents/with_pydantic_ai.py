# SPDX-License-Identifier: MIT
"""pydantic-ai, whose client has a User-Agent of its own."""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.ollama import OllamaProvider


def agent(url: str, name: str = "llama3.2") -> Agent:
    """The agent."""
    provider = OllamaProvider(base_url=f"{url}/v1", api_key="x")
    return Agent(OpenAIChatModel(name, provider=provider), retries=0)


def with_tool(url: str) -> str:
    """A call of the tool, then the answer."""
    one = agent(url)

    @one.tool_plain
    def look(place: str) -> str:
        """Look at a place."""
        return f"{place}: empty"

    return one.run_sync("hi").output


async def streamed(url: str) -> list[str]:
    """A stream of text."""
    async with agent(url).run_stream("hi") as result:
        return [text async for text in result.stream_text()]


SCENARIOS = {
    "plain": lambda url: agent(url).run_sync("hi").output,
    "streamed": lambda url: asyncio.run(streamed(url))[-1],
    "async": lambda url: asyncio.run(agent(url).run("hi")).output,
    "tool": with_tool,
    "unknown": lambda url: agent(url, "made-up").run_sync("hi"),
}
