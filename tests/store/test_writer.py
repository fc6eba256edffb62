# SPDX-License-Identifier: MIT
"""What a collector counts is in its store: on time, on close, at exit, in children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

import ometrics.store
from ometrics import MetricsCollector
from ometrics.store import Store, StoreError, Writer
from ometrics.store.rows import Window
from ometrics.testing import FakeClock


def total(where: str | Path) -> int:
    """Requests in a store."""
    with ometrics.store.open(where, create=False) as store:
        return store.snapshot().total_requests


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_close_writes_the_rest(place: str) -> None:
    """After `close` the store has everything, though no interval has passed."""
    with MetricsCollector(store=place) as mc:
        mc.record_latency("m", 0.1)
        mc.reset_metrics()
        mc.record_latency("m", 0.1)

    assert 2 == total(place)


def test_exit_writes_the_rest(place: str) -> None:
    """A program that just ends has written everything, and says nothing."""
    program = """
import sys
from ometrics import MetricsCollector
mc = MetricsCollector(store=sys.argv[1])
for _ in range(1000):
    mc.record_latency("m", 0.1)
"""
    done = run(program, place)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert 1_000 == total(place)


def test_the_thread_writes_on_time(tmp_path: Path) -> None:
    """Without `close`, what was counted is there after an interval."""
    path = tmp_path / "m.db"
    mc = MetricsCollector()
    mc.record_latency("m", 0.1)
    writer = Writer(path, mc, interval=0.1).start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > 0 and _written(path):
            break
        time.sleep(0.05)

    assert 1 == total(path)
    writer.close()


def _written(path: Path) -> bool:
    try:
        return total(path) == 1
    except StoreError:
        return False


@pytest.mark.fork
def test_children_write_their_own(place: str) -> None:
    """Parent and children: each counts once, under an instance of its own."""
    with MetricsCollector(store=place) as mc:
        mc.record_latency("m", 0.1)
        mc._writer.flush()
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                mc.record_latency("m", 0.1)
                mc.close()
                os._exit(0)
            children.append(child)
        for child in children:
            assert 0 == os.waitpid(child, 0)[1]
        mc.record_latency("m", 0.1)

    assert 5 == total(place)
    with ometrics.store.open(place) as store, store.database.reading() as connection:
        query = ometrics.store.schema.instances.select()
        assert 4 == len(connection.execute(query).all())


def test_a_killed_writer_loses_an_interval_at_most(tmp_path: Path) -> None:
    """What was written before SIGKILL is there."""
    path = tmp_path / "m.db"
    program = """
import sys, time
from ometrics import MetricsCollector
from ometrics.store import Writer
mc = MetricsCollector()
writer = Writer(sys.argv[1], mc, interval=0.05).start()
for n in range(10**9):
    mc.record_latency("m", 0.1)
    if n == 100:
        writer.flush()
        print("written", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    )
    assert b"written\n" == process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert 101 <= total(path)


class _Fails:
    """A store whose writes are answered by an error, after or before they happen."""

    def __init__(self, store: Store) -> None:
        self.write_really = store.write
        self.failures: list[str] = []

    def write(self, instance: str, sequence: int, window: Window, **k: float) -> bool:
        failure = self.failures.pop() if self.failures else ""
        if failure == "before":
            raise StoreError("away")
        written = self.write_really(instance, sequence, window, **k)
        if failure == "after":
            raise StoreError("answer lost")
        return written


@pytest.mark.parametrize("seed", range(5))
def test_no_gap_and_no_double(place: str, seed: int) -> None:
    """Whether a failed write happened or not: in the end each count is there once."""
    import random

    rng = random.Random(seed)
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    with ometrics.store.open(place) as store:
        fails = _Fails(store)
        store.write = fails.write
        writer = Writer(store, mc, clock=clock)
        recorded = 0
        for _ in range(15):
            for _ in range(rng.randrange(5)):
                mc.record_latency("m", 0.1)
                recorded += 1
            if not rng.randrange(4):
                writer.cleared(mc.reset_metrics())
            clock.advance(2.0)
            fails.failures = rng.choices(["", "before", "after"], k=2)
            expect = store.snapshot().total_requests
            try:
                writer.flush()
            except StoreError:
                assert store.snapshot().total_requests >= expect
        fails.failures = []
        writer.flush()
        windows = list(store.between("2020-01-01", "2030-01-01"))

    assert recorded == sum(w.total_requests for w in windows)
    for one, other in pairwise(windows):
        assert one.collection_time <= other.start_time


def test_a_store_that_is_away_costs_no_memory(tmp_path: Path) -> None:
    """A thousand failed writes keep two windows, and all of it is written at last."""
    mc = MetricsCollector()
    with ometrics.store.open(tmp_path / "m.db") as store:
        fails = _Fails(store)
        store.write = fails.write
        writer = Writer(store, mc)
        fails.failures = ["before"] * 1_000
        for _ in range(1_000):
            mc.record_latency("m", 0.1)
            with pytest.raises(StoreError):
                writer.flush()
        assert writer.error is not None
        writer.flush()

        assert writer.error is None
        assert 1_000 == store.snapshot().total_requests
        assert 2 == len(list(store.between("1d")))


def test_a_failure_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins and one when it is over, however many writes fail."""
    mc = MetricsCollector()
    with ometrics.store.open(tmp_path / "m.db") as store:
        fails = _Fails(store)
        store.write = fails.write
        writer = Writer(store, mc)
        fails.failures = ["before"] * 5
        for _ in range(5):
            mc.record_latency("m", 0.1)
            with pytest.raises(StoreError):
                writer.flush()
        writer.flush()

    assert ["ERROR", "WARNING"] == [r.levelname for r in caplog.records]


def test_a_second_writer_of_one_collector_counts_on(tmp_path: Path) -> None:
    """A writer that comes after another one of the same collector doubles nothing."""
    mc = MetricsCollector()
    with ometrics.store.open(tmp_path / "m.db") as store:
        mc.record_latency("m", 0.1)
        Writer(store, mc).flush()
        second = Writer(store, mc)
        second.flush()
        mc.record_latency("m", 0.1)
        second.flush()

        assert 2 == store.snapshot().total_requests


def test_import_of_ometrics_loads_no_database() -> None:
    """The core stays light: the store's packages are loaded when one is opened."""
    program = (
        "import sys, ometrics; print({'sqlalchemy', 'sqlite3'} & set(sys.modules))"
    )

    assert "set()\n" == run(program).stdout
