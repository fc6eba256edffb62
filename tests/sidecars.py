# SPDX-License-Identifier: MIT
"""`ometrics serve` as a process beside agents."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli_runs import OMETRICS, environment


@contextmanager
def sidecar(
    directory: Path, *options: str, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and where it serves."""
    command = (*prefix, *OMETRICS, "serve", str(directory), "--listen", ":0")
    with subprocess.Popen(
        (*command, *options), env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"at (http\S+)/metrics", said)
        assert found is not None, said
        yield process, found[1]
        process.kill()
