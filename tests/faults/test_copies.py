# SPDX-License-Identifier: MIT
"""What is live cannot be copied, and says what to copy instead."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ometrics import MetricsCollector, Snapshot

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda x, p=p: pickle.dumps(x, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
]


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize(
    "live",
    [
        lambda mc: mc,
        lambda mc: mc.model("m"),
        lambda mc: mc.time("m"),
        lambda mc: [mc],
    ],
    ids=["collector", "recorder", "timer", "within"],
)
def test_live_objects(
    live: Callable[[MetricsCollector], Any], duplicate: Callable[[Any], Any]
) -> None:
    """
    A torn copy of moving counts is refused; the error names `snapshot()`.

    Without `__reduce__`, Cython's own refusal does not say what to do instead.
    """
    original = live(MetricsCollector())
    if duplicate is copy.copy and isinstance(original, list):
        pytest.skip("a shallow copy of a list copies no collector")
    with pytest.raises(TypeError, match=r"snapshot\(\)"):
        duplicate(original)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_snapshots(protocol: int) -> None:
    """A snapshot is equal after a pickle and a copy, looked at or not."""
    mc = MetricsCollector(buckets=(0.1, 1.0, 2.0))
    mc.record_latencies("m", [0.05, 0.5, 7.0])
    mc.record_error("n", ValueError)
    mc.record_task_completion(True, 5)
    mc.update_resource_metrics(1, 2, 3)
    snapshot = mc.snapshot()

    loaded: Snapshot = pickle.loads(pickle.dumps(snapshot, protocol))

    assert snapshot == loaded
    assert loaded == snapshot
    assert snapshot == copy.copy(snapshot) == copy.deepcopy(snapshot)
    assert snapshot.models["m"] == pickle.loads(pickle.dumps(loaded.models["m"]))
    assert {"100ms": 1, "1s": 1, "2s+": 1} == loaded.models["m"].latency_hist.buckets
