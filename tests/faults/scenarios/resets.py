# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
Eight threads record in every way while two others reset: COUNT times each.

Prints how far the sum of all that the resets returned, and of what was left, is from
what was recorded; every difference must be 0.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import Any

from ometrics import MetricsCollector, Snapshot

WRITERS = 8


logging.disable(logging.CRITICAL)  # of the warnings about bad values


def work(mc: MetricsCollector, number: int, stop: threading.Event, told: Any) -> None:
    """Record until told to stop; report how many rounds."""
    bound = mc.model("bound")
    rounds = 0
    while not stop.is_set():
        rounds += 1
        mc.record_latency("m", 1.0)
        bound.record_latency(1.0)
        mc.record_latencies(f"batch{number}", [1.0] * 10)
        mc.record_error("m", "E")
        bound.record_error(f"E{number}")
        mc.record_tokens("m", 5)
        mc.record_task_completion(number % 2, 1.0)
        mc.record_latency("m", -1.0)
        with mc.time(f"timed{rounds % 100}"):
            pass
    told.append(rounds)


def figures(snapshots: list[Snapshot], rounds: int) -> dict[str, int]:
    """What is counted more (or, below zero, less) than was recorded."""
    counted = dict.fromkeys(
        ("requests", "errors", "codes", "latencies", "tokens", "tasks", "invalid"), 0
    )
    timed = 0
    seconds = 0
    for snapshot in snapshots:
        counted["requests"] += snapshot.total_requests
        counted["errors"] += snapshot.total_errors
        counted["tasks"] += snapshot.task_statistics.total_tasks
        counted["invalid"] += snapshot.invalid_values.get("negative", 0)
        for name, model in snapshot.models.items():
            counted["latencies"] += model.latency_hist.count
            counted["codes"] += sum(model.errors.values())
            counted["tokens"] += model.tokens_processed
            if name.startswith("timed"):
                timed += model.successful_reqs
            else:
                seconds += model.latency_hist.sum_ns
    expected = {
        "requests": 16,
        "errors": 2,
        "codes": 2,
        "latencies": 13,
        "tokens": 5,
        "tasks": 1,
        "invalid": 1,
    }
    off = {key: counted[key] - n * rounds for key, n in expected.items()}
    off["timed"] = timed - rounds
    off["sum_ns"] = seconds - 12 * 1_000_000_000 * rounds
    off["events"] = sum(s.events_emitted for s in snapshots) - 17 * rounds
    return off


def main(count: int) -> None:
    """Reset while they record."""
    sys.setswitchinterval(1e-5)
    mc = MetricsCollector()
    stop = threading.Event()
    told: list[int] = []
    snapshots: list[Snapshot] = []
    writers = [
        threading.Thread(target=work, args=(mc, i, stop, told)) for i in range(WRITERS)
    ]
    resetters = [
        threading.Thread(
            target=lambda: snapshots.extend(mc.reset_metrics() for _ in range(count))
        )
        for _ in range(2)
    ]
    for thread in (*writers, *resetters):
        thread.start()
    for thread in resetters:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()
    snapshots.append(mc.snapshot())
    rounds = sum(told)
    print(
        json.dumps(
            {
                "resets": 2 * count,
                "rounds": rounds,
                "off": {k: v for k, v in figures(snapshots, rounds).items() if v},
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
