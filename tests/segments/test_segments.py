# SPDX-License-Identifier: MIT
"""Records in a file: the same numbers from outside as from inside."""

from __future__ import annotations

import gc
import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forking import in_child
from msgspec.structs import replace

import ometrics
from ometrics import MetricsCollector, Snapshot, attach
from ometrics._calls import Call
from ometrics._mirror import BadSegment
from ometrics._running import RUNNING
from ometrics._segment_reader import SegmentReader
from ometrics.segments import attached, identity
from ometrics.testing import FakeClock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="segments are files mapped")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where segments go."""
    return tmp_path / "agents"


def everything(mc: MetricsCollector) -> None:
    """Something of each kind."""
    mc.record_latency("a", 0.1)
    mc.record_latency("a", -1.0)
    mc.record_latencies("a", [0.1, 0.2, float("nan"), 3.0])
    mc.record_error("a", "BROKEN", latency=0.5)
    mc.record_error("b", ValueError)
    mc.record_tokens("b", 7)
    mc.record_task_completion(True, 12.5)
    mc.record_task_completion(False, 1.5)
    mc.update_resource_metrics(100.0, 5.0, 3)
    call = mc.start_call("c")
    call.chunk()
    call.chunk()
    call.end(
        "success",
        total=1000,
        decode=500,
        prompt_tokens=12,
        cached_tokens=2,
        completion_tokens=5,
        done_reason="stop",
    )
    mc.start_call("c", "embeddings").end("failure", "TIMEOUT")
    mc.start_call("d", provider="openai").end("cancelled")


def comparable(snapshot: Snapshot) -> Snapshot:
    """Without what two readings a moment apart differ in."""
    models = {
        name: replace(model, uptime_seconds=0.0)
        for name, model in snapshot.models.items()
    }
    return replace(
        snapshot,
        instance_id="",
        collection_time=snapshot.start_time,
        uptime_seconds=0.0,
        models=models,
        events_emitted=0,
    )


def test_outside_is_as_inside(directory: Path) -> None:
    """Every number that the process has, another one reads."""
    mc = MetricsCollector(directory=directory)
    everything(mc)

    assert comparable(mc.snapshot()) == comparable(attach(directory).snapshot())
    assert (0o700, 0o600) == (
        directory.stat().st_mode & 0o777,
        next(directory.iterdir()).stat().st_mode & 0o777,
    )


def test_the_environment_names_the_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OMETRICS_DIR` does for an unchanged program what `directory` does."""
    monkeypatch.setenv("OMETRICS_DIR", str(directory))
    mc = MetricsCollector()
    mc.record_latency("m", 0.1)

    assert 1 == attach().snapshot().models["m"].total_requests


