# SPDX-License-Identifier: MIT
"""Rules at work over a collector: who is told, and what outlives a restart."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runs import python
from hooks import Hook, wait_for

from ometrics import MetricsCollector
from ometrics.rules import Alert, Objective, Rule
from ometrics.rules.receivers import Webhook
from ometrics.rules.watch import Watch
from ometrics.testing import FakeClock

SLOW = Rule("slow", "latency.p95", above="2s", over="1m", for_="10s")


class World:
    """A collector and watches of it, in a time of their own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.collector = MetricsCollector(clock=self.clock)
        self.told: list[Alert] = []

    def watch(self, *rules: Rule | Objective, **options: Any) -> Watch:
        """A watch that is stepped by hand."""
        options.setdefault("notify", [self.told.append])
        return Watch(self.collector, rules, clock=self.clock, **options)

    def run(
        self, watch: Watch, latencies: list[float | None], step: float = 5.0
    ) -> list[str]:
        """States that come of a request of such a latency at each step."""
        states = []
        for latency in latencies:
            if latency is not None:
                self.collector.record_latency("m", latency)
            self.clock.advance(step)
            states += [alert.state for alert in watch.step()]
        return states


def test_an_incident_is_told_to_all() -> None:
    """Functions, and the event channels of the collector, get both its ends."""
    world = World()
    channel = world.collector.subscribe(types=["alert"])
    watch = world.watch(SLOW)
    states = world.run(watch, [0.1, 3.0, 3.0, 3.0, *[None] * 11, 0.1, 0.1, 0.1, 0.1])
    watch.close()

    assert ["firing", "resolved"] == states
    assert states == [alert.state for alert in world.told]
    assert [("m", "slow", "firing"), ("m", "slow", "resolved")] == [
        (event.model, event.value, event.state)
        for event in channel.drain()
        if event.type == "alert"
    ]


def test_missing_data_ends_nothing() -> None:
    """While no requests come the incident is on, and said to be without data."""
    world = World()
    watch = world.watch(SLOW)
    states = world.run(watch, [3.0] * 4 + [None] * 40)
    watch.close()

    assert ["firing"] == states
    assert [("firing", True)] == [(s.phase, s.missing) for s in watch.statuses()]
    assert ["slow"] == [alert.rule for alert in watch.active()]


def test_a_restart_neither_doubles_nor_forgets(tmp_path: Path) -> None:
    """What a new process makes of the file goes on where the old one stopped."""
    world, path = World(), tmp_path / "rules.state"
    first = world.watch(SLOW, state=path)
    assert [] == world.run(first, [3.0, 3.0])
    first.close()
    # Five seconds away: pending goes on by the wall clock.
    second = world.watch(SLOW, state=path)
    assert ["firing"] == world.run(second, [3.0])
    second.close()
    third = world.watch(SLOW, state=path)
    assert [] == world.run(third, [3.0])
    assert ["resolved"] == world.run(third, [None] * 11 + [0.1] * 4)
    third.close()

    begin, end = world.told
    assert (begin.id, "firing", "resolved") == (end.id, begin.state, end.state)


def test_time_goes_on_between_two_processes(tmp_path: Path) -> None:
    """The wall clock says how long nobody looked: it counts for what was pending."""
    world, path = World(), tmp_path / "rules.state"
    first = world.watch(SLOW, state=path)
    assert [] == world.run(first, [3.0])
    first.close()
    # Another process: its monotonic clock began elsewhere.
    world.clock = FakeClock(monotonic=3.0, time=world.clock.time() + 20)
    second = world.watch(SLOW, state=path)

    assert ["firing"] == world.run(second, [3.0], step=1.0)
    second.close()


def test_an_alert_on_its_way_outlives_a_restart(tmp_path: Path) -> None:
    """What a dead receiver could not be told, it is told after the restart."""
    world, path = World(), tmp_path / "rules.state"
    with Hook() as dead:
        port = dead.port
    url = f"http://127.0.0.1:{port}/"
    first = world.watch(SLOW, state=path, notify=[Webhook(url, allow_internal=True)])
    assert ["firing"] == world.run(first, [3.0] * 4)
    first.close(timeout=0.1)

    with Hook(port) as hook:
        second = world.watch(
            SLOW, state=path, notify=[Webhook(url, allow_internal=True)]
        )
        wait_for(lambda: hook.got)
        second.close()

    assert ["alert.firing"] == [json.loads(body)["type"] for _, body in hook.got]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1}', "\x00"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    """A state file that is none is an error with its name, and is not overwritten."""
    path = tmp_path / "precious"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="precious: "):
        World().watch(SLOW, state=path)

    assert content == path.read_text(encoding="utf-8")


