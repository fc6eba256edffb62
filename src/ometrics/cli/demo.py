# SPDX-License-Identifier: MIT
"""`ometrics demo`: a team of agents on real inference, watched as it works."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from ometrics.cli.files import writable
from ometrics.collector import MetricsCollector
from ometrics.export import json as json_export
from ometrics.snapshot import Snapshot
from ometrics.view import tables
from ometrics.view.live import live
from ometrics.view.plots import HistogramPlot
from ometrics.view.terminal import can_animate, console_for

if TYPE_CHECKING:
    from ometrics.cli.team import Team

EXAMPLES = """
\b
Examples:
  ometrics demo                      an Ollama if one answers, else the engine
  ometrics demo --engine --tasks 3   the engine: llama.cpp with SmolLM2-135M
  ometrics demo --model llama3.2 --json demo.json && ometrics show demo.json

A planner and a reviewer (threads) and two workers (asyncio) write about things; an
intern makes every mistake once, so that a 404, a cancelled stream and a timeout are
seen. The answers come from a real model, as good as it is.
"""
INTERRUPTED: Final = 130  # what shells report of a program that Ctrl-C ended
RESOURCES_EVERY: Final = 0.5  # seconds


@click.command(epilog=EXAMPLES)
@click.option(
    "--tasks",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    metavar="N",
    help="How many tasks the team works on.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 86_400),
    default=45.0,
    show_default=True,
    metavar="S",
    help="How long at most; work that is unfinished then is cancelled.",
)
@click.option(
    "--engine/--no-engine",
    default=None,
    help="Use the embedded engine, or an Ollama; default: what there is.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Which of Ollama's models; default: its smallest.",
)
@click.option(
    "--json",
    metavar="FILE",
    callback=writable,
    help="Where the export goes; default: a new temporary file.",
)
def demo(
    tasks: int,
    seconds: float,
    engine: bool | None,
    model: str | None,
    json: Path | None,
) -> int:
    """
    Watch a team of agents work on real inference, with or without Ollama.

    Then the summary, a histogram, and the export are shown.
    """
    if engine and model is not None:
        raise click.UsageError("--model chooses among Ollama's; the engine has one")
    console = console_for(sys.stdout)
    progress = Progress(console)
    with progress:
        progress.say("loading the ollama client")
        try:
            from ometrics.cli.place import place
            from ometrics.cli.team import Team as TheTeam
        except ImportError as error:
            raise MissingPackageError(error) from None
    import ometrics.ollama

    collector = MetricsCollector()
    ometrics.ollama.instrument(collector)
    with suppress(ImportError):  # without psutil there are no resources to see
        collector.sample_resources(RESOURCES_EVERY)
    with ExitStack() as stack:
        with progress:
            server = stack.enter_context(
                place(engine=engine, model=model, progress=progress.say)
            )
        console.print(Text(f"Real inference by {server.title}.", "bold"))
        team = TheTeam(
            server,
            report=collector.record_task_completion,
            tell=partial(console.print, no_wrap=True, overflow="ellipsis"),
            tasks=tasks,
            seconds=seconds,
        )
        interrupted = _watch(team, collector, console)
        snapshot = collector.snapshot()
    collector.close()
    ometrics.ollama.uninstrument()
    _tell(snapshot, server.model, console, json)
    if interrupted:
        return INTERRUPTED
    return 0 if team.completed else 1


class MissingPackageError(click.ClickException):
    """A package of the extra `demo` is not installed; exit code 2."""

    exit_code = 2

    def __init__(self, error: ImportError) -> None:
        name = error.name or "a package"
        super().__init__(f"the demo needs {name}: pip install 'ometrics[demo]'")


class Progress:
    """
    What is under way: a spinner on a terminal, else a line each.

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
        """Say what is under way from now on."""
        if self._status is not None:
            self._status.update(Text(f"{what} ..."))
        else:
            self._console.print(Text(f"{what} ...", "dim"))


def _watch(team: Team, collector: MetricsCollector, console: Console) -> bool:
    """Have the team work, live on a terminal; whether Ctrl-C ended it."""
    show: AbstractContextManager[object] = nullcontext()
    if can_animate(console):
        show = live(collector, console, below=team)
    try:
        with show:
            asyncio.run(team.run())
    except KeyboardInterrupt:
        return True
    return False


def _tell(snapshot: Snapshot, model: str, console: Console, json: Path | None) -> None:
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
