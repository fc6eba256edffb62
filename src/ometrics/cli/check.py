# SPDX-License-Identifier: MIT
"""`ometrics check`: an exported file against rules, for benchmark suites and CI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.text import Text

from ometrics.cli.arguments import (
    SOURCE,
    SOURCES_HELP,
    UnreadableSourceError,
    snapshot_of,
)
from ometrics.cli.command import Command
from ometrics.rules import expect
from ometrics.rules.check import Result, Verdict
from ometrics.rules.check import check as check_rules
from ometrics.rules.words import amount
from ometrics.sources import Source
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.terminal import console_for

if TYPE_CHECKING:
    from ometrics.rules.load import RuleSet

EXAMPLES: Final = (
    ("ometrics check run.json --rules rules.toml", "all rules of a file"),
    ("ometrics check run.json -e 'latency.p95 < 2s'", "a limit"),
    ("ometrics check run.json -e 'error_rate < 1%'", "another"),
)
NOTES: Final = f"""
Exit codes: 0 all hold; 1 one failed, or nothing is known of its number; 2 wrong usage
or sources. All of the source is one window, whatever 'over' says. 'ometrics rules
metrics' lists what can be checked.

{SOURCES_HELP}
"""
# Verdict -> its word and style; the worst first.
_VERDICTS: Final[dict[Verdict, tuple[str, str]]] = {
    "failed": ("FAILED", "bold red"),
    "missing": ("no data", "yellow"),
    "ok": ("ok", "green"),
}


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.argument("source", type=SOURCE)
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="TOML",
    help="A file of rules and objectives; 'default' for those that suit most.",
)
@click.option(
    "-e",
    "--expect",
    "expectations",
    multiple=True,
    metavar="TEXT",
    help="What must hold, such as 'latency.p95 < 2s'; may be given several times.",
)
def check(
    source: Source, rules_file: Path | None, expectations: tuple[str, ...]
) -> int:
    """Hold a SOURCE against rules; exit with 1 if one does not hold."""
    if rules_file is None and not expectations:
        raise click.UsageError("say what must hold: --rules TOML or --expect TEXT")
    rules = [] if rules_file is None else [*load_rules(rules_file).rules]
    try:
        wanted = [expect(text) for text in expectations]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expect") from None
    results = check_rules([*rules, *wanted], snapshot_of(source))
    report(results, console_for(sys.stdout))
    return int(any(result.verdict != "ok" for result in results))


def load_rules(path: Path) -> RuleSet:
    """
    Read a file of rules; `default` is ours, unless there is such a file.

    Raises:
        UnreadableSourceError: It cannot be read, or says what cannot be meant.
    """
    from ometrics.rules.load import defaults
    from ometrics.rules.load import load as read

    try:
        if str(path) == "default" and not path.exists():
            return defaults()
        return read(path)
    except OSError as error:
        raise UnreadableSourceError(f"{path}: {error.strerror}") from None
    except (ValueError, ImportError) as error:
        raise UnreadableSourceError(harmless(str(error))) from None


def report(results: Sequence[Result], console: Console) -> None:
    """A table of all results, worst first, and a sentence."""
    order = list(_VERDICTS)
    worst = sorted(results, key=lambda result: order.index(result.verdict))
    rows: list[list[Text | str]] = [
        [
            Text(harmless(result.name), style="bold"),
            harmless(result.model, 40) or "all",
            amount(result.value, result.unit),
            f"{result.symbol} {amount(result.bound, result.unit)}",
            Text(_off(result), "red"),
            Text(*_VERDICTS[result.verdict]),
        ]
        for result in worst
    ]
    columns = (
        TableColumn("rule", left=True),
        TableColumn("model", rank=2, left=True),
        TableColumn("value"),
        TableColumn("must be"),
        TableColumn("off by", rank=1),
        TableColumn("verdict", left=True),
    )
    console.print(FittedTable(columns, rows))
    verdicts = [result.verdict for result in results]
    parts = [
        Text(f"{verdicts.count(verdict)} {word.lower()}", style)
        for verdict, (word, style) in _VERDICTS.items()
        if verdict in verdicts
    ]
    console.print(Text(", ").join(parts))


def _off(result: Result) -> str:
    return "" if result.excess is None else f"{result.excess:+.0f}%"
