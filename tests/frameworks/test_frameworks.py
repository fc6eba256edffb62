# SPDX-License-Identifier: MIT
"""Agents of other people's frameworks: each request counted, each result unchanged.

`make frameworks` runs all, `make test` a quick choice. Each has an environment of its
own, as they pin each other's versions; `uv` makes one in seconds and keeps it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from healthy_runs import assert_nothing_found

import ometrics
from ometrics.testing import (
    OPENAI_DONE,
    Event,
    Line,
    ScriptedOllama,
    Status,
    chat_done,
    chat_response,
    openai_chunk,
    openai_response,
)
from ometrics.testing.payloads import TIMINGS

uv = pytest.importorskip("uv", reason="uv is not installed")

HERE = Path(__file__).parent
ENVIRONMENTS = Path(
    os.environ.get("OMETRICS_FRAMEWORKS", Path(sys.prefix, "frameworks"))
)
SOURCE = Path(ometrics.__file__).parents[1]
CALL_PATHS = (
    *("/api/chat", "/api/generate", "/api/embed", "/api/embeddings"),
    *("/v1/chat/completions", "/v1/embeddings", "/v1/responses"),
)
PATIENCE = 180  # seconds for all scenarios of an agent

# An installed ometrics would bring its neighbours into the frameworks' environments.
pytestmark = [
    pytest.mark.sanitize_skip,
    pytest.mark.skipif(SOURCE.name == "site-packages", reason="needs the source tree"),
]


@dataclass(frozen=True)
class Framework:
    """
    What a framework's agent needs and does.

    Attributes:
        packages: What to install.
        scenarios: What its file does, besides `plain` and `unknown`.
        answer: What the server says to it.
    """

    packages: tuple[str, ...]
    scenarios: tuple[str, ...] = ()
    answer: tuple[str, ...] = ("Hello", "!")


ALL = ("streamed", "async", "tool")
#: Those whose every call is asynchronous.
ASYNC = ("streamed", "tool")
TABLE = {
    "litellm": Framework(("litellm",), (*ALL, "embeddings")),
    "langchain": Framework(("langchain-ollama", "langgraph"), ALL),
    "instructor": Framework(("instructor", "openai"), ALL, ('{"name":', ' "x"}')),
    "dspy": Framework(
        ("dspy",), ALL, ("[[ ## answer ## ]]\n", "hi", "\n[[ ## completed ## ]]")
    ),
    "adk": Framework(("google-adk", "litellm"), ASYNC),
    "smolagents": Framework(("smolagents[openai,litellm]",), ("streamed", "tool")),
    "pydantic_ai": Framework(("pydantic-ai-slim[openai]",), ALL),
    "openai_agents": Framework(("openai-agents",), (*ALL, "left")),
    "llama_index": Framework(("llama-index-llms-ollama",), ALL),
    "haystack": Framework(("ollama-haystack",), ALL),
    "agno": Framework(("agno", "ollama", "openai"), ALL),
    "strands": Framework(("strands-agents[ollama]",), ALL),
    "autogen": Framework(("autogen-ext[ollama]",), ASYNC),
    "crewai": Framework(("crewai",), ALL),
    "semantic_kernel": Framework(("semantic-kernel[ollama]",), ASYNC),
    "mirascope": Framework(("mirascope[openai]",), ALL),
    "agent_framework": Framework(("agent-framework-ollama",), ASYNC),
}
#: Of which each goes another way: by its own handlers, by `ollama`, by `openai`.
QUICK = ("litellm", "langchain", "instructor")


def environment(name: str) -> Path:
    """The interpreter of a framework's environment, made if it is not there."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    done = folder / ".packages"
    packages = ["msgspec", "click", "rich", *TABLE[name].packages]
    if not done.exists() or done.read_text().split() != packages:
        make = ["venv", "-q", "--clear", "--python", sys.executable, str(folder)]
        install = ["pip", "install", "-q", "--python", str(python), *packages]
        for command in (make, install):
            subprocess.run([uv.find_uv_bin(), *command], check=True)
        done.write_text(" ".join(packages))
    return python


def answer_with_a_tool(request: Any) -> Iterator[Any]:
    """A call of the first tool; once its result is there, the answer."""
    is_openai = request.path.startswith("/v1/")
    messages = request.json["messages"]
    if any(message["role"] == "tool" for message in messages):
        if not is_openai:
            yield Line(chat_done("done")) if request.stream else chat_response("done")
        elif request.stream:
            yield Event(openai_chunk("done", finish_reason="stop"))
            yield OPENAI_DONE
        else:
            yield openai_response("done")
        return
    name = request.json["tools"][0]["function"]["name"]
    arguments = {"place": "x"}
    if not is_openai:
        called = [{"function": {"name": name, "arguments": arguments}}]
        make = chat_done if request.stream else chat_response
        whole = make("")
        whole["message"]["tool_calls"] = called
        yield Line(whole) if request.stream else whole
        return
    function = {"name": name, "arguments": json.dumps(arguments)}
    called = [{"index": 0, "id": "c1", "type": "function", "function": function}]
    whole = openai_response("", finish_reason="tool_calls")
    whole["choices"][0]["message"]["tool_calls"] = called
    yield whole


