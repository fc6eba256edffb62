# SPDX-License-Identifier: MIT
"""Processes that are killed, or read while they record: nothing is torn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from forking import needs_fork
from support import allowed, observe, times

# As in `test_threads.py`.
TOLD_ONLY = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="CPython 3.13 itself dies of a fork made in C"
)

pytestmark = [needs_fork, pytest.mark.fork, pytest.mark.sanitize_skip]


def test_killed_processes_leave_whole_records() -> None:
    """
    Of 60 children killed with -9 (1,000 at full length), each file says what was done.

    Without the journal, 4 of 500 were torn (`test_guards.py`).
    """
    count = times(60, 1000)
    figures = observe("kills", count, seconds=allowed(60))

    assert (count, []) == (figures["killed"], figures["wrong"])
    assert figures["records"] > count


def test_readers_see_one_instant() -> None:
    """
    0 torn of 300 readings (20,000) of a process with four busy threads.

    Without the journal, most are (`test_guards.py`).
    """
    count = times(300, 20_000)
    figures = observe("outside_readers", count, seconds=allowed(60))

    assert (count, [], 0, {}) == tuple(
        figures[key] for key in ("reads", "torn", "back", "bad")
    )


@pytest.mark.parametrize("kind", ["python", pytest.param("c", marks=TOLD_ONLY)])
def test_forks_with_segments(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds of forks in private memory (`test_threads.py`) holds of segments."""
    monkeypatch.setenv("OMETRICS_DIR", str(tmp_path / "agents"))
    figures = observe("forks", kind, times(20, 200), seconds=allowed(120))

    assert {0} == {value for key, value in figures.items() if key != "forks"}


def test_any_bytes_are_read_or_refused() -> None:
    """2,000 mutated segments (1,000,000): no crash, no hang, no memory beyond them."""
    count = times(2_000, 1_000_000)
    figures = observe("mutated_segments", count, seconds=allowed(120))

    assert count == sum(figures["reasons"].values())
    assert {"read", "damaged", "foreign", "version", "truncated"} <= (
        figures["reasons"].keys()
    )
    assert figures["grown_kib"] < 4096


def test_what_is_inherited_stays_the_parents() -> None:
    """
    A child never writes to its parent's file, whatever the parent does to it.

    With epochs that count on from the parent's, it did (`test_guards.py`).
    """
    assert {"in the parent's file": 0} == observe("inherited", seconds=60)


def test_recycled_workers_add_up() -> None:
    """
    300 workers (10,000), half of them killed: exact, in two files and few bytes.

    Nobody reads meanwhile; those that begin fold those that ended.
    """
    count = times(300, 10_000)
    figures = observe("recycled", count, seconds=allowed(120))

    assert ([11 * count] * 2, 100, {}) == tuple(
        figures[key] for key in ("requests", "models", "bad")
    )
    assert figures["files"] <= 1 + 2
    assert figures["bytes"] <= 10 * 2**20
    assert figures["most bytes"] <= 16 * 2**20
