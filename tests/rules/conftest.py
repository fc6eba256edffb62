# SPDX-License-Identifier: MIT
"""What all tests of rules leave behind: nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hooks import wait_for

THREADS = {"ometrics-alerts", "ometrics-rules"}


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """A watch that a test forgets to close waits for alerts for ever."""
    yield
    wait_for(lambda: not THREADS & {thread.name for thread in threading.enumerate()})
