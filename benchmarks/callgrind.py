# SPDX-License-Identifier: MIT
"""Instructions a call, by valgrind: the same on a busy machine as on a quiet one.

    python benchmarks/callgrind.py              print the counts
    python benchmarks/callgrind.py --compare    ... beside those of README.md
    python benchmarks/callgrind.py --update     ... and store them there

One process runs each operation's loop N times, then 2 N times, and calls `mark()`
after each, at which callgrind cuts its profile. The difference of the two, divided by
N, is one call with its share of the `for` loop; what starting and warming up cost falls
out.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import empty
import readme
from operations import OPERATIONS
from rounds import LOOP

BLOCK = "instructions"
COUNTED = [operation for operation in OPERATIONS if operation.instructions]
LOOP_RUNS = 2000


def _loop(code: str, names: dict[str, object]) -> Callable[[int], None]:
    scope = {**names, "repeat": repeat}
    exec(f"def loop(n):\n    for _ in repeat(None, n):\n        {code}\n", scope)
    return scope["loop"]  # type: ignore[return-value]


def child() -> None:
    """Run every operation, N and 2 N times; under valgrind."""
    mark = empty.load().mark
    gc.disable()
    loops = [(_loop("pass", {}), LOOP_RUNS)]
    loops += [(_loop(o.code, o.world()), o.instructions) for o in COUNTED]
    for loop, n in loops:
        loop(min(n, 100))  # specialises the bytecode
        for times in (0, n, 2 * n):
            loop(times)
            mark()


def count() -> dict[str, float]:
    """Instructions a call (or value) of the loop and of each counted operation."""
    empty.load()  # built before valgrind makes that slow
    with tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "profile"
        subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--dump-before=*_empty_*mark*",
                f"--callgrind-out-file={profile}",
                sys.executable,
                __file__,
                "--child",
            ],
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            check=True,
            capture_output=True,
        )
        parts = sorted(
            profile.parent.glob("profile.*"), key=lambda path: int(path.suffix[1:])
        )
        totals = [_total(part) for part in parts]
    results = {}
    divisors = [(LOOP, LOOP_RUNS)]
    divisors += [(o.name, o.instructions * o.values) for o in COUNTED]
    for i, (name, n) in enumerate(divisors):
        _, once, twice = totals[3 * i : 3 * i + 3]
        results[name] = (twice - once) / n
    return results


def _total(part: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", part.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{part.name}: no total")
    return int(found[1])


def stored() -> dict[str, float]:
    """The counts in README.md."""
    rows = re.findall(
        r"^\| .* \| `([^`]+)` \| ([\d,.]+) \|", readme.block(BLOCK), re.MULTILINE
    )
    return {name: float(count.replace(",", "")) for name, count in rows}


def _text(count: float) -> str:
    return f"{count:,.1f}" if count < 20 else f"{count:,.0f}"


def table(counts: dict[str, float]) -> str:
    """The block of README.md."""
    titles = {LOOP: "the `for` loop, part of all others"}
    titles |= {operation.name: operation.title for operation in COUNTED}
    lines = [
        readme.environment("cython", "valgrind"),
        "",
        "| operation | name | instructions |",
        "|---|---|---:|",
    ]
    lines += [
        f"| {titles[name]} | `{name}` | {_text(count)} |"
        for name, count in counts.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments and do it."""
    parser = argparse.ArgumentParser(description="instructions a call")
    parser.add_argument("--compare", action="store_true", help="with README.md")
    parser.add_argument("--update", action="store_true", help="store in README.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child()
        return
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions counted")
        return
    counts = count()
    before = stored() if arguments.compare or arguments.update else {}
    for name, now in counts.items():
        was = before.get(name)
        change = f"{_text(was):>14}{now / was - 1:>+8.1%}" if was else ""
        print(f"{name:24}{_text(now):>14}{change}")
    if arguments.update:
        readme.replace(BLOCK, table(counts))


if __name__ == "__main__":
    main()
