# SPDX-License-Identifier: MIT
"""
How the fault tests run what could hang, crash or tear.

Each fault is a script in `scenarios/`: it takes a count, provokes the fault that many
times in a process of its own, and prints the figures that it observed as JSON. A test
runs it on this package and asserts what the figures must be. `test_guards.py` runs the
same scripts on copies of the package with one guard removed, where they must not be.

`OMETRICS_FAULT_FACTOR` multiplies every default count, up to what the issue asks for:
with 50 (`make faults`) all are reached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ometrics

FACTOR = float(os.environ.get("OMETRICS_FAULT_FACTOR", "1"))
SCENARIOS = Path(__file__).parent / "scenarios"
PACKAGE = Path(ometrics.__file__).parents[1]

needs_signals = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="no signals to speak of here"
)


def times(default: int, full: int) -> int:
    """How often: the default, multiplied, but not more than the full length."""
    return max(min(round(default * FACTOR), full), 1)


def allowed(seconds: float) -> float:
    """What a run may take at the present factor, given what it may at factor 1."""
    return seconds * max(FACTOR, 1)


def observe(
    scenario: str, *arguments: object, seconds: float, package: Path = PACKAGE
) -> dict[str, Any]:
    """
    Run a scenario; what it prints.

    Args:
        scenario: Name of the script.
        arguments: Its command line.
        seconds: How long it may take; generous, because only a hang waits for it.
        package: Where `ometrics` is found.

    Raises:
        AssertionError: It crashed, hung or wrote to stderr.
    """
    command = [
        *(sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning"),
        *(str(SCENARIOS / f"{scenario}.py"), *map(str, arguments)),
    ]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": str(package)},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as hang:
        raise AssertionError(f"{scenario}: hung for {seconds} s") from hang
    if done.returncode or done.stderr:
        raise AssertionError(
            f"{scenario}: exit code {done.returncode}\n{done.stderr[-4000:]}"
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    print(scenario, *arguments, figures)  # noqa: T201 - measured: pytest -s shows it
    return figures
