# SPDX-License-Identifier: MIT
"""google-adk over LiteLLM."""

from __future__ import annotations

import asyncio

from google.adk.agents import Agent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


async def ask(url: str, name: str, mode: StreamingMode) -> list[str]:
    """One turn of an agent."""
    model = LiteLlm(model=f"ollama_chat/{name}", api_base=url)
    agent = Agent(name="agent", model=model, tools=[look])
    runner = InMemoryRunner(agent=agent, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    said = types.Content(role="user", parts=[types.Part(text="hi")])
    found = []
    async for event in runner.run_async(
        user_id="u",
        session_id=session.id,
        new_message=said,
        run_config=RunConfig(streaming_mode=mode),
    ):
        if event.content:
            found += [part.text or "" for part in event.content.parts or ()]
    return found


SCENARIOS = {
    "plain": lambda url: asyncio.run(ask(url, "llama3.2", StreamingMode.NONE)),
    "streamed": lambda url: asyncio.run(ask(url, "llama3.2", StreamingMode.SSE)),
    "tool": lambda url: asyncio.run(ask(url, "llama3.2", StreamingMode.NONE)),
    "unknown": lambda url: asyncio.run(ask(url, "made-up", StreamingMode.NONE)),
}
