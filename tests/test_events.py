# SPDX-License-Identifier: MIT
"""Channels: every subscriber sees every event, or is told how many it missed."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from ometrics import ErrorTimeout, EventChannel, MetricsCollector, ResourceMetrics
from ometrics.events import TaskEvent
from ometrics.testing import FakeClock

WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
# Seconds. What must happen within 50 ms is given far more on a busy machine, and what
# hangs is given up on.
SOON, GIVE_UP = 1.0, 20.0


@pytest.fixture
def mc() -> MetricsCollector:
    """A collector at a known time."""
    return MetricsCollector(clock=FakeClock(time=WALL.timestamp()))


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Threads that take turns as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def values(channel: EventChannel) -> list[Any]:
    """Values of all that is there now."""
    return [event.value for event in channel.drain()]


def start(target: Any, *args: Any) -> threading.Thread:
    """Run it beside."""
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


class TestEvents:
    """What an event says."""

    def test_kinds(self, mc: MetricsCollector) -> None:
        """One of each of the four types."""
        mc.record_latency("m", 0.25)
        mc.record_error("m", ErrorTimeout)
        mc.record_task_completion(False, 150)
        mc.update_resource_metrics(512, 45.5, 10)
        mc.record_tokens("m", 5)

        events = mc.metrics_channel.drain()
        resources = ResourceMetrics(
            memory_usage_mb=512.0,
            cpu_usage_percent=45.5,
            goroutine_count=10,
            timestamp=WALL,
        )

        assert [
            ("latency", "m", 0.25, True),
            ("error", "m", "TIMEOUT", False),
            ("task_complete", "", False, False),
            ("resource", "", resources, None),
        ] == [(e.type, e.model, e.value, e.success) for e in events]
        assert isinstance(events[2], TaskEvent)
        assert 150.0 == events[2].duration_ms
        assert {WALL} == {e.timestamp for e in events}
        with pytest.raises(AttributeError):
            events[0].value = 1.0  # type: ignore[misc]

    def test_bad_value(self, mc: MetricsCollector) -> None:
        """An unknown latency is `None` in the event too."""
        mc.record_latency("m", float("nan"))
        mc.record_latencies("m", [-1.0, 2.0])
        mc.record_task_completion(True, float("inf"))

        *latencies, task = mc.metrics_channel.drain()

        assert [None, None, 2.0] == [event.value for event in latencies]
        assert isinstance(task, TaskEvent)
        assert (True, None) == (task.value, task.duration_ms)

    def test_batch(self, mc: MetricsCollector) -> None:
        """A batch is as many events as values; the newest stay."""
        channel = mc.subscribe(capacity=3)
        mc.record_latencies("m", array("d", range(1000)))

        assert 997 == channel.dropped
        assert [997.0, 998.0, 999.0] == values(channel)
        assert 1000 == mc.snapshot().events_emitted

    def test_removed_model(self, mc: MetricsCollector) -> None:
        """Events of a model that is gone still say its name."""
        mc.record_latency("m", 1)
        mc.remove_model("m")
        mc.reset_metrics()
        mc.record_latency("n", 1)

        assert ["m", "n"] == [event.model for event in mc.metrics_channel.drain()]


class TestReading:
    """The ways to read."""

    def test_get(self, mc: MetricsCollector) -> None:
        """With and without waiting."""
        mc.record_latencies("m", [1, 2, 3])
        channel = mc.get_metrics_channel()

        assert channel is mc.metrics_channel
        assert 1.0 == channel.get_nowait().value
        assert 2.0 == channel.get().value
        assert 3.0 == channel.get(timeout=0).value
        for wait in (channel.get_nowait, lambda: channel.get(timeout=0)):
            with pytest.raises(queue.Empty):
                wait()

    def test_timeout(self, mc: MetricsCollector) -> None:
        """It waits as long as it was told, not longer."""
        begin = time.monotonic()
        with pytest.raises(queue.Empty):
            mc.metrics_channel.get(timeout=0.1)

        assert 0.1 <= time.monotonic() - begin < SOON

    def test_drain(self, mc: MetricsCollector) -> None:
        """All that is there, then nothing."""
        mc.record_latencies("m", range(50))

        assert list(range(50)) == values(mc.metrics_channel)
        assert [] == mc.metrics_channel.drain()

    def test_iteration(self, mc: MetricsCollector) -> None:
        """Waits for more, ends after the close when all is read."""
        read: list[Any] = []
        reader = start(lambda: read.extend(e.value for e in mc.metrics_channel))
        for i in range(5):
            mc.record_latency("m", i)
            time.sleep(0.005)
        mc.record_latency("m", 5)
        mc.close()
        reader.join(GIVE_UP)

        assert [0, 1, 2, 3, 4, 5] == read

    def test_async_iteration(self, mc: MetricsCollector) -> None:
        """The same in an event loop, which goes on meanwhile."""

        async def read() -> list[Any]:
            return [event.value async for event in mc.metrics_channel]

        async def work() -> list[Any]:
            reader = asyncio.create_task(read())
            for i in range(5):
                mc.record_latency("m", i)
                await asyncio.sleep(0.005)
            mc.record_latency("m", 5)
            mc.close()
            return await asyncio.wait_for(reader, GIVE_UP)

        assert [0, 1, 2, 3, 4, 5] == asyncio.run(work())

    def test_cancelled_async_reader(self, mc: MetricsCollector) -> None:
        """A cancelled reader loses nothing: the next one goes on."""

        async def read(into: list[Any]) -> None:
            async for event in mc.metrics_channel:
                into.append(event.value)  # noqa: PERF401 - kept when it is cancelled

        async def work() -> list[Any]:
            into: list[Any] = []
            task = asyncio.create_task(read(into))
            mc.record_latency("m", 1)
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            mc.record_latency("m", 2)
            mc.close()
            await read(into)
            return into

        assert [1.0, 2.0] == asyncio.run(work())

    def test_wakes(self) -> None:
        """A reader that has waited for long wakes soon after an event (bar: 50 ms)."""
        mc = MetricsCollector()
        woken: list[float] = []

        def read() -> None:
            mc.metrics_channel.get(timeout=GIVE_UP)
            woken.append(time.monotonic())

        reader = start(read)
        time.sleep(0.2)
        recorded = time.monotonic()
        mc.record_latency("m", 1)
        reader.join(GIVE_UP)

        assert 0 <= woken[0] - recorded < SOON

    def test_wakes_at_close(self, mc: MetricsCollector) -> None:
        """A waiting reader notices the close."""
        ended = threading.Event()

        def read() -> None:
            with pytest.raises(queue.Empty):
                mc.metrics_channel.get()
            ended.set()

        reader = start(read)
        time.sleep(0.05)
        mc.close()

        assert ended.wait(GIVE_UP)

        reader.join(GIVE_UP)


class TestSubscribers:
    """Several at once."""

    def test_all_see_all(self, mc: MetricsCollector) -> None:
        """Every subscriber sees every event from its subscription on."""
        first = mc.subscribe()
        mc.record_latency("m", 1)
        second = mc.subscribe()
        mc.record_latency("m", 2)

        assert [1.0, 2.0] == values(mc.metrics_channel)
        assert [1.0, 2.0] == values(first)
        assert [2.0] == values(second)

    def test_filters(self, mc: MetricsCollector) -> None:
        """By type, by model, by both."""
        types = mc.subscribe(types=["error", "resource"])
        models = mc.subscribe(models=["a"])
        both = mc.subscribe(types={"error"}, models={"a"})
        for name in "ab":
            mc.record_latency(name, 1)
            mc.record_error(name, "E" + name)
        mc.record_task_completion(True, 1)

        assert ["Ea", "Eb"] == values(types)
        assert [1.0, "Ea"] == values(models)
        assert ["Ea"] == values(both)

    def test_rare_events_behind_a_filter(self, mc: MetricsCollector) -> None:
        """What a filter leaves out does not push out what it lets through."""
        errors = mc.subscribe(capacity=10, types=["error"])
        mc.record_error("m", "E")
        mc.record_latencies("m", [1.0] * 600)

        assert (["E"], 0) == (values(errors), errors.dropped)

    def test_slow_reader_behind_a_filter(self, mc: MetricsCollector) -> None:
        """It keeps the newest, and knows how many are lost."""
        channel = mc.subscribe(capacity=10, types=["latency"])
        for i in range(1000):
            mc.record_latency("m", i)

        assert list(map(float, range(990, 1000))) == values(channel)
        assert 990 == channel.dropped

    def test_lone_strings(self, mc: MetricsCollector) -> None:
        """A string is one name, not its letters."""
        channel = mc.subscribe(types="error", models="llama2")
        for model in ("llama2", "l"):
            mc.record_error(model, "E" + model)
            mc.record_latency(model, 1)

        assert ["Ellama2"] == values(channel)
        assert ({"error"}, {"llama2"}) == (channel.types, channel.models)

    def test_bad_arguments(self, mc: MetricsCollector) -> None:
        """A type that does not exist would never match."""
        with pytest.raises(ValueError, match="latencies"):
            mc.subscribe(types=["latencies"])
        with pytest.raises(TypeError, match="int"):
            mc.subscribe(models=[1])  # type: ignore[list-item]
        for capacity in (0, -1):
            with pytest.raises(ValueError, match="capacity"):
                mc.subscribe(capacity=capacity)
        with pytest.raises((ValueError, MemoryError, OverflowError)):
            mc.subscribe(capacity=2**62)

    def test_slow_reader(self, mc: MetricsCollector) -> None:
        """The slow one loses the oldest and is told how many; the fast one nothing."""
        slow, fast = mc.subscribe(capacity=10), mc.subscribe(capacity=10)
        seen = []
        for i in range(1000):
            mc.record_latency("m", i)
            seen.append(fast.get_nowait().value)

        assert (list(range(1000)), 0) == (seen, fast.dropped)
        assert 990 == slow.dropped
        assert list(range(990, 1000)) == values(slow)
        assert 990 == slow.dropped
        metrics = mc.get_model_metrics("m")

        assert metrics is not None
        assert 1000 == metrics.total_requests

    @pytest.mark.parametrize("capacity", [1, 2, 3, 100, 255, 256, 257, 1000])
    def test_account(self, mc: MetricsCollector, capacity: int) -> None:
        """Emitted is delivered, dropped and queued, at any time and capacity."""
        channel = mc.subscribe(capacity=capacity)
        delivered = 0
        for step in range(40):
            mc.record_latencies("m", [1.0] * (step * 31 % 400))
            for _ in range(step * 17 % 300):
                try:
                    channel.get_nowait()
                except queue.Empty:
                    break
                delivered += 1
        emitted, dropped = mc.snapshot().events_emitted, channel.dropped
        queued = len(channel.drain())

        assert emitted == delivered + dropped + queued
        assert dropped == channel.dropped


class TestClose:
    """The end of a channel."""

    def test_one_channel(self, mc: MetricsCollector) -> None:
        """Closing one ends that one only; what it holds can be read."""
        channel = mc.subscribe()
        mc.record_latency("m", 1)
        channel.close()
        channel.close()
        mc.record_latency("m", 2)

        assert (True, False) == (channel.closed, mc.metrics_channel.closed)
        assert [1.0] == [event.value for event in channel]
        assert [1.0, 2.0] == values(mc.metrics_channel)

    def test_closed_drops_nothing_more(self, mc: MetricsCollector) -> None:
        """What comes after the close is not this channel's loss."""
        read, unread = mc.subscribe(capacity=10), mc.subscribe(capacity=10)
        mc.record_latencies("m", range(5))
        read.drain()
        read.close()
        unread.close()
        mc.record_latencies("m", range(3))

        assert (0, 0) == (read.dropped, unread.dropped)

    @pytest.mark.parametrize("later", [*range(0, 40, 3), 1000])
    def test_overtaken_after_close(self, mc: MetricsCollector, later: int) -> None:
        """What came before the close is delivered or lost, what came after neither."""
        read, unread = mc.subscribe(capacity=10), mc.subscribe(capacity=10)
        mc.record_latencies("m", range(5))
        read.drain()
        read.close()
        unread.close()
        mc.record_latencies("m", [-1.0] * later)

        dropped = unread.dropped
        left = values(unread)

        assert (0, dropped) == (read.dropped, unread.dropped)
        assert list(map(float, range(dropped, 5))) == left

    def test_nothing_is_lost_at_close(self, busy_switching: None) -> None:
        """An event just before the close reaches a reader that just looked."""
        for _ in range(200):
            mc = MetricsCollector()
            read: list[Any] = []
            reader = start(lambda c=mc, r=read: r.extend(c.metrics_channel))
            mc.record_latency("m", 1)
            mc.close()
            reader.join(GIVE_UP)

            assert 1 == len(read)

    def test_the_look_before_the_close(self, mc: MetricsCollector) -> None:
        """The same, with the one order of events that would show it every time."""

        class Unlucky(EventChannel):
            def _next(self) -> Any:
                event = super()._next()
                if event is None and not self.closed:
                    mc.record_latency("m", 1)
                    self.close()
                return event

        assert 1 == len(list(Unlucky(mc)))

        async def read() -> int:
            return len([event async for event in Unlucky(mc)])

        assert 1 == asyncio.run(read())


