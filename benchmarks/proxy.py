# SPDX-License-Identifier: MIT
"""What a proxy costs: direct, `ometrics proxy`, and nginx where it is installed.

python benchmarks/proxy.py [--streams 20] [--chunks 200] [--calls 300]

In one run, over the same upstream: the time to the first chunk of a call one after
another (p50, p99), and the CPU of the proxy's own process for each chunk of many
streams at once. The upstream is a process of its own that sends a chunk each 5 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LINE = b'{"model":"m","message":{"role":"assistant","content":"word "},"done":false}\n'
LAST = b'{"model":"m","message":{"content":""},"done":true,"done_reason":"stop"}\n'
BODY = b'{"model":"m","messages":[]}'
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
REQUEST = (
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nX-Chunks: %d\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
GAP_S = 0.005


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def upstream(port: int) -> None:
    """A server that sends what `X-Chunks` asks for."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(len(BODY))
                chunks = int(head.split(b"x-chunks: ")[1].split(b"\r\n")[0])
                writer.write(HEAD + chunk(LINE))
                for _ in range(chunks - 1):
                    await asyncio.sleep(GAP_S)
                    writer.write(chunk(LINE))
                writer.write(chunk(LAST) + b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


async def call(port: int, chunks: int) -> float:
    """One call on a connection of its own; seconds to its first chunk."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = time.perf_counter()
    writer.write(REQUEST % (chunks, len(BODY), BODY))
    await reader.readuntil(b"\n{")
    first = time.perf_counter() - sent
    await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    return first


async def streams(port: int, count: int, chunks: int) -> None:
    """Many calls at once."""
    await asyncio.gather(*(call(port, chunks) for _ in range(count)))


def cpu_s(pids: list[int]) -> float:
    """CPU time that processes have had."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(port: int, *command: str) -> Iterator[list[int]]:
    """A server, once it listens; its process ids."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        yield [process.pid, *map(int, children.read_text().split())]
    finally:
        process.terminate()
        process.wait()


def nginx_config(folder: Path, port: int, to: int) -> str:
    """Nginx as people put it in front of Ollama: nothing buffered."""
    path = folder / "nginx.conf"
    path.write_text(
        f"""daemon off; pid {folder}/pid; error_log {folder}/error.log;
        worker_processes 1; events {{ worker_connections 4096; }}
        http {{ access_log off; client_body_temp_path {folder}/b;
        proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
        uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
        upstream up {{ server 127.0.0.1:{to}; keepalive 64; }}
        server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://up;
        proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_buffering off; proxy_request_buffering off; }} }} }}"""
    )
    return str(path)


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.upstream:
        asyncio.run(upstream(given.upstream))
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        to = free_port()
        me = (sys.executable, __file__, "--upstream", str(to))
        stack.enter_context(running(to, *me))
        ways: list[tuple[str, int, list[int]]] = [("direct", to, [])]
        port = free_port()
        ours = ("-m", "ometrics", "proxy", "--serve", "0")
        where = (
            "--upstream",
            f"http://127.0.0.1:{to}",
            "--listen",
            f"127.0.0.1:{port}",
        )
        command = (sys.executable, *ours, *where)
        ways.append(("ometrics", port, stack.enter_context(running(port, *command))))
        if nginx := shutil.which("nginx"):
            port = free_port()
            config = nginx_config(folder, port, to)
            pids = stack.enter_context(running(port, nginx, "-c", config))
            ways.append(("nginx", port, pids))
        firsts: dict[str, list[float]] = {name: [] for name, _, _ in ways}
        for at in range(given.calls):  # in turns: a noisy machine is noisy for all
            for name, port, _ in ways:
                first = asyncio.run(call(port, 1))
                if at >= 10:
                    firsts[name].append(first)
        quantiles = {
            name: statistics.quantiles(times, n=100) for name, times in firsts.items()
        }
        print(f"{'':10}{'first p50':>12}{'p99':>10}{'added':>12}{'CPU a chunk':>24}")
        for name, port, pids in ways:
            before = cpu_s(pids)
            asyncio.run(streams(port, given.streams, given.chunks))
            chunks = given.streams * given.chunks
            cpu = (cpu_s(pids) - before) / chunks
            p50, p99 = (quantiles[name][at] * 1e3 for at in (49, 98))
            direct = [quantiles["direct"][at] * 1e3 for at in (49, 98)]
            added = f"{p50 - direct[0]:9.2f} ms{p99 - direct[1]:9.2f} ms"
            print(f"{name:10}{p50:9.2f} ms{p99:7.2f} ms{added}{cpu * 1e6:11.1f} us")


if __name__ == "__main__":
    main()
