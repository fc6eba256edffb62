# SPDX-License-Identifier: MIT
"""What the tests of the embedded engine share: one that runs, with the tiny model."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from ometrics.demo.engine import ModelEngine


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a model that is built once a session."""
    return tiny_model.build(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[ModelEngine]:
    """A running engine with the tiny model."""
    with ModelEngine(tiny, context=tiny_model.LONG) as running:
        yield running


@pytest.fixture
def outcomes(engine: ModelEngine) -> Iterator[queue.Queue[Any]]:
    """What every run inside the engine returned or raised."""
    seen: queue.Queue[Any] = queue.Queue()
    listener = engine._listener
    assert listener is not None

    def complete(*args: Any, **options: Any) -> Any:
        try:
            outcome = engine.complete(*args, **options)
        except Exception as error:
            seen.put(error)
            raise
        seen.put(outcome)
        return outcome

    listener.complete = complete
    yield seen
    listener.complete = engine.complete
