# SPDX-License-Identifier: MIT
"""langchain-ollama, and langgraph's agent with a tool."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: empty"


def model(url: str, name: str = "llama3.2") -> ChatOllama:
    """The model."""
    return ChatOllama(model=name, base_url=url)


def with_tool(url: str) -> Any:
    """An agent's loop: a call of the tool, then the answer."""
    bound = model(url).bind_tools([look])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda s: {"messages": [bound.invoke(s["messages"])]})
    graph.add_node("tools", ToolNode([look]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    messages = graph.compile().invoke({"messages": [("user", "hi")]})["messages"]
    return [message.content for message in messages]


SCENARIOS = {
    "plain": lambda url: model(url).invoke("hi").content,
    "streamed": lambda url: [chunk.content for chunk in model(url).stream("hi")],
    "async": lambda url: asyncio.run(model(url).ainvoke("hi")).content,
    "tool": with_tool,
    "unknown": lambda url: model(url, "made-up").invoke("hi"),
}
