# SPDX-License-Identifier: MIT
"""What the tests of `PeriodicExporter` share: a collector, and no waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")

import otlp_collector as fake
from otlp_collector import ScriptedCollector

from ometrics import MetricsCollector
from ometrics.export import otlp


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's, and no second between two attempts."""
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(otlp, "FIRST_BACKOFF_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[ScriptedCollector]:
    """A collector that takes everything until told otherwise."""
    with fake.collector() as running:
        yield running


@pytest.fixture
def mc() -> Iterator[MetricsCollector]:
    """What is exported."""
    with MetricsCollector() as collector:
        yield collector
