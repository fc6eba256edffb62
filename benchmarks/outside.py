# SPDX-License-Identifier: MIT
"""What a reader outside costs an agent: the longest record of a second.

python benchmarks/outside.py [--rounds 15]

An agent records some thousand times a second, in a segment, and notes how long each
record took. Second by second, nothing else happens; `ometrics serve` is scraped each
100 ms, once of an idle agent's directory and once of this one's; or the agent serves
the same page itself. Compared are the medians of the longest record of a second. What a
sidecar of somebody else costs is the scheduler's doing: it needs a processor.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

MODELS = 100
SCRAPE_S = 0.1
WAYS = ("no reader", "a sidecar of others", "its sidecar", "its own endpoint")

AGENT = f"""
import sys, time
from ometrics import MetricsCollector
mc = MetricsCollector(directory=sys.argv[1])
for i in range({MODELS}):
    mc.start_call(f"m{{i}}").end("success", decode=10**9, completion_tokens=40)
print(mc.serve(port=0).url, flush=True)
record, clock, pause = mc.record_latency, time.perf_counter_ns, time.sleep
for line in sys.stdin:
    longest = 0
    end = clock() + 10**9
    while clock() < end:
        for _ in range(20):
            began = clock()
            record("m7", 0.1)
            longest = max(longest, clock() - began)
        pause(0.001)
    print(longest, flush=True)
"""


class Delays(NamedTuple):
    """Medians of the longest records of a second, in nanoseconds, by who reads."""

    none: float
    others: float
    sidecar: float
    own: float


@contextmanager
def scraping(url: str | None) -> Iterator[None]:
    """Read a page each 100 ms."""
    ended = threading.Event()

    def work() -> None:
        while url is not None and not ended.wait(SCRAPE_S):
            urllib.request.urlopen(f"{url}/metrics").read()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process with its streams in pipes, until it is killed."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Pair(NamedTuple):
    """An agent, where it serves, and where its sidecar does."""

    agent: subprocess.Popen[str]
    own_url: str
    sidecar_url: str


@contextmanager
def agent_and_sidecar(directory: Path) -> Iterator[Pair]:
    """Both, of one directory."""
    serve = ("-m", "ometrics", "serve", str(directory), "--listen", ":0")
    with (
        running(sys.executable, "-c", AGENT, str(directory)) as agent,
        running(sys.executable, *serve) as sidecar,
    ):
        assert agent.stdout is not None
        assert sidecar.stderr is not None
        said = sidecar.stderr.readline().split()[-1].removesuffix("/metrics")
        yield Pair(agent, agent.stdout.readline().strip(), said)


def delays(rounds: int) -> Delays:
    """Measure: each way in turn, so that they share what the machine does."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        others = stack.enter_context(agent_and_sidecar(Path(folder) / "others"))
        mine = stack.enter_context(agent_and_sidecar(Path(folder) / "agents"))
        agent = mine.agent
        assert agent.stdin is not None
        assert agent.stdout is not None
        urls = (None, others.sidecar_url, mine.sidecar_url, mine.own_url)
        longest: dict[str, list[int]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, url in zip(WAYS, urls, strict=True):
                with scraping(url):
                    agent.stdin.write("\n")
                    agent.stdin.flush()
                    longest[way].append(int(agent.stdout.readline()))
                time.sleep(0.1)
    return Delays(*(statistics.median(longest[way]) for way in WAYS))


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    found = delays(parser.parse_args().rounds)
    for way, ns in zip(WAYS, found, strict=True):
        print(f"{way:>19}: {ns / 1e3:8.1f} us")


if __name__ == "__main__":
    main()
