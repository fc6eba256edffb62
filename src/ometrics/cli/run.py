# SPDX-License-Identifier: MIT
"""`ometrics run`: any program, unchanged, its Ollama and OpenAI clients measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from ometrics.cli.arguments import writable
from ometrics.cli.check import load_rules
from ometrics.cli.command import Command
from ometrics.cli.launch import launch
from ometrics.cli.watch import Watch
from ometrics.collector import MetricsCollector
from ometrics.rules.load import RuleSet
from ometrics.view.escape import harmless

MAX_PORT: Final = 65_535

EXAMPLES: Final = (
    ("ometrics run agent.py --its --own=arguments", "print a summary at the end"),
    ("ometrics run --live -m my_package.agent", "watch it meanwhile"),
    ("ometrics run --json run.json agent.py", "keep it for show and diff"),
    ("ometrics run --store metrics.db agent.py", "keep it for history"),
    ("ometrics run --rules default agent.py", "be told when something is wrong"),
    ("ometrics run --serve 9464 agent.py", "let Prometheus read it meanwhile"),
)
NOTES: Final = """
The program keeps its exit code, its output, its traceback and its signals: one that
SIGTERM or Ctrl-C ends still ends by that signal, after the summary. Only a program
that is killed (SIGKILL, os._exit) or replaced (os.exec*) leaves no summary. Processes
that it starts are not measured; forked ones print nothing.

With --live, lines that the program prints go above the table. What others write to the
terminal meanwhile (its child processes, sys.stdout.buffer) is drawn over.
"""


@dataclass(frozen=True)
class Program:
    """
    A program to run, of `ometrics run`.

    Attributes:
        argv: Script or module, and its arguments.
        is_module: Whether `argv[0]` names a module, as after `python -m`.
        json: Where to write the export at the end; `None` for nowhere.
        live: Whether to show the live table, on a terminal.
        port: Where to serve `/metrics` meanwhile; `None` for nowhere.
        store: File or database URL in which to keep history; `None` for nowhere.
        rules: What to alert of meanwhile; `None` for nothing.
    """

    argv: Sequence[str]
    is_module: bool
    json: Path | None = None
    live: bool = False
    port: int | None = None
    store: str | None = None
    rules: RuleSet | None = None

    def __call__(self) -> None:
        """
        Run it in this process and report at the end of the process, however it ends.

        Raises:
            BaseException: What the program raised.
            SystemExit: The store cannot be; code 2, and the message says why.
        """
        collector = self._collector()
        watch = Watch(collector, json=self.json, live=self.live)
        if self.port is not None:
            watch.serve(self.port)
        if self.rules is not None:
            watch.alert(self.rules)
        watch.start()
        launch(self.argv, is_module=self.is_module)

    def _collector(self) -> MetricsCollector:
        if self.store is None:
            return MetricsCollector()
        try:
            from ometrics.store import StoreError
        except ImportError as error:
            sys.exit(_said(error))
        try:
            return MetricsCollector(store=self.store)
        except (ImportError, StoreError) as error:
            sys.exit(_said(error))


def _said(error: Exception) -> int:
    """Say why the program does not run; the exit code."""
    click.echo(f"ometrics: {harmless(str(error))}", err=True)
    return 2


@click.command(
    cls=Command,
    examples=EXAMPLES,
    notes=NOTES,
    # What follows the program's name is the program's.
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--json",
    metavar="FILE",
    callback=writable,
    help="Write all that was measured to FILE at the end, for 'show' and 'diff'.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Show a table that updates in place, when standard error is a terminal.",
)
@click.option(
    "--serve",
    "port",
    type=click.IntRange(0, MAX_PORT),
    metavar="PORT",
    help="Serve /metrics (Prometheus) on 127.0.0.1:PORT meanwhile; 0 is any free one.",
)
@click.option(
    "--store",
    metavar="STORE",
    help="Keep history in STORE, a file or a database URL, for 'history'.",
)
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="TOML",
    help="Say when a rule of this file is broken; 'default' for those that suit most.",
)
@click.option(
    "-m",
    "is_module",
    is_flag=True,
    help="PROGRAM is the name of a module, as after 'python -m'.",
)
@click.argument("program")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    program: str,
    args: tuple[str, ...],
    *,
    json: Path | None,
    port: int | None,
    store: str | None,
    rules_file: Path | None,
    live: bool,
    is_module: bool,
) -> Program:
    """
    Run PROGRAM, a script, with its Ollama and OpenAI clients measured.

    At its end the summary goes to standard error; PROGRAM needs no change for it.
    """
    if not is_module and not Path(program).exists():
        raise click.BadParameter(
            f"there is no file {program!r}; for a module use 'ometrics run -m"
            f" {program}'",
            param_hint="PROGRAM",
        )
    rules = None if rules_file is None else load_rules(rules_file)
    return Program((program, *args), is_module, json, live, port, store, rules)
