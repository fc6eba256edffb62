# SPDX-License-Identifier: MIT
"""`FakeClock`: it moves when it is moved, both of its times at once."""

from __future__ import annotations

import threading
import time
from types import FrameType
from typing import Any

import pytest

from ometrics.testing import (
    FakeClock,
)


def test_the_clock_stands_still_until_it_is_told() -> None:
    """Two readings with nothing between them are equal."""
    clock = FakeClock(monotonic=5.0, time=1_000.0)

    assert (5.0, 1_000.0) == (clock.monotonic(), clock.time())
    assert (5.0, 1_000.0) == (clock.monotonic(), clock.time())


def test_advancing_moves_both_clocks_without_rounding() -> None:
    """Ten tenths are one second, which floats alone would not give."""
    clock = FakeClock(monotonic=0.0, time=1_000.0)
    for _ in range(10):
        clock.advance(0.1)

    assert (1.0, 1_001.0) == (clock.monotonic(), clock.time())


def test_the_wall_clock_can_be_set_back_alone() -> None:
    """A correction of the wall clock leaves intervals as they are."""
    clock = FakeClock(monotonic=7.0, time=1_000.0)
    clock.step_wall(-3_600.0)

    assert (7.0, -2_600.0) == (clock.monotonic(), clock.time())


@pytest.mark.parametrize("seconds", [-0.001, float("nan"), float("inf")])
def test_time_does_not_run_backwards(seconds: float) -> None:
    """A clock that went back would hide mistakes, so it refuses and keeps its time."""
    clock = FakeClock(monotonic=7.0)

    with pytest.raises(ValueError, match="forwards"):
        clock.advance(seconds)
    assert 7.0 == clock.monotonic()


def test_threads_may_advance_one_clock() -> None:
    """
    No step of any thread is lost, though threads change at every bytecode.

    Seen to fail with the lock of `advance` taken out.
    """

    def give_way(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = frame.f_code is FakeClock.advance.__code__
        if event == "opcode":
            time.sleep(0)
        return give_way

    def work() -> None:
        for _ in range(50):
            clock.advance(0.01)

    clock = FakeClock(monotonic=0.0)
    threads = [threading.Thread(target=work) for _ in range(4)]
    threading.settrace(give_way)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.settrace(None)

    assert 2.0 == clock.monotonic()
