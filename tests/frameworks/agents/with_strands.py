# SPDX-License-Identifier: MIT
"""strands-agents, which streams always."""

from __future__ import annotations

import asyncio

from strands import Agent
from strands.models.ollama import OllamaModel


def agent(url: str, name: str = "llama3.2") -> Agent:
    """The agent."""
    return Agent(model=OllamaModel(url, model_id=name), callback_handler=None)


SCENARIOS = {
    "plain": lambda url: str(agent(url)("hi")),
    "async": lambda url: str(asyncio.run(agent(url).invoke_async("hi"))),
    "unknown": lambda url: agent(url, "made-up")("hi"),
}