@pytest.mark.threads
def test_readers_share_a_channel(busy_switching: None) -> None:
    """Each event goes to one of several threads that read the same channel."""
    mc = MetricsCollector(channel_capacity=20_000)
    mc.record_latencies("m", array("d", range(20_000)))
    mc.close()
    read: list[Any] = []
    readers = [
        start(lambda: read.extend(e.value for e in mc.metrics_channel))
        for _ in range(4)
    ]
    for reader in readers:
        reader.join(GIVE_UP)

    assert list(range(20_000)) == sorted(read)


@pytest.mark.threads
def test_flood() -> None:
    """Four threads record while two read: each reader's account is exact."""
    mc = MetricsCollector()
    channels = [mc.subscribe(capacity=64), mc.subscribe(capacity=5000)]
    counts = [0, 0]

    def read(i: int) -> None:
        for _ in channels[i]:
            counts[i] += 1

    def record(model: str) -> None:
        for _ in range(300):
            mc.record_latency(model, 1)
            mc.record_latencies(model, [1.0] * 20)
            mc.record_error(model, "E")

    readers = [start(read, i) for i in range(2)]
    recorders = [start(record, f"m{i}") for i in range(4)]
    for recorder in recorders:
        recorder.join(GIVE_UP)
    mc.close()
    for reader in readers:
        reader.join(GIVE_UP)

    emitted = mc.snapshot().events_emitted

    assert 4 * 300 * 22 == emitted
    for channel, count in zip(channels, counts, strict=True):
        assert emitted == count + channel.dropped
