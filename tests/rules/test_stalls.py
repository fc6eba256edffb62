# SPDX-License-Identifier: MIT
"""Stalls: calls in flight that are past a limit, while they are."""

from __future__ import annotations

import random
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
from hooks import wait_for
from instrumenting import MODEL, Driver

import ometrics
from ometrics import MetricsCollector
from ometrics._calls import Call
from ometrics._in_flight import calls_in_flight
from ometrics.rules import Alert, RuleError, Stalls
from ometrics.rules.load import RulesFileError, loads
from ometrics.rules.watch import Watch
from ometrics.rules.words import sentence
from ometrics.sources import merge
from ometrics.testing import (
    FakeClock,
    Hang,
    ScriptedOllama,
    chat_chunk,
    chat_done,
    generate_response,
)

OFF = {"chunk": None, "answer": None, "times": None, "queue": None}


class World:
    """A collector and a watch of its calls in flight, in a time of their own."""

    def __init__(self, **limits: Any) -> None:
        self.clock = FakeClock()
        self.collector = MetricsCollector(clock=self.clock)
        self.stalls = Stalls(**{**OFF, **limits})
        self.watch = Watch(self.collector, [], stalls=self.stalls, clock=self.clock)

    def start(self, model: str = "m", operation: str = "chat") -> Call:
        """A call that begins now."""
        return Call(self.collector, model, operation)

    def after(self, seconds: float) -> list[tuple[str, str, str]]:
        """Rule, model and state of the alerts that come when so much time passed."""
        self.clock.advance(seconds)
        return [(a.rule, a.model, a.state) for a in self.watch.step()]

    def counted(self, model: str = "m") -> int:
        """Stalled calls of a model."""
        return self.collector.snapshot().models[model].stalled_calls


def test_a_silent_stream_is_noticed_and_over_with_its_next_chunk() -> None:
    """Only past the limit, counted once, and each end of the incident told once."""
    world = World(chunk="10s")
    call = world.start()
    call.chunk()

    assert [] == world.after(10.0)
    assert [("stalled stream", "m", "firing")] == world.after(0.5)
    assert [] == world.after(5.0)
    call.chunk()
    assert [("stalled stream", "m", "resolved")] == world.after(0.5)
    assert 1 == world.counted()


def test_a_stream_without_a_chunk_is_not_silent_but_waits() -> None:
    """Before the first chunk a model may load: that has a limit of its own."""
    world = World(chunk="10s", answer="60s")
    call = world.start()

    assert [] == world.after(60.0)
    assert [("no answer", "m", "firing")] == world.after(0.5)
    call.chunk()
    assert [("no answer", "m", "resolved")] == world.after(0.5)


@pytest.mark.parametrize("sign", ["end", "chunk"])
def test_a_server_that_answers_others_does_answer(sign: str) -> None:
    """Whoever waits while others get on stands in a queue."""
    world = World(answer="60s")
    waits, other = world.start(), world.start()
    world.clock.advance(50.0)
    other.end("success") if sign == "end" else other.chunk()

    assert [] == world.after(20.0)
    assert [("no answer", "m", "firing")] == world.after(45.0)
    waits.end("success")
    assert [("no answer", "m", "resolved")] == world.after(1.0)


def test_too_long_is_against_the_history_of_model_and_operation() -> None:
    """Three times the 99th percentile of its own kind, and never below `least`."""
    world = World(times=3.0, least="5s")
    for model, seconds in (("slow", 20.0), ("quick", 0.1)):
        for _ in range(20):
            call = world.start(model)
            world.clock.advance(seconds)
            call.end("success")
    calls = [world.start("slow"), world.start("quick"), world.start("new")]
    calls.append(world.start("quick", "embeddings"))

    assert [] == world.after(5.0)
    assert [("call takes too long", "quick", "firing")] == world.after(0.5)
    assert [] == world.after(54.0)
    assert [("call takes too long", "slow", "firing")] == world.after(3.0)
    assert (1, 1) == (world.counted("quick"), world.counted("slow"))
    for call in calls:
        call.end("success")
    assert {"resolved"} == {state for _, _, state in world.after(0.5)}


def test_a_queue_that_only_grows() -> None:
    """More and more calls in flight, never fewer, and twice as many as at first."""
    world = World(queue="60s")
    calls = [world.start() for _ in range(4)]
    seen = []
    for _ in range(14):
        calls.append(world.start())
        seen += world.after(5.0)

    assert [("queue only grows", "m", "firing")] == seen
    calls.pop().end("success")
    calls.pop().end("success")
    assert [("queue only grows", "m", "resolved")] == world.after(5.0)
    assert 0 == world.counted()


