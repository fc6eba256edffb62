# SPDX-License-Identifier: MIT
"""The thread that writes what a source counts to a store, every few seconds.

What is written is the difference to what was last committed. Where it is not known
whether a window was committed, the same one is tried again under the same number, which
the database accepts once; what is counted meanwhile adds up in one further window. So a
database that is away costs neither a gap, nor a double count, nor memory.

Of a source that outlives its process, a directory of segments or a collector in one,
the store also has all that was counted by the last commit. The next writer of the
directory goes on from there; and of a collector whose process was killed, whoever
writes the same store with the same directory writes the rest.
"""

from __future__ import annotations

import _thread
import atexit
import hashlib
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec.structs import replace

from ometrics.changes import Changes, CountedWindow, since
from ometrics.durations import parse_length
from ometrics.store import rows
from ometrics.store.database import BUSY_TIMEOUT, place_of
from ometrics.store.errors import StoreBusyError, StoreError
from ometrics.store.rows import Window, microseconds
from ometrics.store.store import Store
from ometrics.store.thinning import Retention

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from typing_extensions import Self

    from ometrics.clock import Clock
    from ometrics.snapshot import Snapshot
    from ometrics.sources import Source

_LOG: Final = logging.getLogger("ometrics.store")

INTERVAL: Final = 10.0
# Seconds between looks for windows that can be merged, and for processes that ended.
_CARE: Final = 60.0
# How long `close` waits for a database that another process holds.
_CLOSING: Final = 15.0
_MOST_ID: Final = 64


class _Numbered(NamedTuple):
    """A window that may have been committed: tried again until that is known."""

    instance: str
    sequence: int
    window: Window
    counted: Snapshot | None


class UnwrittenRecords(Protocol):
    """Records that outlive their process, and may not be in the store yet."""

    def expect(self, place: str) -> None:
        """This process's are to be in this store."""

    def done(self) -> None:
        """They are, all of them."""

    def rest(self, place: str) -> Iterator[Snapshot]:
        """What ended processes counted that are to be in it; gone from here after."""


