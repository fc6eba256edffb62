# SPDX-License-Identifier: MIT
"""Records that outlive their process are in the store in the end, each once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ometrics
import ometrics.store
from ometrics import MetricsCollector
from ometrics._segment import HAS_SEGMENTS
from ometrics.store import Writer

pytestmark = pytest.mark.skipif(not HAS_SEGMENTS, reason="no segments on this system")

AGENT = """
import sys
from ometrics import MetricsCollector
mc = MetricsCollector(store=sys.argv[1], directory=sys.argv[2])
for n in range(10**9):
    mc.record_latency("m", 0.1)
    if n == 100:
        mc._writer.flush()
    if n == 1000:
        print("recorded", flush=True)
"""


def total(where: str | Path) -> int:
    """Requests in a store, counted in two ways."""
    with ometrics.store.open(where, create=False) as store:
        whole = store.snapshot().total_requests
        assert whole == sum(w.total_requests for w in store.between("1d"))
    return whole


def killed(where: str, directory: Path, n: int = 1) -> None:
    """Agents that record as fast as they can, and are killed amid it."""
    agents = [
        subprocess.Popen(
            [sys.executable, "-c", AGENT, where, str(directory)],
            stdout=subprocess.PIPE,
        )
        for _ in range(n)
    ]
    for agent in agents:
        assert agent.stdout is not None
        assert b"recorded\n" == agent.stdout.readline()
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        agent.stdout.close()


def test_the_next_one_writes_what_the_killed_counted(
    place: str, tmp_path: Path
) -> None:
    """Nothing is lost of agents with a segment, and nothing is written twice."""
    directory = tmp_path / "segments"
    killed(place, directory, 3)
    source = ometrics.attach(directory)
    recorded = source.snapshot().total_requests
    assert recorded == source.snapshot().total_requests > total(place) > 0

    for n in range(1, 3):
        with MetricsCollector(store=place, directory=directory) as mc:
            mc.record_latency("m", 0.1)
        assert recorded + n == total(place) == source.snapshot().total_requests
    assert [] == list(directory.glob("*.store"))
    assert [] == [one for one in source.instances() if not one.alive]


def test_a_segment_waits_for_its_own_store(tmp_path: Path) -> None:
    """Whoever writes to another store leaves it alone, and so does folding."""
    directory = tmp_path / "segments"
    killed(str(tmp_path / "one.db"), directory)
    with MetricsCollector(store=tmp_path / "two.db", directory=directory):
        ometrics.attach(directory).snapshot()

    assert 0 == total(tmp_path / "two.db")
    with MetricsCollector(store=tmp_path / "one.db", directory=directory):
        pass
    recorded = ometrics.attach(directory).snapshot().total_requests
    assert recorded == total(tmp_path / "one.db")


def test_a_process_that_ends_well_leaves_no_mark(tmp_path: Path) -> None:
    """Its segment is folded like any other."""
    directory = tmp_path / "segments"
    with MetricsCollector(store=tmp_path / "m.db", directory=directory) as mc:
        mc.record_latency("m", 0.1)
        assert [f"{mc.instance_id}.store"] == [
            p.name for p in directory.glob("*.store")
        ]

    assert [] == list(directory.glob("*.store"))


@pytest.mark.parametrize("closes", [True, False])
def test_the_next_writer_of_a_directory_goes_on(
    place: str, tmp_path: Path, closes: bool
) -> None:
    """A writer for a whole machine may end as it likes: nothing is lost."""
    directory = tmp_path / "segments"
    mc = MetricsCollector(directory=directory)
    written = 0
    for _ in range(3):
        writer = Writer(place, ometrics.attach(directory).follow(), lasting=True)
        mc.record_latency("m", 0.1)
        mc.record_task_completion(True, 5.0)
        writer.flush()
        written += 1
        assert written == total(place)
        mc.record_latency("m", 0.1)  # between two writers, or lost by a killed one
        written += 1
        if closes:
            writer.close()
            assert written == total(place)
        elif writer._store is not None:
            writer._store.close()
    writer = Writer(place, ometrics.attach(directory).follow(), lasting=True)
    writer.close()

    assert written == total(place)
    with ometrics.store.open(place) as store:
        assert 3 == store.snapshot().task_statistics.completed_tasks
    mc.close()
