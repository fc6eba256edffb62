# SPDX-License-Identifier: MIT
"""The account of events: emitted is delivered, lost or still unread; nothing else."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ometrics import EventChannel, MetricsCollector, MetricsEvent, _channels, events
from ometrics.events import AlertEvent

GIVE_UP = 30.0
REACH = 8192  # how far back a channel with a filter looks
CAPACITIES = st.sampled_from([1, 2, 3, 7, 100, 300])
MODELS = st.sampled_from(["a", "b"])
FILTERS = st.none() | st.sets(
    st.sampled_from(["latency", "error", "task_complete", "resource", "alert"])
)

Event = tuple[int, str, str]  # position, type, model


class Reader:
    """What a channel must deliver and lose, by the plainest means: lists of all."""

    def __init__(self, channel: EventChannel, head: int, *, idle: bool = False) -> None:
        self.channel: EventChannel | None = channel
        self.capacity = channel.capacity
        self.types, self.models = channel.types, channel.models
        self.filtered = self.types is not None or self.models is not None
        self.reach = max(self.capacity, REACH) if self.filtered else self.capacity
        self.idle = idle
        self.closed = False
        self.looked_to = head
        self.ahead: list[Event] = []  # emitted, not looked at
        self.unread: list[Event] = []  # passed the filter
        self.matching = self.delivered = self.lost = 0

    def emit(self, event: Event) -> None:
        """One more event."""
        if not self.closed:
            self.ahead.append(event)
            self.matching += self.passes(event)

    def passes(self, event: Event) -> bool:
        """Whether the filter lets it through."""
        _, kind, model = event
        return (self.types is None or kind in self.types) and (
            self.models is None or model in self.models
        )

    def overrun(self, head: int) -> int:
        """How many are too far back to be looked at."""
        return sum(position < head - self.reach for position, *_ in self.ahead)

    def look(self, head: int) -> None:
        """Give up what is too far back, then what is more than the capacity."""
        behind = self.overrun(head)
        self.lost += 0 if self.idle else behind
        if self.idle:
            self.matching -= behind  # nobody asked for these
        self.unread += filter(self.passes, self.ahead[behind:])
        self.ahead = []
        surplus = max(len(self.unread) - self.capacity, 0)
        self.lost += surplus
        del self.unread[:surplus]

    def take(self, head: int, n: int) -> list[Event]:
        """The next `n`."""
        if self.filtered or self.idle or self.ahead:
            self.look(head)
        self.idle = False
        # Without a filter, what is read and what waits are the same ring.
        if not self.filtered:
            late = sum(position < head - self.reach for position, *_ in self.unread)
            self.lost += late
            del self.unread[:late]
        taken, self.unread = self.unread[:n], self.unread[n:]
        self.delivered += len(taken)
        return taken


class Account(RuleBasedStateMachine):
    """One collector, channels that come and go, and what each must say."""

    @initialize(capacity=CAPACITIES)
    def begin(self, capacity: int) -> None:
        """A collector and its own channel."""
        self.collector = MetricsCollector(channel_capacity=capacity)
        self.head = self.head_before = 0
        self.lost_before = self.lost_by_gone = 0
        own = Reader(self.collector.metrics_channel, 0, idle=True)
        self.readers = [own]
        self.closed = False

    def emit(self, kind: str, model: str) -> None:
        """One more event, for all channels."""
        if self.closed:
            return
        event = (self.head, kind, model)
        self.head += 1
        for reader in self.readers:
            reader.emit(event)

    @rule(model=MODELS, n=st.integers(0, 700))
    def batch(self, model: str, n: int) -> None:
        """Many at once."""
        self.collector.record_latencies(model, [1.0] * n)
        for _ in range(n):
            self.emit("latency", model)

    @rule(model=MODELS)
    def fail(self, model: str) -> None:
        """A rare one."""
        self.collector.record_error(model, "E")
        self.emit("error", model)

    @rule()
    def other(self) -> None:
        """Those without a model."""
        self.collector.record_task_completion(True, 1)
        self.emit("task_complete", "")
        self.collector.update_resource_metrics(1, 2, 3)
        self.emit("resource", "")

    @rule(model=MODELS)
    def alert(self, model: str) -> None:
        """One that Python code publishes."""
        publish(self.collector, "rule", model)
        self.emit("alert", model)

    @rule(model=MODELS)
    def remove(self, model: str) -> None:
        """Forget a model; its events stay."""
        self.collector.remove_model(model)

    @rule(capacity=CAPACITIES, types=FILTERS, models=st.none() | st.sets(MODELS))
    def subscribe(
        self, capacity: int, types: set[str] | None, models: set[str] | None
    ) -> None:
        """One more channel."""
        channel = self.collector.subscribe(
            capacity=capacity, types=types, models=models
        )
        self.readers.append(Reader(channel, self.head))
        self.readers[-1].closed = self.closed

    def pick(self, data: st.DataObject) -> Reader:
        """One of the channels."""
        return data.draw(st.sampled_from(self.readers))

    @rule(data=st.data(), n=st.integers(1, 300))
    def read(self, data: st.DataObject, n: int) -> None:
        """One by one."""
        reader = self.pick(data)
        assert reader.channel is not None
        for _ in range(n):
            expected = reader.take(self.head, 1)
            try:
                event = reader.channel.get_nowait()
            except Empty:
                assert [] == expected
                return

            assert expected == [(expected[0][0], event.type, event.model)]

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        """All that is there."""
        reader = self.pick(data)
        assert reader.channel is not None
        read = reader.channel.drain()
        expected = reader.take(self.head, reader.capacity)

        assert [event[1:] for event in expected] == [(e.type, e.model) for e in read]
        assert reader.matching == reader.delivered + reader.channel.dropped

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """What is lost so far."""
        reader = self.pick(data)
        assert reader.channel is not None
        if reader.filtered:
            reader.look(self.head)

        assert reader.lost + self.behind(reader) == reader.channel.dropped

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """Close one channel."""
        reader = self.pick(data)
        assert reader.channel is not None
        reader.channel.close()
        reader.closed = True

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Let go of a channel; its losses stay."""
        reader = self.pick(data)
        if reader is self.readers[0]:
            return
        self.readers.remove(reader)
        reader.channel = None
        gc.collect(0)
        if reader.filtered:
            reader.look(self.head)
        self.lost_by_gone += reader.lost + self.behind(reader)

    def behind(self, reader: Reader) -> int:
        """What it lost since it last looked."""
        if reader.idle:
            return 0
        late = [] if reader.filtered else reader.unread
        return reader.overrun(self.head) + sum(
            position < self.head - reader.reach for position, *_ in late
        )

    @rule(reset=st.booleans())
    def snapshot(self, reset: bool) -> None:
        """The sums over all channels, gone ones too."""
        mc = self.collector
        snapshot = mc.reset_metrics() if reset else mc.snapshot()
        lost = self.lost_by_gone + sum(r.lost + self.behind(r) for r in self.readers)

        assert self.head - self.head_before == snapshot.events_emitted
        assert lost - self.lost_before == snapshot.events_dropped
        if reset:
            self.head_before, self.lost_before = self.head, lost

    @rule(really=st.sampled_from([False] * 9 + [True]))
    def end(self, really: bool) -> None:
        """Close the collector, now and then."""
        if really:
            self.collector.close()
            self.closed = True
            for reader in self.readers:
                reader.closed = True

    def teardown(self) -> None:
        """At the end everything is delivered or lost."""
        for reader in getattr(self, "readers", ()):
            channel = reader.channel
            assert channel is not None
            reader.take(self.head, 0)
            left = len(channel.drain())

            assert reader.matching == reader.delivered + left + channel.dropped


