# SPDX-License-Identifier: MIT
"""What tests of the proxy share: a server, a proxy in front of it, who counts."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from healthy_runs import assert_nothing_found

import ometrics.proxy.proxy
from ometrics import MetricsCollector
from ometrics.proxy import Proxy
from ometrics.testing import ScriptedOllama


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server."""
    with ScriptedOllama() as running:
        yield running


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """Who counts."""
    collector = MetricsCollector()
    yield collector
    assert_nothing_found(collector.snapshot())


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both event loops that a proxy may run on."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    kind = importlib.import_module(request.param)
    monkeypatch.setattr(ometrics.proxy.proxy, "_new_loop", kind.new_event_loop)


@pytest.fixture
def proxy(
    server: ScriptedOllama, collector: MetricsCollector, loop: None
) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with Proxy.start(collector, upstream=server.url, port=0) as running:
        yield running


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """A folder in which Node finds Ollama's and OpenAI's clients from npm."""
    npm = shutil.which("npm") if shutil.which("node") else None
    if npm is None:
        pytest.skip("node and npm are not installed")
    folder = Path(os.environ.get("OMETRICS_NPM", Path(sys.prefix, "npm")))
    if not (folder / "node_modules" / "openai").exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            (npm, "install", "--no-audit", "--no-fund", "ollama", "openai"),
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=100,
        )
        if done.returncode:
            pytest.skip("npm cannot install ollama and openai; is there a network?")
    return folder
