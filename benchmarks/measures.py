# SPDX-License-Identifier: MIT
"""What one timed statement cannot show: threads, blocking, memory, imports.

Each function returns rows of the report. Where the machine's scheduler or CPython's GIL
could be taken for our lock, the same is measured with a control beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from collections.abc import Callable
from itertools import cycle, repeat
from pathlib import Path
from statistics import median
from threading import Barrier, Event, Thread
from time import perf_counter, perf_counter_ns, sleep
from typing import NamedTuple

import empty
from operations import MANY, filled, latencies
from outside import MODELS, delays

from ometrics import MetricsCollector
from ometrics.fields import Distribution, stored
from ometrics.histogram import DEFAULT_BUCKETS, layout_of
from ometrics.models import CallMetrics, PerformanceMetrics
from ometrics.serve.pages import Pages

HERE = Path(__file__).parent
US = 1e3  # nanoseconds
NOISE_US = 100  # a longer usual wait of an undisturbed thread: somebody else computes


class Row(NamedTuple):
    """
    One line of the report.

    Args:
        operation: What was measured.
        measured: The figure, with what it was compared with.
        bar: What it has to reach, or empty.
        met: Whether it does; `None` where there is no bar.
    """

    operation: str
    measured: str
    bar: str = ""
    met: bool | None = None


def _together(*workers: Callable[[], None]) -> float:
    """Seconds from a common start of threads to the end of the last."""
    barrier = Barrier(len(workers) + 1)

    def run(worker: Callable[[], None]) -> None:
        barrier.wait()
        worker()

    threads = [Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = perf_counter()
    for thread in threads:
        thread.join()
    return perf_counter() - start


def one_by_one(threads: int = 8, records: int = 100_000, rounds: int = 12) -> list[Row]:
    """A record's cost when several threads record one by one into one model."""
    collector = MetricsCollector()

    def worker(n: int) -> Callable[[], None]:
        def run() -> None:
            record = collector.record_latency
            for _ in repeat(None, n):
                record("m", 0.15)

        return run

    alone, shared = [], []
    for _ in range(rounds):
        alone.append(_together(worker(threads * records)))
        shared.append(_together(*[worker(records)] * threads))
    ns = 1e9 / (threads * records)
    ratio = min(shared) / min(alone)
    usual = median(b / a for a, b in zip(alone, shared, strict=True))
    return [
        Row(
            f"{threads} threads recording one by one",
            f"{min(shared) * ns:.1f} ns a record, one thread {min(alone) * ns:.1f}:"
            f" {ratio:.2f} x (usually {usual:.2f})",
            "<= 1.3 x one thread",
            ratio <= 1.3,
        )
    ]


def batches(rounds: int = 20) -> list[Row]:
    """Throughput of batches on two threads against one."""
    rows = []
    for size, number, bar in ((1000, 1000, 1.9), (10_000, 200, 1.8)):
        collector = MetricsCollector()
        values = latencies(size)

        def worker(
            n: int,
            collector: MetricsCollector = collector,
            values: array[float] = values,
        ) -> Callable[[], None]:
            def run() -> None:
                for _ in repeat(None, n):
                    collector.record_latencies("m", values)

            return run

        one, two = [], []
        for _ in range(rounds):
            one.append(_together(worker(2 * number)))
            two.append(_together(worker(number), worker(number)))
        ns = 1e9 / (2 * number * size)
        gain = min(one) / min(two)
        usual = median(a / b for a, b in zip(one, two, strict=True))
        rows.append(
            Row(
                f"batches of {size:,}, two threads on {os.cpu_count()} cores",
                f"{min(two) * ns:.2f} ns a value, one thread {min(one) * ns:.2f}:"
                f" {gain:.2f} x the throughput (usually {usual:.2f})",
                f">= {bar} x" if bar else "",
                None if bar is None else gain >= bar,
            )
        )
    return rows


