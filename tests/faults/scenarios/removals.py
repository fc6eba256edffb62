# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
Threads record, call, reset and read while two others remove models: COUNT times each.

Prints how many removals found something, and what a snapshot had that it must not have.
Where removal and recording wait for each other, it never ends.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from itertools import cycle

from ometrics import MetricsCollector, Snapshot

NAMES = ("a", "b", "c" * 300)  # the last is cut, and so looked up in another way

logging.disable(logging.CRITICAL)


def record(mc: MetricsCollector, stop: threading.Event) -> None:
    """Record in every way."""
    bound = [mc.model(name) for name in NAMES]
    while not stop.is_set():
        for name, recorder in zip(NAMES, bound, strict=True):
            mc.record_latency(name, 1.0)
            recorder.record_latency(1.0)
            mc.record_latencies(name, [1.0, 1.0])
            mc.record_error(name, "E", latency=1.0)
            recorder.record_tokens(5)


def call(mc: MetricsCollector, stop: threading.Event) -> None:
    """Make calls that end in every way, some of a model that nothing else records."""
    outcomes = ("success", "failure", "cancelled")
    i = 0
    while not stop.is_set():
        i += 1
        for name in (*NAMES, "calls only"):
            running = mc.start_call(name, "chat", "openai" if i % 2 else "ollama")
            running.chunk()
            if i % 5:
                running.end(outcomes[i % 3], "E", total=5, prompt_tokens=3)
            elif i % 2:
                running.discard()


def torn(snapshot: Snapshot) -> list[str]:
    """What does not add up in a snapshot."""
    wrong = []
    for model in snapshot.models.values():
        if model.latency_hist.count != model.successful_reqs - model.latency_unknown:
            wrong.append("latencies")
        if sum(model.errors.values()) != model.failed_reqs:
            wrong.append("errors")
        for operation in model.calls.values():
            if operation.latency.count != operation.successful_reqs:
                wrong.append("calls")
            if operation.failed_latency.count != operation.failed_reqs:
                wrong.append("failed calls")
            if operation.cancelled_latency.count != operation.cancelled_reqs:
                wrong.append("cancelled calls")
    return wrong


def main(count: int) -> None:
    """Remove while they record."""
    sys.setswitchinterval(1e-5)
    mc = MetricsCollector()
    stop = threading.Event()
    found = [0, 0]
    wrong: list[str] = []

    def remove(which: int) -> None:
        names = cycle((*NAMES, "calls only"))
        while found[which] < count:
            found[which] += mc.remove_model(next(names))
            time.sleep(0)  # else it has the interpreter to itself

    def read() -> None:
        while not stop.is_set():
            wrong.extend(torn(mc.snapshot()))
            mc.get_model_metrics("a")
            wrong.extend(torn(mc.reset_metrics()))

    workers = [
        threading.Thread(target=target, args=(mc, stop))
        for target in (record, record, record, call, call)
    ]
    workers.append(threading.Thread(target=read))
    removers = [threading.Thread(target=remove, args=(i,)) for i in range(2)]
    for thread in (*workers, *removers):
        thread.start()
    for thread in removers:
        thread.join()
    stop.set()
    for thread in workers:
        thread.join()
    after = torn(mc.snapshot())
    print(
        json.dumps(
            {
                "removed": sum(found),
                "torn": sorted(set(wrong + after)),
                "running": sum(
                    operation.in_flight
                    for model in mc.snapshot().models.values()
                    for operation in model.calls.values()
                ),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
