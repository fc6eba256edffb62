# SPDX-License-Identifier: MIT
"""What of a program's calls could not be measured, and what to do about it.

A partial view that looks whole misleads more than none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final

from ometrics.instrumentation.clients import OTHER_CLIENTS
from ometrics.instrumentation.imports import ImportWatch

_NOTE: Final = "unmeasured-"


def note_clients(directory: str | os.PathLike[str]) -> None:
    """
    Leave a note in a directory when this process imports a client that goes unmeasured.

    At once and not at the end, which a process that is killed does not have.

    Args:
        directory: Where; an empty file a client.
    """

    def note(module: ModuleType) -> None:
        with suppress(OSError):
            (Path(directory) / f"{_NOTE}{module.__name__}").touch(mode=0o600)

    ImportWatch(note).watch(set(OTHER_CLIENTS))


def noted_clients(directory: str | os.PathLike[str]) -> list[str]:
    """The clients of which any process left a note."""
    with suppress(OSError):
        names = {path.name for path in Path(directory).glob(f"{_NOTE}*")}
        return [one for one in OTHER_CLIENTS if f"{_NOTE}{one}" in names]
    return []


def imported_clients() -> list[str]:
    """The clients that this process has imported."""
    return [name for name in OTHER_CLIENTS if name in sys.modules]


def notes(models: int, clients: Iterable[str]) -> list[str]:
    """
    Say in a line each what was not measured; none if there is nothing to say.

    Args:
        models: How many were called.
        clients: Clients that were there and are not measured.
    """
    found = []
    if not models:
        found.append(
            "no call to a model was seen: measured are calls to this machine and to"
            " OLLAMA_HOST, and those of the packages ollama and openai; for another"
            " server call ometrics.instrument(hosts=[...]) in the program"
        )
    others = ", ".join(clients)
    if others:
        found.append(
            f"calls by {others} are not measured; a proxy in front of the"
            " server measures them: ometrics proxy --help"
        )
    return found
