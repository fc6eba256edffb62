# SPDX-License-Identifier: MIT
"""
The fault tests catch what they are for: each one fails without its guard.

A copy of the package is built with one guard removed, by a flag of `_mutex.h` or by an
edit of the source, and the scenario of the fault test is run on it. It must crash, hang
or print figures that the fault test would refuse.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forking import needs_fork
from support import observe

ROOT = Path(__file__).parents[2]
LEAK = 2 * 2**20  # bytes: `test_leaks.py`
HANG = 40.0  # seconds: the runs below take ten at most when nothing hangs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.sanitize_skip,
    pytest.mark.skipif(
        not (ROOT / "src" / "ometrics" / "_core.pyx").exists(),
        reason="needs the source tree",
    ),
]


@dataclass
class Guard:
    """A guard: how to remove it, and how that shows."""

    name: str
    scenario: tuple[object, ...]
    bad: Callable[[dict[str, Any]], object]
    flags: str = ""
    edits: tuple[tuple[str, str], ...] = ()  # pattern, replacement


def is_torn(figures: dict[str, Any]) -> object:
    """What `test_snapshots_are_consistent` refuses."""
    return figures["torn"] or not figures["exact"]


def is_off(figures: dict[str, Any]) -> object:
    """What `test_forks` refuses."""
    return any(value for key, value in figures.items() if key != "forks")


def has_lost(figures: dict[str, Any]) -> object:
    """What the tests of `test_reentry.py` refuse."""
    return figures["lost"]


# Nothing is noted before it changes.
NO_JOURNAL = ((r"    if journal == NULL:\n        return\n", "    return\n"),)

GUARDS = [
    Guard(
        "the mutex, for snapshots",
        ("snapshots", 1000),
        is_torn,
        flags="-DOMETRICS_WITHOUT_LOCK",
    ),
    Guard(
        "the copy that a recorder makes for a running snapshot",
        ("snapshots", 1000),
        is_torn,
        edits=(
            (
                r"    elif c\.snapshotting:\n",
                r"    elif c.snapshotting:\n        return CURRENT\n    elif 0:\n",
            ),
            (
                r"if c\.table\[i\]\.epoch != c\.epoch:\n +locked_make_current\(.*\)\n",
                (
                    r"c.packed_size += locked_pack("
                    r"c.layout, c.table[i], c.packed + c.packed_size)\n"
                ),
            ),
        ),
    ),
    Guard(
        "staleness after a reset",
        ("resets", 200),
        lambda figures: figures["off"],
        edits=((r"    om_store\(&c\.generation, c\.generation \+ 1\)\n", ""),),
    ),
    Guard(
        "the fork handler",
        ("forks", "python", 10),
        is_off,
        flags="-DOMETRICS_WITHOUT_ATFORK",
    ),
    Guard(
        "the fork handler, in C",
        ("forks", "c", 10),
        is_off,
        flags="-DOMETRICS_WITHOUT_ATFORK",
    ),
    Guard(
        "the lock made anew in a child",
        ("forks", "python", 100),
        is_off,
        edits=((r"om_mutex_init\(&c\.copying\)\n( +c\.forks)", r"pass\n\1"),),
    ),
    Guard(
        "no Python under the mutex",
        ("signals", 1000),
        has_lost,
        edits=(
            (
                r"(    record = acquire_record\(table, model, slot\)\n)",
                r"\1    now = wall(table)\n",
            ),
        ),
    ),
    Guard(
        "the journal, for what is killed",
        ("kills", 500),
        lambda figures: figures["wrong"],
        edits=NO_JOURNAL,
    ),
    Guard(
        "the journal, for readers",
        ("outside_readers", 500),
        lambda figures: figures["torn"],
        edits=NO_JOURNAL,
    ),
    Guard(
        "a child's numbers are none of its ancestors'",
        ("inherited",),
        lambda figures: figures["in the parent's file"],
        edits=((r"        c\.epoch = c\.forks << FORK_SHIFT\n", ""),),
    ),
    Guard(
        "the free of a record",
        ("leaks", 500_000, 1000),
        lambda figures: max(figures.values()) > LEAK,
        edits=((r"free\(self\.private_record\)\n", "pass\n"),),
    ),
]


def remove(package: Path, text: str, replacement: str) -> None:
    """Replace the first match of a pattern in the compiled sources."""
    for file in sorted([*package.glob("*.pxd"), *package.glob("*.pyx")]):
        source, n = re.subn(text, replacement, file.read_text(), count=1)
        if n:
            file.write_text(source)
            return
    pytest.fail(f"no source has {text!r}: say anew where the guard is")


def build(where: Path, guard: Guard) -> Path:
    """A copy of the package without the guard."""
    shutil.copytree(
        ROOT / "src",
        where / "src",
        ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info"),
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, where)
    for text, replacement in guard.edits:
        remove(where / "src" / "ometrics", text, replacement)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=where,
        env=os.environ | {"OMETRICS_CFLAGS": f"-O1 {guard.flags}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        pytest.fail(f"without {guard.name} it does not compile: {done.stderr[-2000:]}")
    return where / "src"


@needs_fork
@pytest.mark.fork
@pytest.mark.parametrize("guard", GUARDS, ids=[guard.name for guard in GUARDS])
def test_guard(guard: Guard, tmp_path: Path) -> None:
    """Without the guard, its fault test fails."""
    package = build(tmp_path, guard)
    name, *arguments = guard.scenario
    try:
        figures = observe(str(name), *arguments, seconds=HANG, package=package)
    except AssertionError as crash:
        print(f"without {guard.name}: {str(crash)[:500]}")  # noqa: T201
    else:
        print(f"without {guard.name}: {figures}")  # noqa: T201

        assert guard.bad(figures)
