# SPDX-License-Identifier: MIT
"""A history as an argument: `metrics.db`, `metrics.db@yesterday`, or a database."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ometrics.snapshot import Snapshot

_SQLITE: Final = b"SQLite format 3\0"


class Stored:
    """
    What a history knew at a time, as a source.

    Args:
        name: File or database URL.
        time: Everything until then; `None` for everything.
    """

    def __init__(self, name: str, time: str | None) -> None:
        self.name = name
        self.time = time

    def snapshot(self) -> Snapshot:
        """
        What had been counted.

        Raises:
            UnusableStoreError: It cannot be read.
            ValueError: The time cannot.
        """
        from ometrics.cli.store import opened

        with opened(self.name) as store:
            try:
                return store.snapshot() if self.time is None else store.at(self.time)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None


def usable(store: str | None) -> str | None:
    """
    A store that is to be written, once it is sure that it can be.

    A server may be away now: what is counted meanwhile is written when it is back.

    Raises:
        UnusableStoreError: It cannot; the message says why.
    """
    if store is None:
        return None
    from ometrics.cli.store import explained, opened

    if "://" in store:
        with explained():
            from ometrics.store.database import place_of

            place_of(store)
    else:
        with opened(store, create=True):
            pass
    return store


def stored(argument: str) -> Stored | None:
    """The history that an argument names; `None` if it names something else."""
    name, at, time = argument.rpartition("@")
    if "://" in argument:
        # An @ before the host is the login's.
        if at and "://" in name and "/" not in time:
            return Stored(name, time)
        return Stored(argument, None)
    if at and not Path(argument).exists() and _is_sqlite(name):
        return Stored(name, time)
    return Stored(argument, None) if _is_sqlite(argument) else None


def _is_sqlite(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False