@pytest.mark.parametrize("shape", ["burst", "steady", "falls"])
def test_calls_that_come_at_once_or_also_end_are_no_queue(shape: str) -> None:
    """What grew once and stays, and what falls in between, only is many calls."""
    world = World(queue="60s")
    calls = [world.start()]
    seen = world.after(1.0)
    for i in range(40):
        if shape == "burst" and i == 1:
            calls += [world.start() for _ in range(50)]
        if shape != "burst":
            calls.append(world.start())
        if shape == "steady" or (shape == "falls" and i % 5 == 4):
            calls.pop(0).end("success")
            calls.pop(0).end("success") if shape == "falls" else None
        seen += world.after(5.0)

    assert [] == seen


def test_an_alert_names_the_call() -> None:
    """Model, operation, age and last chunk: in the alert, the event and the line."""
    world = World(chunk="30s")
    channel = world.collector.subscribe(types=["alert"])
    call = world.start("llama3.2")
    world.clock.advance(8.0)
    call.chunk()
    world.clock.advance(31.0)
    (alert,) = world.watch.step()
    (event,) = channel.drain()

    assert event.type == "alert"
    assert alert.call is not None
    assert event.call == alert.call
    assert ("chat", 39.0, 31.0) == (
        alert.call.operation,
        alert.call.age,
        alert.call.silence,
    )
    assert (
        "stalled stream: time since the last chunk of llama3.2 is 31s, above 30s"
        " (chat, 39s old, last chunk 31s ago)" == sentence(alert)
    )


def test_a_call_that_is_dropped_ends_its_stall() -> None:
    """However a call ends, and if its model is forgotten or all is reset."""
    world = World(chunk="10s")
    for end in ("drop", "reset", "remove"):
        call: Call | None = world.start()
        assert call is not None
        call.chunk()
        assert [("stalled stream", "m", "firing")] == world.after(11.0)
        if end == "reset":
            world.collector.reset_metrics()
        if end == "remove":
            world.collector.remove_model("m")
        del call
        assert [("stalled stream", "m", "resolved")] == world.after(1.0)


def test_each_call_counts_once() -> None:
    """Two limits passed, or one twice, make one stalled call; two calls make two."""
    world = World(chunk="10s", times=3.0, least="5s")
    for _ in range(20):
        world.start().end("success")
    calls = [world.start(), world.start()]
    for _ in range(3):
        for call in calls:
            call.chunk()
        world.after(11.0)

    assert 2 == world.counted()


def test_calls_in_flight_are_grouped() -> None:
    """Against an oracle: random calls of random ages, some with chunks."""
    pick = random.Random(1)
    clock = FakeClock()
    collector = MetricsCollector(clock=clock)
    calls: list[tuple[Call, str, str, str, float, float | None]] = []
    for _ in range(500):
        model = pick.choice("abcdefghij")
        operation = pick.choice(["chat", "embeddings"])
        provider = pick.choice(["ollama", "openai"])
        started = clock.monotonic()
        call = Call(collector, model, operation, provider)
        calls.append((call, model, operation, provider, started, None))
        for _ in range(3):
            clock.advance(pick.choice([0.25, 0.5, 1.0]))
            i = pick.randrange(len(calls))
            if pick.random() < 0.5:
                calls[i][0].chunk()
                calls[i] = (*calls[i][:-1], clock.monotonic())
    for _ in range(100):
        calls.pop(pick.randrange(len(calls)))[0].end("success")
    now = clock.monotonic()
    expected = {}
    for _, *names, _, _ in calls:
        mine = [row[4:] for row in calls if [*row[1:4]] == names]
        oldest = min(mine, key=lambda row: row[0])
        streams = [row for row in mine if row[1] is not None]
        silent = min(streams, key=lambda row: row[1] or 0.0, default=(None, None))
        waiting = [now - start for start, last in mine if last is None]
        heard = [now - last for _, last in mine if last is not None]
        expected[tuple(names)] = (
            len(mine),
            now - oldest[0],
            None if oldest[1] is None else now - oldest[1],
            None if silent[0] is None else now - silent[0],
            None if silent[1] is None else now - silent[1],
            max(waiting, default=None),
            min(heard, default=None),
        )

    assert expected == {row[1:4]: row[4:] for row in calls_in_flight(collector)}


def test_a_server_that_hangs_is_noticed_while_it_does() -> None:
    """Streams that stop in the middle and calls that get nothing, in real time."""
    alerts: list[Alert] = []
    done = chat_done()
    with ScriptedOllama() as server, MetricsCollector() as collector:
        server.script("/api/chat", [chat_chunk("Hel"), Hang(), done])
        server.script("/api/generate", [Hang(), generate_response("Hello")])
        stalls = Stalls(chunk="0.2s", answer="0.2s")
        collector.watch([], stalls=stalls, notify=[alerts.append])
        ometrics.ollama.instrument(collector)
        driver = Driver(server.url, is_async=False)
        threads = [
            Thread(target=driver, args=("chat",), kwargs={"stream": True}),
            Thread(target=driver, args=("generate",)),
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(alerts) == 2)
        seen = {(alert.rule, alert.state) for alert in alerts}
        server.release()
        for thread in threads:
            thread.join()
        wait_for(lambda: len(alerts) == 4)

        assert {("stalled stream", "firing"), ("no answer", "firing")} == seen
        assert ["resolved"] * 2 == [alert.state for alert in alerts[2:]]
        assert 2 == collector.snapshot().models[MODEL].stalled_calls


