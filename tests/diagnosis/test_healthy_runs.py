# SPDX-License-Identifier: MIT
"""Healthy runs long enough for every check: real calls, and nothing is found.

Other rooms' tests hand what they counted to `healthy_runs` as they end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
import tiny_model
from healthy_runs import assert_nothing_found
from instrumenting import HI, MODEL, SETTINGS

import ometrics
import ometrics.ollama
import ometrics.openai
from ometrics import MetricsCollector
from ometrics.ollama import Residency
from ometrics.testing import ScriptedOllama, chat_done, ps_response

pytest.importorskip("rich", reason="the extra cli is not installed")

from ometrics.demo.server import EngineServer
from ometrics.demo.team import Team

CALLS = 40
CONTEXT = 4096
SHORT = {"num_predict": 24}


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A server whose model has all the memory it wants."""
    with ScriptedOllama() as running:
        told = ps_response()
        for row in told["models"]:
            row |= {"size_vram": row["size"], "context_length": CONTEXT}
        running.script("/api/ps", [told])
        yield running


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """A collector that watches both official clients."""
    with ometrics.ollama.instrument(MetricsCollector()) as collector:
        ometrics.openai.instrument(collector)
        yield collector
        ometrics.ollama.uninstrument(collector)
        ometrics.openai.uninstrument(collector)


def found(collector: MetricsCollector, url: str) -> list[str]:
    """The kinds of all findings, the server asked for its models as well."""
    residency = Residency(url)
    residency.poll()
    snapshot = residency.added_to(collector.snapshot())
    return [finding.kind for finding in ometrics.diagnose(snapshot)]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent(
    server: ScriptedOllama, collector: MetricsCollector, streamed: bool
) -> None:
    """One that asks again and again in a conversation that grows."""
    messages: list[Any] = []
    with ollama.Client(host=server.url, **SETTINGS) as client:
        for _ in range(CALLS):
            messages += HI
            answer = client.chat(MODEL, messages, stream=streamed)
            *_, last = answer if streamed else [answer]
            messages.append({"role": "assistant", "content": last.message.content})

    assert CALLS == collector.snapshot().total_requests
    assert [] == found(collector, server.url)


@pytest.mark.parametrize("streamed", [False, True])
def test_by_the_interface_of_openai(
    server: ScriptedOllama, collector: MetricsCollector, streamed: bool
) -> None:
    """Where no more than tokens and reasons are told."""
    with openai.OpenAI(base_url=server.openai_url, api_key="none") as client:
        for _ in range(CALLS):
            answer = client.chat.completions.create(
                model=MODEL, messages=HI, stream=streamed
            )
            list(answer)

    assert CALLS == collector.snapshot().total_requests
    assert [] == found(collector, server.url)


def test_the_team_of_the_demo(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """Four agents, without the intern who errs."""

    class Careful(Team):
        async def _mishaps(self) -> None:
            pass

    team = Careful(
        EngineServer(MODEL, server.url, "a scripted server"),
        report=collector.record_task_completion,
        log=lambda line: None,
        tasks=CALLS // 4,
        seconds=60,
    )
    asyncio.run(team.run())
    team._client.close()

    assert CALLS == collector.snapshot().total_requests
    assert [] == found(collector, server.url)


@pytest.mark.real
@tiny_model.needs_engine
def test_real_inference(collector: MetricsCollector, tmp_path: Path) -> None:
    """Of a model that never ends a text by itself: that its answers are cut is true."""
    from ometrics.demo.engine import ModelEngine

    with (
        ModelEngine(tiny_model.build(tmp_path / "tiny.gguf")) as engine,
        ollama.Client(host=engine.url, **SETTINGS) as client,
    ):
        for streamed in [False, True] * (CALLS // 2):
            list(client.chat(engine.model, HI, stream=streamed, options=SHORT))
        kinds = found(collector, engine.url)

    assert CALLS == collector.snapshot().total_requests
    assert {"answers-cut", "on-the-cpu"} >= {*kinds}


def test_what_others_hand_over_is_diagnosed() -> None:
    """What would be found of many such calls fails; what failed is not healthy."""
    with MetricsCollector() as collector:
        collector.record_response(chat_done(done_reason="length"))
        with pytest.raises(AssertionError, match="answers are cut off"):
            assert_nothing_found(collector.snapshot())
        assert_nothing_found(collector.snapshot(), but={"answers-cut"})
        collector.record_error(MODEL, "TIMEOUT")
        assert_nothing_found(collector.snapshot())
