# SPDX-License-Identifier: MIT
"""What tests of a running endpoint share: a source, certificates, connections."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import trustme
from strategies import sample_snapshot

from ometrics import Snapshot
from ometrics.serve import Endpoint

THREADS = Path("/proc/self/task")


class Source:
    """A source without end: the same snapshot again and again."""

    def snapshot(self) -> Snapshot:
        """The sample of all tests."""
        return sample_snapshot()


class Certificates:
    """An authority, its certificate for 127.0.0.1 and one for a client."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        self.server = self._write(authority.issue_cert("127.0.0.1"), folder / "s.pem")
        self.client = self._write(authority.issue_cert("client"), folder / "c.pem")
        stranger = trustme.CA().issue_cert("client")
        self.stranger = self._write(stranger, folder / "x.pem")

    @staticmethod
    def _write(certificate: trustme.LeafCert, path: Path) -> str:
        certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)


def connect(endpoint: Endpoint) -> socket.socket:
    """A connection that says nothing yet."""
    return socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)


def threads() -> int:
    """Threads of this process, also those that Python does not know."""
    if THREADS.exists():
        return len([*THREADS.iterdir()])
    return threading.active_count()


def wait_until(condition: Callable[[], bool]) -> None:
    """Until that holds; 10 s at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def curl(endpoint: Endpoint, *options: str) -> tuple[int, str]:
    """The exit code of curl and what it got from `/healthz`."""
    done = subprocess.run(
        ["curl", "-sS", "-m", "10", *options, f"{endpoint.url}/healthz"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def closed(sock: socket.socket) -> bool:
    """Whether the other side has ended this connection."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Flood(Source):
    """A source whose page is far larger than what a kernel buffers (20 MB)."""

    def snapshot(self) -> Snapshot:
        """The sample, with names of models that fill the page."""
        sample = sample_snapshot()
        errors = {f"{number:0100000}": 1 for number in range(200)}
        return Snapshot(
            instance_id=sample.instance_id,
            start_time=sample.start_time,
            collection_time=sample.collection_time,
            uptime_seconds=1.0,
            invalid_values=errors,
        )
