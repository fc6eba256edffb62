# SPDX-License-Identifier: MIT
"""Many streams through a proxy in a process of its own; run by `make faults`."""

from __future__ import annotations

import re
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli_runs import proxy_command
from proxying import BODY, MODEL, PATIENCE, connect, read_all, request, wait_until

from ometrics import MetricsCollector, Snapshot
from ometrics.proxy import Proxy
from ometrics.testing import Hang, ScriptedOllama, chat_chunk, chat_done

STREAMS = 500
CHUNKS = 20
MOST_A_STREAM = 64 << 10  # bytes of memory
MOST_UNTIL_CLOSED = 0.1  # seconds
TRIES = 50

pytestmark = [
    pytest.mark.slow,
    pytest.mark.sanitize_skip,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
]


class Where:
    """As much of a proxy as `connect` and `request` look at."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0


def memory(process: subprocess.Popen[str]) -> int:
    """Bytes that a process has in memory now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) << 10


def test_many_streams_at_once(server: ScriptedOllama, tmp_path: Path) -> None:
    """Every chunk of 500 streams is delivered and counted, for little memory each."""
    half = [chat_chunk(f"{at} ") for at in range(CHUNKS)]
    server.script("/api/chat", [*half, Hang(), *half, chat_done(eval_count=9)])
    file = tmp_path / "all.json"
    with (
        proxy_command(server, "--json", str(file)) as (process, url, _),
        ExitStack() as stack,
    ):
        where = Where(url)
        asked = request(where, "/api/chat", "Connection: close", body=BODY)
        with connect(where) as warm:  # what the first call loads is no stream's
            warm.sendall(asked)
            server.wait_for(lambda s: s.hanging == 1)
            server.release()
            read_all(warm)
        before = memory(process)
        callers = [stack.enter_context(connect(where)) for _ in range(STREAMS)]
        for caller in callers:
            caller.sendall(asked)
        server.wait_for(lambda s: s.hanging == STREAMS, timeout=60)
        a_stream = (memory(process) - before) / STREAMS
        server.release()
        bodies = [read_all(caller) for caller in callers]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    call = Snapshot.from_json(file.read_bytes()).models[MODEL].calls["chat"]

    for body in bodies:
        assert [*range(CHUNKS)] * 2 == [*map(int, re.findall(rb'"(\d+) "', body))]
        assert body.endswith(b"\r\n0\r\n\r\n")
    assert STREAMS + 1 == call.successful_reqs
    assert 9 * (STREAMS + 1) == call.completion_tokens
    assert a_stream <= MOST_A_STREAM, f"{a_stream / 1024:.1f} KiB"


@pytest.mark.usefixtures("loop")
def test_the_server_hears_at_once_that_a_caller_left(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """Within 100 ms, so that it stops to generate."""
    server.script("/api/chat", [chat_chunk("a"), Hang()])
    times = []
    for at in range(1, TRIES + 1):
        caller: socket.socket = connect(proxy)
        caller.sendall(request(proxy, "/api/chat", body=BODY))
        caller.recv(1)
        server.wait_for(lambda s: s.hanging)
        left = time.monotonic()
        caller.close()
        server.wait_for(_disconnected(at))
        times.append(time.monotonic() - left)
    wait_until(lambda: not proxy.under_way)

    assert TRIES == collector.snapshot().models[MODEL].cancelled_reqs
    assert statistics.quantiles(times, n=10)[8] <= MOST_UNTIL_CLOSED


def _disconnected(count: int) -> Callable[[ScriptedOllama], bool]:
    return lambda s: sum(r.disconnected for r in s.requests) == count
