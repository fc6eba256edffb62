# SPDX-License-Identifier: MIT
"""strands-agents, which streams always."""

from __future__ import annotations

import asyncio
from typing import Any

from strands import Agent, tool
from strands.models.ollama import OllamaModel


@tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def agent(url: str, name: str = "llama3.2", **more: Any) -> Agent:
    """The agent."""
    model = OllamaModel(url, model_id=name)
    return Agent(model=model, callback_handler=None, **more)


async def streamed(url: str) -> list[str]:
    """A stream of text."""
    events = agent(url).stream_async("hi")
    return [event["data"] async for event in events if "data" in event]


SCENARIOS = {
    "plain": lambda url: str(agent(url)("hi")),
    "streamed": lambda url: asyncio.run(streamed(url)),
    "async": lambda url: str(asyncio.run(agent(url).invoke_async("hi"))),
    "tool": lambda url: str(agent(url, tools=[look])("hi")),
    "unknown": lambda url: agent(url, "made-up")("hi"),
}
