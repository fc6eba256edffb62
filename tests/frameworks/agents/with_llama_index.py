# SPDX-License-Identifier: MIT
"""LlamaIndex, which asks for a model's details before its first call."""

from __future__ import annotations

import asyncio

from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama


def model(url: str, name: str = "llama3.2") -> Ollama:
    """The model."""
    return Ollama(model=name, base_url=url, request_timeout=10)


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def with_tool(url: str) -> str:
    """A call of the tool, whose result is the answer."""
    tool = FunctionTool.from_defaults(look)
    return str(model(url).predict_and_call([tool], "hi"))


SCENARIOS = {
    "plain": lambda url: model(url).complete("hi").text,
    "streamed": lambda url: [part.text for part in model(url).stream_complete("hi")],
    "async": lambda url: asyncio.run(model(url).acomplete("hi")).text,
    "tool": with_tool,
    "unknown": lambda url: model(url, "made-up").complete("hi"),
}
