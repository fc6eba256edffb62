# SPDX-License-Identifier: MIT
"""
A process that records as fast as it can, read from outside: nothing torn, none held up.

Each record changes several numbers that must agree in every reading: a batch is ten
values, a call counts in its model, its operation and each phase.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from array import array

from ometrics import MetricsCollector, PerformanceMetrics, attach

BATCH = array("d", [1e-6 * 10**i for i in range(10)])
BATCH_NS = 1_111_111_111_000
FIELDS = {"total": 9_000, "load": 10, "decode": 5_000, "prompt_tokens": 3}


def record_batches(mc: MetricsCollector, model: str) -> None:
    """For ever."""
    while True:
        mc.record_latencies(model, BATCH)


def record_calls(mc: MetricsCollector) -> None:
    """For ever."""
    while True:
        mc.start_call("called").end("success", **FIELDS)


def record_models(mc: MetricsCollector) -> None:
    """For ever, models that come and go."""
    i = 0
    while True:
        mc.record_latencies(f"new{i % 7}", BATCH)
        mc.remove_model(f"new{(i + 3) % 7}")
        i += 1


def child(directory: str) -> None:
    """Four threads that record."""
    mc = MetricsCollector(directory=directory)
    mc.record_latencies("batches", BATCH)
    work = [
        threading.Thread(target=target, args=arguments)
        for target, arguments in (
            (record_batches, (mc, "batches")),
            (record_batches, (mc, "more")),
            (record_calls, (mc,)),
            (record_models, (mc,)),
        )
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()


def is_torn(model: PerformanceMetrics) -> bool:
    """Whether the numbers of a model are not of one instant."""
    histogram = model.latency_hist
    if model.model != "called":
        return (
            model.successful_reqs % 10 != 0
            or histogram.count != model.successful_reqs
            or 10 * histogram.sum_ns != model.successful_reqs * BATCH_NS
        )
    call = model.calls.get("chat")
    n = model.successful_reqs
    return n > 0 and (
        call is None
        or {n}
        != {
            histogram.count,
            call.successful_reqs,
            call.latency.count,
            call.load.count,
            call.decode.count,
            call.prompt_tokens_known,
            call.prompt_tokens // 3,
            model.tokens_processed // 3,
        }
        or call.in_flight not in (0, 1)
    )


def main(count: int) -> dict[str, object]:
    """Read `count` times; the figures."""
    logging.disable()
    directory = tempfile.mkdtemp(prefix="ometrics-")
    pid = os.fork()
    if not pid:
        try:
            child(directory)
        finally:
            os._exit(1)
    source = attach(directory)
    torn: list[str] = []
    back = 0
    before = 0
    slowest = 0.0
    try:
        while "batches" not in source.snapshot().models:
            time.sleep(0.01)
        for _ in range(count):
            began = time.perf_counter()
            snapshot = source.snapshot()
            slowest = max(slowest, time.perf_counter() - began)
            torn += [repr(m) for m in snapshot.models.values() if is_torn(m)]
            now = snapshot.models["batches"].successful_reqs
            back += now < before
            before = now
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(directory)
    return {
        "reads": count,
        "torn": torn[:5],
        "back": back,
        "bad": source.bad,
        "slowest": slowest,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))  # noqa: T201
