# SPDX-License-Identifier: MIT
# ruff: noqa: D102, T201 - a script
"""
Forks COUNT times while eight threads record, batch and take snapshots.

`KIND` is `python` (`os.fork()`) or `c` (a `fork()` that Python does not see, as of
uWSGI; it holds the GIL, without which no child could run Python). Each child must start
at zero, record three times and report; every fifth one forks a child of its own.

Prints the number of forks, of children that hung, that did not start at zero, and how
far the sum over the family is from what was recorded; and how many ids it had.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
from array import array
from collections.abc import Callable
from typing import Any

from ometrics import MetricsCollector

WRITERS = 8
PATIENCE = 10.0  # seconds for a child; only one that hangs needs it
BATCH = array("d", [1.0] * 2000)


def fork_of(kind: str) -> Callable[[], int]:
    """The function that forks."""
    if kind == "python":
        return os.fork
    # The interpreter's own locks are the forker's business, as in uWSGI. The child must
    # see to them before its first bytecode, which may hand the GIL to a thread of the
    # parent's and wait for it for ever (2 of 600 children did). So it is done within
    # fork(), after what ometrics does there.
    libc = ctypes.CDLL(None)
    child_hook = ctypes.cast(ctypes.pythonapi.PyOS_AfterFork_Child, ctypes.c_void_p)
    try:
        libc.pthread_atfork(None, None, child_hook)
    except AttributeError:  # glibc has it under another name
        getattr(libc, "__register_atfork")(None, None, child_hook, None)
    c_fork: Callable[[], int] = ctypes.PyDLL(None).fork
    return c_fork


class Writer(threading.Thread):
    """Records until it is told to stop."""

    def __init__(self, mc: MetricsCollector, number: int) -> None:
        super().__init__(daemon=True)
        self.mc, self.number = mc, number
        self.stop = False
        self.recorded = 0

    def run(self) -> None:
        mc, bound = self.mc, self.mc.model("bound")
        while not self.stop:
            if self.number == 0:
                mc.snapshot()
            elif self.number < 4:
                mc.record_latencies("m", BATCH)
                self.recorded += len(BATCH)
            else:
                mc.record_latency("m", 1.0)
                bound.record_latency(1.0)
                self.recorded += 2


def child(mc: MetricsCollector, bound: Any, fork: Callable[[], int], more: bool) -> Any:
    """What a child does; a line for each member of its family."""
    begin = mc.snapshot()
    zero = begin.total_requests == 0 and begin.task_statistics.total_tasks == 0
    zero = zero and begin.events_emitted == 0
    mc.record_latency("m", 1.0)
    bound.record_latency(1.0)
    mc.record_latencies("m", [1.0])
    mc.record_task_completion(True, 1.0)
    lines = []
    if more:
        lines = reports(mc, bound, fork, 1, more=False)
    end = mc.snapshot()
    zero = zero and end.task_statistics.total_tasks == 1
    return [[zero, end.total_requests, end.instance_id, begin.instance_id], *lines]


def reports(
    mc: MetricsCollector,
    bound: Any,
    fork: Callable[[], int],
    number: int,
    *,
    more: bool,
) -> list[Any]:
    """Fork, and wait for the lines of the child; a hung one has none and is ended."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        try:
            os.write(writer, json.dumps(child(mc, bound, fork, more)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], PATIENCE)
    text = os.read(reader, 65536) if ready else b""
    os.close(reader)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return list(json.loads(text)) if text else [None]


def main(kind: str, count: int) -> None:
    """Fork while they record."""
    fork = fork_of(kind)
    mc = MetricsCollector()
    bound = mc.model("bound")
    for i in range(100):
        mc.record_tokens(f"model{i}", 1)  # something to copy for those who snapshot
    writers = [Writer(mc, i) for i in range(WRITERS)]
    for writer in writers:
        writer.start()
    lines: list[Any] = []
    for i in range(count):
        lines += reports(mc, bound, fork, i, more=i % 5 == 0)
        if lines.count(None) > 20:
            break
    for writer in writers:
        writer.stop = True
    for writer in writers:
        writer.join()
    told = [line for line in lines if line is not None]
    last = mc.snapshot()
    family = last.total_requests + sum(line[1] for line in told)
    recorded = sum(writer.recorded for writer in writers) + 3 * len(told)
    ids = {last.instance_id, *(line[2] for line in told)}
    figures = {
        "forks": len(lines),
        "hung": lines.count(None),
        "not at zero": sum(not line[0] for line in told),
        "changed id": sum(line[2] != line[3] for line in told),
        "doubled ids": len(told) + 1 - len(ids),
        "off": family - recorded,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
