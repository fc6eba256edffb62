# SPDX-License-Identifier: MIT
"""agno, which swallows a 404."""

from __future__ import annotations

import asyncio

from agno.agent import Agent
from agno.models.ollama import Ollama


def agent(url: str, name: str = "llama3.2") -> Agent:
    """The agent."""
    return Agent(model=Ollama(id=name, host=url), telemetry=False)


SCENARIOS = {
    "plain": lambda url: agent(url).run("hi").content,
    "streamed": lambda url: [
        part.content for part in agent(url).run("hi", stream=True)
    ],
    "async": lambda url: asyncio.run(agent(url).arun("hi")).content,
    "unknown": lambda url: str(agent(url, "made-up").run("hi").content)[:9],
}
