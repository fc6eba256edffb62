# SPDX-License-Identifier: MIT
"""Events for whoever watches live: `MetricsEvent`, read through an `EventChannel`.

The core keeps one ring of C events whatever the number of readers; a channel is a
position in it. Python objects are made when someone reads. A reader that falls behind
by more than its capacity loses the oldest events and is told how many; it never slows a
recorder.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from queue import Empty
from typing import Any, Final, Literal, TypeAlias

import msgspec

from ometrics._channels import EVENT_TYPES, EventReader
from ometrics.snapshot import ResourceMetrics, utc

__all__ = [
    "EVENT_TYPES",
    "AlertEvent",
    "ErrorEvent",
    "EventChannel",
    "LatencyEvent",
    "MetricsEvent",
    "ResourceEvent",
    "TaskEvent",
]

# A recorder never signals a reader (it would pay for it), so a waiting reader looks
# again after this many seconds: first soon, then at the longer interval.
_FIRST_LOOK: Final = 0.001
_LONGEST_WAIT: Final = 0.02


class LatencyEvent(msgspec.Struct, frozen=True, gc=False):
    """
    A request succeeded.

    Attributes:
        type: `latency`.
        model: Name of the model.
        value: Seconds that it took; `None` where that was not a number.
        timestamp: When it was recorded (UTC, a few ms coarse).
        success: `True`.
    """

    type: Literal["latency"]
    model: str
    value: float | None
    timestamp: datetime
    success: bool


class ErrorEvent(msgspec.Struct, frozen=True, gc=False):
    """
    A request failed.

    Attributes:
        type: `error`.
        model: Name of the model.
        value: Code of the error.
        timestamp: When it was recorded (UTC, a few ms coarse).
        success: `False`.
    """

    type: Literal["error"]
    model: str
    value: str
    timestamp: datetime
    success: bool


class TaskEvent(msgspec.Struct, frozen=True, gc=False):
    """
    A task ended.

    Attributes:
        type: `task_complete`.
        model: Empty.
        value: Whether it succeeded; the same as `success`.
        timestamp: When it was recorded (UTC, a few ms coarse).
        success: Whether it succeeded.
        duration_ms: Milliseconds that it took; `None` where that was not a number.
    """

    type: Literal["task_complete"]
    model: str
    value: bool
    timestamp: datetime
    success: bool
    duration_ms: float | None


class ResourceEvent(msgspec.Struct, frozen=True, gc=False):
    """
    What the process uses was updated.

    Attributes:
        type: `resource`.
        model: Empty.
        value: What it uses.
        timestamp: When it was recorded (UTC, a few ms coarse).
        success: `None`.
    """

    type: Literal["resource"]
    model: str
    value: ResourceMetrics
    timestamp: datetime
    success: None


class StalledCall(msgspec.Struct, frozen=True, gc=False):
    """
    A call in flight that an alert is about (see `Stalls`).

    Attributes:
        operation: `chat`, `text_completion` or `embeddings`.
        age: Seconds since it began.
        silence: Seconds since its last chunk; `None` before the first.
    """

    operation: str
    age: float
    silence: float | None


class AlertEvent(msgspec.Struct, frozen=True, gc=False):
    """
    An incident of a rule or a stall began or ended (see `MetricsCollector.watch`).

    Attributes:
        type: `alert`.
        model: The model that it is about; empty if none.
        value: Name of the rule.
        timestamp: When (UTC).
        success: `None`.
        state: `firing` or `resolved`.
        severity: `info`, `warning` or `critical`.
        call: Of a stall, the call in flight.
    """

    type: Literal["alert"]
    model: str
    value: str
    timestamp: datetime
    success: None
    state: Literal["firing", "resolved"] = "firing"
    severity: str = "warning"
    call: StalledCall | None = None


# One thing that was recorded. Its `type` tells which of these it is, so a type checker
# knows what `value` is behind `if event.type == "latency"` or a `match`.
MetricsEvent: TypeAlias = (
    LatencyEvent | ErrorEvent | TaskEvent | ResourceEvent | AlertEvent
)


class EventChannel(EventReader):
    """
    A reader's place in the stream of events; made by `subscribe()`.

    Iterating (`for`, `async for`) waits for events and ends when the collector or the
    channel is closed and all has been read.

    Args:
        core: Whose events.
        capacity: How many unread events are kept; beyond, the oldest are lost.
        types: Only these event types; `None` for all, a lone string for one.
        models: Only events of these models; `None` for all, a lone string for one.

    Attributes:
        dropped: Events lost because this reader was too slow. Exact without a filter;
            with one, events that were overwritten before the filter saw them (more than
            8,192 and more than `capacity` behind) all count.
        closed: Whether no further events will come; unread ones can still be read.

    Raises:
        TypeError: A model's name is not a `str`.
        ValueError: `capacity` is below 1 or too high, or a type is not an event type.

    Thread-safety:
        Several threads may read one channel: each event goes to one of them. It may be
        dropped unread anywhere; what it lost stays counted.
    """

    def _next(self) -> MetricsEvent | None:
        events = self._take(_event, 1)
        return events[0] if events else None

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
        """All events that are there now: at most `capacity`, none that come later."""
        return self._take(_event, self.capacity)

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


def _waits() -> Iterator[float]:
    wait = _FIRST_LOOK
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)


def _event(  # noqa: PLR0917 - a row of the ring
    type_: str,
    model: str,
    value: Any,
    success: bool,
    wall_ns: int,
    cpu_percent: float,
    count: int,
    /,
) -> MetricsEvent:
    """One event of the ring; of an alert, `value` is the event that was published."""
    timestamp = utc(wall_ns)
    if type_ == "latency":
        return LatencyEvent("latency", model, value, timestamp, success)
    if type_ == "error":
        return ErrorEvent("error", model, value, timestamp, success)
    if type_ == "task_complete":
        return TaskEvent("task_complete", model, success, timestamp, success, value)
    if type_ == "resource":
        resources = ResourceMetrics(
            memory_usage_mb=value,
            cpu_usage_percent=cpu_percent,
            goroutine_count=count,
            timestamp=timestamp,
        )
        return ResourceEvent("resource", model, resources, timestamp, None)
    alert: AlertEvent = value
    return alert
