# SPDX-License-Identifier: MIT
# ruff: noqa: T201 - a script
"""
One thread records a model that another removes, COUNT times.

With nobody else there to make the recorder wait for the mutex, a look-up that finds the
removed slot again goes round in C for ever, holding the GIL.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from ometrics import MetricsCollector


def main(count: int) -> None:
    """Remove while it records."""
    mc = MetricsCollector()
    stop = threading.Event()

    def record() -> None:
        while not stop.is_set():
            mc.record_latency("m", 1.0)

    recorder = threading.Thread(target=record)
    recorder.start()
    removed = 0
    while removed < count:
        removed += mc.remove_model("m")
        time.sleep(0.001)
    stop.set()
    recorder.join()
    print(json.dumps({"removed": removed}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
