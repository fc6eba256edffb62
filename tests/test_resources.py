# SPDX-License-Identifier: MIT
"""The background sampler of this process."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from forking import in_child, needs_fork

from ometrics import MetricsCollector, ResourceMetrics

psutil = pytest.importorskip("psutil", reason="the extra `resources` is not installed")

GIVE_UP = 20.0  # seconds
FAST = 0.01  # seconds between samples


@pytest.fixture
def mc() -> Iterator[MetricsCollector]:
    """A collector that is closed at the end."""
    with MetricsCollector() as collector:
        yield collector


def samplers() -> list[threading.Thread]:
    """The threads that sample."""
    return [t for t in threading.enumerate() if t.name == "ometrics-resources"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for it; fail if it does not come true."""
    deadline = time.monotonic() + GIVE_UP
    while not condition():
        assert time.monotonic() < deadline

        time.sleep(0.002)


def sampled(mc: MetricsCollector) -> ResourceMetrics:
    """What was sampled last."""
    metrics = mc.get_resource_metrics()
    assert metrics is not None
    return metrics


def events(mc: MetricsCollector) -> int:
    """Samples so far."""
    return mc.snapshot().events_emitted


def test_samples_this_process(mc: MetricsCollector) -> None:
    """The first sample is there at once; its numbers are this process's."""
    mc.sample_resources()

    metrics = sampled(mc)
    memory = psutil.Process().memory_info().rss / 1e6

    assert 0.5 * memory < metrics.memory_usage_mb < 2 * memory
    assert 0 <= metrics.cpu_usage_percent < 100 * 4096
    assert threading.active_count() - 2 <= metrics.goroutine_count


def test_goes_on(mc: MetricsCollector) -> None:
    """It samples again and again, as events too, and counts threads."""
    mc.sample_resources(FAST)
    until(lambda: events(mc) > 3)
    before = sampled(mc).goroutine_count
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    until(lambda: sampled(mc).goroutine_count >= before + 40)
    stop.set()
    for thread in threads:
        thread.join()

    assert {"resource"} == {event.type for event in mc.metrics_channel.drain()}


def test_cpu(mc: MetricsCollector) -> None:
    """A busy process shows it."""
    mc.sample_resources(0.1)
    deadline = time.monotonic() + GIVE_UP
    while sampled(mc).cpu_usage_percent < 10:
        assert time.monotonic() < deadline

        sum(range(10_000))


def test_counts_tasks(mc: MetricsCollector) -> None:
    """Tasks of the event loop in which it began count as well."""

    async def work() -> int:
        tasks = [asyncio.create_task(asyncio.sleep(GIVE_UP)) for _ in range(100)]
        mc.sample_resources()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sampled(mc).goroutine_count

    assert 100 < asyncio.run(work())


def test_stops(mc: MetricsCollector) -> None:
    """Closing ends the thread; twice is once."""
    mc.sample_resources(FAST)

    assert 1 == len(samplers())

    mc.close()
    mc.close()

    assert [] == samplers()
    count = events(mc)
    time.sleep(5 * FAST)

    assert count == events(mc)


def test_again(mc: MetricsCollector) -> None:
    """A second call changes the interval; there is one sampler."""
    mc.sample_resources(3600)
    mc.sample_resources(FAST)
    until(lambda: len(samplers()) == 1)
    until(lambda: events(mc) > 4)


def test_lets_go() -> None:
    """The sampler does not keep its collector; it ends with it."""
    mc = MetricsCollector()
    mc.sample_resources(FAST)
    del mc
    gc.collect()
    until(lambda: not samplers())


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_bad_interval(mc: MetricsCollector, interval: float) -> None:
    """It must be above zero; a refused call changes nothing."""
    with pytest.raises(ValueError, match="interval"):
        mc.sample_resources(interval)

    assert [] == samplers()


def test_without_psutil(mc: MetricsCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ImportError, match=r"ollama-metrics\[resources\]"):
        mc.sample_resources()


@needs_fork
@pytest.mark.fork
class TestFork:
    """A forked child has no threads but its own."""

    def test_revives(self, mc: MetricsCollector) -> None:
        """The first look in the child starts it again, for the child's process."""
        mc.sample_resources(FAST)

        def child() -> list[int]:
            alone = len(samplers())
            mc.snapshot()
            until(lambda: events(mc) > 3)
            return [alone, len(samplers()), os.getpid()]

        assert [0, 1] == in_child(child)[:2]
        until(lambda: events(mc) > 10)

    def test_child_of_child(self, mc: MetricsCollector) -> None:
        """And in a child of the child."""
        mc.sample_resources(FAST)

        def grandchild() -> bool:
            until(lambda: events(mc) > 3)
            return True

        def child() -> bool:
            mc.snapshot()
            return bool(in_child(grandchild))

        assert in_child(child) is True

    def test_stays_closed(self, mc: MetricsCollector) -> None:
        """What was closed before the fork stays closed."""
        mc.sample_resources(FAST)
        mc.close()

        def child() -> int:
            mc.snapshot()
            return len(samplers())

        assert 0 == in_child(child)

    def test_close_in_child(self, mc: MetricsCollector) -> None:
        """A child may close at once, whatever the sampler did at the fork."""
        mc.sample_resources(1e-6)

        def child() -> int:
            mc.close()
            mc.snapshot()
            return len(samplers())

        for _ in range(30):
            assert 0 == in_child(child)
