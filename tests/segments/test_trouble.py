# SPDX-License-Identifier: MIT
"""Directories that cannot be used: the agent goes on, and nothing is lost."""

from __future__ import annotations

import gc
import logging
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forking import in_child

from ometrics import MetricsCollector, attach
from ometrics.export.prometheus import render
from ometrics.segments import home, places

pytestmark = pytest.mark.skipif(os.name == "nt", reason="segments are files mapped")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="needs root"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(home, "_PATIENCE", 0.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "none", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@needs_root
def test_a_full_disk(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What has no room is in private memory until there is room again."""
    ballast = small_disk / "ballast"
    mc = MetricsCollector(directory=small_disk / "agents")
    mc.record_latency("m0", 0.1)
    ballast.write_bytes(bytes(1 << 20))
    for i in range(60):
        mc.start_call(f"m{i}").end("success", total=i)
        mc.record_latency("m0", 0.1)
    source = attach(small_disk / "agents")
    full = mc.snapshot()

    assert 121 == full.total_requests
    assert full.segment_failures > 0
    (said,) = warnings(caplog)
    assert "No space left on device" in said
    assert str(small_disk / "agents") in said
    assert source.snapshot().total_requests < 121
    assert not source.bad

    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    mc.record_latency("m1", 0.1)
    mc.snapshot()

    assert 122 == source.snapshot().total_requests
    assert full.models.keys() == source.snapshot().models.keys()


@needs_root
def test_a_disk_that_is_full_from_the_start(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but a warning; and later a segment with everything."""
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(4 << 20))
    mc = MetricsCollector(directory=small_disk / "agents")
    mc.record_latency("m", 0.1)
    running = mc.start_call("m")

    assert 1 == mc.snapshot().total_requests
    assert 1 == len(warnings(caplog))
    ballast.unlink()
    mc.record_error("m", "E")
    mc.snapshot()
    seen = attach(small_disk / "agents").snapshot()

    assert 2 == seen.total_requests
    assert {"E": 1} == seen.models["m"].errors
    assert seen.segment_failures > 0
    running.end("success")
    assert 3 == attach(small_disk / "agents").snapshot().total_requests


@pytest.mark.fork
def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    """`RLIMIT_FSIZE` is an error like any other, not a signal."""

    def child() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        mc = MetricsCollector(directory=tmp_path / "agents")
        for i in range(20):
            mc.start_call(f"m{i}").end("success")
        limited = attach(tmp_path / "agents").snapshot().total_requests
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        mc.snapshot()
        return [limited, attach(tmp_path / "agents").snapshot().total_requests]

    limited, everything = in_child(child)

    assert limited < everything == 20


def test_a_directory_that_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that was counted is in a new segment, once."""
    directory = tmp_path / "agents"
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    bound = mc.model("m")
    running = mc.start_call("m")
    shutil.rmtree(directory)
    bound.record_latency(0.1)
    mc.record_latency("n", 0.1)

    assert 3 == mc.snapshot().total_requests
    assert 3 == attach(directory).snapshot().total_requests
    running.end("success")
    bound.record_latency(0.1)
    seen = attach(directory).snapshot()

    assert (5, 1) == (seen.total_requests, seen.segment_failures)
    assert ["it was removed"] == [said.rpartition(": ")[2] for said in warnings(caplog)]


@pytest.mark.fork
def test_a_working_directory_that_is_removed(tmp_path: Path) -> None:
    """
    A relative directory is nowhere then, and the agent goes on in private memory.

    Seen to fail where `abspath` may raise.
    """

    def child() -> int:
        here = tmp_path / "here"
        here.mkdir()
        os.chdir(here)
        here.rmdir()
        mc = MetricsCollector(directory="agents")
        mc.record_latency("m", 0.1)
        return mc.snapshot().total_requests

    assert 1 == in_child(child)


def test_a_file_where_a_directory_should_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent goes on; the log names the path."""
    path = tmp_path / "file"
    path.write_text("x")
    mc = MetricsCollector(directory=path)
    mc.record_latency("m", 0.1)

    assert 1 == mc.snapshot().total_requests
    assert str(path) in warnings(caplog)[0]
    assert "x" == path.read_text()


@needs_root
@pytest.mark.parametrize("wrong", ["owner", "mode", "link"])
def test_a_directory_that_others_can_write(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither written to nor read from: what is in there could be anybody's."""
    directory = tmp_path / "agents"
    if wrong == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "real")
    else:
        directory.mkdir(mode=0o700)
    if wrong == "owner":
        os.chown(directory, 12345, -1)
    elif wrong == "mode":
        directory.chmod(0o777)
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)

    assert [] == list(directory.iterdir())
    assert 1 == len(warnings(caplog))
    with pytest.raises(OSError, match=r"belongs to|others can write|it is a link"):
        attach(directory).snapshot()


@needs_root
def test_bad_files_are_named_and_the_rest_is_served(tmp_path: Path) -> None:
    """By reason; counted in the snapshot, and for monitoring."""
    directory = tmp_path / "agents"
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    (good,) = directory.iterdir()
    data = good.read_bytes()

    def put(name: str, content: bytes) -> Path:
        path = directory / (name + places.SUFFIX)
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    put("empty", b"")
    put("cut", data[:5000])
    put("short", data[:100])
    put("foreign", b"x" * 10_000)
    put("old", data[:8] + b"\x63" + data[9:])
    os.chown(put("stranger", data), 12345, -1)
    put("open", data).chmod(0o666)
    (directory / ("link" + places.SUFFIX)).symlink_to(good)
    os.mkfifo(directory / ("pipe" + places.SUFFIX))
    (directory / ("dir" + places.SUFFIX)).mkdir()
    with put("huge", b"").open("wb") as huge:
        huge.truncate(1 << 40)
    source = attach(directory)
    seen = source.snapshot()

    assert 1 == seen.total_requests
    assert {
        "empty": 1,
        "truncated": 1,
        "foreign": 2,
        "version": 1,
        "damaged": 1,
        "owner": 2,
        "link": 1,
        "no file": 2,
    } == dict(seen.segments_bad)
    assert {"link" + places.SUFFIX, "pipe" + places.SUFFIX} < source.bad.keys()
    assert b'ometrics_segments_bad_total{reason="empty"' in render(seen)