class TestAccount(Account.TestCase):  # type: ignore[misc,valid-type,name-defined]
    """Run it."""

    settings = settings(
        max_examples=80,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def publish(mc: MetricsCollector, rule_name: str, model: str = "") -> AlertEvent:
    """An alert, as rules will."""
    now = datetime.now(timezone.utc)
    event = AlertEvent("alert", model, rule_name, now, None)
    _channels.publish(mc, event, model)
    return event


class TestUnasked:
    """The channel that every collector has."""

    def test_nobody_reads(self) -> None:
        """Events that nobody asked for are not lost."""
        mc = MetricsCollector()
        mc.record_latencies("m", [1.0] * 5000)

        assert (5000, 0) == (
            mc.snapshot().events_emitted,
            mc.snapshot().events_dropped,
        )
        assert 0 == mc.metrics_channel.dropped

    def test_first_read(self) -> None:
        """The newest can be read; losses count from then on."""
        mc = MetricsCollector(channel_capacity=10)
        mc.record_latencies("m", range(5000))

        assert 4990.0 == mc.metrics_channel.get_nowait().value
        assert 0 == mc.metrics_channel.dropped

        mc.record_latencies("m", range(5))

        assert 4 == mc.metrics_channel.dropped == mc.snapshot().events_dropped

    def test_first_read_after_the_close(self) -> None:
        """Neither does a close lose anything."""
        mc = MetricsCollector(channel_capacity=10)
        mc.record_latencies("m", range(50))
        mc.metrics_channel.close()
        mc.record_latencies("m", [-1.0] * 5)

        assert [float(i) for i in range(45, 50)] == [
            event.value for event in mc.metrics_channel
        ]
        assert 0 == mc.snapshot().events_dropped


class TestGone:
    """Channels that nobody holds any more."""

    @pytest.mark.parametrize("types", [None, ["latency"]])
    def test_losses_stay(self, types: list[str] | None) -> None:
        """A channel that lost events and is dropped before any snapshot counts."""
        mc = MetricsCollector()
        channel = mc.subscribe(capacity=10, types=types)
        mc.record_latencies("m", [1.0] * 1000)
        del channel
        gc.collect()

        assert 990 == mc.snapshot().events_dropped

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
    def test_nothing_else_stays(self) -> None:
        """100,000 dropped channels take no memory (13.6 MB, were they remembered)."""
        mc = MetricsCollector()

        def resident() -> int:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")

        def subscribe(n: int) -> None:
            for _ in range(n):
                mc.subscribe(capacity=10, types="error", models="m")

        subscribe(1000)
        before = resident()
        subscribe(100_000)

        assert resident() - before < 4_000_000

    def test_names_of_filters(self) -> None:
        """A filter's name is remembered while the filter lives, and no longer."""
        mc = MetricsCollector(max_models=10)
        channel = mc.subscribe(models="late")
        for i in range(5000):
            mc.record_latency(f"m{i}", 1)
            mc.remove_model(f"m{i}")
        mc.record_latency("late", 7)

        assert [7.0] == [event.value for event in channel.drain()]


class TestBounds:
    """A reader beside recorders that never pause."""

    @pytest.fixture
    def restless(self, monkeypatch: pytest.MonkeyPatch) -> MetricsCollector:
        """While one event is read, a thousand more are recorded."""
        mc = MetricsCollector()
        make: Callable[..., MetricsEvent] = events._event

        def read(*row: Any) -> MetricsEvent:
            mc.record_latencies("new", [1.0] * 1000)
            return make(*row)

        monkeypatch.setattr(events, "_event", read)
        return mc

    @pytest.mark.parametrize("types", [None, ["latency"]])
    @pytest.mark.parametrize("capacity", [1, 100, 257, 1000])
    def test_drain(
        self, restless: MetricsCollector, capacity: int, types: list[str] | None
    ) -> None:
        """It gives what was there when it began, at most the capacity, and ends."""
        channel = restless.subscribe(capacity=capacity, types=types)
        restless.record_latencies("old", [1.0] * 3000)
        drained = channel.drain()

        assert 0 < len(drained) <= capacity
        assert {"old"} == {event.model for event in drained}

    def test_get_behind_a_filter(self, restless: MetricsCollector) -> None:
        """Nothing that comes meanwhile is waited for."""
        channel = restless.subscribe(types=["error"])
        restless.record_latencies("m", [1.0] * 50_000)
        with pytest.raises(Empty):
            channel.get(timeout=0.0)

    @pytest.mark.parametrize("types", [None, "latency"])
    def test_interrupted(
        self, types: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What an interrupted drain had read is lost, and counted."""
        mc = MetricsCollector()
        channel = mc.subscribe(capacity=1000, types=types)
        mc.record_latencies("m", range(600))
        make: Callable[..., MetricsEvent] = events._event

        def interrupted(*row: Any) -> MetricsEvent:
            if row[2] == 300.0:
                raise KeyboardInterrupt
            return make(*row)

        monkeypatch.setattr(events, "_event", interrupted)
        with pytest.raises(KeyboardInterrupt):
            channel.drain()

        assert 512 == channel.dropped == mc.snapshot().events_dropped
        assert 88 == len(channel.drain())

    def test_overrun_behind_a_filter(self) -> None:
        """What was overwritten before the filter saw it counts, whatever it was."""
        mc = MetricsCollector()
        channel = mc.subscribe(types=["error"])
        mc.record_error("m", "E")
        mc.record_latencies("m", [1.0] * (REACH + 9))

        assert 10 == channel.dropped == mc.snapshot().events_dropped
        assert [] == channel.drain()


class TestAlerts:
    """Events that Python code publishes."""

    def test_in_order(self) -> None:
        """They come with the others, to those whose filter lets them through."""
        mc = MetricsCollector()
        everything = mc.subscribe()
        alerts = mc.subscribe(types="alert")
        model = mc.subscribe(models="m")
        mc.record_latency("n", 1)
        one = publish(mc, "slow")
        mc.record_latency("n", 2)
        other = publish(mc, "failing", "m")

        assert [1.0, one, 2.0, other] == [
            event if event.type == "alert" else event.value
            for event in everything.drain()
        ]
        assert [one, other] == alerts.drain()
        assert [other] == model.drain()
        assert 4 == mc.snapshot().events_emitted

    def test_bounded(self) -> None:
        """The newest 1,024 are kept; a later reader is told what it missed."""
        mc = MetricsCollector()
        channel = mc.subscribe(capacity=5000)
        for i in range(2000):
            publish(mc, str(i))

        assert 1024 == len(channel.drain())
        assert 976 == channel.dropped == mc.snapshot().events_dropped

    def test_closed(self) -> None:
        """After the close nothing is published."""
        mc = MetricsCollector()
        mc.close()
        publish(mc, "late")

        assert [] == mc.metrics_channel.drain()
        assert 0 == mc.snapshot().events_emitted


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_child_starts_anew() -> None:
    """Nothing that was unread, kept, lost or closed before a fork counts in a child."""
    mc = MetricsCollector()
    plain, filtered = mc.subscribe(capacity=5), mc.subscribe(capacity=5, models="m")
    closed, gone = mc.subscribe(capacity=5), mc.subscribe(capacity=5)
    mc.record_latencies("m", [0.1] * 20)
    publish(mc, "parents")
    filtered.get_nowait()  # the others are in its own ring now
    closed.close()

    def child() -> Any:
        nonlocal gone
        del gone
        before = [c.dropped for c in (plain, filtered, closed)]
        mc.record_latencies("m", [0.5] * 7)
        read = [len(c.drain()) for c in (plain, filtered, closed)]
        lost = [c.dropped for c in (plain, filtered, closed)]
        snapshot = mc.snapshot()
        return [before, read, lost, snapshot.events_emitted, snapshot.events_dropped]

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(child()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:  # noqa: PTH123 - a descriptor
        result = json.loads(answer.read())
    os.waitpid(pid, 0)

    assert [[0, 0, 0], [5, 5, 0], [2, 2, 0], 7, 4] == result
    assert [16, 15, 16] == [plain.dropped, filtered.dropped, closed.dropped]


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Threads that take turns as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Crowd:
    """Threads that record, and threads whose channels come and go beside them."""

    def __init__(self) -> None:
        self.mc = MetricsCollector()
        self.shared = self.mc.subscribe(capacity=50)
        self.stop = threading.Event()
        self.lost: list[int] = []  # by channels that are gone
        self.read: list[int] = []  # from the shared one
        self.broken: list[BaseException | None] = []

    def record(self, model: str) -> None:
        """All kinds of events, until it is over."""
        batch = array("d", [1.0] * 50)
        while not self.stop.is_set():
            self.mc.record_latencies(model, batch)
            self.mc.record_error(model, "E")
            publish(self.mc, "rule", model)

    def come_and_go(self, seed: int) -> None:
        """Channels of every kind."""
        types = (None, "error", ["alert", "latency"], None)
        for i in range(seed, seed + 150):
            channel = self.mc.subscribe(
                capacity=1 + i % 90,
                types=types[i % 4],
                models="a" if i % 4 == 3 else None,
            )
            self.read.append(len(self.shared.drain()))
            for _ in range(i % 5):
                channel.get(timeout=GIVE_UP)
            channel.close()
            channel.drain()
            self.lost.append(channel.dropped)

    def look(self) -> None:
        """The sum never goes back."""
        before = 0
        while not self.stop.is_set():
            now = self.mc.snapshot().events_dropped

            assert before <= now

            before = now

    def work(self) -> None:
        """Run all until those that come and go are done."""
        hook, threading.excepthook = (
            threading.excepthook,
            lambda failed: self.broken.append(failed.exc_value),
        )
        beside = [threading.Thread(target=self.record, args=(m,)) for m in "abc"]
        beside.append(threading.Thread(target=self.look))
        guests = [
            threading.Thread(target=self.come_and_go, args=(i,)) for i in range(3)
        ]
        for thread in beside + guests:
            thread.start()
        for thread in guests:
            thread.join(GIVE_UP)
        self.stop.set()
        for thread in beside:
            thread.join(GIVE_UP)
        threading.excepthook = hook
        self.read.append(len(self.shared.drain()))


@pytest.mark.threads
def test_come_and_go_beside_recorders(busy_switching: None) -> None:
    """Subscribe, read, close and drop in threads beside recorders: the sum is exact."""
    crowd = Crowd()
    crowd.work()
    snapshot = crowd.mc.snapshot()

    assert [] == crowd.broken
    assert snapshot.events_emitted == sum(crowd.read) + crowd.shared.dropped
    assert snapshot.events_dropped == sum(crowd.lost) + crowd.shared.dropped


NARROWED = """
from typing_extensions import assert_type
from ometrics import MetricsCollector, MetricsEvent, ResourceMetrics

def work(event: MetricsEvent) -> None:
    if event.type == "latency":
        assert_type(event.value, float | None)
    elif event.type == "error":
        assert_type(event.value, str)
    elif event.type == "task_complete":
        assert_type(event.value, bool)
        assert_type(event.duration_ms, float | None)
    elif event.type == "resource":
        assert_type(event.value, ResourceMetrics)

for event in MetricsCollector().subscribe(types="error", models="llama2"):
    work(event)
"""


def test_types(tmp_path: Path) -> None:
    """A strict type checker knows an event's value by its type."""
    pytest.importorskip("mypy")
    module = tmp_path / "narrowed.py"
    module.write_text(NARROWED)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", module],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == checked.returncode, checked.stdout
