# SPDX-License-Identifier: MIT
"""autogen's client of Ollama."""

from __future__ import annotations

import asyncio

from autogen_core.models import ModelInfo, UserMessage
from autogen_ext.models.ollama import OllamaChatCompletionClient

ABOUT = ModelInfo(
    vision=False,
    function_calling=True,
    json_output=True,
    family="unknown",
    structured_output=True,
)


async def ask(url: str, name: str = "llama3.2", *, stream: bool = False) -> str:
    """One answer."""
    client = OllamaChatCompletionClient(model=name, host=url, model_info=ABOUT)
    said = [UserMessage(content="hi", source="user")]
    if not stream:
        return str((await client.create(said)).content)
    parts = [part async for part in client.create_stream(said)]
    return "".join(part for part in parts if isinstance(part, str))


SCENARIOS = {
    "plain": lambda url: asyncio.run(ask(url)),
    "streamed": lambda url: asyncio.run(ask(url, stream=True)),
    "unknown": lambda url: asyncio.run(ask(url, "made-up")),
}
