# SPDX-License-Identifier: MIT
"""The demo's agents in several processes, of which one is killed with `kill -9`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Timer
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from ometrics.demo.server import EngineServer
from ometrics.demo.team import TOPICS
from ometrics.instrumentation.children import announce
from ometrics.segments import Attached, attach
from ometrics.snapshot import Snapshot
from ometrics.view import tables
from ometrics.view.processes import ProcessRow, processes

AGENTS: Final = 3
ROUNDS: Final = 2  # questions that each asks before one of them is killed
PATIENCE: Final = 60.0  # seconds

Child = subprocess.Popen[str]


def work(
    server: EngineServer, log: Callable[[RenderableType], None]
) -> Snapshot | None:
    """
    Have some agents ask, each in a process, and kill the first in its last question.

    Args:
        server: Where inference happens.
        log: Called with what people are to see.

    Returns:
        What they counted, the killed one too; `None` where there can be no segments.
    """
    with tempfile.TemporaryDirectory(prefix="ometrics-demo-") as directory:
        try:
            source = attach(directory)
        except OSError as error:
            log(Text(f"no agents in several processes: {error}", "dim"))
            return None
        log(Text("Agents in processes of their own; one is killed by kill -9:", "bold"))
        with ExitStack() as stack:
            children = [_start(server, directory, i, stack) for i in range(AGENTS)]
            timer = Timer(PATIENCE, _kill, [children])
            stack.callback(timer.cancel)
            timer.start()
            _have_ask(children)
        log(tables.spaced(processes(_rows(source, children))))
        return source.snapshot()


def _start(server: EngineServer, directory: str, i: int, stack: ExitStack) -> Child:
    arguments = (server.host or "", server.model, TOPICS[i])
    environment = dict(os.environ)
    announce(directory, environment)
    child = stack.enter_context(
        subprocess.Popen(  # noqa: S603 - ourselves
            (sys.executable, "-m", "ometrics.demo.lone_agent", *arguments),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is the demo's
        )
    )
    stack.callback(child.kill)
    return child


def _have_ask(children: Sequence[Child]) -> None:
    """Each of them some times; then the first is killed amid a question."""
    for _ in range(ROUNDS):
        for child in children:
            _tell(child)
        for child in children:
            _heard(child)
    first, *others = children
    _tell(first)
    first.kill()
    for child in others:
        _tell(child)
        _heard(child)
        child.communicate()
    first.wait()


def _tell(child: Child) -> None:
    if child.stdin is not None:
        try:
            child.stdin.write("\n")
            child.stdin.flush()
        except BrokenPipeError:  # it has ended
            pass


def _heard(child: Child) -> None:
    if child.stdout is not None:
        child.stdout.readline()


def _kill(children: Sequence[Child]) -> None:
    for child in children:
        child.kill()


def _rows(source: Attached, children: Sequence[Child]) -> list[ProcessRow]:
    """A row for each, in the order in which they were started."""
    counted = {one.pid: one.snapshot for one in source.instances()}
    rows = []
    for child, topic in zip(children, TOPICS, strict=False):
        code = child.returncode
        end = f"killed by signal {-code}" if code < 0 else f"exit {code}"
        counts = counted.get(child.pid)
        requests = counts.total_requests if counts else 0
        errors = counts.total_errors if counts else 0
        rows.append(
            ProcessRow(f"lone_agent.py {topic}", child.pid, requests, errors, end)
        )
    return rows
