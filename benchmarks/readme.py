# SPDX-License-Identifier: MIT
"""The generated blocks of README.md, and what machine and versions they come from."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).parent / "README.md"
FRONT_PAGE = Path(__file__).parents[1] / "README.md"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(
        rf"(<!-- begin {name} -->\n)(.*?)(<!-- end {name} -->)", re.DOTALL
    )


def block(name: str, page: Path = README) -> str:
    """What stands between the markers of a block."""
    found = _pattern(name).search(page.read_text("utf-8"))
    if found is None:
        raise LookupError(f"{page} has no block {name}")
    return found[2]


def replace(name: str, text: str, page: Path = README) -> None:
    """Write a block anew."""
    block(name, page)
    old = page.read_text("utf-8")
    new = _pattern(name).sub(lambda found: f"{found[1]}{text}\n{found[3]}", old)
    page.write_text(new, "utf-8")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(package: str) -> str:
    if package in ("valgrind", "gcc"):
        flag = "--version" if package == "valgrind" else "-dumpfullversion"
        done = subprocess.run(
            [package, flag], check=True, capture_output=True, text=True
        )
        return f"{package} {done.stdout.strip().removeprefix('valgrind-')}"
    return f"{package} {version(package)}"


def environment(*packages: str) -> str:
    """One line: date, machine, interpreter and the versions of `packages`."""
    build = platform.python_compiler()
    parts = [
        datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        f"{os.cpu_count()} cores of {_processor()}",
        f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        f"{platform.python_implementation()} {platform.python_version()} ({build})",
        *map(_version, packages),
    ]
    return ", ".join(parts) + "."
