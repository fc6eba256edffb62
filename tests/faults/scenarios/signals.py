# SPDX-License-Identifier: MIT
# ruff: noqa: D102, T201 - a script
"""
A signal handler records in the middle of recording: COUNT times nested on purpose.

The collector's clock raises a signal each time that it is read, and so does the
iterable of a batch: the handler then runs inside the call that records. An interval
timer adds signals wherever they fall, and a second thread records meanwhile.

Prints how many times the handler ran, how often inside a record, and how far the counts
are from what was recorded.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator

from ometrics import MetricsCollector

logging.disable(logging.CRITICAL)  # of the warnings about bad values
FRESH = 200  # names that the handler may be the first to use


class Handler:
    """Counts what it records; a new model now and then, so the table grows too."""

    def __init__(self) -> None:
        self.mc: MetricsCollector
        self.ran = self.nested = self.recorded = 0
        self.inside = False

    def __call__(self, number: int, frame: object) -> None:
        self.ran += 1
        self.nested += self.inside
        inside, self.inside = self.inside, False  # the clock then raises no more
        self.mc.record_latency("handler", 1.0)
        self.mc.record_error(f"fresh{self.ran % FRESH}", "E")
        if self.ran % 64 == 0:
            self.mc.record_latencies("handler", [1.0, -1.0])
            self.recorded += 2
        if self.ran % 1024 == 0:
            self.mc.snapshot()
        self.recorded += 2
        self.inside = inside


class Clock:
    """The system's, with a signal each time that it is read inside a record."""

    def __init__(self, handler: Handler, main: threading.Thread) -> None:
        self.handler, self.main = handler, main

    def time(self) -> float:
        if self.handler.inside and threading.current_thread() is self.main:
            signal.raise_signal(signal.SIGUSR1)
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def values(handler: Handler) -> Iterator[float]:
    """Two values, a signal between them."""
    yield 1.0
    if handler.inside:
        signal.raise_signal(signal.SIGUSR1)
    yield 1.0


def main(count: int) -> None:
    """Record and be interrupted."""
    handler = Handler()
    mc = MetricsCollector(clock=Clock(handler, threading.current_thread()))
    handler.mc = mc
    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    stop = threading.Event()
    beside = [0]

    def record_beside() -> None:
        while not stop.is_set():
            mc.record_latency("beside", 1.0)
            beside[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=record_beside)
    thread.start()
    bound = mc.model("main")
    recorded = 0
    lost = 0
    returned = []
    while handler.nested < count:
        handler.inside = True
        mc.record_latency("main", 1.0)
        bound.record_latency(1.0)
        mc.record_latencies("main", values(handler))
        mc.record_error("main", "E")
        handler.inside = False
        recorded += 5
        if recorded % 5000 == 0:
            handler.inside = True
            returned.append(mc.reset_metrics())
            handler.inside = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    stop.set()
    thread.join()
    returned.append(mc.snapshot())
    total = sum(snapshot.total_requests for snapshot in returned)
    lost = recorded + handler.recorded + beside[0] - total
    print(
        json.dumps(
            {
                "ran": handler.ran,
                "nested": handler.nested,
                "resets": len(returned) - 1,
                "lost": lost,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
