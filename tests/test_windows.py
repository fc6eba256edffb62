# SPDX-License-Identifier: MIT
"""Windows of the last minutes: exact, bounded, whatever happens to the source."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics import MetricsCollector
from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import Snapshot
from ometrics.sources import merge
from ometrics.testing import FakeClock
from ometrics.windows import Windows

THREAD = "ometrics-windows"


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == THREAD]


@dataclass
class _World:
    """A collector whose clock stands still, and windows sampled by hand."""

    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.mc = MetricsCollector(clock=self.clock)
        self.windows = Windows(self.mc, clock=self.clock)

    def second(self, *latencies: float, model: str = "m") -> None:
        """A second that ends with a sample, and the records made in it."""
        for latency in latencies:
            self.mc.record_latency(model, latency)
        self.clock.advance(1.0)
        self.windows.sample()


def test_window_holds_the_last_seconds_only() -> None:
    """What is older than the window is not in it; what is not, is."""
    world = _World()
    for second in range(600):
        world.second(0.1 if second < 300 else 0.2)

    window = world.windows.window("5m")

    assert 300 == window.models["m"].successful_reqs
    assert 0.2 == pytest.approx(window.models["m"].latency_p50, rel=0.011)
    assert 300.0 == window.uptime_seconds
    assert 1.0 == window.models["m"].throughput


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(0.0, 100.0), max_size=3),
            st.sampled_from(["", "reset", "remove", "wall", "read", "error"]),
        ),
        max_size=200,
    ),
    st.integers(1, 180),
)
def test_window_equals_an_oracle(
    seconds: list[tuple[list[float], str]], length: int
) -> None:
    """Every window equals the list of records of its seconds, whatever happened."""
    world = _World()
    world.windows.sample()
    recorded: list[tuple[list[float], int]] = []
    for latencies, event in seconds:
        errors = event == "error"
        if event == "reset":
            world.windows.cleared(world.mc.reset_metrics())
        elif event == "remove":
            world.mc.remove_model("m")
            world.windows.sample()  # has seen that it is gone
        elif event == "wall":
            world.clock.step_wall(-1e6)
        elif event == "read":
            world.windows.window("1s")
        if errors:
            world.mc.record_error("m", ValueError())
        world.second(*latencies)
        recorded.append((latencies, errors))
    last = recorded[-length:]
    values = [value for latencies, _ in last for value in latencies]

    window = world.windows.window(length)
    model = window.models.get("m")

    assert len(values) == (model.successful_reqs if model else 0)
    assert sum(error for _, error in last) == (model.failed_reqs if model else 0)
    if model:
        expected = LatencyHistogram.of(values)
        assert expected.cells == model.latency_hist.cells
        assert expected.sum_ns == model.latency_hist.sum_ns
    assert len(last) == window.uptime_seconds


def test_window_of_a_young_source_says_how_long_it_covers() -> None:
    """A window is never longer than its source has been counting."""
    world = _World()
    world.mc.record_latency("m", 0.1)
    world.clock.advance(12.0)

    window = world.windows.window("5m")

    assert 12.0 == window.uptime_seconds
    assert 1 == window.total_requests
    assert timedelta(seconds=12) == window.collection_time - window.start_time


def test_window_of_an_old_source_begins_with_sampling() -> None:
    """What came before sampling began is of unknown age, so it is in no window."""
    world = _World()
    world.mc.record_latency("m", 0.1)
    world.clock.advance(7_200.0)

    assert 0 == world.windows.window("5m").total_requests
    assert 0.0 == world.windows.window("5m").uptime_seconds
    world.second(0.1)
    assert 1 == world.windows.window("5m").total_requests
    assert 1.0 == world.windows.window("5m").uptime_seconds


def test_reading_often_keeps_no_more_samples() -> None:
    """A thousand reads in a second make one sample."""
    world = _World()
    for _ in range(1_000):
        world.mc.record_latency("m", 0.1)
        world.clock.advance(0.001)
        world.windows.window("1m")

    assert 1 >= len(world.windows._samples)
    assert 1_000 == world.windows.window("1m").total_requests


def test_running_calls_are_those_of_now() -> None:
    """A call that runs for minutes is one call in flight, in the model's row."""
    world = _World()
    call = world.mc.start_call("m")
    for _ in range(120):
        world.second()

    chat = world.windows.window("1m").models["m"].calls["chat"]

    assert 1 == chat.in_flight
    assert 120.0 == chat.oldest_in_flight_seconds
    call.discard()
    world.second()
    assert "m" not in world.windows.window("1m").models


def test_memory_is_bounded_and_counts_stay_exact() -> None:
    """Without memory for seconds, whole minutes stay; without for those, newer ones."""
    world = _World()
    world.windows = Windows(world.mc, clock=world.clock, max_bytes=20_000)
    for second in range(1_200):
        world.second(0.001 * (second % 977))

    window = world.windows.window("15m")

    assert 20_000 >= world.windows._bytes
    assert 870 <= window.uptime_seconds <= 930
    assert window.total_requests == window.uptime_seconds
    tiny = Windows(world.mc, clock=world.clock, max_bytes=0)
    world.windows = tiny
    for _ in range(120):
        world.second(0.1)
    assert 61 >= tiny.window("15m").uptime_seconds