def test_without_a_directory_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`attach()` says what it needs."""
    monkeypatch.delenv("OMETRICS_DIR", raising=False)
    with pytest.raises(ValueError, match="OMETRICS_DIR"):
        attach()


def test_running_calls_are_seen(directory: Path) -> None:
    """How many run, of which model and operation, and for how long."""
    mc = MetricsCollector(directory=directory)
    source = attach(directory)
    calls = [mc.start_call("m") for _ in range(600)]
    other = mc.start_call("m", "embeddings", "openai")
    seen = source.snapshot().models["m"].calls

    assert {"chat": 600, "embeddings@openai": 1} == {
        name: call.in_flight for name, call in seen.items()
    }
    assert (seen["chat"].oldest_in_flight_seconds or 0) > 0
    for call in calls:
        call.end("success")
    other.discard()
    (model,) = source.snapshot().models.values()

    assert (600, 0) == (
        model.total_requests,
        sum(call.in_flight for call in model.calls.values()),
    )


def test_chunks_of_running_calls_are_seen(directory: Path) -> None:
    """Between what the process says just before and just after, of random calls."""
    pick = random.Random(3)
    mc = MetricsCollector(directory=directory)
    source = attach(directory)
    calls: list[Call] = []
    known = 0
    for _ in range(60):
        calls += [mc.start_call("m") for _ in range(pick.randrange(4))]
        for call in pick.sample(calls, len(calls) // 3):
            call.chunk()
        while calls and pick.random() < 0.5:
            calls.pop(pick.randrange(len(calls))).end("success")
        if not calls:
            continue
        first, seen, last = (
            of.snapshot().models["m"].calls["chat"] for of in (mc, source, mc)
        )
        for name in RUNNING[1:]:
            ages = [getattr(call, name) for call in (first, seen, last)]
            known += None not in ages
            assert 1 == len({age is None for age in ages})
            assert None in ages or ages == sorted(ages)

    assert known > 100


@pytest.mark.parametrize("damage", [2**63 - 1, 1 << 61, -1, -(2**63)])
def test_a_damaged_last_chunk_is_between_start_and_now(
    directory: Path, damage: int
) -> None:
    """Whatever is in the file, no time is negative or longer than the call."""
    clock = FakeClock()
    mc = MetricsCollector(directory=directory, clock=clock)
    call = mc.start_call("m")
    clock.advance(1.234567891)
    call.chunk()
    (segment,) = directory.iterdir()
    data = segment.read_bytes()
    last = struct.pack("=q", round(1.234567891e9))
    assert 1 == data.count(last)
    segment.write_bytes(data.replace(last, struct.pack("=q", damage)))
    snapshot = attach(directory).snapshot()
    seen = snapshot.models["m"].calls["chat"]

    assert {} == snapshot.segments_bad
    assert snapshot == Snapshot.from_json(snapshot.to_json())
    if damage < 0:
        assert (None, seen.oldest_in_flight_seconds) == (
            seen.longest_silence_seconds,
            seen.longest_wait_seconds,
        )
    else:
        assert (0.0, None) == (seen.longest_silence_seconds, seen.longest_wait_seconds)


def test_a_reset_is_one_outside_too(directory: Path) -> None:
    """A model that was removed, and what a reset cleared, are gone for readers."""
    mc = MetricsCollector(directory=directory)
    everything(mc)
    mc.remove_model("c")
    source = attach(directory)

    assert ["a", "b", "d"] == sorted(source.snapshot().models)
    mc.reset_metrics()
    mc.record_latency("new", 0.1)

    assert comparable(mc.snapshot()) == comparable(source.snapshot())


def test_removed_models_leave_their_place(directory: Path) -> None:
    """A program that forgets its models again and again needs no more room."""
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m0", 0.1)
    (file,) = directory.iterdir()
    for i in range(1000):
        mc.record_latency(f"m{i + 1}", 0.1)
        mc.remove_model(f"m{i}")
    seen = attach(directory).snapshot()

    assert ["m1000"] == list(seen.models)
    assert file.stat().st_size < 1 << 20


def test_it_grows(directory: Path) -> None:
    """A thousand models with calls, in several chunks, read as one."""
    mc = MetricsCollector(directory=directory)
    for i in range(300):
        mc.start_call(f"m{i}").end("success", total=i)

    assert comparable(mc.snapshot()) == comparable(attach(directory).snapshot())


@pytest.mark.fork
def test_a_child_has_a_segment_of_its_own(directory: Path) -> None:
    """From its first record on; the parent's file is not written by it."""
    mc = MetricsCollector(directory=directory)
    everything(mc)
    (file,) = directory.iterdir()
    before = file.read_bytes()

    def child() -> Any:
        mc.record_task_completion(True, 1.0)
        everything(mc)
        own = comparable(mc.snapshot())
        seen = attach(directory).instances()
        (mine,) = (i.snapshot for i in seen if i.pid == os.getpid())
        return [own == comparable(mine), len(seen)]

    assert [True, 2] == in_child(child)
    assert before == file.read_bytes()
    assert 2 * mc.snapshot().total_requests == (
        attach(directory).snapshot().total_requests
    )


@pytest.mark.fork
def test_inherited_records_stay_the_parents(directory: Path) -> None:
    """Whatever the parent does to them later, a child never takes them for its own."""
    mc = MetricsCollector(directory=directory)
    bound = mc.model("m")
    bound.record_latency(0.1)
    ready, go = os.pipe(), os.pipe()

    pid = os.fork()
    if not pid:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        bound.record_latency(0.2)
        bound.record_latency(0.2)
        os._exit(0)
    os.read(ready[0], 1)
    for _ in range(5):  # as many instants and generations as the child has forks
        mc.snapshot()
    mc.reset_metrics()
    bound.record_latency(0.1)
    os.write(go[1], b"x")
    os.waitpid(pid, 0)

    assert 1 == mc.snapshot().models["m"].successful_reqs
    assert 3 == attach(directory).snapshot().models["m"].successful_reqs


