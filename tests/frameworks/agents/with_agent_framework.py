# SPDX-License-Identifier: MIT
"""Microsoft's agent-framework, which is asynchronous."""

from __future__ import annotations

import asyncio
from typing import Any

from agent_framework import Agent
from agent_framework.ollama import OllamaChatClient


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def agent(url: str, name: str = "llama3.2", **more: Any) -> Agent:
    """The agent."""
    return Agent(OllamaChatClient(host=url, model=name), **more)


async def ask(one: Agent) -> str:
    """One answer."""
    return str((await one.run("hi")).text)


async def streamed(url: str) -> list[str]:
    """A stream of parts."""
    return [part.text async for part in agent(url).run("hi", stream=True)]


SCENARIOS = {
    "plain": lambda url: asyncio.run(ask(agent(url))),
    "streamed": lambda url: asyncio.run(streamed(url)),
    "tool": lambda url: asyncio.run(ask(agent(url, tools=[look]))),
    "unknown": lambda url: asyncio.run(ask(agent(url, "made-up"))),
}
