# SPDX-License-Identifier: MIT
"""Where a collector reads the time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where a collector reads the time; `ometrics.testing.FakeClock` is one."""

    def time(self) -> float:
        """Seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
