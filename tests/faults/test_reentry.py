# SPDX-License-Identifier: MIT
"""What interrupts a record and records: signals, finalizers, logging handlers."""

from __future__ import annotations

from support import allowed, needs_signals, observe, times


@needs_signals
def test_signals() -> None:
    """
    10,000 records (100,000) by a signal handler within a record: none lost or stuck.

    With the clock read while the mutex is held, it hung at the first signal
    (`test_guards.py`).
    """
    count = times(10_000, 100_000)
    figures = observe("signals", count, seconds=allowed(60))

    assert 0 == figures["lost"]
    assert count <= figures["nested"]


def test_finalizers() -> None:
    """
    5,000 `__del__` (200,000) record, read and reset inside whatever allocates.

    Seen to fail with a slot added twice by a finalizer that came first: counts lost.
    """
    count = times(5_000, 200_000)
    figures = observe("finalizers", count, seconds=allowed(60))

    assert 0 == figures["lost"]
    assert count <= figures["del"]
    assert 0 < figures["callback"]
    assert 0 < figures["resets"]


def test_collection_within_a_reset() -> None:
    """
    A finalizer that runs in the middle of a reset may do anything, a reset included.

    Seen to hang where a dictionary was made while `copying` was held, and to crash
    where one was made between the check of the generation and the assignment.
    """
    count = times(3, 500)
    figures = observe("collected_in_reset", count, seconds=allowed(60))

    assert 20 * count == figures["ran"]


def test_logging_handler() -> None:
    """4,000 warnings (100,000) are recorded by the handler that gets them."""
    count = times(4_000, 100_000)
    figures = observe("logging_handler", count, seconds=allowed(60))

    assert 0 == figures["lost"]
    assert count <= figures["warnings"]
