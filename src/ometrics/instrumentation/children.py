# SPDX-License-Identifier: MIT
"""How the processes that a measured program starts, and theirs, are measured too.

A forked child inherits the measuring. A new Python is reached by its environment:
`startup/` is first on its `PYTHONPATH`, and the `sitecustomize` in there, which Python
imports at its start, calls `join()`. `OMETRICS_RUN` says where its records go.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from ometrics.instrumentation.clients import CLIENTS, OTHER_CLIENTS
from ometrics.instrumentation.imports import before_first

if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLE: Final = "OMETRICS_RUN"
# Every Python that starts comes here, so without pathlib, which takes its time.
STARTUP: Final = os.path.join(os.path.dirname(__file__), "startup")  # noqa: PTH118, PTH120
# A file that each process which was reached has mapped, as others can see.
_REACHED: Final = "reached"

_kept: Final[list[object]] = []


def announce(directory: str, environment: MutableMapping[str, str]) -> None:
    """
    Let every Python that gets this environment be measured.

    Args:
        directory: Of segments. Others that were announced before stay.
        environment: Such as `os.environ`; changed in place.
    """
    environment[VARIABLE] = "\n".join([*announced(environment), directory])
    path = environment.get("PYTHONPATH", "")
    entries = [entry for entry in path.split(os.pathsep) if entry != STARTUP]
    # An empty variable is none: an empty entry would be the current directory.
    environment["PYTHONPATH"] = os.pathsep.join([STARTUP, *(entries if path else ())])


def announced(environment: MutableMapping[str, str]) -> list[str]:
    """The directories that were announced: one for each `ometrics run` around this."""
    return [one for one in environment.get(VARIABLE, "").split("\n") if one]


def join() -> None:
    """Measure this process as its environment says; without a word in it, nothing."""
    for directory in announced(os.environ):
        _show_reached(directory)
        # From the first HTTP client on: most short programs never need one.
        before_first({*CLIENTS, *OTHER_CLIENTS}, partial(measure, directory))


def measure(directory: str) -> None:
    """Measure this process, with its records in a directory of segments."""
    from ometrics.collector import MetricsCollector
    from ometrics.instrumentation.api import instrument
    from ometrics.instrumentation.unmeasured import note_clients

    instrument(MetricsCollector(directory=directory))
    note_clients(directory)


def _show_reached(directory: str) -> None:
    """Have a file of the directory mapped; a forked process has it too."""
    with contextlib.suppress(OSError, ValueError):
        file = os.open(f"{directory}/{_REACHED}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.write(file, b"\n")
            _kept.append(mmap.mmap(file, 1, access=mmap.ACCESS_READ))
        finally:
            os.close(file)
