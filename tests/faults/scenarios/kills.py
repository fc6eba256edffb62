# SPDX-License-Identifier: MIT
"""
Processes killed with -9 at random moments: what the file says is what they did.

Each child does what a seed tells it, all kinds of records, and acknowledges every 20th
through a pipe. What another process then reads must be the state after some number of
them, not fewer than were acknowledged: the same operations are done again here, in
private memory, and every number is compared.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from msgspec.structs import replace

from ometrics import MetricsCollector, Snapshot, attach
from ometrics.testing import FakeClock

AT_ONCE = 20
EPOCH = datetime.fromtimestamp(0, timezone.utc)
FIELDS = {
    "total": 9_000,
    "load": 10,
    "prefill": 200,
    "decode": 5_000,
    "prompt_tokens": 30,
    "cached_tokens": 4,
    "completion_tokens": 50,
    "done_reason": "stop",
}


def operations(
    mc: MetricsCollector, clock: FakeClock, seed: int
) -> Iterator[Callable[[], object]]:
    """An endless series of records, the same for each seed, their times included."""
    rng = random.Random(seed)
    bound = mc.model("bound")
    batches = [
        array("d", [rng.lognormvariate(-1, 2) for _ in range(size)])
        for size in (1, 20, 400, 400)
    ]

    def call(model: str, operation: str) -> None:
        running = mc.start_call(model, operation)
        for _ in range(rng.randrange(40)):
            clock.advance(0.01)
            running.chunk()
        running.end("success", **FIELDS)

    while True:
        clock.advance(rng.lognormvariate(-3, 1))
        model = f"m{rng.randrange(4)}"
        value = rng.lognormvariate(-1, 2)
        values = rng.choice(batches)
        yield rng.choice(
            (
                lambda m=model, v=value: mc.record_latency(m, v),
                lambda v=value: bound.record_latency(v),
                lambda m=model, v=value: mc.record_error(m, "E", v),
                lambda m=model: mc.record_tokens(m, 3),
                lambda m=model, v=values: mc.record_latencies(m, v),
                lambda m=model, v=values: mc.record_latencies(m, v),
                lambda m=model: call(m, "chat"),
                lambda m=model: call(m, "embeddings"),
                lambda v=value: mc.record_task_completion(True, v),
                lambda m=model: mc.start_call(m).end("failure", "E"),
                lambda m=model: mc.start_call(m).end("cancelled"),
                lambda v=value: mc.update_resource_metrics(v, v, 3),
                lambda m=model: mc.remove_model(m),
                lambda: mc.record_latency("m1", float("nan")),
            )
        )


def comparable(snapshot: Snapshot) -> Snapshot:
    """
    What was counted, without when it was read.

    Nor when a model was last updated: of a process that was killed amid a record, that
    may be this record's time.
    """
    models = {
        name: replace(
            model,
            last_updated=None,
            uptime_seconds=0.0,
        )
        for name, model in snapshot.models.items()
    }
    return replace(
        snapshot,
        instance_id="",
        start_time=EPOCH,
        collection_time=EPOCH,
        uptime_seconds=0.0,
        models=models,
        task_statistics=replace(snapshot.task_statistics, last_updated=None),
        resource_metrics=None,
        events_emitted=0,
    )


def child(directory: Path, seed: int, acknowledge: int) -> None:
    """Record for ever."""
    clock = FakeClock()
    mc = MetricsCollector(directory=directory, clock=clock)
    for i, operation in enumerate(operations(mc, clock, seed)):
        if i % AT_ONCE == 0:
            os.write(acknowledge, b".")
        operation()


def states(seed: int, acknowledged: int) -> Iterator[Snapshot]:
    """What a child may have left that acknowledged so many records."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    for i, operation in enumerate(operations(mc, clock, seed)):
        if i > acknowledged + AT_ONCE:
            return
        if i >= acknowledged:
            yield comparable(mc.snapshot())
        operation()


def kill_one(directory: Path, seed: int, seconds: float) -> tuple[int, bool]:
    """How many records a killed child acknowledged, and whether the file is right."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            child(directory, seed, writer)
        finally:
            os._exit(1)
    os.close(writer)
    dots = len(os.read(reader, 1))
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while data := os.read(reader, 1 << 16):
        dots += len(data)
    os.close(reader)
    acknowledged = (dots - 1) * AT_ONCE
    source = attach(directory)
    found = comparable(source.snapshot())
    return acknowledged, not source.bad and any(
        found == state for state in states(seed, acknowledged)
    )


def main(count: int) -> dict[str, object]:
    """Kill `count` children; the figures."""
    logging.disable()
    rng = random.Random(count)
    records = 0
    wrong = []
    for seed in range(count):
        directory = Path(tempfile.mkdtemp(prefix="ometrics-"))
        acknowledged, right = kill_one(directory, seed, rng.uniform(0.0, 0.01))
        records += acknowledged
        if not right:
            wrong.append(seed)
        shutil.rmtree(directory)
    return {"killed": count, "records": records, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))  # noqa: T201
