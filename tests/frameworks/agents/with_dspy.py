# SPDX-License-Identifier: MIT
"""DSPy, whose client is its own."""

from __future__ import annotations

import asyncio

import dspy


def model(url: str, name: str = "ollama_chat/llama3.2") -> dspy.LM:
    """The model."""
    base = f"{url}/v1"
    return dspy.LM(name, api_base=base, api_key="x", cache=False, num_retries=0)


SCENARIOS = {
    "plain": lambda url: [
        model(url)("hi"),
        model(url, "openai/llama3.2")("hi"),
    ],
    "async": lambda url: asyncio.run(model(url).acall("hi")),
    "unknown": lambda url: model(url, "ollama_chat/made-up")("hi"),
}
