# SPDX-License-Identifier: MIT
# ruff: noqa: D102, T201 - a script
"""
A logging handler records what it logs, bad values included: COUNT warnings.

Prints how far the counts are from what was recorded.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading

from ometrics import MetricsCollector

mc = MetricsCollector(max_models=1_000_000)


class Handler(logging.Handler):
    """Records, badly too, each time that something is logged."""

    ran = 0

    def emit(self, record: logging.LogRecord) -> None:
        Handler.ran += 1
        mc.record_latency("handler", math.nan)
        mc.record_error("handler", "E")
        mc.record_latencies("handler", [-1.0, 1.0])
        if Handler.ran % 100 == 0:
            mc.snapshot()


def work(number: int, count: int) -> None:
    """Each bad value of a new model is warned of."""
    for i in range(count):
        mc.record_latency(f"m{number}-{i}", math.inf)


def main(count: int) -> None:
    """Four threads."""
    logging.getLogger("ometrics").addHandler(Handler())
    threads = [threading.Thread(target=work, args=(i, count // 4)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = 4 * (count // 4) + 4 * Handler.ran
    lost = expected - mc.snapshot().total_requests
    print(json.dumps({"warnings": Handler.ran, "lost": lost}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
