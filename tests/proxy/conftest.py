# SPDX-License-Identifier: MIT
"""What tests of the proxy share: a server, a proxy in front of it, who counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ometrics import MetricsCollector
from ometrics.proxy import Proxy
from ometrics.testing import ScriptedOllama


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server."""
    with ScriptedOllama() as running:
        yield running


@pytest.fixture
def collector() -> MetricsCollector:
    """Who counts."""
    return MetricsCollector()


@pytest.fixture
def proxy(server: ScriptedOllama, collector: MetricsCollector) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with Proxy.start(collector, upstream=server.url, port=0) as running:
        yield running
