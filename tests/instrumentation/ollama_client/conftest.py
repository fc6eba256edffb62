# SPDX-License-Identifier: MIT
"""What tests of the instrumented Ollama client share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import httpx
import ollama
import pytest
from healthy_runs import assert_nothing_found
from instrumenting import Driver

import ometrics.ollama
from ometrics import MetricsCollector
from ometrics.testing import ScriptedOllama

KINDS = ollama.Client, ollama.AsyncClient, httpx.HTTPTransport, httpx.AsyncHTTPTransport


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the client, and the HTTP client under it, as they were."""
    before = [dict(vars(kind)) for kind in KINDS]
    yield
    ometrics.ollama.uninstrument()
    gc.collect()  # what `wrap` made
    ometrics.ollama.uninstrument()
    assert before == [dict(vars(kind)) for kind in KINDS]


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server."""
    with ScriptedOllama() as server:
        yield server


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """A collector that watches the official client."""
    collector = ometrics.ollama.instrument(MetricsCollector())
    yield collector
    assert 0 == collector.snapshot().internal_errors
    assert_nothing_found(collector.snapshot())


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: ScriptedOllama) -> Driver:
    """The official client, sync and async."""
    return Driver(server.url, is_async=request.param == "async")


@pytest.fixture
def client(server: ScriptedOllama) -> Iterator[ollama.Client]:
    """A client that was there before anybody instrumented it."""
    with ollama.Client(host=server.url, timeout=10) as client:
        yield client
