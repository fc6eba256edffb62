# SPDX-License-Identifier: MIT
"""Agents in processes of their own, which record what a test tells them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli_runs import environment

AGENT = """
import sys
import ometrics
mc = ometrics.MetricsCollector()
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""

# What to tell: a finished call to a model, 40 tokens in one second.
CHAT = "mc.start_call('{}').end('success', decode=10**9, completion_tokens=40)"


class Agent:
    """A program that records what it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def do(self, line: str) -> None:
        """Run a line of Python there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def kill(self) -> None:
        """End it by -9."""
        self.process.kill()
        self.process.wait()


@contextmanager
def agent(
    directory: Path, name: str = "agent.py", prefix: Sequence[str] = ()
) -> Iterator[Agent]:
    """
    An agent whose records are in a directory.

    Args:
        directory: Two levels below where its script goes.
        name: Of its script.
        prefix: A command that runs it, such as `unshare`.
    """
    script = directory.parent.parent / name
    script.write_text(AGENT)
    env = environment(OMETRICS_DIR=str(directory))
    with subprocess.Popen(
        [*prefix, sys.executable, str(script)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Agent(process)
        process.kill()
