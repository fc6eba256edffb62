# SPDX-License-Identifier: MIT
"""Events for whoever watches live: `MetricsEvent`, read through an `EventChannel`.

The core keeps one ring of C events whatever the number of readers; a channel is a
position in it. Python objects are made when someone reads. A reader that falls behind
by more than its capacity loses the oldest events and is told how many; it never slows a
recorder.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from queue import Empty
from typing import TYPE_CHECKING, Final

import msgspec

from ometrics import _core
from ometrics.snapshot import ResourceMetrics, utc

if TYPE_CHECKING:
    from ometrics._core import Core

EVENT_TYPES: Final = frozenset(_core.EVENT_TYPES)

# A recorder never signals a reader (it would pay for it), so a waiting reader looks
# again after this many seconds: first soon, then at the longer interval.
_FIRST_LOOK: Final = 0.001
_LONGEST_WAIT: Final = 0.02

# How far back a channel with a filter looks for events that match.
_REACH: Final = 8192


class MetricsEvent(msgspec.Struct, frozen=True, gc=False):
    """
    One thing that was recorded.

    Attributes:
        type: `latency`, `error`, `task_complete` or `resource`.
        model: Name of the model; empty for tasks and resources.
        value: Seconds of a latency, the code of an error, milliseconds of a task, or
            the `ResourceMetrics`; `None` where the value was not a number.
        timestamp: When it was recorded (UTC, a few ms coarse).
        success: Whether the request or task succeeded; `None` for resources.
    """

    type: str
    model: str
    value: float | str | ResourceMetrics | None
    timestamp: datetime
    success: bool | None


class EventChannel:
    """
    A reader's place in the stream of events; made by `subscribe()`.

    Iterating (`for`, `async for`) waits for events and ends when the collector or the
    channel is closed and all has been read.

    Args:
        core: Whose events.
        capacity: How many unread events are kept; beyond, the oldest are lost.
        types: Only these event types; `None` for all.
        models: Only events of these models; `None` for all.

    Raises:
        ValueError: `capacity` is below 1, or a type is not an event type.

    Thread-safety:
        Several threads may read one channel: each event goes to one of them.
    """

    def __init__(
        self,
        core: Core,
        *,
        capacity: int = 100,
        types: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        self.capacity = capacity
        self.types = None if types is None else frozenset(types)
        self.models = None if models is None else frozenset(models)
        if self.types is not None and not self.types <= EVENT_TYPES:
            raise ValueError(
                f"event types {sorted(self.types - EVENT_TYPES)} are unknown;"
                f" there are {sorted(EVENT_TYPES)}"
            )
        # A filter must not make rare events drown in frequent ones: such a channel
        # looks back further than it keeps.
        filtered = self.types is not None or self.models is not None
        self._reach = max(capacity, _REACH) if filtered else capacity
        self._core = core
        core.widen_ring(self._reach)
        self._end: int | None = None
        self._begin(core.head)

    def _begin(self, cursor: int) -> None:
        self._forks = self._core.forks
        self._cursor = cursor
        self._dropped = 0
        self._ready: deque[MetricsEvent] = deque()
        # Whoever pops this token may move the cursor. Not a lock: who finds it gone
        # goes on without, so a signal handler cannot wait for the thread it stopped.
        self._turn = deque([None])

    def _begin_in_child(self) -> None:
        """What was read but not taken, or lost, before the fork is the parent's."""
        _, head, since_fork = self._core.read_events(0, 0)
        self._begin(head - since_fork)

    @property
    def dropped(self) -> int:
        """
        Events lost because this reader was too slow.

        Exact without a filter; with one, events that it might have left out count too.
        """
        if self._forks != self._core.forks:
            self._begin_in_child()
        return self._dropped + self._behind()

    @property
    def closed(self) -> bool:
        """Whether no further events will come; unread ones can still be read."""
        return self._end is not None

    def close(self) -> None:
        """Take no further events. Idempotent."""
        if self._end is None:
            self._end = self._core.head

    def _behind(self) -> int:
        """Events lost since the last look; none that came after the close."""
        oldest = self._core.head - self._reach
        if self._end is not None:
            oldest = min(oldest, self._end)
        return max(oldest - self._cursor, 0)

    def _fill(self) -> bool:
        """Move events from the ring; whether there may be more to read."""
        turn = self._turn
        try:
            turn.pop()
        except IndexError:
            return False  # another thread does it at this moment, and reads on
        try:
            more = self._move()
            while more and self._reach > self.capacity and self._move():
                pass  # behind a filter only the newest of all that match are kept
        finally:
            turn.append(None)
        return more

    def _move(self) -> bool:
        cursor = self._cursor
        if cursor >= (self._core.head if self._end is None else self._end):
            return False
        rows, self._cursor, lost = self._core.read_events(cursor, self._reach)
        self._dropped += lost if self._end is None else min(lost, self._end - cursor)
        surplus = 0 if self._end is None else max(self._cursor - self._end, 0)
        for row in rows[: max(len(rows) - surplus, 0)]:
            event = _event(row)
            if self.types is not None and event.type not in self.types:
                continue
            if self.models is not None and event.model not in self.models:
                continue
            self._ready.append(event)
        with suppress(IndexError):  # readers take from the same end
            while len(self._ready) > self.capacity:
                self._ready.popleft()
                self._dropped += 1
        return True

    def _next(self) -> MetricsEvent | None:
        if self._forks != self._core.forks:
            self._begin_in_child()
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                if not self._fill():
                    return None

    def get_nowait(self) -> MetricsEvent:
        """
        The next event, without waiting.

        Raises:
            queue.Empty: There is none now.
        """
        event = self._next()
        if event is None:
            raise Empty
        return event

    def get(self, timeout: float | None = None) -> MetricsEvent:
        """
        Wait for the next event.

        Args:
            timeout: Seconds to wait at most; `None` waits until the channel closes.

        Raises:
            queue.Empty: None came in time, or the channel closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for wait in _waits():
            closed = self.closed  # first: an event may come between look and close
            event = self._next()
            if event is not None:
                return event
            if closed:
                raise Empty
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Empty
                wait = min(wait, left)  # noqa: PLW2901
            time.sleep(wait)
        raise AssertionError  # pragma: no cover - _waits() never ends

    def drain(self) -> list[MetricsEvent]:
        """All events that are there now."""
        events = []
        while (event := self._next()) is not None:
            events.append(event)
        return events

    def __iter__(self) -> Iterator[MetricsEvent]:
        while True:
            try:
                yield self.get()
            except Empty:
                return

    async def __aiter__(self) -> AsyncIterator[MetricsEvent]:
        import asyncio

        waits = _waits()
        while True:
            closed = self.closed  # first, as in get()
            event = self._next()
            if event is not None:
                yield event
                waits = _waits()
            elif closed:
                return
            else:
                await asyncio.sleep(next(waits))

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<EventChannel {state}, capacity {self.capacity}>"


class Channels:
    """
    The channels of one collector, and how many events they ever lost.

    Held weakly: a channel that nobody reads any more goes away, what it lost stays
    counted. In a forked child counting starts again.
    """

    def __init__(self, core: Core) -> None:
        self._core = weakref.ref(core)
        self._begin(core.forks)
        self._entries: list[_Entry] = []

    def _begin(self, forks: int) -> None:
        self._forks = forks
        self._gone = 0
        self._before = 0

    def add(self, channel: EventChannel) -> None:
        """Keep an eye on one more."""
        self._entries.append(_Entry(channel))

    def close(self) -> None:
        """Close all."""
        for entry in list(self._entries):
            channel = entry.channel()
            if channel is not None:
                channel.close()

    def dropped(self, *, reset: bool = False) -> int:
        """Events lost since the start or the last `reset`; never goes back between."""
        core = self._core()
        if core is not None and core.forks != self._forks:
            self._begin(core.forks)
            for entry in self._entries:
                entry.lost = 0
        total = self._gone
        for entry in list(self._entries):
            channel = entry.channel()
            if channel is not None:
                entry.lost = max(entry.lost, channel.dropped)
            elif entry in self._entries:
                self._entries.remove(entry)
                self._gone += entry.lost
            total += entry.lost
        before = self._before
        if reset:
            self._before = total
        return total - before


class _Entry:
    """A channel, while there is one, and how much it had lost when last looked at."""

    __slots__ = ("channel", "lost")

    def __init__(self, channel: EventChannel) -> None:
        self.channel = weakref.ref(channel)
        self.lost = 0


def _waits() -> Iterator[float]:
    wait = _FIRST_LOOK
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)


def _event(
    row: tuple[str, str, float | str | None, bool, int, float, int],
) -> MetricsEvent:
    kind, model, value, success, wall_ns, cpu_percent, count = row
    timestamp = utc(wall_ns)
    if kind == "resource":
        resources = ResourceMetrics(
            memory_usage_mb=float(value or 0.0),
            cpu_usage_percent=cpu_percent,
            goroutine_count=count,
            timestamp=timestamp,
        )
        return MetricsEvent(kind, model, resources, timestamp, None)
    return MetricsEvent(kind, model, value, timestamp, success)
