# SPDX-License-Identifier: MIT
"""The processes of a directory side by side, those that ended for a while."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from told_agents import CHAT, agent

from ometrics import MetricsCollector, attach
from ometrics.segments import Apart
from ometrics.segments.apart import LINGER

pytestmark = pytest.mark.skipif(os.name == "nt", reason="segments are files mapped")


def test_who_ended_lingers(tmp_path: Path) -> None:
    """For five minutes, with all it counted and nothing that was of an instant."""
    directory = tmp_path / "run" / "agents"
    directory.parent.mkdir(mode=0o700)
    now = 0.0
    apart = Apart(attach(directory).follow(), lambda: now)
    mine = MetricsCollector(directory=directory)
    mine.record_latency("m", 0.1)
    with agent(directory) as other:
        other.do(CHAT.format("m"))

        assert {1} == {s.total_requests for s in apart.parts().values()}
        assert 2 == len(apart.parts())
        other.do(CHAT.format("m") + "; c = mc.start_call('m')")
        other.kill()
    for seconds in (1.0, 2.0, LINGER):
        now = seconds
        parts = apart.parts()
        (ended,) = (s for key, s in parts.items() if key != mine.instance_id)

        assert 2 == ended.total_requests
        assert 0 == ended.models["m"].calls["chat"].in_flight
    now = LINGER + 1.0

    assert [mine.instance_id] == list(apart.parts())
    assert 3 == apart.snapshot().total_requests
    del mine
    gc.collect()
    now += 1.0

    assert 1 == len(apart.parts())
    now += LINGER

    assert {} == apart.parts()
