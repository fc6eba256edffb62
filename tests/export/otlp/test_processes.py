# SPDX-License-Identifier: MIT
"""`PeriodicExporter` when processes end, are killed, and fork."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")

import otlp_collector as fake
from otlp_collector import (
    SUCCESS,
    ScriptedCollector,
    answer,
)

PREAMBLE = """
import os, signal, sys, threading, time, warnings
from ometrics import MetricsCollector
from ometrics.export.otlp import PeriodicExporter
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forks beside threads
mc = MetricsCollector()
def record(times):
    for _ in range(times):
        mc.record_latency("m", 0.25)
def export(interval=3600.0):
    return PeriodicExporter(mc, endpoint=sys.argv[1], interval=interval)
"""


def run(
    code: str, url: str, timeout: float = 60.0, while_running: Any = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that has `record` and `export`; its input ends when told so."""
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), url]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if while_running is not None:
                while_running()
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def by_instance(server: ScriptedCollector) -> dict[str, int]:
    """Successes of model `m` by the instance that told them."""
    found: dict[str, int] = {}
    for request in server.taken:
        instance = fake.resource_of(request)["service.instance.id"]
        point = fake.points_of([request]).get("ometrics.requests", {}).get(SUCCESS)
        found[instance] = 0 if point is None else point.as_int
    return found


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(3)", "raise KeyError", "del mc, exporter"]
)
def test_exit_exports(ending: str, server: ScriptedCollector) -> None:
    """A program that ends without `close` loses nothing, however it ends."""
    done = run("exporter = export()\nrecord(1000)\n" + ending, server.url)

    assert [1000] == list(by_instance(server).values()), done.stderr


def test_exit_with_a_collector_that_hangs(server: ScriptedCollector) -> None:
    """The end of a program takes a bounded time; here far less than the attempts."""
    server.otherwise = fake.hang(threading.Event())
    run("exporter = export()\nrecord(1)", server.url, timeout=30.0)

    assert 1 == len(server.times)


def test_exit_without_a_collector() -> None:
    """
    Where nobody listens a program ends at once, silently: one attempt, no retry.

    With the last export tried again like others, there are some.
    """
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    done = run(
        """
        import atexit
        atexit.register(lambda: print(exporter.health()))  # runs after the exporter's
        exporter = export()
        record(1)
        """,
        f"http://127.0.0.1:{port}",
        timeout=30.0,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "failures={'connection': 1}, retries=0" in done.stdout


def test_the_last_export_comes_before_finalizers(server: ScriptedCollector) -> None:
    """
    Connections have finalizers, made by the exporter's thread: it ends before they run.

    They failed otherwise ("dictionary changed size during iteration"), now and then.
    """
    done = run(
        """
        import weakref
        exporter = export()
        weakref.finalize(mc, lambda: print(exporter.health().running))
        record(1)
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "False" in done.stdout.split()


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no signals here")
@pytest.mark.skipif(sys.platform == "win32", reason="its SIGTERM asks nobody")
def test_sigterm_is_the_programs(server: ScriptedCollector) -> None:
    """We install no handler: by default SIGTERM ends without an export, as written."""
    done = run(
        "exporter = export()\nrecord(1)\nos.kill(os.getpid(), signal.SIGTERM)",
        server.url,
    )

    assert (-signal.SIGTERM, {}) == (done.returncode, by_instance(server))


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_exports_for_itself(server: ScriptedCollector) -> None:
    """
    Parent and child tell their own counts under their own ids; the sum is exact.

    With the parent's worker kept in the child, its 10 are missing.
    """
    done = run(
        """
        exporter = export()
        record(100)
        assert exporter.flush()
        child = os.fork()
        if child == 0:
            record(10)
            assert exporter.health().exports == 0
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        record(1)
        assert exporter.flush()
        assert exporter.health().exports == 2, exporter.health()
        exporter.close()
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert [10, 101] == sorted(by_instance(server).values())
    # The parent's connection was not touched by the child, which made its own.
    assert 2 == server.connections


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_child_that_only_records(server: ScriptedCollector) -> None:
    """
    A worker that records and never mentions its exporter is exported all the same.

    Without the fork hook, which starts its thread, this fails.
    """

    def told() -> None:
        for attempts in range(1, 200):  # some ten seconds
            server.wait(attempts)
            if 10 in by_instance(server).values():
                return
        pytest.fail("the child was not exported")

    done = run(
        """
        exporter = export(interval=0.05)
        child = os.fork()
        if child == 0:
            record(10)
            sys.stdin.readline()
            os._exit(0)
        os.waitpid(child, 0)
        """,
        server.url,
        while_running=told,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_while_exporting(server: ScriptedCollector) -> None:
    """Forks at any moment of an export: no hang, no count is lost or doubled."""
    children = 20
    done = run(
        f"""
        exporter = export(interval=0.001)
        for _ in range({children}):
            record(1)
            child = os.fork()
            if child == 0:
                record(100)
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert [children, *[100] * children] == sorted(by_instance(server).values())


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_while_the_exporters_lock_is_held(server: ScriptedCollector) -> None:
    """
    A lock that a thread of the parent held is not one of the child's.

    With the parent's condition kept in the child's worker, the child hangs.
    """
    done = run(
        """
        exporter = export()
        with exporter._worker._changed:
            child = os.fork()
            if child == 0:
                # Another thread, since the one that forked may enter it again.
                thread = threading.Thread(target=exporter.flush, daemon=True)
                thread.start()
                thread.join(10)
                os._exit(thread.is_alive())
        assert os.waitpid(child, 0)[1] == 0
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.sanitize_skip
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_bounded(server: ScriptedCollector) -> None:
    """
    A collector that takes nothing for hours costs no memory: nothing is queued.

    Measured: the proportional set size after 20 and after 120 failed exports of 1,000
    models. Keeping each failed request in a list makes it grow by 50 MB.
    """
    server.otherwise = answer(400)
    done = run(
        """
        exporter = export()
        for i in range(1000):
            mc.record_latency(f"model-{i}", 0.25)

        def pss():
            with open("/proc/self/smaps_rollup") as lines:
                return next(int(x.split()[1]) for x in lines if x.startswith("Pss:"))

        def fail(times):
            for _ in range(times):
                assert not exporter.flush(60)
            return pss()

        idle = pss()
        before = fail(20)
        print(idle, before, fail(100))
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    idle, before, after = map(int, done.stdout.split())

    assert after - before < 4_000, f"{before} -> {after} kB"
    assert after - idle < 40_000, f"{idle} -> {after} kB"
