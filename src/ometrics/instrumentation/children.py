# SPDX-License-Identifier: MIT
"""How the processes that a measured program starts, and theirs, are measured too.

A forked child inherits the measuring. A new Python is reached by its environment:
`startup/` is first on its `PYTHONPATH`, and the `sitecustomize` in there, which Python
imports at its start, calls `join()`. `OMETRICS_RUN` says where its records go.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLE: Final = "OMETRICS_RUN"
STARTUP: Final = str(Path(__file__).parent / "startup")


def announce(directory: str, environment: MutableMapping[str, str]) -> None:
    """
    Let every Python that gets this environment be measured.

    Args:
        directory: Of segments. Others that were announced before stay.
        environment: Such as `os.environ`; changed in place.
    """
    environment[VARIABLE] = json.dumps([*announced(environment), directory])
    path = environment.get("PYTHONPATH", "")
    entries = [entry for entry in path.split(os.pathsep) if entry != STARTUP]
    # An empty variable is none: an empty entry would be the current directory.
    environment["PYTHONPATH"] = os.pathsep.join([STARTUP, *(entries if path else ())])


def announced(environment: MutableMapping[str, str]) -> list[str]:
    """The directories that were announced: one for each `ometrics run` around this."""
    try:
        found = json.loads(environment.get(VARIABLE) or "[]")
    except ValueError:
        return []
    return [one for one in found if isinstance(one, str)]


def join() -> None:
    """Measure this process as its environment says; without a word in it, nothing."""
    for directory in announced(os.environ):
        measure(directory)


def measure(directory: str) -> None:
    """Measure this process, with its records in a directory of segments."""
    from ometrics.collector import MetricsCollector
    from ometrics.instrumentation.api import instrument
    from ometrics.instrumentation.unmeasured import note_clients

    instrument(MetricsCollector(directory=directory))
    note_clients(directory)
