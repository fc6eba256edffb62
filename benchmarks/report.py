# SPDX-License-Identifier: MIT
"""Everything measured, against its bar, in one table.

    python benchmarks/report.py                  print it
    python benchmarks/report.py --update         ... and store it in README.md
    python benchmarks/report.py --quick          fewer rounds, to try a change

Timing is information: the exit code is 0 whatever the table says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import readme
from clients import clients
from history import history
from measures import MEASURES, Row
from operations import (
    OPERATIONS,
    ORIGINAL,
    ORIGINAL_SOURCE,
    Bar,
    Operation,
)
from rounds import LOOP, Timing, measure

HERE = Path(__file__).parent
PEERS = ("prometheus_client", "opentelemetry", "ddsketch", "hdrh")
BLOCK = "report"
ORIGINAL_MARK = " (°)"


class Peers:
    """What the peers cost, each measured in a process of its own."""

    def __init__(self) -> None:
        self.packages: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.costs: dict[str, float] = {f"original:{k}": v for k, v in ORIGINAL.items()}

    def run(self, name: str) -> None:
        """Measure one; one that is not installed leaves its rows out."""
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-m", "peers", name],
            env={**os.environ, "PYTHONPATH": path},
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            self.missing[name] = (done.stderr.strip().splitlines() or ["?"])[-1]
            return
        found = json.loads(done.stdout)
        self.packages |= found["packages"]
        for operation, ns in found["best"].items():
            self.costs[f"{name}:{operation}"] = ns

    def cost(self, against: str) -> float | None:
        """Nanoseconds of `peer:operation`; `None` if that peer is missing."""
        return self.costs.get(against)


def _time(ns: float) -> str:
    if ns < 1e4:
        return f"{ns:.1f} ns" if ns < 1000 else f"{ns:,.0f} ns"
    return f"{ns / 1e3:,.0f} us" if ns < 1e6 else f"{ns / 1e6:.2f} ms"


def _faster(operation: Operation, bar: Bar, ns: float, peer: float) -> Row:
    """A row against a peer or against the original's constant."""
    source = bar.against.replace(":", " ", 1)
    mark = ORIGINAL_MARK if bar.against.startswith("original:") else ""
    ratio = peer / ns
    factor = f"{ratio:,.0f} x" if ratio >= 10 else f"{ratio:.2f} x"
    return Row(
        f"{operation.title} against {source}{mark}",
        f"{factor} faster ({_time(ns)}, {_time(peer)})",
        f">= {bar.limit:g} x" if bar.kind == "faster" else "",
        ratio >= bar.limit if bar.kind == "faster" else None,
    )


def _row(
    operation: Operation, bar: Bar, timings: dict[str, Timing], peers: Peers
) -> Row | None:
    mine = timings[operation.name]
    if ":" in bar.against:
        peer = peers.cost(bar.against)
        return None if peer is None else _faster(operation, bar, mine.best, peer)
    if bar.kind == "at most":
        return Row(
            operation.title,
            f"{_time(mine.best)} (usually {_time(mine.median)})",
            f"<= {_time(bar.limit)}",
            mine.best <= bar.limit,
        )
    other = timings[bar.against]
    if bar.kind == "beyond":
        extra = mine.best - other.best
        return Row(
            operation.title,
            f"{_time(extra)} above two perf_counter() calls"
            f" ({_time(mine.best)}, {_time(other.best)})",
            f"<= {_time(bar.limit)}",
            extra <= bar.limit,
        )
    floor = timings[LOOP].best
    ratio, bare = mine.over(other), mine.over(other, floor)
    aim = "" if bar.aim is None else f", aim {bar.aim:g}"
    return Row(
        operation.title,
        f"{ratio:.2f} x empty; {bare:.2f} x without the loop"
        f" (usually {mine.usually_over(other):.2f};"
        f" {_time(mine.best)}, {_time(other.best)})",
        f"<= {bar.limit:g} x{aim}" if bar.kind == "ratio" else "",
        ratio <= bar.limit if bar.kind == "ratio" else None,
    )


