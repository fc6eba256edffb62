# SPDX-License-Identifier: MIT
"""`ometrics run`: any program, unchanged, its Ollama and OpenAI clients measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click

from ometrics._segment import HAS_SEGMENTS
from ometrics.cli.alerts import rules_option
from ometrics.cli.arguments import absolute, writable
from ometrics.cli.check import load_rules
from ometrics.cli.command import Command
from ometrics.cli.directory import new_directory
from ometrics.cli.inside import at_end, show_live
from ometrics.cli.launch import become, launch
from ometrics.cli.members import RunMembers
from ometrics.cli.outside import LOOK_EVERY, Run
from ometrics.cli.supervise import Child, end_like
from ometrics.cli.watch import RunReporter, own_stderr
from ometrics.collector import MetricsCollector
from ometrics.instrumentation.api import instrument
from ometrics.instrumentation.children import announce, measure
from ometrics.instrumentation.unmeasured import imported_clients
from ometrics.rules.load import RuleSet
from ometrics.segments import attach
from ometrics.segments.places import open_directory
from ometrics.sources import Source
from ometrics.view.escape import harmless
from ometrics.view.terminal import can_animate, console_for

MAX_PORT: Final = 65_535

EXAMPLES: Final = (
    ("ometrics run agent.py --its --own=arguments", "print a summary at the end"),
    ("ometrics run --live -m my_package.agent", "watch it meanwhile"),
    ("ometrics run --json run.json agent.py", "keep it for show and diff"),
    ("ometrics run --store metrics.db agent.py", "keep it for history"),
    ("ometrics run --rules default agent.py", "be told when something is wrong"),
    ("ometrics run --serve 9464 agent.py", "let Prometheus read it meanwhile"),
    ("ometrics run -m gunicorn -w 4 app:app", "a pool of workers, all together"),
)
NOTES: Final = """
The program keeps its exit code, its output, its traceback and its signals, which go on
to it. However it ends, the summary comes, and then this command ends like it.

Every Python process that it starts is measured too, and theirs. One that starts with
-I, -S or -E, with another environment, or with a Python that has no ometrics is not
reached; what is seen of those is said at the end (on Linux). FILE is written every two
seconds as well, so that it is there if everything is killed.

With --live, what is wrong stands under the table, and the server at OLLAMA_HOST (or of
this machine) is asked for its models every five seconds. Lines that the program prints
go above the table. What others write to the
terminal meanwhile (its child processes, sys.stdout.buffer) is drawn over.
"""


@dataclass(frozen=True)
class Program:
    """
    A program to run, of `ometrics run`.

    Attributes:
        argv: Script or module, and its arguments.
        is_module: Whether `argv[0]` names a module, as after `python -m`.
        json: Where to write the export; `None` for nowhere.
        live: Whether to show the live table, on a terminal.
        port: Where to serve `/metrics` meanwhile; `None` for nowhere.
        store: File or database URL in which to keep history; `None` for nowhere.
        rules: What to alert of meanwhile; `None` for nothing.
        directory: Where its processes have their records; `None` for a temporary one.
    """

    argv: Sequence[str]
    is_module: bool
    json: Path | None = None
    live: bool = False
    port: int | None = None
    store: str | None = None
    rules: RuleSet | None = None
    directory: Path | None = None

    def __call__(self) -> None:
        """
        Run it, report at its end however that comes, and end as it did.

        Raises:
            BaseException: What the program raised.
            SystemExit: With the program's exit code; with 2 if it did not run, and the
                message says why.
        """
        if HAS_SEGMENTS:
            self._run_beside()
        else:
            self._run_alone()

    def _run_beside(self) -> None:
        """The program in a child process, whose records this one reads."""
        directory = self._directory()
        child = Child()
        if child.pid == 0:
            announce(directory, os.environ)
            become(self.argv, is_module=self.is_module)  # its records have its name
            measure(directory)
            self._show(RunMembers(attach(directory), self._program))
            launch(self.argv, is_module=self.is_module)
            return
        run = Run(directory, self._program, is_temporary=self.directory is None)
        watch = RunReporter(run.members, json=self.json)
        try:
            self._use(watch)
        except SystemExit:
            child.abandon()
            run.end()
            raise
        child.begin()
        code = child.wait(partial(run.look, watch), LOOK_EVERY)
        run.report(watch, child.pid, code)
        end_like(code)

    def _run_alone(self) -> None:
        """The program in this process, where no other one can read its records."""
        collector = MetricsCollector()
        watch = RunReporter(collector, json=self.json)
        self._use(watch)
        instrument(collector)

        def report() -> None:
            watch.finish(imported_clients)
            watch.close()

        at_end(report)
        self._show(collector)
        launch(self.argv, is_module=self.is_module)

    @property
    def _program(self) -> str:
        """What the user asked to run."""
        return " ".join(("-m", *self.argv) if self.is_module else self.argv)

    def _directory(self) -> str:
        try:
            if self.directory is None:
                return new_directory()
            os.close(open_directory(self.directory, create=True))
        except OSError as error:
            why = harmless(f"{error}; name another one with --directory")
            click.echo(f"ometrics: no directory for its records: {why}", err=True)
            sys.exit(2)
        return str(self.directory)

    def _use(self, watch: RunReporter) -> None:
        """
        Begin what goes on beside the program.

        Raises:
            SystemExit: It cannot be.
        """
        if self.live:
            watch.attempt("ask the server for its models", watch.poll)
        if self.store is not None:
            watch.keep(self.store)
        if self.port is not None:
            watch.serve(self.port)
        if self.rules is not None:
            watch.alert(self.rules)

    def _show(self, source: Source) -> None:
        """Show the live table, in the process whose lines go above it."""
        console = console_for(own_stderr())
        if self.live and can_animate(console):
            at_end(show_live(source, console))


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
    help="Write all that is measured to FILE, for 'show' and 'diff'.",
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
@rules_option
@click.option(
    "--directory",
    envvar="OMETRICS_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where its processes have their records, for other readers; default:"
    " $OMETRICS_DIR, or a temporary one.",
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
    directory: Path | None,
    live: bool,
    is_module: bool,
) -> Program:
    """
    Run PROGRAM, a script, and measure the calls to models of all its processes.

    At its end the summary goes to standard error; PROGRAM needs no change for it.
    """
    if not is_module and not Path(program).exists():
        raise click.BadParameter(
            f"there is no file {program!r}; for a module use 'ometrics run -m"
            f" {program}'",
            param_hint="PROGRAM",
        )
    rules = None if rules_file is None else load_rules(rules_file)
    if directory is not None:
        directory = absolute(directory)  # the program may go elsewhere
    return Program(
        (program, *args), is_module, json, live, port, store, rules, directory
    )
