# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
The garbage collector runs in the very middle of a reset or removal: COUNT times each.

CPython up to 3.11 collects where a container is allocated. Dictionaries come from a
free list first; with that list empty, the new dictionary of a reset starts a collection
whose finalizer takes a snapshot, adds models to a full table, resets or removes.

Prints how many finalizers ran.
"""

from __future__ import annotations

import gc
import json
import sys

from ometrics import MetricsCollector

TABLE = 64  # models for which there is room from the start


class Cycle:
    """Does `action` when it is collected."""

    ran = 0

    def __init__(self, action: object) -> None:
        self.me = self
        self.action = action

    def __del__(self) -> None:
        Cycle.ran += 1
        self.action()  # type: ignore[operator]


def main(count: int) -> None:
    """Each call with each finalizer inside it."""
    mc = MetricsCollector()

    def add_models() -> None:
        for i in range(2 * TABLE):
            mc.record_latency(f"m{i}", 1.0)

    actions = [
        mc.snapshot,
        mc.reset_metrics,
        add_models,
        lambda: mc.remove_model("m0"),
        lambda: mc.subscribe(capacity=5000),
    ]
    calls = [mc.reset_metrics, mc.snapshot, lambda: mc.remove_model("m1"), add_models]
    gc.disable()
    for _ in range(count):
        for call in calls:
            for action in actions:
                free_list_emptied = [{} for _ in range(200)]
                Cycle(action)
                gc.set_threshold(1)
                gc.enable()
                call()
                gc.disable()
                gc.collect()
                del free_list_emptied
    print(json.dumps({"ran": Cycle.ran}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
