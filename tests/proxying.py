# SPDX-License-Identifier: MIT
"""A caller that speaks HTTP by hand, and readings of what a proxy counted."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from ometrics import MetricsCollector
from ometrics.proxy import Proxy

MODEL = "llama3.2"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
# Long past what anything here takes; only a failure waits for it. Seconds.
PATIENCE = 10.0


def connect(proxy: Proxy) -> socket.socket:
    """A connection that says nothing yet."""
    return socket.create_connection((proxy.host, proxy.port), timeout=PATIENCE)


def request(
    proxy: Proxy, path: str, *headers: str, body: Any = None, method: str = "POST"
) -> bytes:
    """A whole request as bytes."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if not any(header.lower().startswith("host:") for header in headers):
        lines.append(f"Host: {proxy.host}:{proxy.port}")
    if body is not None:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def exchange(proxy: Proxy, sent: bytes) -> bytes:
    """Send bytes and read until the proxy closes."""
    with connect(proxy) as caller:
        caller.sendall(sent)
        return read_all(caller)


def read_all(caller: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    got = b""
    while piece := caller.recv(1 << 16):
        got += piece
    return got


def counted(collector: MetricsCollector, model: str = MODEL) -> tuple[int, int, int]:
    """Successes, failures, cancelled calls of a model."""
    found = collector.snapshot().models.get(model)
    if found is None:
        return 0, 0, 0
    return found.successful_reqs, found.failed_reqs, found.cancelled_reqs


def number(proxy: Proxy, name: str, **labels: str) -> float | None:
    """One of the proxy's own numbers; `None` if it is absent."""
    for family in proxy.numbers():
        if family.metric.name == name:
            for sample in family.samples:
                if dict(sample[0]) == labels:
                    value: float = sample[1]
                    return value
    return None


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
