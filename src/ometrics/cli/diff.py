# SPDX-License-Identifier: MIT
"""`ometrics diff`: two runs side by side, and whether the new one is worse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

import click
from rich.text import Text

from ometrics.cli.arguments import SOURCE, SOURCES_HELP, snapshot_of
from ometrics.cli.command import Command
from ometrics.comparison import Change, Comparison, Kind, compare
from ometrics.snapshot import Snapshot
from ometrics.sources import Source
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.terminal import console_for
from ometrics.view.units import (
    UNKNOWN,
    count,
    duration,
    number,
    percent,
    signed_percent,
)

EXAMPLES: Final = (
    ("ometrics diff before.json after.json", "what changed"),
    ("ometrics diff old.json new.json --fail-above 10%", "exit with 1 if worse"),
    ("ometrics diff old.json http://127.0.0.1:9464", "a file and what runs now"),
)
NOTES: Final = f"""
Times are worse when they grow, tokens/s when they fall, the error rate when it grows.
'certain' is where the true change lies: all rows of the table hold together with 95 %
confidence. A change is called worse or better only if all of that range is. Quantiles
have intervals of order statistics, means and speeds Student's t, error rates Wilson's
score; changes are their combination (Zou and Donner 2008, Newcombe 1998; Bonferroni).
Requests count as independent of each other: compare runs of the same work, and not
minutes in which the machine did something else.

With --fail-above a figure fails that is worse beyond noise and by more than the limit,
and a model of OLD that NEW lacks. Figures of too few values do not fail; the table says
how many it takes.

Exit codes: 0 not worse, or no limit given; 1 worse; 2 wrong usage or sources.

{SOURCES_HELP}
"""


class Limit(click.ParamType):  # type: ignore[type-arg]
    """Percent, written `10%` or `10`."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Percent as a number; fails below zero and for what is no number."""
        try:
            limit = float(str(value).strip().removesuffix("%"))
        except ValueError:
            limit = -1.0
        if limit < 0 or not isfinite(limit):
            self.fail(f"{value!r} is no limit; write it like 10%", param, ctx)
        return limit


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.argument("old", type=SOURCE)
@click.argument("new", type=SOURCE)
@click.option(
    "--fail-above",
    type=Limit(),
    metavar="PERCENT",
    help="Exit with 1 if anything is worse by more than this, beyond noise.",
)
def diff(old: Source, new: Source, fail_above: float | None) -> int:
    """Compare two sources, OLD and NEW, model by model."""
    before, after = snapshot_of(old), snapshot_of(new)
    comparison = compare(before, after)
    console = console_for(sys.stdout)
    console.print(tables.spaced(_table(comparison, before, after, fail_above)))
    for model in comparison.lost:
        console.print(Text(f"{harmless(model)} is missing in the new source", "red"))
    for model in comparison.gained:
        console.print(Text(f"{harmless(model)} is new", "dim"))
    if fail_above is None:
        return 0
    failed = [change for change in comparison.changes if change.is_worse(fail_above)]
    for change in failed:
        console.print(
            Text(
                f"worse: {harmless(change.model)}, {change.title}:"
                f" {signed_percent(change.percent)} (limit {fail_above:g}%)",
                "bold red",
            )
        )
    if failed or comparison.lost:
        return 1
    if not comparison.tests:
        console.print(Text("too little data to tell; measure more requests", "yellow"))
    else:
        text = f"nothing is worse by more than {fail_above:g}%, beyond noise"
        console.print(Text(text, "green"))
    return 0


_COLUMNS: Final = (
    TableColumn("model", left=True),
    TableColumn("old"),
    TableColumn("new"),
    TableColumn("change"),
    TableColumn("certain", 2),
    TableColumn("verdict", 1, left=True),
)


def _table(
    comparison: Comparison, before: Snapshot, after: Snapshot, limit: float | None
) -> FittedTable:
    """A row a figure, after a row with each model's name and counts."""
    rows: list[list[Text | str]] = []
    model = None
    for change in comparison.changes:
        if change.model != model:
            model = change.model
            counts = (s.models[model].total_requests for s in (before, after))
            rows.append([tables.name(model), *map(count, counts), "", "", "requests"])
        show = _SHOW[change.figure.kind]
        rows.append(
            [
                Text(f"  {change.title}"),
                show(change.old),
                show(change.new),
                signed_percent(change.percent),
                _certain(change),
                _verdict(change, limit),
            ]
        )
    return FittedTable(_COLUMNS, rows)


def _share(value: float | None) -> str:
    return percent(None if value is None else 100 * value)


_SHOW: Final[Mapping[Kind, Callable[[float | None], str]]] = {
    "time": duration,
    "speed": number,
    "share": _share,
}


def _certain(change: Change) -> str:
    """The interval, of shares in percentage points."""
    if change.change is None:
        return UNKNOWN
    _, low, high = change.change
    if change.figure.kind == "share":
        return f"{100 * low:+.1f} to {100 * high:+.1f} points"
    return f"{100 * low - 100:+.1f} to {signed_percent(100 * high - 100)}"


def _verdict(change: Change, limit: float | None) -> Text:
    if change.change is None:
        if change.count >= change.least:
            return Text(UNKNOWN)
        return Text(f"too few: {count(change.count)} of {count(change.least)}", "dim")
    if change.verdict == "worse":
        beyond = limit is None or change.is_worse(limit)
        return Text("worse" if beyond else "worse, within limit", "red")
    return Text(change.verdict, "green" if change.verdict == "better" else "dim")