def test_a_full_disk_stops_no_alert(tmp_path: Path) -> None:
    """Where the state cannot be written, alerts still go out."""
    world = World()
    watch = world.watch(SLOW, state=tmp_path / "none" / "rules.state")

    assert ["firing"] == world.run(watch, [3.0] * 4)
    watch.close()


def test_the_thread_of_a_collector() -> None:
    """`watch` evaluates by itself, and `close` of the collector ends it."""
    told: list[Alert] = []
    arrived = threading.Event()

    def tell(alert: Alert) -> None:
        told.append(alert)
        arrived.set()

    with MetricsCollector() as collector:
        watch = collector.watch(
            [Rule("any error", "errors", above=0)], notify=[tell], interval=0.01
        )
        collector.record_error("m", "TIMEOUT")
        assert arrived.wait(20)

    assert ["any error"] == [alert.rule for alert in told]
    assert not watch._thread or not watch._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        collector.watch([])


def test_one_line() -> None:
    """`alert_when` is a rule and its watch."""
    seen = threading.Event()
    with MetricsCollector() as collector:
        collector.record_error("m", "TIMEOUT")
        collector.alert_when("error_rate", lambda alert: seen.set(), above=5.0)

        assert seen.wait(20)


def test_close_is_prompt_while_a_receiver_hangs() -> None:
    """A receiver that never answers does not hold up the end."""
    hang = threading.Event()
    world = World()
    watch = world.watch(
        Rule("any", "errors", above=0), notify=[lambda alert: hang.wait(60)]
    )
    world.collector.record_error("m", "TIMEOUT")
    watch.step()
    began = time.monotonic()
    watch.close(timeout=0.2)
    took = time.monotonic() - began
    hang.set()

    assert took < 10


def test_objectives_need_no_windows_of_the_collector() -> None:
    """Days are kept by the watch itself."""
    world = World()
    watch = world.watch(Objective("up", target=0.99))
    for _ in range(3):
        world.collector.record_latency("m", 0.1)
        world.collector.record_error("m", "TIMEOUT")
        world.clock.advance(60)
        watch.step()
    watch.close()

    assert ["up: burns 14.4 x too fast", "up: burns 6 x too fast"] == [
        alert.rule for alert in world.told
    ][:2]


def test_an_alert_is_told_at_the_end_of_the_program() -> None:
    """A program that ends without closing anything still tells of its incident."""
    with Hook() as hook:
        program = (
            "from ometrics import MetricsCollector\n"
            "from ometrics.rules import Rule\n"
            "from ometrics.rules.receivers import Webhook\n"
            "mc = MetricsCollector()\n"
            f"hook = Webhook({hook.url!r}, allow_internal=True)\n"
            "rules = [Rule('any', 'errors', above=0)]\n"
            "mc.record_error('m', 'TIMEOUT')\n"
            "mc.watch(rules, notify=[hook]).step()\n"
        )
        result = python("-c", program)

    assert (0, "") == (result.returncode, result.stderr)
    assert ["alert.firing"] == [json.loads(body)["type"] for _, body in hook.got]


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_leaves_the_state_alone(tmp_path: Path) -> None:
    """A child that closes its collector writes nothing over its parent's incidents."""
    path = tmp_path / "rules.state"
    with MetricsCollector() as collector:
        watch = collector.watch([Rule("any", "errors", above=0)], state=path)
        collector.record_error("m", "TIMEOUT")
        wait_for(watch.active)
        before = path.read_bytes()
        child = os.fork()
        if not child:
            collector.close()
            os._exit(0)
        os.waitpid(child, 0)

        assert before == path.read_bytes()


def test_a_failing_source_changes_no_incident() -> None:
    """Where one window cannot be had, no alert of another rule is lost."""
    world = World()
    watch = world.watch(
        Rule("first", "errors", above=0), Rule("second", "errors", above=0, over="1m")
    )
    world.collector.record_error("m", "TIMEOUT")
    take = watch._window

    def broken(seconds: float) -> Any:
        if seconds == 60.0:
            raise MemoryError
        return take(seconds)

    watch._window = broken  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        watch.step()
    watch._window = take

    assert ["first", "second"] == [alert.rule for alert in watch.step()]
    watch.close()


@pytest.mark.threads
def test_many_threads_on_one_watch() -> None:
    """Steps, reads and an end at once: every incident is still told once."""
    world = World()
    rules = [Rule(f"rule {i}", "errors", above=i, for_=0) for i in range(20)]
    watch = world.watch(*rules)
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for _ in range(50):
            world.collector.record_error("m", "TIMEOUT")
            world.clock.advance(1.0)
            watch.step()
            watch.statuses()
            watch.active()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watch.close()

    assert sorted(rule.name for rule in rules) == sorted(a.rule for a in world.told)