def rows(peers: Peers, *, quick: bool = False) -> Iterator[Row]:
    """Measure, and yield each row as soon as it is known."""
    for name in PEERS:
        peers.run(name)
    fast = {o.name: o.statement() for o in OPERATIONS if not o.slow}
    timings = measure(fast, rounds=60 if quick else 600)
    slow = {o.name: o.statement() for o in OPERATIONS if o.slow}
    timings |= {
        name: timing
        for name, timing in measure(slow, rounds=5 if quick else 40).items()
        if name != LOOP
    }
    loop = timings[LOOP]
    yield Row("the loop that the times include", _time(loop.best))
    for operation in OPERATIONS:
        for bar in operation.bars:
            row = _row(operation, bar, timings, peers)
            if row is not None:
                yield row
    for function in (*MEASURES, clients, history):
        yield from function()


def _verdict(row: Row) -> str:
    return "" if row.met is None else "met" if row.met else "**SHORT**"


def markdown(found: list[Row], peers: Peers) -> str:
    """The block of README.md."""
    packages = [f"{name} {version}" for name, version in peers.packages.items()]
    lines = [
        " ".join(
            [
                readme.environment("cython", "msgspec", "numpy")[:-1] + ";",
                "peers:",
                ", ".join(packages) + ".",
                f"Load average before: {LOAD[0]:.1f}.",
            ]
        ),
        "",
        "| operation | measured | bar | verdict |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r.operation} | {r.measured} | {r.bar} | {_verdict(r)} |" for r in found
    ]
    lines += ["", f"{ORIGINAL_MARK.strip()} {ORIGINAL_SOURCE}."]
    lines += [f"Left out: {name}: {why}." for name, why in peers.missing.items()]
    return "\n".join(lines)


# What the project's own README shows, by the start of the row's name.
FRONT = (
    "record_latency by name against",
    "record_latency by bound recorder against",
    "record_latencies, 1,000",
    "with mc.time",
    "snapshot() of",
    "export_json() of 100 models",
    "Prometheus text page of 1,000 models, snapshot included against",
    "memory a model, all views",
    "instrumented client, a call: ometrics",
    "instrumented client, a chunk: ometrics",
)


def front_page(found: list[Row]) -> str:
    """The block of the project's README: the rows that a newcomer asks for."""
    lines = ["| operation | measured |", "|---|---|"]
    lines += [
        f"| {r.operation} | {r.measured} |"
        for r in found
        if r.operation.startswith(FRONT)
    ]
    lines += ["", f"{ORIGINAL_MARK.strip()} {ORIGINAL_SOURCE}."]
    return "\n".join([readme.environment("cython"), "", *lines])


def _json_table(peers: Peers) -> str:
    packages = ", ".join(f"{k} {v}" for k, v in peers.packages.items())
    lines = [f"{packages}.", "", "| what | best |", "|---|---:|"]
    lines += [
        f"| {name.partition(':')[2]} | {_time(ns)} |"
        for name, ns in peers.costs.items()
        if name.startswith("json_libraries:") and not name.endswith(LOOP)
    ]
    return "\n".join(lines)


LOAD = os.getloadavg() if hasattr(os, "getloadavg") else (float("nan"),) * 3


def show(*, quick: bool = False, update: bool = False) -> None:
    """Measure and print, row by row; with `update`, store in README.md."""
    peers = Peers()
    found = []
    print(f"load average before: {LOAD[0]:.1f} (on a busy machine, doubt the times)")
    for row in rows(peers, quick=quick):
        found.append(row)
        verdict = _verdict(row).strip("*")
        print(f"{verdict:6}{row.operation:60} {row.bar:20} {row.measured}", flush=True)
    print(f"{ORIGINAL_MARK.strip()} {ORIGINAL_SOURCE}")
    print("peers:", ", ".join(f"{k} {v}" for k, v in peers.packages.items()))
    for name, why in peers.missing.items():
        print(f"left out: {name}: {why}")
    if update:
        readme.replace(BLOCK, markdown(found, peers))
        readme.replace("speed", front_page(found), readme.FRONT_PAGE)
        libraries = Peers()
        libraries.run("json_libraries")
        readme.replace("json", _json_table(libraries))


def main() -> None:
    """Parse the arguments and do it."""
    parser = argparse.ArgumentParser(description="everything against its bar")
    parser.add_argument("--update", action="store_true", help="store in README.md")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    show(quick=arguments.quick, update=arguments.update)


if __name__ == "__main__":
    main()
