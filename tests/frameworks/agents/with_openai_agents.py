# SPDX-License-Identifier: MIT
"""openai-agents: chat completions and responses."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

set_tracing_disabled(True)


@function_tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def agent(url: str, name: str = "llama3.2", **more: Any) -> Agent:
    """The agent."""
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    return Agent(name="agent", model=OpenAIChatCompletionsModel(name, client), **more)


async def streamed(url: str) -> str:
    """A stream of events."""
    result = Runner.run_streamed(agent(url), "hi")
    async for _ in result.stream_events():
        pass
    return str(result.final_output)


async def left(url: str) -> str:
    """A stream that is left at its first event."""
    result = Runner.run_streamed(agent(url), "hi")
    async for event in result.stream_events():
        if event.type == "raw_response_event":
            break
    result.cancel()
    return "left"


SCENARIOS = {
    "plain": lambda url: Runner.run_sync(agent(url), "hi").final_output,
    "streamed": lambda url: asyncio.run(streamed(url)),
    "async": lambda url: asyncio.run(Runner.run(agent(url), "hi")).final_output,
    "tool": lambda url: Runner.run_sync(agent(url, tools=[look]), "hi").final_output,
    "left": lambda url: asyncio.run(left(url)),
    "unknown": lambda url: Runner.run_sync(agent(url, "made-up"), "hi"),
}
