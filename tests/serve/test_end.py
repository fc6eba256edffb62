# SPDX-License-Identifier: MIT
"""The endpoint's end: closed, forked, or left behind by its process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from serving import (
    Certificates,
    Flood,
    Source,
    closed,
    connect,
    curl,
    wait_until,
)

from ometrics.serve import Endpoint

# curl and openssl do not run with a sanitizer loaded before them.
pytestmark = pytest.mark.sanitize_skip


def run(script: str, *arguments: str, timeout: float = 20) -> str:
    """What a fresh interpreter prints for this script; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

    assert "" == done.stderr
    assert 0 == done.returncode
    return done.stdout


FORK = """
import os, socket, sys, time
from ometrics import MetricsCollector
from ometrics.serve import Endpoint

def ask(port, timeout=5.0):
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        return sock.recv(65536).split()[1].decode()

mc = MetricsCollector()
endpoint = Endpoint.start(mc, port=0)
"""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_close_is_prompt_and_frees_the_port(
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    tls: bool,
) -> None:
    """
    Half-open connections do not delay `close`; the port is free; again is fine.

    Without `end_waiting` asyncio complains of a handshake that never ended.
    """
    cert = certificates.server if tls else None
    running = Endpoint.start(Source(), port=0, tls_cert=cert)
    with connect(running) as sock:
        wait_until(lambda: bool(running._listener._open))
        begin = time.perf_counter()
        running.close()

        assert time.perf_counter() - begin < 1.0
        assert closed(sock)
    with Endpoint.start(Source(), port=running.port) as another:
        assert (0, "ok\n") == curl(another)
    running.close()
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]

    assert "ometrics-serve" not in names
    assert [] == caplog.records


def test_close_during_answers(caplog: pytest.LogCaptureFixture) -> None:
    """A reader who does not read delays `close` by the second it has, silently."""
    running = Endpoint.start(Flood(), port=0)
    with connect(running) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listener = running._listener
        wait_until(lambda: listener.answering == 1)
        begin = time.perf_counter()
        running.close()

        assert time.perf_counter() - begin < 2.0
        assert [] == caplog.records


def test_close_during_a_rendering_that_hangs() -> None:
    """It ends nevertheless, and leaves nothing that the interpreter warns of."""
    out = run(
        """
        import logging, socket, threading, time
        from ometrics.serve import Endpoint

        class Hangs:
            def snapshot(self):
                started.set()
                time.sleep(60)

        for name in ("uvicorn.error", "ometrics.serve.http"):
            logging.getLogger(name).disabled = True  # they say that it hung
        started = threading.Event()
        endpoint = Endpoint.start(Hangs(), port=0)
        sock = socket.create_connection(("127.0.0.1", endpoint.port))
        sock.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        started.wait()
        endpoint.close()
        print([t.name for t in threading.enumerate()])
        sock.close()
        """
    )

    assert "['MainThread', 'ometrics-render']\n" == out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_serves_although_nobody_keeps_it() -> None:
    """The endpoint goes on if what `start` returned is thrown away, also in forks."""
    out = run(
        FORK
        + """
import gc, warnings
port = endpoint.port
fd = endpoint._listener.fileno()
del endpoint
gc.collect()
print(ask(port))
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+: fork with threads
child = os.fork()
if child == 0:
    try:
        os.fstat(fd)
    except OSError:
        print("given up", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    )

    assert ["200", "given up"] == out.splitlines()


def test_process_ends_although_it_serves() -> None:
    """No thread keeps the interpreter: not the server, not a rendering that hangs."""
    out = run(
        """
        import socket, threading, time
        from ometrics.serve import Endpoint

        class Hangs:
            def snapshot(self):
                started.set()
                time.sleep(60)

        started = threading.Event()
        endpoint = Endpoint.start(Hangs(), port=0)
        sock = socket.create_connection(("127.0.0.1", endpoint.port))
        sock.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        started.wait()
        print("end")
        sock.detach()
        """,
        timeout=10,
    )

    assert "end\n" == out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_serve() -> None:
    """
    A child has no copy of the socket, may serve on its own, and disturbs nothing.

    Without the hook the child's copy of the socket is open, and the port stays taken
    when the parent ends.
    """
    out = run(
        FORK
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+: fork with threads
child = os.fork()
if child == 0:
    print("child's copy open:", endpoint._listener.fileno() >= 0)
    endpoint.close()
    own = Endpoint.start(mc, port=0)
    print("of its own:", ask(own.port))
    own.close()
    print("of the parent:", ask(endpoint.port))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print("after:", ask(endpoint.port), flush=True)
endpoint.close()
"""
    )

    assert [
        "child's copy open: False",
        "of its own: 200",
        "of the parent: 200",
        "after: 200",
    ] == out.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_of_a_fork_without_hooks_does_not_hold_the_port() -> None:
    """
    The parent closes, and the port is free although a child of C's `fork` has a copy.

    Such a fork runs no hooks. The child's own `close` gives up the copy only. Without
    the `shutdown` in `Listener.close` the port stays taken; without the process id in
    `Endpoint.close` the child waits for a thread that it does not have.
    """
    out = run(
        FORK
        + """
import ctypes
child = ctypes.PyDLL(None).fork()
if child == 0:
    begin = time.monotonic()
    endpoint.close()
    os._exit(time.monotonic() - begin > 1.0)
print("child:", os.waitpid(child, 0)[1])
print("before:", ask(endpoint.port))
second = ctypes.PyDLL(None).fork()
if second == 0:
    time.sleep(60)
    os._exit(0)
endpoint.close()
try:
    print(ask(endpoint.port, 1.0))
except ConnectionRefusedError:
    print("closed")
with Endpoint.start(mc, port=endpoint.port) as another:
    print("again:", ask(another.port))
os.kill(second, 9)
os.waitpid(second, 0)
"""
    )

    assert ["child: 0", "before: 200", "closed", "again: 200"] == out.splitlines()
