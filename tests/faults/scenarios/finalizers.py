# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
`__del__` methods and weakref callbacks record within other records: COUNT times.

With `gc.set_threshold(1)` the garbage collector runs inside whatever allocates, so also
inside the calls of the collector: while a model is added, the table grows, a reset or a
snapshot is under way.

Prints how many finalizers ran and how far the counts are from what was recorded.
"""

from __future__ import annotations

import gc
import json
import sys
import weakref

from ometrics import MetricsCollector

mc = MetricsCollector(max_models=100_000)
counts = {"del": 0, "callback": 0}
cleared = []


class Cycle:
    """Garbage that records when it is collected."""

    def __init__(self, depth: int) -> None:
        self.me = self
        self.depth = depth

    def __del__(self) -> None:
        counts["del"] += 1
        mc.record_latency("del", 1.0)
        mc.record_latency(f"fresh{counts['del'] % 500}", 1.0)
        if counts["del"] % 50 == 0:
            mc.record_latencies("del", [1.0] * 3)
        if counts["del"] % 101 == 0:
            mc.snapshot()
        if counts["del"] % 211 == 0:
            mc.get_model_metrics("del")
        if self.depth:
            Cycle(self.depth - 1)


def callback(_: object) -> None:
    """Record when something is gone."""
    counts["callback"] += 1
    mc.record_error("callback", ValueError)


def main(count: int) -> None:
    """Make garbage and record."""
    recorded = 0
    watched = []
    gc.set_threshold(1)
    while counts["del"] < count:
        cycle = Cycle(1)
        watched.append(weakref.ref(cycle, callback))
        del cycle
        mc.record_latency(f"new{recorded % 1500}", 1.0)
        mc.model("bound").record_latency(1.0)
        mc.record_latencies("batch", [1.0, 1.0])
        with mc.time("timed"):
            pass
        recorded += 5
        if recorded % 1000 == 0:
            watched.clear()
            cleared.append(mc.reset_metrics())
        if recorded % 350 == 0:
            mc.remove_model("nobody")
            mc.subscribe(capacity=recorded % 3000 + 1).drain()
    gc.collect()
    gc.set_threshold(700)
    watched.clear()
    gc.collect()
    cleared.append(mc.snapshot())
    expected = recorded + 2 * counts["del"] + 3 * (counts["del"] // 50)
    expected += counts["callback"]
    print(
        json.dumps(
            {
                **counts,
                "resets": len(cleared) - 1,
                "lost": expected - sum(s.total_requests for s in cleared),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
