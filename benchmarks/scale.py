# SPDX-License-Identifier: MIT
"""What one page a machine costs: processes x models x rate, for `docs/scale.md`.

python benchmarks/scale.py [--seconds 3]

For each number of processes and models, all of which record calls at a rate: the CPU of
an agent for a call, the time to attach and to render, the sizes of files and page, and
what it takes to fold the processes once they were killed. The agents are processes of
their own and pause between their calls, so that they need not the whole machine. Times
are of the processor, not of the clock: what else the machine does counts for less.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ometrics import attach
from ometrics.export.prometheus import PROTOBUF, TEXT, render

# Processes, models of each, calls a second of each.
CASES = (
    *((1, 10, 100), (8, 10, 100), (8, 10, 1000)),
    *((8, 100, 100), (32, 10, 100), (64, 10, 10)),
)
CHUNKS = 20  # of a call
AGENT = """
import os, sys, time
from ometrics import MetricsCollector
directory, models, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
mc = MetricsCollector(directory=directory)

def call(i):
    one = mc.start_call(f"model-{i % models}")
    for _ in range(CHUNKS):
        one.chunk()
    one.end("success", load=10**6, prefill=10**7 + i * 1000, decode=10**8,
        prompt_tokens=20 + i % 100, completion_tokens=CHUNKS)

for i in range(models * 10):
    call(i)
print(flush=True)
sys.stdin.readline()
cpu, calls = time.process_time(), 0
end = time.monotonic() + float(sys.stdin.readline())
while time.monotonic() < end:
    for _ in range(max(rate // 50, 1)):
        call(calls)
        calls += 1
    time.sleep(1 / min(rate, 50))
print(time.process_time() - cpu, calls, flush=True)
sys.stdin.read()
""".replace("CHUNKS", str(CHUNKS))


class Figures(NamedTuple):
    """One row; CPU times in seconds, sizes in bytes."""

    cpu_a_call: float
    attach: float
    text: float
    protobuf: float
    text_bytes: int
    gzip_bytes: int
    files_bytes: int
    fold: float
    folded_bytes: int


def best(work: Callable[[], object], times: int = 5) -> float:
    """The least CPU time of several."""
    return min(_timed(work) for _ in range(times))


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def used_bytes(directory: Path) -> int:
    """What the files of a directory take."""
    return sum(file.stat().st_blocks * 512 for file in directory.iterdir())


def hear(agents: Sequence[subprocess.Popen[str]]) -> list[str]:
    """A line of each agent."""
    return [agent.stdout.readline() for agent in agents if agent.stdout is not None]


def tell(agents: Sequence[subprocess.Popen[str]], text: str) -> None:
    """The same to each agent."""
    for agent in agents:
        assert agent.stdin is not None
        agent.stdin.write(text)
        agent.stdin.flush()


def measure(processes: int, models: int, rate: int, seconds: float) -> Figures:
    """One case."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        directory = Path(folder) / "agents"
        command = (sys.executable, "-c", AGENT, str(directory), str(models), str(rate))
        agents = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(processes)
        ]
        for agent in agents:
            stack.callback(agent.kill)
        hear(agents)
        tell(agents, f"\n{seconds}\n")
        spent = [line.split() for line in hear(agents)]
        source = attach(directory)
        snapshot = source.snapshot()
        page = render(snapshot, TEXT)
        files = used_bytes(directory)
        found = {
            "cpu_a_call": statistics.median(float(s) / int(n) for s, n in spent),
            "attach": best(source.snapshot),
            "text": best(lambda: render(snapshot, TEXT)),
            "protobuf": best(lambda: render(snapshot, PROTOBUF)),
        }
        for agent in agents:
            agent.kill()
            agent.wait()
        fold = _timed(source.read)
        return Figures(
            **found,
            text_bytes=len(page),
            gzip_bytes=len(gzip.compress(page, 1)),
            files_bytes=files,
            fold=fold,
            folded_bytes=used_bytes(directory),
        )


def main() -> None:
    """Print a row of the document for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    for case in CASES:
        f = measure(*case, seconds)
        print(
            f"| {' x '.join(map(str, case))} | {f.cpu_a_call * 1e6:.1f} us"
            f" | {f.attach * 1e3:.1f} ms"
            f" | {f.text * 1e3:.1f} ms | {f.protobuf * 1e3:.1f} ms"
            f" | {f.text_bytes / 1e3:,.0f} kB | {f.gzip_bytes / 1e3:,.0f} kB"
            f" | {f.files_bytes / 1e6:.1f} MB | {f.fold * 1e3:.1f} ms"
            f" | {f.folded_bytes / 1e3:,.0f} kB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