@pytest.mark.parametrize(
    ("was", "is_now", "damage"),
    [
        (12345.5, math.nan, {"damaged": 1}),
        (12345.5, -1.0, {"damaged": 1}),
        (67.25, math.inf, {"damaged": 1}),
        (3333.0, math.inf, {"damaged": 1}),
        (1e300, 1.7e308, {}),
        (1e300, math.nan, {"damaged": 1}),
    ],
    ids=["memory NaN", "memory negative", "CPU", "task", "bound", "no bound"],
)
def test_numbers_that_nobody_counts(
    tmp_path: Path, was: float, is_now: float, damage: dict[str, int]
) -> None:
    """A damaged number costs its process's segment at most, never the page of all."""
    directory = tmp_path / "agents"
    mc = MetricsCollector(directory=directory, buckets=[1.0, 1e300])
    mc.update_resource_metrics(12345.5, 67.25, 3)
    mc.record_task_completion(True, 3333.0)
    (segment,) = directory.iterdir()
    data = segment.read_bytes()
    changed = data.replace(struct.pack("<d", was), struct.pack("<d", is_now))
    assert changed != data
    segment.write_bytes(changed)
    snapshot = attach(directory).snapshot()

    assert damage == dict(snapshot.segments_bad)
    assert snapshot.to_json()


def test_a_broken_sum_is_no_reason_to_fail(tmp_path: Path) -> None:
    """It is named, never overwritten, and the living are served."""
    directory = tmp_path / "agents"
    mc = MetricsCollector(directory=directory)
    mc.record_latency("m", 0.1)
    (directory / places.FOLDED).write_text("{}")
    source = attach(directory)
    seen = source.snapshot()

    assert (1, {"damaged": 1}) == (seen.total_requests, dict(seen.segments_bad))
    assert "{}" == (directory / places.FOLDED).read_text()


def test_equal_pids_and_a_clock_that_went_back(tmp_path: Path) -> None:
    """What tells two segments apart is neither the pid nor the time."""
    code = (
        "import sys, os; from ometrics import MetricsCollector;"
        "mc = MetricsCollector(directory=sys.argv[1]); mc.record_latency('m', 0.1);"
        "os._exit(0)"
    )
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    run = [sys.executable, "-c", code, str(tmp_path / "agents")]
    for _ in range(3):
        if subprocess.run([*unshare, *run], check=False).returncode:
            pytest.skip("no pid namespaces here")

    assert 3 == attach(tmp_path / "agents").snapshot().total_requests


@pytest.mark.parametrize("offset", [1_000_000, -60])
def test_what_an_earlier_boot_left(tmp_path: Path, offset: int) -> None:
    """Its monotonic clock was another: counts stand, and no time is invented."""
    code = (
        "import sys, os; from ometrics import MetricsCollector;"
        "from ometrics.segments import identity; identity.boot = lambda: 'earlier';"
        "mc = MetricsCollector(directory=sys.argv[1]); mc.record_latency('m', 0.1);"
        "running = mc.start_call('m'); os._exit(9)"
    )
    earlier = ["unshare", "--time", f"--monotonic={offset}"]
    run = [sys.executable, "-c", code, str(tmp_path / "agents")]
    if (
        subprocess.run(
            [*earlier, *run], check=False, stderr=subprocess.DEVNULL
        ).returncode
        != 9
    ):
        pytest.skip("no time namespaces here")
    seen = attach(tmp_path / "agents").snapshot()

    assert 1 == seen.total_requests
    assert {} == seen.models["m"].calls
    assert 0 <= seen.uptime_seconds < 30
    assert 0 <= seen.models["m"].uptime_seconds <= seen.uptime_seconds


def test_other_buckets_are_kept_apart(tmp_path: Path) -> None:
    """They have no exact sum with the rest: counted as left out, kept when folded."""
    few = tuple(
        MetricsCollector(directory=tmp_path / "agents", buckets=buckets)
        for buckets in ((0.1, 1.0), (0.1, 1.0), (0.5, 5.0))
    )
    for mc in few:
        mc.record_latency("m", 0.2)
    seen = attach(tmp_path / "agents").snapshot()

    assert (2, {"buckets": 1}) == (seen.total_requests, dict(seen.segments_bad))
    del mc, few
    gc.collect()
    for _ in range(2):
        seen = attach(tmp_path / "agents").snapshot()
        assert (2, {"buckets": 1}) == (seen.total_requests, dict(seen.segments_bad))
    assert ["folded"] == [path.name for path in (tmp_path / "agents").iterdir()]


def test_looking_again_takes_no_room(tmp_path: Path) -> None:
    """What is in the segment already is not put there again."""
    mc = MetricsCollector(directory=tmp_path / "agents")
    for i in range(50):
        mc.record_error("m", f"E{i}")
    (file,) = (tmp_path / "agents").iterdir()
    size = file.stat().st_size
    for _ in range(100):
        mc.snapshot()

    assert size == file.stat().st_size
    assert 50 == attach(tmp_path / "agents").snapshot().total_errors
