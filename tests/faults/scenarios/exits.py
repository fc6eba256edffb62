# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
Ends while eight daemon threads record, batch, read and take snapshots.

An `atexit` handler takes a last snapshot and prints that it could.
"""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
from array import array

from ometrics import MetricsCollector

mc = MetricsCollector()
BATCH = array("d", [1.0] * 5000)


def work(number: int) -> None:
    """Record for ever."""
    bound = mc.model("bound")
    while True:
        if number == 0:
            mc.snapshot()
        elif number == 1:
            mc.metrics_channel.drain()
        elif number == 2:
            mc.reset_metrics()
        elif number < 5:
            mc.record_latencies("m", BATCH)
        else:
            bound.record_latency(1.0)
            with mc.time(f"m{number}"):
                mc.record_tokens("m", 1)


@atexit.register
def last() -> None:
    """Recording and reading still work here."""
    mc.record_latency("last", 1.0)
    print(json.dumps({"last": "last" in mc.snapshot().models or "reset"}))


for i in range(8):
    threading.Thread(target=work, args=(i,), daemon=True).start()
time.sleep(float(sys.argv[1]))