class Writer:
    """
    Writes a source's counts to a store.

    Args:
        store: Where to, as `ometrics.store.open` takes it. It is opened by the thread,
            so a server that is away now is tried again later.
        source: Whose counts; kept alive until `close`, so that none is lost.
        interval: Time between writes, such as `10` seconds or `"1m"`.
        clock: Where to read the monotonic time instead of the system, for tests.
        retention: How long windows of each length are kept.
        lasting: Whether the source outlives this process, as a directory of segments
            does: the next writer of it goes on where this one ended, however it did.
        unwritten: The same of a collector in such a directory, where others' may be
            left as well.

    Attributes:
        error: Why the last write failed; `None` after one that did not.

    Raises:
        ImportError: SQLAlchemy is not installed.
        StoreError: `store` is a URL that cannot be read.
        ValueError: `interval` is no length.

    Thread-safety:
        Every method, from any thread. A forked child writes its own counts.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        source: Source,
        *,
        interval: str | float | timedelta = INTERVAL,
        clock: Clock | None = None,
        retention: Retention | None = None,
        lasting: bool = False,
        unwritten: UnwrittenRecords | None = None,
    ) -> None:
        self.interval = parse_length(interval)
        self.error: StoreError | None = None
        if isinstance(store, Store):
            self._store: Store | None = store
            self._where = self._place = store.database.place
        else:
            self._store = None
            path = os.fspath(store)
            self._where = path if "://" in path else os.path.abspath(path)  # noqa: PTH100
            self._place = place_of(self._where)
        self._source = source
        self._clock: Clock = clock or time
        self._retention = retention
        self._lasting = lasting or unwritten is not None
        self._unwritten = unwritten
        self._begin()
        _WRITERS.add(self)

    def _begin(self) -> None:
        """Know nothing yet; also what a forked child does first."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._running = False
        self._changes = Changes(self._source, self._clock)
        self._looked = False
        self._pending: Window | None = None
        self._now: Snapshot | None = None  # at the end of it
        self._in_doubt: _Numbered | None = None
        self._instance = ""
        self._sequence = 0
        self._ended_us = 0
        self._cared = self._clock.monotonic()
        self._took_over = False

    # --- the thread

    def start(self) -> Self:
        """Write every `interval` in the background, until `close`. Idempotent."""
        self._follow_fork()
        if self._unwritten is not None:
            self._unwritten.expect(self._place)
        with self._lock:
            if not self._running and not self._stop.is_set():
                self._running = True
                # Not `Thread`: its `start` waits, which a fork must not.
                _thread.start_new_thread(self._run, ())
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        return self

    def _run(self) -> None:
        stop, ended = self._stop, self._ended
        try:
            while not stop.wait(self.interval):
                try:
                    self.flush()
                except StoreError:
                    pass  # said and kept in `error`
                except Exception:  # noqa: BLE001 - a thread of ours ends no agent
                    _LOG.exception("%s: not written", self._place)
        finally:
            ended.set()

    # --- writing

    def flush(self, timeout: float = BUSY_TIMEOUT) -> None:
        """
        Write now.

        Args:
            timeout: Seconds to wait for another process's transaction, or for a write
                of another thread.

        Raises:
            StoreError: It could not be written; what was counted is kept.
        """
        self._follow_fork()
        # A server that answers nothing, nor hangs up, holds the thread for ever.
        if not self._lock.acquire(timeout=timeout):
            raise StoreBusyError(
                f"{self._place}: no answer to the write that is under way; is the"
                " network between broken?"
            )
        try:
            self._look()
            try:
                self._write(timeout)
            except StoreError as error:
                if self.error is None:
                    _LOG.error("not written: %s", error)
                self.error = error
                raise
            if self.error is not None:
                _LOG.warning("%s: written again, nothing was lost", self._place)
            self.error = None
            now = self._clock.monotonic()
            if self._store is not None and now - self._cared >= _CARE:
                self._cared = now
                self._took_over = False
                self._store.thin()
        finally:
            self._lock.release()

    def cleared(self, snapshot: Snapshot) -> None:
        """Keep what a reset of the source cleared, to be written with the next."""
        if self._pid == os.getpid():
            self._looked = True
            self._changes.cleared(snapshot)

    def _look(self) -> None:
        """Add what came since the last look to the window that is not written yet."""
        change = self._changes.look()
        self._looked = True
        self._now = change.now
        window = self._dated(change)
        pending = self._pending
        self._pending = window if pending is None else rows.add([pending, window])

    def _dated(self, change: CountedWindow) -> Window:
        """A change at its place in time: after the last one, however clocks step."""
        length = round((change.end - change.start) * 1e6)
        ended = microseconds(change.now.collection_time)
        if self._ended_us:
            ended = max(ended, self._ended_us + length)
        self._ended_us = ended
        return Window(ended - length, ended, change.counts)

    def _write(self, timeout: float) -> None:
        if self._store is None:
            self._store = Store(self._where, retention=self._retention)
        if self._in_doubt is not None:
            self._commit(self._store, self._in_doubt, timeout)
        self._take_over(self._store, timeout)
        if self._pending is None:
            return
        instance = _key(self._pending.counts.instance_id)
        if instance != self._instance:
            self._sequence, counted = self._store.last_of(instance)
            self._instance = instance
            if self._sequence:  # another writer wrote what it counted so far
                self._pending = self._surplus(counted)
                if self._pending is None:
                    return
        self._sequence += 1
        now = self._now if self._lasting else None
        numbered = _Numbered(instance, self._sequence, self._pending, now)
        self._pending = None
        self._commit(self._store, numbered, timeout)

    def _surplus(self, counted: Snapshot | None) -> Window | None:
        """The window to write after another writer; `None` if that is not known."""
        window, now = self._pending, self._now
        if counted is None or window is None or now is None:
            return None
        return _since(counted, now, window.ended_us)

    def _take_over(self, store: Store, timeout: float) -> None:
        """Write what processes counted that were killed."""
        if self._took_over or self._unwritten is None:
            return
        for ended in self._unwritten.rest(self._place):
            instance = _key(ended.instance_id)
            sequence, counted = store.last_of(instance)
            window = _since(counted, ended, microseconds(ended.collection_time))
            if window.counts.models or not sequence:
                numbered = _Numbered(instance, sequence + 1, window, ended)
                self._commit(store, numbered, timeout)
        self._took_over = True

    def _commit(self, store: Store, numbered: _Numbered, timeout: float) -> None:
        self._in_doubt = numbered
        attempts = 3
        while True:
            try:
                instance, sequence, window, counted = numbered
                store.write(
                    instance, sequence, window, counted=counted, timeout=timeout
                )
                break
            except StoreBusyError:
                attempts -= 1
                if not attempts or store.database.dialect == "sqlite":
                    raise
        self._in_doubt = None

    # --- end

    def _follow_fork(self) -> None:
        if self._pid != os.getpid():
            stopped = self._stop.is_set()
            self._begin()
            if stopped:
                self._stop.set()

    def revive(self) -> None:
        """Start again in a forked child; nothing elsewhere."""
        if self._pid != os.getpid():
            self.start()

    def close(self, timeout: float = _CLOSING) -> None:
        """
        Write the rest and end the thread. Idempotent.

        Args:
            timeout: Seconds to wait for a database that another process holds.
        """
        self._follow_fork()
        if self._stop.is_set():
            return
        self._stop.set()
        deadline = time.monotonic() + timeout
        if self._running:
            self._ended.wait(timeout)
        try:
            self.flush(max(deadline - time.monotonic(), 0.1))
        except StoreError as error:
            lost = sum(
                w.counts.total_requests
                for w in (self._pending, self._in_doubt and self._in_doubt.window)
                if w is not None
            )
            kept = self._unwritten is not None
            _LOG.error(
                "%d requests are %s: %s",
                *(lost, "left to the next writer" if kept else "lost", error),
            )
        else:
            if self._unwritten is not None:
                self._unwritten.done()
        finally:
            _WRITERS.discard(self)
            if self._store is not None and not self._lock.locked():
                self._store.close()

    def __repr__(self) -> str:
        return f"<Writer to {self._place}>"


