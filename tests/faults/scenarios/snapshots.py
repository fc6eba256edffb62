# SPDX-License-Identifier: MIT
# ruff: noqa: D102, T201 - a script
"""
Eight threads record while another one takes snapshots: COUNT of them.

Every value is 1.0, so a sum that does not fit its count is torn. Each writer counts
what it is about to record (`invoked`) and what it has recorded (`done`), so each
snapshot is known to lie between two sums. Each writer also records alternately to two
models of its own, so one that is ahead of the other by more than one was not copied at
one instant; between the two lie models that take long to copy.

Prints the number of snapshots, and of those that broke each rule.
"""

from __future__ import annotations

import json
import sys
import threading
from array import array
from collections import Counter
from typing import Any

from ometrics import MetricsCollector

WRITERS = 8
BATCH = array("d", [1.0] * 64)
WIDE = [1e-6, 1e3]  # seconds: as many cells between them as there can be
N_WIDE = 20


class Writer(threading.Thread):
    """Records until it is told to stop."""

    def __init__(self, mc: MetricsCollector, number: int) -> None:
        super().__init__(daemon=True)
        self.mc, self.number = mc, number
        self.stop = False
        self.invoked = self.done = 0

    def run(self) -> None:
        mc, first, second = self.mc, f"first{self.number}", f"second{self.number}"
        common = mc.model("common")
        singles = self.number % 2
        while not self.stop:
            # 64 or 128 successes, one failure and three tokens of the common model
            self.invoked += 64
            mc.record_latency(first, 1.0)
            if singles:
                for _ in range(64):
                    common.record_latency(1.0)
            else:
                mc.record_latencies("common", BATCH)
            mc.record_latency(second, 1.0)
            mc.record_error("common", "E")
            mc.record_tokens("common", 3)
            mc.record_task_completion(True, 1.0)
            self.done += 64


def broken_rules(  # noqa: C901 - one list of rules
    snapshot: Any, low: int, high: int, before: dict[str, int]
) -> set[str]:
    """Which rules a snapshot breaks."""
    broken = set()
    models = snapshot.models
    for name, model in models.items():
        if name.startswith("wide"):
            continue
        hist = model.latency_hist
        count = hist.count
        # 200,000 snapshots take the time of 2e10 records: more than 64 bits of ns.
        if hist.sum_ns != min(count * 1_000_000_000, 2**64 - 1):
            broken.add("sum")
        if model.successful_reqs != count or sum(hist.buckets.values()) != count:
            broken.add("count")
        if sum(hist.counts) != count or (count and not hist.min == hist.max == 1.0):
            broken.add("views")
        if sum(model.errors.values()) != model.failed_reqs:
            broken.add("errors")
        if model.successful_reqs < before.get(name, 0):
            broken.add("went back")
        before[name] = model.successful_reqs
    if before.keys() - models.keys():
        broken.add("model lost")
    if "common" in models and not low <= models["common"].successful_reqs <= high:
        broken.add("bounds")
    ahead = [
        m.successful_reqs - models[f"second{name[5:]}"].successful_reqs
        for name, m in models.items()
        if name.startswith("first") and f"second{name[5:]}" in models
    ]
    if any(n not in {0, 1} for n in ahead):
        broken.add("instant")
    return broken


def main(count: int) -> None:
    """Take the snapshots."""
    sys.setswitchinterval(1e-4)
    mc = MetricsCollector()
    for i in range(WRITERS):
        mc.record_latency(f"first{i}", 1.0)
    for i in range(N_WIDE):
        mc.record_latencies(f"wide{i}", WIDE)
    for i in range(WRITERS):
        mc.record_latency(f"second{i}", 1.0)
    writers = [Writer(mc, i) for i in range(WRITERS)]
    for writer in writers:
        writer.start()
    torn: Counter[str] = Counter()
    n_torn = 0
    before: dict[str, int] = {}
    for _ in range(count):
        low = sum(writer.done for writer in writers)
        snapshot = mc.snapshot()
        high = sum(writer.invoked for writer in writers)
        broken = broken_rules(snapshot, low, high, before)
        torn.update(broken)
        n_torn += bool(broken)
    for writer in writers:
        writer.stop = True
    for writer in writers:
        writer.join()
    last = mc.snapshot()
    recorded = sum(writer.done for writer in writers)
    exact = recorded == last.models["common"].successful_reqs
    figures = {
        "snapshots": count,
        "torn": n_torn,
        "broken": dict(torn),
        "recorded": recorded,
        "exact": exact,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
