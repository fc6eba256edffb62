# SPDX-License-Identifier: MIT
"""Runs of other tests in which every call succeeded: diagnosis must find nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec.structs import replace

import ometrics
from ometrics import Snapshot
from ometrics.models import PerformanceMetrics

# Most checks want 20 calls and most tests make one or two.
_TIMES: Final = 64
# What the clock of this machine says: a pause of it in one call would be one in all 64.
_TIMED: Final = {"connecting", "network", "waiting", "long-tail", "takes-most-time"}
_NO_NEWS: Final = {"few-requests", *_TIMED}


def assert_nothing_found(snapshot: Snapshot, *, but: Collection[str] = ()) -> None:
    """
    Fail on what diagnosis finds in models all of whose calls succeeded.

    Args:
        snapshot: What was counted of them. It is diagnosed as it is, and as if all
            that it saw had happened 64 times.
        but: What is true of these calls.
    """
    well = {name: m for name, m in snapshot.models.items() if _all_succeeded(m)}
    once = replace(snapshot, models=well)
    for seen in (once, once.merge(*[once] * (_TIMES - 1))):
        found = ometrics.diagnose(seen)
        wrong = [f for f in found if f.kind not in {*_NO_NEWS, *but}]
        assert not wrong, "\n".join(map(str, wrong))


def _all_succeeded(model: PerformanceMetrics) -> bool:
    running = sum(call.in_flight for call in model.calls.values())
    return model.total_requests == model.successful_reqs and not running
