# SPDX-License-Identifier: MIT
"""What the tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ometrics.testing import ScriptedOllama


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A model server."""
    with ScriptedOllama() as running:
        yield running
