# SPDX-License-Identifier: MIT
"""Segments whose counts are to be in a store: they wait for it before they are folded.

Beside the segment of a collector that writes to a store lies a file that names the
store. A process that ends well removes it. One that is killed leaves it, and its
segment stays as it is until whoever writes to the same store has written the rest; for
a week at most, as there may be nobody.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ometrics.segments import places

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot

# A file without a segment is left for so long: its process may not have recorded yet.
_LONELY_SECONDS: Final = 3_600.0


class UnwrittenSegments:
    """
    A collector of a directory that writes to a store, and those that did not end well.

    Args:
        directory: Of segments.
        instance_id: Gives the collector's, which is another one in a forked child.

    Thread-safety:
        Any thread.
    """

    def __init__(self, directory: str, instance_id: Callable[[], str]) -> None:
        self._directory = directory
        self._instance_id = instance_id

    def expect(self, place: str) -> None:
        """Have this collector's segment wait for a store."""
        # A directory that is not as it should be is for the segment to say.
        with contextlib.suppress(OSError):
            os.close(places.open_directory(self._directory, create=True))
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(self._file(self._instance_id()), flags, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as stream:
                stream.write(place)

    def done(self) -> None:
        """All of it is in the store."""
        self._remove(self._instance_id())

    def rest(self, place: str) -> Iterator[Snapshot]:
        """
        What each killed process counted whose counts are to be in this store.

        When the next one is asked for, the one before is in the store.
        """
        mine = self._marked(place)
        if not mine:
            return
        from msgspec.structs import replace

        from ometrics.segments.attached import Attached

        with contextlib.suppress(OSError):
            for instance in Attached(self._directory).read().instances:
                if instance.id in mine and not instance.alive:
                    heard = max(instance.last_heard, instance.started)
                    yield replace(instance.snapshot, collection_time=heard)
                    self._remove(instance.id)
                mine.discard(instance.id)
        for lonely in mine:
            self._remove(lonely, _LONELY_SECONDS)

    def _marked(self, place: str) -> set[str]:
        """The collectors, but for this one, whose counts are to be in a store."""
        found = set()
        with contextlib.suppress(OSError):
            os.close(places.open_directory(self._directory))
            for path in Path(self._directory).glob(f"*{places.STORE}"):
                with contextlib.suppress(OSError, ValueError):
                    if path.read_text(encoding="utf-8") == place:
                        found.add(path.stem)
        return found - {self._instance_id()}

    def _remove(self, instance_id: str, age: float = 0.0) -> None:
        path = self._file(instance_id)
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= age:
                path.unlink()

    def _file(self, instance_id: str) -> Path:
        return Path(self._directory, instance_id + places.STORE)