def test_one_watcher_and_no_thread_a_call() -> None:
    """However many calls are in flight, looking at them takes one thread."""
    with MetricsCollector() as collector:
        collector.watch([], stalls=Stalls())
        calls = [Call(collector, "m", "chat") for _ in range(1000)]
        watchers = [t for t in enumerate_threads() if t.name.startswith("ometrics")]

        assert 1 == len(watchers)
        assert 1000 == len(calls)


def test_an_incident_that_a_restart_ended_is_told(tmp_path: Path) -> None:
    """The calls of a process end with it, so its stalls are over in the next one."""
    world = World(chunk="10s")
    states = []
    for _ in range(2):
        watch = Watch(
            world.collector,
            [],
            stalls=world.stalls,
            clock=world.clock,
            state=tmp_path / "rules.state",
        )
        if not states:
            call = world.start()
            call.chunk()
            world.clock.advance(11.0)
            states += [alert.state for alert in watch.step()]
            call.end("success")
        else:
            states += [alert.state for alert in watch.step()]
        watch.close()

    assert ["firing", "resolved"] == states


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"chunk": 0}, "chunk"),
        ({"answer": "-1s"}, "answer"),
        ({"times": "3s"}, "times"),
        ({"times": float("nan")}, "times"),
        ({"queue": "soon"}, "queue"),
        ({"least": None}, "least"),
    ],
)
def test_limits_that_mean_nothing_are_refused(limits: Any, field: str) -> None:
    """The error says which limit it is."""
    with pytest.raises(RuleError) as caught:
        Stalls(**limits)

    assert field == caught.value.field


@pytest.mark.parametrize("limit", ["chunk", "answer", "times", "queue"])
def test_any_source_is_watched_as_a_collector_is(limit: str) -> None:
    """The same incidents of the same calls, from nothing but snapshots."""
    limits = {"chunk": "10s", "answer": "10s", "times": 3.0, "queue": "20s"}
    world = World(**{limit: limits[limit]}, least="5s")
    other = MetricsCollector(clock=world.clock)
    far = Watch(
        merge(other, world.collector), [], stalls=world.stalls, clock=world.clock
    )
    for _ in range(20):
        past = world.start(), other.start_call("m")
        world.clock.advance(1.0)
        for call in past:
            call.end("success")
    pick = random.Random(2)
    calls: list[Call] = []
    near_told, far_told = [], []
    for _ in range(100):
        world.clock.advance(1.0)
        calls += [world.start() for _ in range(pick.randrange(3))]
        if pick.random() < 0.3:
            for call in calls:
                if pick.random() < 0.7:
                    call.chunk()
        if pick.random() < 0.05:
            for call in calls:
                call.end("success")
            calls = []
        far_told += [(a.rule, a.state, a.call) for a in far.step()]
        near_told += [(a.rule, a.state, a.call) for a in world.watch.step()]

    assert near_told == far_told
    assert {"firing", "resolved"} == {state for _, state, _ in far_told}


def test_who_only_reads_counts_nothing() -> None:
    """A stall in another process is told of, and no number there changes."""
    world = World(chunk="10s")
    source = merge(world.collector)
    watch = Watch(source, [], stalls=world.stalls, clock=world.clock)
    call = world.start()
    call.chunk()
    world.clock.advance(11.0)
    (alert,) = watch.step()

    assert ("stalled stream", 11.0, 11.0) == (
        alert.rule,
        alert.call and alert.call.age,
        alert.call and alert.call.silence,
    )
    assert 0 == world.counted()


def test_stalls_stand_in_a_file_of_rules() -> None:
    """A table of its own, alone or beside rules; `false` turns a limit off."""
    text = '[stalls]\nchunk = "10s"\nqueue = false\n'

    assert Stalls(chunk=10.0, queue=None) == loads(text).stalls
    assert Stalls() == loads("[stalls]").stalls
    assert loads('[[rule]]\nname="a"\nmetric="errors"\nabove=1').stalls is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[stalls]\nchunk = "10s"\nanswers = 3', "rules:3: .*did you mean 'answer'"),
        ("[stalls]\n\nchunk = 0", "rules:3: 'chunk' 0 must be above zero"),
        ("[[stalls]]\nchunk = 1", r"rules: write \[stalls\]"),
        ("stalls = 3", r"rules: write \[stalls\]"),
        ("[stall]\nchunk = 3", r"rules:1: .*did you mean \[stalls\]"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(text: str, message: str) -> None:
    """File, line and the nearest right name."""
    with pytest.raises(RulesFileError, match=message):
        loads(text, name="rules")
