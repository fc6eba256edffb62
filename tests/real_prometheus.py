# SPDX-License-Identifier: MIT
"""A real Prometheus, and questions to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ports import free_port

PROMETHEUS = shutil.which("prometheus")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{what} not within {seconds} s")


class Server:
    """Asks a running Prometheus."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        """Answer of the HTTP API."""
        url = f"{self._base}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        """Whether it serves."""
        with urllib.request.urlopen(f"{self._base}/-/ready", timeout=1):
            return True

    def query(self, expression: str) -> list[tuple[dict[str, str], Any]]:
        """Labels of each series and its value, its times and values, or histogram."""
        found = []
        for series in self.get("/api/v1/query", query=expression)["result"]:
            value = series.get("values") or series.get("histogram")
            if "value" in series:
                value = float(series["value"][1])
            found.append((series["metric"], value))
        return found

    def value(self, expression: str) -> float:
        """The only value."""
        ((_, value),) = self.query(expression)
        assert isinstance(value, float)
        return value


@contextmanager
def prometheus(config: str, directory: Path) -> Iterator[Server]:
    """
    A server with native histograms.

    Args:
        config: Its configuration.
        directory: Where that, its data and its log go.
    """
    assert PROMETHEUS is not None
    file = directory / "prometheus.yml"
    file.write_text(config, encoding="utf-8")
    port = free_port()
    command = [
        PROMETHEUS,
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=native-histograms",
        "--log.level=warn",
    ]
    log = directory / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            server = Server(port)
            wait_for(server.ready, f"Prometheus ready; see {log}")
            yield server
        finally:
            process.terminate()
