# SPDX-License-Identifier: MIT
"""A directory that is looked at again and again: its counts never go back."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ometrics
from ometrics import MetricsCollector, attach

pytestmark = pytest.mark.skipif(os.name == "nt", reason="segments are files mapped")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where segments go."""
    return tmp_path / "agents"


def test_what_vanishes_stays_counted(directory: Path) -> None:
    """A file that somebody removes takes nothing back, and comes back as itself."""
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    mc.update_resource_metrics(1.0, 2.0, 3)
    followed = attach(directory).follow()
    call = mc.start_call("m")

    assert 1 == followed.snapshot().total_requests
    (file,) = directory.iterdir()
    file.unlink()
    after = followed.snapshot()

    assert 1 == after.total_requests
    assert [False] == [instance.alive for instance in followed.read().instances]
    assert after.resource_metrics is None
    assert 0 == after.models["m"].calls["chat"].in_flight
    call.discard()
    mc.record_latency("m", 0.1)
    while not list(directory.glob("*.segment")):
        mc.snapshot()  # looks after its segment once a second

    assert mc.snapshot().total_requests == followed.snapshot().total_requests


def test_who_ended_is_counted_once(directory: Path) -> None:
    """
    Their number goes up only, whatever becomes of the directory.

    Seen to go back where the sum takes its number of processes along.
    """
    followed = attach(directory).follow()
    for expected in range(1, 5):
        mc = MetricsCollector(directory=directory)
        mc.record_latency("m", 0.1)
        followed.read()
        del mc
        gc.collect()
        looks = [followed.read() for _ in range(2)]
        shutil.rmtree(directory)
        looks += [followed.read() for _ in range(2)]

        assert [expected] * 4 == [
            look.folded.processes + len(look.instances) for look in looks
        ]


def test_what_is_damaged_stays_counted(directory: Path) -> None:
    """As of a process whose file cannot be read any more, so of a sum that cannot."""
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    followed = attach(directory).follow()
    followed.snapshot()
    (file,) = directory.iterdir()
    good = file.read_bytes()
    file.write_bytes(bytes(len(good)))

    assert 1 == followed.snapshot().total_requests
    file.write_bytes(good)
    del mc

    assert [1, 1] == [followed.snapshot().total_requests for _ in range(2)]
    (directory / "folded").write_bytes(b"nothing")

    assert 1 == followed.snapshot().total_requests
    (directory / "folded").unlink()
    MetricsCollector(directory=directory).record_latency("m", 0.1)

    assert [2, 2] == [followed.snapshot().total_requests for _ in range(2)]


def test_a_reset_takes_nothing_back(directory: Path) -> None:
    """What was read before a reset is counted for good, once."""
    mc = MetricsCollector(directory=directory)
    followed = attach(directory).follow()
    mc.record_latency("m", 0.1)
    followed.snapshot()
    mc.reset_metrics()

    assert 1 == followed.snapshot().total_requests
    mc.record_latency("m", 0.1)

    assert [2, 2] == [followed.snapshot().total_requests for _ in range(2)]
    assert 1 == attach(directory).snapshot().total_requests


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["record", "end", "remove", "reset", "look"]), st.integers(0, 2)
    ),
    max_size=30,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_no_count_goes_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever ends, vanishes or is reset; and nothing counts twice."""
    directory = tmp_path_factory.mktemp("agents")
    running: dict[int, MetricsCollector] = {}
    followed = attach(directory).follow()
    recorded = before = 0
    start = followed.snapshot().start_time
    for step, which in steps:
        if step == "record":
            mc = running.setdefault(which, MetricsCollector(directory=directory))
            mc.record_latency("m", 0.1)
            recorded += 1
        elif step == "end":
            running.pop(which, None)
        elif step == "reset" and which in running:
            running[which].reset_metrics()
        elif step == "remove":
            for file in sorted(directory.glob("*.segment"))[which : which + 1]:
                file.unlink()
        now = followed.snapshot()

        assert before <= now.total_requests <= recorded
        assert start == now.start_time
        before = now.total_requests


def test_a_directory_is_a_source(directory: Path) -> None:
    """`read()` takes it wherever it takes a file."""
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)

    assert 1 == ometrics.read(directory).snapshot().total_requests
    assert 1 == ometrics.read(str(directory)).snapshot().total_requests


def test_an_instance_names_its_program(directory: Path, tmp_path: Path) -> None:
    """The script alone, beside the whole command line."""
    script = tmp_path / "agent.py"
    script.write_text(
        "import sys, ometrics\n"
        "mc = ometrics.MetricsCollector(directory=sys.argv[1])\n"
        "mc.record_latency('m', 0.1)\nprint(flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, script, directory, "--prompt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        (instance,) = attach(directory).instances()
        program.communicate()

    assert "agent.py" == instance.program
    assert instance.command.endswith("--prompt")


WITHOUT = """
import sys
sys.modules["fcntl"] = None
import ometrics._segment
ometrics._segment.HAS_SEGMENTS = False
import ometrics
try:
    ometrics.attach("agents")
except OSError as error:
    assert "endpoint" in str(error)
try:
    ometrics.MetricsCollector(directory="agents")
except OSError as error:
    print(error)
"""


def test_where_there_are_no_segments(tmp_path: Path) -> None:
    """
    A system without their locks (Windows) says what to do instead.

    Importing `fcntl` without a guard, it was an `ImportError`.
    """
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "mc.serve()" in done.stdout