def tokens_said(
    scenario: str, framework: Framework, requests: list[Any]
) -> tuple[int, int]:
    """Tokens of prompts and of answers, as far as the server told its clients."""
    prompt = completion = 0
    for request in requests:
        options = request.json.get("stream_options") or {}
        is_openai_stream = request.path.startswith("/v1/") and request.stream
        if scenario == "unknown" or (
            is_openai_stream and not options.get("include_usage")
        ):
            continue
        prompt += TIMINGS["prompt_eval_count"]
        if scenario == "tool":
            completion += TIMINGS["eval_count"]
        elif scenario != "embeddings":
            completion += len(framework.answer)
    return prompt, completion


def serve(scenario: str, framework: Framework) -> ScriptedOllama:
    """A server for a scenario."""
    server = ScriptedOllama(answer=framework.answer, models=["llama3.2"])
    status = 404 if scenario == "unknown" else 200
    about = {"model_info": {"general.architecture": "llama"}, "capabilities": []}
    server.script("/api/show", [Status(status, about)])
    if scenario == "tool":
        for path in ("/api/chat", "/v1/chat/completions"):
            server.script(path, answer_with_a_tool)
    return server


def run(name: str, mode: str) -> tuple[dict[str, Any], dict[str, list[Any]], str]:
    """
    Run all scenarios of one agent.

    Returns:
        What each gave and what was counted of it; the requests at its server; what
        went to standard error.
    """
    framework = TABLE[name]
    with ExitStack() as stack:
        servers = {
            scenario: stack.enter_context(serve(scenario, framework))
            for scenario in ("plain", *framework.scenarios, "unknown")
        }
        urls = [f"{scenario}={server.url}" for scenario, server in servers.items()]
        command = [str(environment(name))]
        out = ENVIRONMENTS / f"{name}.json"
        if mode == "run":
            command += ["-m", "ometrics", "run", "--json", str(out)]
        agent = str(HERE / "agents" / f"with_{name}.py")
        command += [str(HERE / "child.py"), agent, "bare" if mode == "run" else mode]
        done = subprocess.run(
            [*command, *urls],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=ENVIRONMENTS,
            env={
                **{k: v for k, v in os.environ.items() if not k.endswith("_proxy")},
                "PYTHONPATH": str(SOURCE),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "CREWAI_DISABLE_TELEMETRY": "true",
            },
        )
        assert "FOUND " in done.stdout, done.stderr[-2000:]
        found = json.loads(done.stdout.rpartition("FOUND ")[2])
        asked = {
            scenario: [
                request
                for request in server.requests
                if request.path in CALL_PATHS
                or (scenario == "unknown" and request.path == "/api/show")
            ]
            for scenario, server in servers.items()
        }
    return found, asked, done.stderr


Bare = tuple[str, dict[str, Any], str]


@pytest.fixture(scope="module", params=TABLE)
def bare(request: pytest.FixtureRequest) -> Bare:
    """A framework, and what its agent gives and says when nobody measures."""
    found, _, stderr = run(request.param, "bare")
    return request.param, found, stderr


@pytest.mark.frameworks
@pytest.mark.parametrize("mode", ["before", "after"])
def test_instrumented(bare: Bare, mode: str) -> None:
    """Instrumented before or after its import."""
    name, expected, quiet = bare
    found, asked, stderr = run(name, mode)
    for scenario, one in found.items():
        counted = one["counted"]

        assert expected[scenario]["result"] == one["result"], scenario
        assert len(asked[scenario]) == counted["calls"] > 0, scenario
        assert [0, 0] == [counted["internal_errors"], counted["in_flight"]], scenario
        assert (scenario == "unknown") == (counted["failed"] > 0), scenario
        if scenario != "left":  # how far it came is chance
            said = tokens_said(scenario, TABLE[name], asked[scenario])
            assert said == (counted["prompt_tokens"], counted["completion_tokens"])
    assert stderr.count("never") <= quiet.count("never")


@pytest.mark.frameworks
def test_under_the_command(bare: Bare) -> None:
    """Run unchanged by `ometrics run`."""
    under_the_command(bare)


@pytest.mark.parametrize("name", QUICK)
def test_the_quick_choice(name: str) -> None:
    """Three that reach a server in three ways, by `ometrics run`."""
    try:
        environment(name)
    except subprocess.CalledProcessError:
        pytest.skip(f"{name} cannot be installed; is there a network?")
    found, _, stderr = run(name, "bare")
    under_the_command((name, found, stderr))


def under_the_command(bare: Bare) -> None:
    """Run an agent by `ometrics run` and compare."""
    name, expected, quiet = bare
    found, asked, stderr = run(name, "run")
    exported = ometrics.Snapshot.from_json((ENVIRONMENTS / f"{name}.json").read_bytes())
    models = exported.models.values()
    calls = [call for model in models for call in model.calls.values()]
    ends = [c.successful_reqs + c.failed_reqs + c.cancelled_reqs for c in calls]
    said = [tokens_said(s, TABLE[name], requests) for s, requests in asked.items()]

    assert expected == found
    assert sum(map(len, asked.values())) == sum(ends)
    assert stderr.count("never") <= quiet.count("never")
    if "left" not in asked:
        assert sum(prompt for prompt, _ in said) == sum(
            call.prompt_tokens or 0 for call in calls
        )
    assert_nothing_found(exported)
