# SPDX-License-Identifier: MIT
"""A bare socket to a scripted server, for tests that count bytes and packets."""

from __future__ import annotations

import json
import socket
from typing import Any

from ometrics.testing import ScriptedOllama

ASK: dict[str, Any] = {
    "model": "llama3.2",
    "messages": [{"role": "user", "content": "Hi"}],
}


class Wire:
    """A client that sees every byte the server sends, packet by packet."""

    def __init__(self, server: ScriptedOllama) -> None:
        self.sock = socket.create_connection((server.host, server.port), timeout=5)

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def ask(self, path: str, *, method: str = "POST", **body: Any) -> None:
        """Send a request with a JSON body."""
        data = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}"
        self.sock.sendall(f"{head}\r\n\r\n".encode() + data)

    def packet(self) -> bytes:
        """Return what one read gives."""
        return self.sock.recv(1_000_000)

    def rest(self) -> bytes:
        """Return everything until the server closes."""
        return b"".join(iter(self.packet, b""))
