# SPDX-License-Identifier: MIT
"""`ometrics rules`: look at a file of rules before it has to wake anybody."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from ometrics.cli.arguments import SOURCE, UnreadableSourceError, snapshot_of
from ometrics.cli.check import load_rules
from ometrics.cli.command import Group
from ometrics.cli.store import opened
from ometrics.cli.stored import Stored
from ometrics.durations import parse_length
from ometrics.rules import Engine, Objective, quantities, synthetic
from ometrics.rules.replay import ReplayError, replay
from ometrics.rules.words import describe, describe_stalls, sentence
from ometrics.snapshot import Snapshot
from ometrics.sources import Source
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.terminal import console_for
from ometrics.view.units import counted

EXAMPLES: Final = (
    ("ometrics rules check rules.toml", "is it right?"),
    ("ometrics rules show rules.toml", "what does it say?"),
    ("ometrics rules show default", "what do the rules say that suit most?"),
    ("ometrics rules show rules.toml --prometheus", "the same as Prometheus' rules"),
    ("ometrics rules test rules.toml metrics.db@24h", "when would it have alerted?"),
    ("ometrics rules test rules.toml --series 'errors = 0x9 5x9'", "and of this?"),
    ("ometrics rules metrics", "what can be watched?"),
)

RULES_FILE: Any = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=Group, examples=EXAMPLES)
def rules() -> None:
    """Check, show and try out a file of rules."""


@rules.command()
@click.argument("files", type=RULES_FILE, nargs=-1, required=True)
def check(files: tuple[Path, ...]) -> None:
    """Check FILES of rules; exit with 2 and the line of what is wrong."""
    for file in files:
        loaded = load_rules(file)
        found = loaded.rules
        objectives = sum(isinstance(rule, Objective) for rule in found)
        rules = counted(len(found) - objectives, "rule")
        stalls = "" if loaded.stalls is None else ", stalls"
        click.echo(f"{file}: {rules}, {counted(objectives, 'objective')}{stalls}, ok")


@rules.command()
@click.argument("file", type=RULES_FILE)
@click.option(
    "--prometheus",
    is_flag=True,
    help="Write the same as Prometheus recording and alert rules (2.42 or newer).",
)
def show(file: Path, *, prometheus: bool) -> None:
    """Show what FILE says, a sentence a rule."""
    loaded = load_rules(file)
    rules_of_file = loaded.rules
    if prometheus:
        from ometrics.rules.prometheus import rules_file

        try:
            click.echo(rules_file(rules_of_file), nl=False)
        except ValueError as error:
            raise UnreadableSourceError(f"{file}: {error}") from None
        return
    console = console_for(sys.stdout)
    for rule in rules_of_file:
        severity = "objective" if isinstance(rule, Objective) else rule.severity
        console.print(
            Text.assemble(
                (harmless(rule.name), "bold"), (f"  {severity}", "dim"), "\n  ",
                describe(rule),
            )
        )  # fmt: skip
    if loaded.stalls is not None:
        console.print(
            Text.assemble(
                ("stalls", "bold"), ("  warning", "dim"), "\n  ",
                describe_stalls(loaded.stalls),
            )
        )  # fmt: skip


@rules.command()
@click.argument("file", type=RULES_FILE)
@click.argument("exports", type=SOURCE, nargs=-1)
@click.option(
    "--series",
    metavar="TEXT",
    help="Made-up values of a metric instead, such as 'latency.p95 = 0.1x60 3sx30 _x9':"
    " a value and how often; _ is unknown.",
)
@click.option(
    "--step",
    metavar="LENGTH",
    default="1m",
    show_default=True,
    help="Time between two values of a series, or two looks at a history.",
)
def test(
    file: Path, exports: tuple[Source, ...], *, series: str | None, step: str
) -> int:
    """
    Run the rules of FILE over EXPORTS, and say what would have been alerted when.

    EXPORTS are sources of one collector, in the order of time; or one history, such as
    metrics.db or metrics.db@24h (the last 24 hours). Exit with 1 if an incident is
    still on at the end.
    """
    found = load_rules(file).rules
    if (series is None) is not bool(exports):
        raise click.UsageError("give EXPORTS, or --series")
    console = console_for(sys.stdout)
    on: set[str] = set()
    try:
        seconds = parse_length(step)
        if series is not None:
            alerts = synthetic.run(found, synthetic.parse(series), seconds)
        else:
            alerts = replay(Engine(found), _in_time(exports, seconds))
        for alert in alerts:
            style = "bold red" if alert.state == "firing" else "green"
            (on.add if alert.state == "firing" else on.discard)(alert.id)
            console.print(
                Text.assemble(
                    f"{alert.at:%Y-%m-%d %H:%M:%S}Z  ",
                    (f"{alert.state:<9}", style),
                    sentence(alert),
                )
            )
    except ReplayError as error:
        raise UnreadableSourceError(harmless(str(error))) from None
    except ValueError as error:
        raise click.UsageError(harmless(str(error))) from None
    words = f"{counted(len(on), 'incident')} at the end"
    console.print(Text(words, "bold red" if on else "green"))
    return int(bool(on))


def _in_time(exports: Sequence[Source], step: float) -> list[Snapshot]:
    """What had been counted at each instant, in order."""
    if len(exports) == 1 and isinstance(exports[0], Stored):
        history = exports[0]
        with opened(history.name) as store:
            windows = store.between(history.time or "1970-01-01", step=step)
            return list(accumulate(windows, Snapshot.merge))
    return [snapshot_of(export) for export in exports]


@rules.command()
def metrics() -> None:
    """List every number that a rule can watch, with its unit."""
    rows = [
        [quantity.name, quantity.unit or "count", quantity.scope]
        for quantity in quantities().values()
    ]
    columns = (
        TableColumn("metric", left=True),
        TableColumn("unit"),
        TableColumn("of", left=True),
    )
    console_for(sys.stdout).print(FittedTable(columns, rows))
