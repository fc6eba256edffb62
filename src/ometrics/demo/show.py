# SPDX-License-Identifier: MIT
"""The show: find a server, let the team work under the instrumented client, report."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from rich.console import Console
from rich.status import Status
from rich.text import Text

import ometrics.ollama
from ometrics.collector import MetricsCollector
from ometrics.demo import other_language, pool, troubles
from ometrics.demo.server import find_server
from ometrics.demo.team import Team
from ometrics.export import json as json_export
from ometrics.snapshot import Snapshot
from ometrics.view import tables
from ometrics.view.histogram_plot import HistogramPlot
from ometrics.view.live import live
from ometrics.view.terminal import can_animate

INTERRUPTED: Final = 130  # what shells report of a program that Ctrl-C ended
RESOURCES_EVERY: Final = 0.5  # seconds


class Progress:
    """
    What is being waited for: a spinner on a terminal, else a line each.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    def __enter__(self) -> None:
        """Begin; may be repeated after the end."""
        if can_animate(self._console):
            self._status = self._console.status("")
            self._status.start()

    def __exit__(self, *_: object) -> None:
        """End; a spinner leaves no trace."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, what: str) -> None:
        """Show what is being waited for from now on."""
        if self._status is not None:
            self._status.update(Text(f"{what} ..."))
        else:
            self._console.print(Text(f"{what} ...", "dim"))


def run(
    console: Console,
    *,
    tasks: int,
    seconds: float,
    engine: bool | None = None,
    model: str | None = None,
    json: Path | None = None,
    store: str | None = None,
) -> int:
    """
    Run the demo from the search for a server to the exported file.

    Args:
        console: Where everything is shown.
        tasks: How many tasks the team works on.
        seconds: How long at most.
        engine: True for the engine, False for an Ollama, `None` for what there is.
        model: Which of Ollama's models; `None` for its smallest.
        json: Where the export goes; `None` for a new temporary file.
        store: File or database URL in which to keep history; `None` for nowhere.

    Returns:
        An exit code: 0, 1 if no task was completed, 130 after Ctrl-C.

    Raises:
        NoServerError: Neither an Ollama nor the engine can be had.
    """
    progress = Progress(console)
    collector = MetricsCollector(store=store)
    ometrics.ollama.instrument(collector)
    with suppress(ImportError):  # without psutil there are no resources to see
        collector.sample_resources(RESOURCES_EVERY)
    with ExitStack() as stack:
        stack.callback(ometrics.ollama.uninstrument)
        stack.enter_context(collector)
        with progress:
            server = stack.enter_context(
                find_server(engine=engine, model=model, progress=progress.say)
            )
        console.print(Text(f"Real inference by {server.title}.", "bold"))
        team = Team(
            server,
            report=collector.record_task_completion,
            log=partial(console.print, no_wrap=True, overflow="ellipsis"),
            tasks=tasks,
            seconds=seconds,
        )
        interrupted = _watch(team, collector, console)
        processes = None
        if not interrupted:
            other_language.ask(server, collector, console.print)
            processes = pool.work(server, console.print)
        snapshot = collector.snapshot()
        if processes is not None:
            snapshot = snapshot.merge(processes)
    _report(snapshot, server.model, console, json)
    if not interrupted:
        troubles.provoke(console.print)
    if interrupted:
        return INTERRUPTED
    return 0 if team.completed else 1


def _watch(team: Team, collector: MetricsCollector, console: Console) -> bool:
    """Have the team work, live on a terminal; whether Ctrl-C ended it."""
    view: AbstractContextManager[object] = nullcontext()
    if can_animate(console):
        view = live(collector, console, below=team)
    try:
        with view:
            asyncio.run(team.run())
    except KeyboardInterrupt:
        return True
    return False


def _report(
    snapshot: Snapshot, model: str, console: Console, json: Path | None
) -> None:
    """The summary, the histogram, and where the export went."""
    console.print()
    console.print(tables.report(snapshot), end="")
    metrics = snapshot.models.get(model)
    if metrics is not None and metrics.latency_hist.count:
        title = Text.assemble("latency of ", tables.name(model))
        console.print(tables.spaced(title, HistogramPlot(metrics.latency_hist)), end="")
    path = json or _new_file()
    json_export.write(snapshot, path)
    console.print(Text(f"ometrics show {path}", "cyan"), soft_wrap=True)


def _new_file() -> Path:
    """An empty file of a name that nobody can foresee."""
    with NamedTemporaryFile(
        prefix="ometrics-demo-", suffix=".json", delete=False
    ) as file:
        return Path(file.name)