PROGRAM = """
import os, sys
from ometrics import MetricsCollector
mc = MetricsCollector(directory=sys.argv[1])
call = mc.start_call("m")
mc.record_latency("m", 0.1)
mc.update_resource_metrics(1.0, 2.0, 3)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_dead_are_counted_once(directory: Path) -> None:
    """Counts of a killed process stay, its gauges go; a program comes back to them."""
    for i in range(3):
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert program.stdout is not None
        program.stdout.readline()
        source = attach(directory)
        (running,) = source.instances()
        living = source.snapshot()

        assert (True, program.pid) == (running.alive, running.pid)
        assert "-c" in running.command
        assert ("m",) == running.models
        assert (i + 1, 1) == (
            living.total_requests,
            living.models["m"].calls["chat"].in_flight,
        )
        assert living.resource_metrics is not None
        program.send_signal(signal.SIGKILL)
        program.communicate()
        dead = source.snapshot()

        assert i + 1 == dead.total_requests
        assert "chat" not in dead.models["m"].calls
        assert dead.resource_metrics is None
        assert [] == source.instances()
        assert ["folded"] == [path.name for path in directory.iterdir()]
        assert not source.bad


FORKS = """
import os, sys
from ometrics import MetricsCollector
mc = MetricsCollector(directory=sys.argv[1])
call = mc.start_call("m")
mc.record_latency("m", 0.1)
if not os.fork():
    if sys.argv[2:]:
        mc.record_latency("m", 0.1)
        os.fork()
    print(flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.fork
@pytest.mark.parametrize("records", [[], ["records"]], ids=["idle", "busy"])
def test_the_dead_leave_no_lock_to_their_children(
    records: list[str], directory: Path
) -> None:
    """
    A parent that ended is over, whatever lives of what it forked, as of any daemon.

    Seen to fail with the lock on the description that is mapped, which a fork inherits.
    """
    with subprocess.Popen(
        [sys.executable, "-c", FORKS, directory, *records],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for _ in range(1 + len(records)):
            parent.stdout.readline()
        alive = [one.pid for one in attach(directory).instances() if one.alive]
        parent.kill()
        parent.wait()
        left = [one.pid for one in attach(directory).instances() if one.alive]
        snapshot = attach(directory).snapshot()
        parent.stdin.close()

    assert parent.pid in alive
    assert {*alive} - {parent.pid} == {*left}
    assert len(records) == len(left)
    assert 1 + len(records) == snapshot.models["m"].successful_reqs
    assert "chat" not in snapshot.models["m"].calls


def test_a_collector_that_is_gone_is_over(directory: Path) -> None:
    """Its segment is folded, its descriptor closed."""
    gc.collect()  # what tests before this one left open is not counted
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(30):
        mc = MetricsCollector(directory=directory)
        mc.record_latency("m", 0.1)
        del mc
        gc.collect()

    assert 30 == attach(directory).snapshot().total_requests
    assert ["folded"] == [path.name for path in directory.iterdir()]
    assert descriptors >= len(list(Path("/proc/self/fd").iterdir()))


def test_two_directories_are_two(tmp_path: Path) -> None:
    """A source has the processes of its directory, and merges like any other."""
    first = MetricsCollector(directory=tmp_path / "1")
    second = MetricsCollector(directory=tmp_path / "2")
    first.record_latency("m", 0.1)
    second.record_latency("m", 0.2)
    both = ometrics.merge(attach(tmp_path / "1"), attach(tmp_path / "2"))

    assert 1 == attach(tmp_path / "1").snapshot().total_requests
    assert 2 == both.snapshot().total_requests


def test_watch_gives_what_came_since(directory: Path) -> None:
    """Deltas, through processes that come and go."""
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    changes = attach(directory).watch(0.01)

    assert 0 == next(changes).total_requests
    mc.record_latencies("m", [0.1, 0.2])
    assert 2 == next(changes).total_requests


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_is_above_zero(directory: Path, interval: float) -> None:
    """The error names the value."""
    with pytest.raises(ValueError, match=r"interval .* must be above 0"):
        attach(directory).watch(interval)


def test_a_reading_knows_that_records_came_meanwhile(directory: Path) -> None:
    """Who reads begins anew then: a new model's call would lack its own record."""
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    (path,) = directory.iterdir()
    with path.open("rb") as file:
        size = path.stat().st_size
        reader = SegmentReader(file.fileno(), size, identity.fields_digest())
        reader.read(True)

        assert not reader.has_grown()
        mc.start_call("m").end("success")
        assert reader.has_grown()


def test_who_changes_too_fast_is_read_anew(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy moment costs a process no place in the snapshot; a busy minute does."""
    tries: list[int] = []
    busy_times = 3

    class Busy(SegmentReader):
        def read(self, alive: bool, /) -> Snapshot:
            tries.append(1)
            if len(tries) <= busy_times:
                raise BadSegment("busy", "it changes faster than it can be read")
            return super().read(alive)

    monkeypatch.setattr(attached, "SegmentReader", Busy)
    monkeypatch.setattr(attached, "_PAUSE", 0.0)
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    source = attach(directory)

    assert 1 == source.snapshot().total_requests
    assert 4 == len(tries)
    busy_times = 1000
    assert 0 == source.snapshot().total_requests
    assert ["busy"] == [reason for reason, _ in source.bad.values()]