class Waits(NamedTuple):
    """The longest single record during each disturbance, in nanoseconds, ascending."""

    worst: list[int]

    def at(self, share: float) -> float:
        """A quantile, in microseconds."""
        return self.worst[round(share * (len(self.worst) - 1))] / US

    def __str__(self) -> str:
        return f"{self.at(0.5):.1f} / {self.at(0.9):.0f} / {self.at(1):.0f} us"


def _waits(
    collector: MetricsCollector, disturb: Callable[[], object], seconds: float
) -> Waits:
    """Record in this thread while another disturbs every other millisecond."""
    spans: list[tuple[int, int]] = []
    over = Event()

    def disturber() -> None:
        while not over.is_set():
            start = perf_counter_ns()
            disturb()
            spans.append((start, perf_counter_ns()))
            sleep(0.002)

    thread = Thread(target=disturber)
    thread.start()
    clock, record = perf_counter_ns, collector.record_latency
    names = cycle([f"model-{i:04d}" for i in range(MANY)])
    long: list[tuple[int, int]] = []
    end = clock() + int(seconds * 1e9)
    after = 0
    while after < end:
        name = next(names)
        before = clock()
        record(name, 0.15)
        after = clock()
        if after - before > 500:
            long.append((before, after))
    over.set()
    thread.join()
    worst = []
    at = 0
    for start, stop in spans:
        while at < len(long) and long[at][1] < start:
            at += 1
        inside = at
        longest = 0
        while inside < len(long) and long[inside][0] < stop:
            longest = max(longest, long[inside][1] - long[inside][0])
            inside += 1
        if start < end:
            worst.append(longest)
    return Waits(sorted(worst))


def _blocking(
    title: str,
    disturber: Callable[[MetricsCollector], Callable[[], object]],
    seconds: float,
    most_us: float,
) -> list[Row]:
    """
    How long one record takes at most while somebody reads 1,000 models.

    The control reads another collector: the same work, memory traffic and GIL, but not
    our lock. So the difference is what the lock adds; the control itself is what any
    Python thread that does this much would cost another one, and `nobody` is what the
    scheduler does to a thread anyhow.
    """
    mine, other = filled(MANY), filled(MANY)
    nobody = _waits(mine, lambda: sleep(0.002), seconds)
    own = _waits(mine, disturber(mine), seconds)
    control = _waits(mine, disturber(other), seconds)
    quiet = nobody.at(0.5) <= NOISE_US  # else nothing can be said
    noise = "" if quiet else "; the machine is too busy to tell"
    lock = max(own.at(0.5) - control.at(0.5), 0)
    all_in = max(own.at(0.5) - nobody.at(0.5), 0)
    return [
        Row(
            f"delay of a record by {title}: our lock",
            f"{lock:.1f} us (medians: {own.at(0.5):.1f} less {control.at(0.5):.1f})"
            + noise,
            "<= 20 us",
            lock <= 20 if quiet else None,
        ),
        Row(
            f"delay of a record by {title}: lock and GIL",
            f"{all_in:.1f} us (medians: {own.at(0.5):.1f} less {nobody.at(0.5):.1f})"
            + noise,
            f"<= {most_us:g} us",
            all_in <= most_us if quiet else None,
        ),
        Row(
            f"longest record during {title}: p50 / p90 / max",
            f"{own}; reading another collector: {control}; reading nothing: {nobody}",
        ),
    ]


def blocked_by_snapshot(seconds: float = 3.0) -> list[Row]:
    """A recorder while snapshots of its collector are taken."""
    return _blocking("a snapshot", lambda mc: mc.snapshot, seconds, 20)


def blocked_by_scrape(seconds: float = 3.0) -> list[Row]:
    """A recorder while its collector is scraped, as its endpoint does it."""

    def scrape(collector: MetricsCollector) -> Callable[[], object]:
        pages = Pages(collector)
        return lambda: pages.get("/metrics", "", compress=False).result()

    return _blocking("a scrape (text page)", scrape, seconds, 1000)


