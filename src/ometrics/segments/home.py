# SPDX-License-Identifier: MIT
"""Where one collector's records live: its segment, or private memory meanwhile.

Whatever is wrong with the directory (full disk, no permission, removed), the agent goes
on in private memory: said once in the log, counted in the snapshot. As soon as there is
room again, everything that was counted moves into a segment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ometrics._segment import Segment
from ometrics.segments import identity, locks, places
from ometrics.segments.folding import fold_if_many

if TYPE_CHECKING:
    from ometrics._histogram import Layout
    from ometrics.collector import MetricsCollector

# Seconds between two looks at a directory that is not as it should be.
_PATIENCE: Final = 1.0

_log: Final = logging.getLogger("ometrics")


class Home:
    """
    A collector's place in a directory of segments; the core asks it for memory.

    Args:
        directory: Of segments; made for this user only if it is not there.
        collector: Whose records these are.
        layout: The cells of its histograms.
        own_clock: Whether its times are of a clock of the user's.

    Thread-safety:
        Any thread; the core lets in one at a time. A forked child gets a segment of
        its own with its first record.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        collector: MetricsCollector,
        layout: Layout,
        *,
        own_clock: bool,
    ) -> None:
        # Absolute: the program may go elsewhere before a child of it records.
        self.directory = os.fspath(directory)
        with contextlib.suppress(FileNotFoundError):  # no working directory: said later
            self.directory = os.path.abspath(directory)  # noqa: PTH100 - keeps links
        self._collector = weakref.ref(collector)
        self._layout = layout
        self._own_clock = own_clock
        self._segment: Segment | None = None
        self._name = ""  # of the segment, once others can see it
        self._looked = -_PATIENCE
        self._warned: set[str] = set()

    def memory(self) -> Segment | None:
        """
        The segment that records are to be in; `None`: not now.

        Raises:
            OSError: There is no room for one, or the directory is not to be used.
            MemoryError: It cannot be mapped.
        """
        segment = self._segment
        if segment is not None and segment.is_of_this_process():
            if not self._name or self._is_there(segment):
                return segment
            self._segment, self._name = None, ""
            self.failed(FileNotFoundError("it was removed"))
            self._looked = -_PATIENCE
        elif segment is not None:  # the parent's
            self._segment, self._name, self._looked = None, "", -_PATIENCE
            self._warned.clear()
        if time.monotonic() - self._looked < _PATIENCE:
            return None
        self._looked = time.monotonic()
        self._segment = self._new_segment()
        return self._segment

    def look(self) -> bool:
        """Whether it is time to see if the segment is still there."""
        now = time.monotonic()
        if now - self._looked < _PATIENCE:
            return False
        if self._segment is not None:
            self._looked = now
        return True

    def moved(self, segment: Segment) -> None:
        """
        Let others see the segment, now that all is in it.

        Raises:
            OSError: The directory is not there any more.
        """
        collector = self._collector()
        if self._name or segment is not self._segment or collector is None:
            return
        name = collector.instance_id + places.SUFFIX
        with _opened(self.directory) as directory:
            os.rename(
                name + places.UNFINISHED,
                name,
                src_dir_fd=directory,
                dst_dir_fd=directory,
            )
            self._name = name
            fold_if_many(directory)

    def failed(self, error: Exception) -> None:
        """Say what is wrong, once for each reason, and count it."""
        collector = self._collector()
        if collector is None:
            return
        collector._count_segment_failure()  # noqa: SLF001 - the core's, and only for us
        self._leave_note()
        reason = getattr(error, "strerror", None) or str(error)
        if reason not in self._warned:
            self._warned.add(reason)
            _log.warning(
                "records go on in private memory, where no other process can read"
                " them: %s: %s",
                self.directory,
                reason,
            )

    def _leave_note(self) -> None:
        """For readers, who see no segment or an old one; takes no room on the disk."""
        with contextlib.suppress(OSError), _opened(self.directory) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(places.FAILED, flags, 0o600, dir_fd=directory)
            try:
                os.utime(file)
            finally:
                os.close(file)

    def _is_there(self, segment: Segment) -> bool:
        try:
            return os.fstat(segment.descriptor()).st_nlink > 0
        except OSError:
            return False

    def _new_segment(self) -> Segment | None:
        collector = self._collector()
        if collector is None:
            return None
        process = identity.this_process()
        name = collector.instance_id + places.SUFFIX + places.UNFINISHED
        with _opened(self.directory, create=True) as directory:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with contextlib.suppress(FileNotFoundError):  # of an attempt that failed
                os.unlink(name, dir_fd=directory)
            opened = [os.open(name, flags, 0o600, dir_fd=directory)]
            try:
                flags &= ~(os.O_CREAT | os.O_EXCL)
                opened.append(os.open(name, flags, dir_fd=directory))
                file, lock = opened
                # Held as long as the process lives, whatever kills it: by this others
                # know that it does, in any container.
                locks.take(lock)
                return Segment(
                    file,
                    lock,
                    self._layout,
                    collector.buckets,
                    {
                        "id": collector.instance_id.encode(),
                        "fields": identity.fields_digest(),
                        "boot": identity.boot().encode(),
                        "program": identity.program().encode(errors="replace"),
                        "pid": process.pid,
                        "pid_namespace": process.pid_namespace,
                        "process_start": process.start,
                        "created_ns": time.time_ns(),
                        "own_clock": self._own_clock,
                    },
                )
            except BaseException:
                for descriptor in opened:
                    os.close(descriptor)
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=directory)
                raise


@contextlib.contextmanager
def _opened(path: str, *, create: bool = False) -> Iterator[int]:
    directory = places.open_directory(path, create=create)
    try:
        yield directory
    finally:
        os.close(directory)
