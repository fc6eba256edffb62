# SPDX-License-Identifier: MIT
"""A real Prometheus scrapes `ometrics serve`: processes apart, through their end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from real_prometheus import PROMETHEUS, prometheus, wait_for
from sidecars import sidecar
from told_agents import CHAT, agent

pytestmark = [
    pytest.mark.real,
    pytest.mark.fork,
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on the path"),
    pytest.mark.skipif(os.name == "nt", reason="segments are files mapped"),
]

CONFIG = """\
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: agents
    honor_labels: true
    static_configs: [{{targets: ["{target}"]}}]
"""
BY_INSTANCE = 'sum by (instance) (ometrics_requests_total{outcome="success"})'
QUANTILE = "histogram_quantile(0.5, sum(ometrics_request_duration_seconds))"


def test_processes_apart(tmp_path: Path) -> None:
    """Each under its own `instance`, with native histograms; one killed is whole."""
    directory = tmp_path / "run" / "agents"
    directory.parent.mkdir(mode=0o700)
    with (
        agent(directory) as one,
        agent(directory, "other.py") as other,
        sidecar(directory, "--per-instance") as (_, url),
        prometheus(CONFIG.format(target=url.split("/")[-1]), tmp_path) as server,
    ):
        one.do(CHAT.format("m"))
        one.do("mc.record_latencies('m', [0.25] * 9)")
        other.do("mc.record_latencies('m', [0.25] * 5)")

        def counts() -> list[float]:
            return sorted(value for _, value in server.query(BY_INSTANCE))

        wait_for(lambda: counts() == [5.0, 10.0], "both processes")
        wait_for(
            lambda: server.value(QUANTILE) == pytest.approx(0.25, rel=0.022),
            "a quantile over both",
        )
        names = {
            labels["program"]: labels["instance"]
            for labels, _ in server.query("ometrics_process_info")
        }
        other.do("mc.record_latencies('m', [0.25] * 2)")
        other.kill()
        wait_for(
            lambda: server.value("ometrics_directory_running") == 1, "the killed one"
        )
        wait_for(lambda: counts() == [7.0, 10.0], "its last requests")
        by_name = {
            labels["instance"]: value for labels, value in server.query(BY_INSTANCE)
        }

    assert {names["agent.py"]: 10.0, names["other.py"]: 7.0} == by_name
