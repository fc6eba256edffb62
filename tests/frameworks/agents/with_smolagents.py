# SPDX-License-Identifier: MIT
"""smolagents with both of its kinds of model."""

from __future__ import annotations

from typing import Any

from smolagents import LiteLLMModel, OpenAIModel, tool

HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


@tool
def look(place: str) -> str:
    """
    Look at a place.

    Args:
        place: Which.
    """
    return f"{place}: empty"


def with_tool(url: str) -> list[str]:
    """A call of the tool, by each."""
    answers = [one.generate(HI, tools_to_call_from=[look]) for one in models(url)]
    return [answer.tool_calls[0].function.name for answer in answers]


def models(url: str, name: str = "llama3.2") -> list[Any]:
    """Both."""
    return [
        OpenAIModel(
            name, api_base=f"{url}/v1", api_key="x", client_kwargs={"max_retries": 0}
        ),
        LiteLLMModel(f"ollama_chat/{name}", api_base=url, api_key="x"),
    ]


SCENARIOS = {
    "plain": lambda url: [model.generate(HI).content for model in models(url)],
    "streamed": lambda url: [
        [part.content for part in model.generate_stream(HI)] for model in models(url)
    ],
    "tool": with_tool,
    "unknown": lambda url: models(url, "made-up")[0].generate(HI),
}