def test_quiet_models_cost_nothing() -> None:
    """A model that stands still is in no sample, and with 0 in every window."""
    world = _World()
    for name in range(100):
        world.mc.record_latency(f"m{name}", 0.1)
    for _ in range(1_000):
        world.second()

    window = world.windows.window("15m")

    assert 100 == len(window.models)
    assert 0 == window.total_requests
    assert 10_000 > world.windows._bytes


def test_a_restarted_source_counts_from_its_start() -> None:
    """Another instance in the source's place is counted if it began since."""
    clock = FakeClock()
    holder = _Replaceable(MetricsCollector(clock=clock))
    windows = Windows(holder, clock=clock)
    holder.source.record_latency("m", 0.1)
    windows.sample()
    clock.advance(2.0)
    holder.source = MetricsCollector(clock=clock)
    holder.source.record_latency("m", 0.2)
    clock.advance(1.0)

    assert 2 == windows.window("1m").total_requests


def test_an_older_source_in_its_place_counts_from_now() -> None:
    """What another, older instance counted before is of an unknown time."""
    clock = FakeClock()
    older = MetricsCollector(clock=clock)
    for _ in range(50):
        older.record_latency("m", 0.2)
    clock.advance(100.0)
    holder = _Replaceable(MetricsCollector(clock=clock))
    windows = Windows(holder, clock=clock)
    windows.sample()
    clock.advance(1.0)
    holder.source = older

    assert 0 == windows.window("1m").total_requests
    older.record_latency("m", 0.2)
    assert 1 == windows.window("1m").total_requests


def test_a_process_that_joins_is_counted() -> None:
    """Merged sources may grow; one that forgets makes nothing negative or double."""
    clock = FakeClock()
    first, second = (MetricsCollector(clock=clock) for _ in range(2))
    holder = _Replaceable(first)
    windows = Windows(holder, clock=clock)
    first.record_latency("m", 0.1)
    windows.sample()
    clock.advance(1.0)
    second.record_latency("m", 0.1)
    holder.source = merge(first, second)
    assert 2 == windows.window("1m").total_requests
    first.reset_metrics()
    first.record_error("m", ValueError())
    clock.advance(1.0)

    window = windows.window("1m")

    assert 2 == window.models["m"].successful_reqs
    assert 0 <= window.models["m"].failed_reqs


@dataclass
class _Replaceable:
    source: MetricsCollector

    def snapshot(self) -> Snapshot:
        return self.source.snapshot()


@pytest.mark.parametrize("length", ["0s", "0.5s", "16m", "five", -1, float("nan")])
def test_a_length_out_of_range_is_refused(length: str | float) -> None:
    """The error names the length."""
    with pytest.raises(ValueError, match=f"{length!r}"):
        _World().windows.window(length)


def test_no_thread_where_nobody_asked() -> None:
    """A collector has no thread before its first window, and none after its close."""
    before = len(_threads())
    with MetricsCollector() as mc:
        mc.record_latency("m", 0.1)
        mc.reset_metrics()
        assert before == len(_threads())
        mc.window("1m")
        mc.window("5m")
        assert before + 1 == len(_threads())
        (thread,) = _threads()
    thread.join(5.0)
    assert not thread.is_alive()
    assert 0 == mc.window("1m").total_requests
    assert before == len(_threads())


def test_the_thread_ends_with_its_collector() -> None:
    """A collector that nobody holds any more takes its thread along."""
    mc = MetricsCollector()
    mc.window("1m")
    (thread,) = _threads()
    del mc
    gc.collect()
    thread.join(5.0)

    assert not thread.is_alive()


def test_the_thread_samples_and_a_reset_loses_nothing() -> None:
    """In real time: what a reset clears between two samples stays in the window."""
    with MetricsCollector() as mc:
        mc.window("1m")
        for _ in range(20):
            for _ in range(10):
                mc.record_latency("m", 0.01)
            mc.reset_metrics()
            time.sleep(0.06)

        assert 200 == mc.window("1m").total_requests
        assert 0 == mc.snapshot().total_requests


@pytest.mark.fork
def test_a_forked_child_begins_anew() -> None:
    """The child's windows hold the child's records, and it can sample by itself."""
    with MetricsCollector() as mc:
        mc.record_latency("m", 0.1)
        mc.window("1m")
        child = os.fork()
        if not child:
            mc.record_latency("m", 0.1)
            mc.record_latency("m", 0.1)
            os._exit(mc.window("1m").total_requests)
        _, status = os.waitpid(child, 0)

        assert 2 == os.waitstatus_to_exitcode(status)
        assert 1 == mc.window("1m").total_requests


def test_a_source_that_fails_leaves_no_gap() -> None:
    """After the failure the next sample has what came meanwhile."""
    world = _World()
    source = _Flaky(world.mc)
    world.windows = Windows(source, clock=world.clock)
    world.second(0.1)
    source.fails = True
    world.mc.record_latency("m", 0.1)
    with pytest.raises(OSError, match="away"):
        world.windows.window("1m")
    source.fails = False

    assert 2 == world.windows.window("1m").total_requests


@dataclass
class _Flaky:
    source: MetricsCollector
    fails: bool = False

    def snapshot(self) -> Snapshot:
        if self.fails:
            raise OSError("away")
        return self.source.snapshot()
