# SPDX-License-Identifier: MIT
"""autogen's client of Ollama, which is asynchronous."""

from __future__ import annotations

import asyncio

from autogen_core.models import ModelInfo, UserMessage
from autogen_core.tools import FunctionTool
from autogen_ext.models.ollama import OllamaChatCompletionClient

ABOUT = ModelInfo(
    vision=False,
    function_calling=True,
    json_output=True,
    family="unknown",
    structured_output=True,
)


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def client(url: str, name: str = "llama3.2") -> OllamaChatCompletionClient:
    """The client."""
    return OllamaChatCompletionClient(model=name, host=url, model_info=ABOUT)


SAID = [UserMessage(content="hi", source="user")]


async def streamed(url: str) -> str:
    """A stream of parts."""
    parts = [part async for part in client(url).create_stream(SAID)]
    return "".join(part for part in parts if isinstance(part, str))


async def with_tool(url: str) -> list[str]:
    """A call of the tool."""
    tool = FunctionTool(look, description="look")
    answer = await client(url).create(SAID, tools=[tool])
    return [call.name for call in answer.content]


SCENARIOS = {
    "plain": lambda url: asyncio.run(client(url).create(SAID)).content,
    "streamed": lambda url: asyncio.run(streamed(url)),
    "tool": lambda url: asyncio.run(with_tool(url)),
    "unknown": lambda url: asyncio.run(client(url, "made-up").create(SAID)),
}
