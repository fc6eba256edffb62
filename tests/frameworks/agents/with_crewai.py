# SPDX-License-Identifier: MIT
"""crewai's model."""

from __future__ import annotations

import asyncio

from crewai import LLM

HI = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
}


def model(url: str, name: str = "llama3.2", **more: bool) -> LLM:
    """The model."""
    return LLM(model=f"ollama/{name}", base_url=f"{url}/v1", api_key="x", **more)


def with_tool(url: str) -> str:
    """A call of the tool, whose result is the answer."""
    tools = {"look": lambda place: f"{place}: empty"}
    return str(model(url).call(HI, tools=[TOOL], available_functions=tools))


SCENARIOS = {
    "plain": lambda url: model(url).call("hi"),
    "streamed": lambda url: model(url, stream=True).call("hi"),
    "async": lambda url: asyncio.run(model(url).acall("hi")),
    "tool": with_tool,
    "unknown": lambda url: model(url, "made-up").call("hi"),
}