_WRITERS: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()


def _close_all() -> None:
    for writer in list(_WRITERS):
        writer.close()


# A fork waits until no transaction is under way, but not for a database that another
# process holds: a child that inherits a library's lock would wait for it for ever.
_FORK_PATIENCE: Final = 1.0
_held: Final[list[Writer]] = []


def _before_fork() -> None:
    deadline = time.monotonic() + _FORK_PATIENCE
    for writer in list(_WRITERS):
        if writer._lock.acquire(timeout=max(deadline - time.monotonic(), 0.0)):  # noqa: SLF001
            _held.append(writer)


def _after_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()  # noqa: SLF001


def _after_in_child() -> None:
    _held.clear()
    for writer in list(_WRITERS):
        if writer._running:  # noqa: SLF001
            writer.revive()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )


def _since(counted: Snapshot | None, now: Snapshot, ended_us: int) -> Window:
    """What came after `counted`, which is `None` or of another start if nothing was."""
    started = now.start_time
    if counted is not None and (
        counted.start_time == started or counted.collection_time > started
    ):
        # Which of several processes began first may have changed.
        counts = since(replace(counted, start_time=started), now)
        started = counted.collection_time
    else:
        counts = since(None, now)
    started_us = min(microseconds(started), ended_us)
    return Window(started_us, ended_us, rows.dated(counts, started_us, ended_us))


def _key(instance_id: str) -> str:
    """An instance's name in a column of bounded width."""
    if len(instance_id) <= _MOST_ID:
        return instance_id
    return hashlib.sha256(instance_id.encode()).hexdigest()