MEMORY = """
import gc, psutil, sys
from operations import latencies
from ometrics import MetricsCollector
from ometrics._calls import Call
calls, models = int(sys.argv[1]), int(sys.argv[2])
mc = MetricsCollector(max_models=2 * models)
wide = latencies(500)
wide.extend([2.0**e for e in range(-20, 12)])   # every page of the record is touched
def use(name):
    mc.record_latencies(name, wide)
    mc.record_tokens(name, 500)
    mc.record_error(name, "TIMEOUT")
    if calls:
        call = Call(mc, name, "chat")
        call.chunk(True)
        call.end("success", None, 9, 1, 2, 5, 100, 50, 20, "stop")
def rss():
    gc.collect()
    return psutil.Process().memory_info().rss
for i in range(50):
    use(f"warm-{i}")
before = rss()
for i in range(models):
    use(f"model-{i}")
print((rss() - before) / models)
"""


def memory(models: int = 2000) -> list[Row]:
    """Bytes a model at rest: what the process grows by, and what its record is."""
    record, histogram = empty.load().sizes()
    one = histogram + 8 * layout_of(DEFAULT_BUCKETS).n_cells
    of_model = record + one * len(stored(PerformanceMetrics, Distribution))
    of_calls = record + one * len(stored(CallMetrics, Distribution))
    rows = []
    for calls, title, size in (
        (0, "memory a model, all views", of_model),
        (1, "memory a model that also had chat calls", of_model + of_calls),
    ):
        grown = float(_python("-c", MEMORY, str(calls), str(models)))
        rows.append(
            Row(
                title,
                f"{grown / 1024:.1f} KiB resident; records {size / 1024:.1f} KiB",
                "" if calls else "<= 12 KiB",
                None if calls else max(grown, size) <= 12 * 1024,
            )
        )
    return rows


def _python(*arguments: str) -> str:
    """What another Python prints; it may write and use bytecode as usual."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout


def imports(rounds: int = 25) -> list[Row]:
    """Start-up of a Python that imports ometrics, or also makes a collector."""
    first = "import ometrics; ometrics.MetricsCollector()"
    taken: dict[str, list[float]] = {"pass": [], "import ometrics": [], first: []}
    for statement in taken:
        _python("-c", statement)
    for _ in range(rounds):
        for statement, seconds in taken.items():
            start = perf_counter()
            _python("-c", statement)
            seconds.append(perf_counter() - start)
    bare = taken.pop("pass")
    bars = {"import ometrics": 12}
    rows = []
    for statement, ours in taken.items():
        above = (min(ours) - min(bare)) * 1e3
        usual = (median(ours) - median(bare)) * 1e3
        bar = bars.get(statement)
        rows.append(
            Row(
                statement,
                f"{above:.1f} ms above bare Python (usually {usual:.1f})",
                f"<= {bar} ms" if bar else "",
                above <= bar if bar else None,
            )
        )
    return rows


def read_from_outside(rounds: int = 15) -> list[Row]:
    """How much longer a record takes while a sidecar is scraped."""
    found = delays(rounds)
    more = (found.sidecar - found.none) / US
    return [
        Row(
            f"longest record of a second, a sidecar of {MODELS} models scraped each"
            " 100 ms",
            f"{found.sidecar / US:.1f} us, without {found.none / US:.1f}:"
            f" {more:+.1f} us (a sidecar of others: {found.others / US:.1f}, its own"
            f" endpoint: {found.own / US:.1f})",
            "<= 20 us more",
            more <= 20,
        )
    ]


MEASURES: tuple[Callable[[], list[Row]], ...] = (
    batches,
    one_by_one,
    blocked_by_snapshot,
    blocked_by_scrape,
    read_from_outside,
    memory,
    imports,
)
