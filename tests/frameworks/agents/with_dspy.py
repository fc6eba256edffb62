# SPDX-License-Identifier: MIT
"""DSPy, whose client is its own."""

from __future__ import annotations

import asyncio

import dspy


def model(url: str, name: str = "ollama_chat/llama3.2") -> dspy.LM:
    """The model."""
    base = f"{url}/v1"
    return dspy.LM(name, api_base=base, api_key="x", cache=False, num_retries=0)


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def with_tool(url: str) -> list[str]:
    """A call of the tool."""
    function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    (answer,) = model(url)("hi", tools=[{"type": "function", "function": function}])
    return [call["function"]["name"] for call in answer["tool_calls"]]


async def streamed(url: str) -> list[str]:
    """A program's answer in parts."""
    listener = dspy.streaming.StreamListener("answer")
    with dspy.context(lm=model(url), adapter=dspy.ChatAdapter()):
        program = dspy.streamify(
            dspy.Predict("question -> answer"), stream_listeners=[listener]
        )
        return [type(part).__name__ async for part in program(question="hi")]


SCENARIOS = {
    "plain": lambda url: [
        model(url)("hi"),
        model(url, "openai/llama3.2")("hi"),
    ],
    "streamed": lambda url: asyncio.run(streamed(url)),
    "async": lambda url: asyncio.run(model(url).acall("hi")),
    "tool": with_tool,
    "unknown": lambda url: model(url, "ollama_chat/made-up")("hi"),
}
