# SPDX-License-Identifier: MIT
"""The same rules in a running Prometheus and in process: one burst, the same alerts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hooks import wait_for

from ometrics import MetricsCollector
from ometrics.rules import Alert, Rule
from ometrics.rules.prometheus import rules_file

PROMETHEUS = shutil.which("prometheus")
CONFIG = """\
global:
  scrape_interval: 250ms
  scrape_timeout: 250ms
  evaluation_interval: 250ms
rule_files: [rules.yml]
scrape_configs:
  - job_name: agents
    static_configs: [{{targets: ["{target}"]}}]
"""
# Past the limit for long enough in both, whatever the phase of their clocks.
RULES = (
    Rule("errors", "error_rate", above="20%", over="2s", for_="500ms"),
    Rule("slow", "latency.p95", above="2s", over="2s", clear="1s"),
    Rule("quiet", "error_rate", above="90%", over="2s"),
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on the path"),
]


class Prometheus:
    """A running server that scrapes one endpoint."""

    def __init__(self, directory: Path, target: str, *options: str) -> None:
        (directory / "rules.yml").write_text(rules_file(RULES), encoding="utf-8")
        config = directory / "prometheus.yml"
        config.write_text(CONFIG.format(target=target), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self._process = subprocess.Popen(
            [
                str(PROMETHEUS),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                *options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def firing(self) -> set[str]:
        """Names of the rules that fire; empty while it does not answer."""
        query = urllib.parse.urlencode({"query": 'ALERTS{alertstate="firing"}'})
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/query?{query}", timeout=5
            ) as page:
                rows: list[dict[str, Any]] = json.load(page)["data"]["result"]
        except OSError:
            return set()
        return {row["metric"]["alertname"] for row in rows}

    def scrapes(self) -> bool:
        """Whether the endpoint was read."""
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/query?query=ometrics_requests_total", timeout=5
            ) as page:
                return bool(json.load(page)["data"]["result"])
        except OSError:
            return False

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """A collector that is served."""
    with MetricsCollector() as served:
        yield served


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="classic"),
        pytest.param(
            ("--enable-feature=native-histograms",), id="native", marks=pytest.mark.slow
        ),
    ],
)
def test_one_burst_is_the_same_alerts(
    tmp_path: Path, collector: MetricsCollector, options: tuple[str, ...]
) -> None:
    """Both fire for errors and slowness while they last, once, and for nothing else."""
    pytest.importorskip("uvicorn")
    endpoint = collector.serve(port=0)
    told: list[Alert] = []
    collector.watch(RULES, notify=[told.append], interval=0.25)
    server = Prometheus(tmp_path, endpoint.url.removeprefix("http://"), *options)
    seen: list[set[str]] = []

    def record(*, ill: bool) -> set[str]:
        for _ in range(5):
            collector.record_latency("m", 8.0 if ill else 0.1)
        for _ in range(5 if ill else 0):
            collector.record_error("m", "TIMEOUT")
        time.sleep(0.1)
        firing = server.firing()
        if not seen or seen[-1] != firing:
            seen.append(firing)
        return firing

    def states() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for alert in told:
            found.setdefault(alert.rule, []).append(alert.state)
        return found

    both = {"errors", "slow"}
    try:
        collector.record_error("m", "TIMEOUT")
        wait_for(lambda: record(ill=False) or server.scrapes())
        wait_for(lambda: not record(ill=False) and len(seen) >= 1)
        for _ in range(30):
            record(ill=False)  # until the first error is out of the window
        told.clear()
        seen[:] = [set()]
        wait_for(lambda: record(ill=True) >= both and states().keys() >= both)
        wait_for(lambda: not record(ill=False) and len(told) >= 4)
    finally:
        server.stop()

    assert {name: ["firing", "resolved"] for name in both} == states()
    # Each begins once and ends once in Prometheus as well.
    for name in both:
        changes = [name in firing for firing in seen]
        assert 2 == sum(a != b for a, b in pairwise(changes)), seen
    assert not any("quiet" in firing for firing in seen)
