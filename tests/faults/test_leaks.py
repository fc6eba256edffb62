# SPDX-License-Identifier: MIT
"""What is used and thrown away leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import allowed, observe, times

LIMIT = 2 * 2**20  # bytes

pytestmark = [
    pytest.mark.sanitize_skip,
    pytest.mark.skipif(
        not Path("/proc/self/statm").exists(), reason="no /proc to read memory from"
    ),
]


def test_leaks() -> None:
    """
    2 million records (10 million), 2,000 collectors (10,000): at most 2 MB of growth.

    Without the `free` of a removed record, 500,000 records left 64 MB behind and 1,000
    collectors 21 MB (`test_guards.py`).
    """
    figures = observe(
        "leaks", times(2_000_000, 10_000_000), times(2_000, 10_000), seconds=allowed(60)
    )

    assert figures["records"] <= LIMIT
    assert figures["collectors"] <= LIMIT
