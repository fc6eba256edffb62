# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
RECORDS records in every way and COLLECTORS collectors, made and thrown away.

Prints by how much the process grew, in bytes of resident memory, after a warm-up of a
fifth of the same work.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from array import array

from ometrics import ErrorTimeout, MetricsCollector

logging.disable(logging.CRITICAL)
BATCH = array("d", [0.1, 0.2, 0.3, -1.0] * 25)


def resident() -> int:
    """Bytes of resident memory."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def record(mc: MetricsCollector, count: int) -> None:
    """`count` records of all kinds, reads, resets, and names that come and go."""
    bound = mc.model("bound")
    for i in range(count // 1000):
        for j in range(100):
            mc.record_latency("m", 0.1)
            bound.record_latency(0.2)
            mc.record_error("m", ErrorTimeout)
            mc.record_tokens("m", 5)
            with bound.time():
                pass
            mc.record_task_completion(True, j)
            mc.record_latency(f"name{i}-{j % 10}", 0.3)
        for _ in range(3):
            mc.record_latencies("m", BATCH)
        mc.remove_model(f"name{i}-3")
        mc.get_model_metrics("m")
        mc.snapshot().to_json()
        mc.subscribe(capacity=50, types=["error"]).drain()
        mc.reset_metrics()


def collectors(count: int) -> None:
    """Collectors with something in them."""
    for i in range(count):
        mc = MetricsCollector()
        # No endless new names: with OMETRICS_DIR the directory's sum keeps each.
        mc.record_latency(f"m{i % 300}", 0.1)
        mc.metrics_channel.drain()
        mc.model("other").record_latency(0.1)
        if i % 2:
            mc.close()
        if i % 500 == 0:
            gc.collect()


def growth(work: object, *arguments: object) -> int:
    """What is still there after a piece of work that was done before."""
    gc.collect()
    before = resident()
    work(*arguments)  # type: ignore[operator]
    gc.collect()
    return resident() - before


def main(n_records: int, n_collectors: int) -> None:
    """Warm up, then measure."""
    mc = MetricsCollector()
    record(mc, max(n_records // 5, 5000))
    collectors(max(n_collectors // 5, 600))
    figures = {
        "records": growth(record, mc, n_records),
        "collectors": growth(collectors, n_collectors),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
