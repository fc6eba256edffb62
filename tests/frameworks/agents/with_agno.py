# SPDX-License-Identifier: MIT
"""agno, which swallows a 404."""

from __future__ import annotations

import asyncio
from typing import Any

from agno.agent import Agent
from agno.models.ollama import Ollama


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def agent(url: str, name: str = "llama3.2", **more: Any) -> Agent:
    """The agent."""
    return Agent(model=Ollama(id=name, host=url), telemetry=False, **more)


SCENARIOS = {
    "plain": lambda url: agent(url).run("hi").content,
    "streamed": lambda url: [
        part.content for part in agent(url).run("hi", stream=True)
    ],
    "async": lambda url: asyncio.run(agent(url).arun("hi")).content,
    "tool": lambda url: agent(url, tools=[look]).run("hi").content,
    "unknown": lambda url: str(agent(url, "made-up").run("hi").content)[:9],
}
