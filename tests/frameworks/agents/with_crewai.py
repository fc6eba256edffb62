# SPDX-License-Identifier: MIT
"""crewai's model."""

from __future__ import annotations

from crewai import LLM


def model(url: str, name: str = "llama3.2", **more: bool) -> LLM:
    """The model."""
    return LLM(model=f"ollama/{name}", base_url=f"{url}/v1", api_key="x", **more)


SCENARIOS = {
    "plain": lambda url: model(url).call("hi"),
    "streamed": lambda url: model(url, stream=True).call("hi"),
    "unknown": lambda url: model(url, "made-up").call("hi"),
}
