# SPDX-License-Identifier: MIT
"""Haystack's generator for Ollama."""

from __future__ import annotations

import asyncio
from typing import Any

from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack_integrations.components.generators.ollama import OllamaChatGenerator

HI = [ChatMessage.from_user("hi")]


@tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def with_tool(url: str) -> list[str]:
    """A call of the tool."""
    (reply,) = model(url, tools=[look]).run(HI)["replies"]
    return [call.tool_name for call in reply.tool_calls]


def model(url: str, name: str = "llama3.2", **more: Any) -> OllamaChatGenerator:
    """The generator."""
    return OllamaChatGenerator(model=name, url=url, **more)


def streamed(url: str) -> list[str]:
    """A stream, seen by a callback."""
    parts: list[str] = []
    model(url, streaming_callback=lambda part: parts.append(part.content)).run(HI)
    return parts


SCENARIOS = {
    "plain": lambda url: model(url).run(HI)["replies"][0].text,
    "streamed": streamed,
    "async": lambda url: asyncio.run(model(url).run_async(HI))["replies"][0].text,
    "tool": with_tool,
    "unknown": lambda url: model(url, "made-up").run(HI),
}
