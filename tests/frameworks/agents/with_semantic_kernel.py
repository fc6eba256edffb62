# SPDX-License-Identifier: MIT
"""semantic-kernel's chat service, and its loop over functions."""

from __future__ import annotations

import asyncio

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import (
    FunctionChoiceBehavior,
)
from semantic_kernel.connectors.ai.ollama import (
    OllamaChatCompletion,
    OllamaChatPromptExecutionSettings,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function


class Looking:
    """A plugin."""

    @kernel_function
    def look(self, place: str) -> str:
        """Look at a place."""
        return f"{place}: empty"


def asked() -> ChatHistory:
    """What is said."""
    history = ChatHistory()
    history.add_user_message("hi")
    return history


async def ask(url: str, name: str = "llama3.2") -> str:
    """One answer."""
    service = OllamaChatCompletion(ai_model_id=name, host=url)
    settings = OllamaChatPromptExecutionSettings()
    return str(await service.get_chat_message_content(asked(), settings))


async def streamed(url: str) -> list[str]:
    """A stream of parts."""
    service = OllamaChatCompletion(ai_model_id="llama3.2", host=url)
    settings = OllamaChatPromptExecutionSettings()
    parts = service.get_streaming_chat_message_content(asked(), settings)
    return [str(part) async for part in parts]


async def with_tool(url: str) -> str:
    """A call of the function, then the answer."""
    kernel = Kernel()
    kernel.add_plugin(Looking(), "Looking")
    service = OllamaChatCompletion(ai_model_id="llama3.2", host=url)
    settings = OllamaChatPromptExecutionSettings(
        function_choice_behavior=FunctionChoiceBehavior.Auto()
    )
    answer = await service.get_chat_message_content(asked(), settings, kernel=kernel)
    return str(answer)


SCENARIOS = {
    "plain": lambda url: asyncio.run(ask(url)),
    "streamed": lambda url: asyncio.run(streamed(url)),
    "tool": lambda url: asyncio.run(with_tool(url)),
    "unknown": lambda url: asyncio.run(ask(url, "made-up")),
}
