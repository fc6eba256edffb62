# SPDX-License-Identifier: MIT
"""What the tests of the scripted server share."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest

from ometrics.testing import ScriptedOllama


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server that leaves nothing behind."""
    with ScriptedOllama() as server:
        yield server


@pytest.fixture
def client(server: ScriptedOllama) -> Iterator[ollama.Client]:
    """The official client, with the time limit it lacks."""
    with ollama.Client(host=server.url, timeout=5) as client:
        yield client
