# SPDX-License-Identifier: MIT
"""instructor: objects out of answers, over OpenAI's client."""

from __future__ import annotations

import asyncio
from typing import Any

import instructor
import openai
import pydantic

ANSWER = ['{"name":', ' "x"}']
HI = [{"role": "user", "content": "hi"}]


class Place(pydantic.BaseModel):
    """What a tool is called with."""

    place: str


class Person(pydantic.BaseModel):
    """What is asked for."""

    name: str


def client(
    url: str, kind: Any = openai.OpenAI, mode: Any = instructor.Mode.JSON
) -> Any:
    """The client."""
    inner = kind(base_url=f"{url}/v1", api_key="x", max_retries=0)
    return instructor.from_openai(inner, mode=mode)


def ask(url: str, model: str = "llama3.2") -> Any:
    """One object."""
    create = client(url).chat.completions.create
    return create(model=model, messages=HI, response_model=Person, max_retries=1)


def streamed(url: str) -> list[Any]:
    """An object in parts."""
    parts = client(url).chat.completions.create_partial(
        model="llama3.2", messages=HI, response_model=Person
    )
    return [part.name for part in parts]


def with_tool(url: str) -> str:
    """An object out of a tool's arguments."""
    create = client(url, mode=instructor.Mode.TOOLS).chat.completions.create
    found = create(model="llama3.2", messages=HI, response_model=Place)
    return str(found.place)


async def aask(url: str) -> str:
    """One object, asynchronously."""
    found = await client(url, openai.AsyncOpenAI).chat.completions.create(
        model="llama3.2", messages=HI, response_model=Person
    )
    return str(found.name)


SCENARIOS = {
    "plain": lambda url: ask(url).name,
    "streamed": streamed,
    "async": lambda url: asyncio.run(aask(url)),
    "tool": with_tool,
    "unknown": lambda url: ask(url, "made-up"),
}
