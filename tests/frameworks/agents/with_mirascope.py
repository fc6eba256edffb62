# SPDX-License-Identifier: MIT
"""mirascope, whose models of Ollama's go through OpenAI's client."""

from __future__ import annotations

import asyncio

from mirascope import llm


@llm.tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def model(url: str, name: str = "llama3.2") -> llm.Model:
    """The model."""
    llm.register_provider("ollama", base_url=f"{url}/v1", api_key="x")
    return llm.Model(f"ollama/{name}")


def with_tool(url: str) -> str:
    """A call of the tool, then the answer."""
    response = model(url).call("hi", tools=[look])
    while response.tool_calls:
        response = response.resume(response.execute_tools())
    return response.text()


SCENARIOS = {
    "plain": lambda url: model(url).call("hi").text(),
    "streamed": lambda url: list(model(url).stream("hi").text_stream()),
    "async": lambda url: asyncio.run(model(url).call_async("hi")).text(),
    "tool": with_tool,
    "unknown": lambda url: model(url, "made-up").call("hi"),
}
