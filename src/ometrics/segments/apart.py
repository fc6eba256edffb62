# SPDX-License-Identifier: MIT
"""The processes of a directory side by side, for who asks which of them it was.

A process that ended stays for a while, as it was last: who looks every minute sees its
last requests too. Then it is gone, as the process is; its counts are in the sum only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from ometrics.segments.followed import Followed, ended
from ometrics.segments.instances import Instance

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot

#: Seconds that a process which ended stays: Prometheus forgets a series as fast.
LINGER: Final = 300.0


class Apart:
    """
    The processes of a directory as parts; a `SourceOfParts`.

    Args:
        followed: The directory.
        clock: Monotonic seconds.

    Thread-safety:
        Any thread.
    """

    def __init__(
        self, followed: Followed, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._followed = followed
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, Instance] = {}
        self._ended: dict[str, float] = {}  # since when

    def snapshot(self) -> Snapshot:
        """
        The sum of all that ever were.

        Raises:
            OSError: As `Attached.snapshot`.
        """
        return self._followed.snapshot()

    def parts(self) -> Mapping[str, Snapshot]:
        """
        The numbers of each process that runs or ended lately, by its id.

        Raises:
            OSError: As `Attached.snapshot`.
        """
        return {i.id: i.snapshot for i in self.instances()}

    def instances(self) -> list[Instance]:
        """
        The processes that run or ended lately.

        Raises:
            OSError: As `Attached.snapshot`.
        """
        with self._lock:
            return self._look(self._clock())

    def _look(self, now: float) -> list[Instance]:
        read = {i.id: i for i in self._followed.read().instances}
        gone = {key: ended(i) for key, i in self._last.items() if key not in read}
        found = {**gone, **read}
        self._ended = {
            key: self._ended.get(key, now) for key, i in found.items() if not i.alive
        }
        self._last = {
            key: i
            for key, i in found.items()
            if key in read or now - self._ended[key] < LINGER
        }
        return [
            i
            for key, i in self._last.items()
            if i.alive or now - self._ended[key] < LINGER
        ]
