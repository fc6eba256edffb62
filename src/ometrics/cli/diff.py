# SPDX-License-Identifier: MIT
"""`ometrics diff`: two exports side by side, and whether the new one is worse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, isfinite
from typing import IO, Any, Final

import click
from rich.text import Text

from ometrics.cli.files import JSON_FILE, load
from ometrics.snapshot import PerformanceMetrics, Snapshot
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.fitted import Column, FittedTable
from ometrics.view.terminal import console_for
from ometrics.view.units import UNKNOWN, count, duration, number, percent

EXAMPLES = """
\b
Examples:
  ometrics diff before.json after.json
  ometrics diff --fail-above 10% baseline.json new.json || echo slower

Exit codes: 0 not worse, or no limit given; 1 worse than the limit; 2 wrong usage or
files. Times count as worse when they grow, tokens/s when they fall, the error rate when
it grows: all relative to the old value, so that errors where there were none are always
worse. A model of OLD that NEW lacks is worse; one that only NEW has is shown. Quantiles
are exact to 1 %, so limits below 3 % see noise.
"""


@dataclass(frozen=True)
class Measure:
    """
    One thing to compare of a model.

    Attributes:
        title: Its name.
        read: Its value; `None` for unknown.
        show: Its text.
        falls: Whether a lower value is worse.
    """

    title: str
    read: Callable[[PerformanceMetrics], float | None]
    show: Callable[[float | None], str]
    falls: bool = False


MEASURES: Final = (
    Measure("p50", lambda m: m.latency_p50, duration),
    Measure("p95", lambda m: m.latency_p95, duration),
    Measure("p99", lambda m: m.latency_p99, duration),
    Measure(
        "error rate", lambda m: m.error_rate if m.total_requests else None, percent
    ),
    Measure("tokens/s", tables.tokens_per_second, number, falls=True),
)


@dataclass(frozen=True)
class Change:
    """
    How one measure of one model went from the old export to the new one.

    Attributes:
        model: Name of the model.
        measure: What is compared.
        old: Value before; `None` for unknown.
        new: Value after; `None` for unknown.
    """

    model: str
    measure: Measure
    old: float | None
    new: float | None

    @property
    def percent(self) -> float | None:
        """Relative change in percent; infinite from zero; `None` if one is unknown."""
        if self.old is None or self.new is None:
            return None
        if not self.old:
            return inf if self.new else 0.0
        return 100.0 * (self.new - self.old) / self.old

    @property
    def worsening(self) -> float:
        """Percent by which it got worse; negative if better, 0 if that is unknown."""
        change = self.percent or 0.0
        return -change if self.measure.falls else change


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


@click.command(epilog=EXAMPLES)
@click.argument("old", type=JSON_FILE)
@click.argument("new", type=JSON_FILE)
@click.option(
    "--fail-above",
    type=Limit(),
    metavar="PERCENT",
    help="Exit with 1 if anything got worse by more than this, such as 10%.",
)
def diff(old: IO[bytes], new: IO[bytes], fail_above: float | None) -> int:
    """Compare two exports, OLD and NEW, model by model; '-' reads standard input."""
    before, after = load(old), load(new)
    console = console_for(sys.stdout)
    changes = list(compare(before, after))
    console.print(tables.spaced(_table(changes, before, after, fail_above)))
    lost = [model for model in before.models if model not in after.models]
    for model in lost:
        console.print(Text(f"{harmless(model)} is missing in the new file", "red"))
    for model in after.models:
        if model not in before.models:
            console.print(Text(f"{harmless(model)} is new", "dim"))
    if fail_above is None:
        return 0
    worse = [change for change in changes if change.worsening > fail_above]
    for change in worse:
        console.print(
            Text(
                f"worse: {harmless(change.model)}, {change.measure.title}:"
                f" {_change(change)} (limit {fail_above:g}%)",
                "bold red",
            )
        )
    if not worse and not lost:
        console.print(Text(f"nothing is worse by more than {fail_above:g}%", "green"))
    return 1 if worse or lost else 0


def compare(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Every measure of every model that both have and of which one knows something."""
    for model, old in before.models.items():
        new = after.models.get(model)
        if new is None:
            continue
        for measure in MEASURES:
            change = Change(model, measure, measure.read(old), measure.read(new))
            if change.old is not None or change.new is not None:
                yield change


def _table(
    changes: list[Change], before: Snapshot, after: Snapshot, limit: float | None
) -> FittedTable:
    """A row a measure, after a row with each model's name and counts."""
    rows: list[list[Text | str]] = []
    model = None
    for change in changes:
        if change.model != model:
            model = change.model
            told = (count(s.models[model].total_requests) for s in (before, after))
            rows.append([tables.name(model), *(f"{n} requests" for n in told), ""])
        measure = change.measure
        rows.append(
            [
                Text(f"  {measure.title}"),
                measure.show(change.old),
                measure.show(change.new),
                Text(_change(change), _style(change, limit)),
            ]
        )
    columns = (
        Column("model", left=True),
        Column("old"),
        Column("new"),
        Column("change"),
    )
    return FittedTable(columns, rows)


def _change(change: Change) -> str:
    value = change.percent
    if value is None:
        return UNKNOWN
    if value == inf:
        return "from 0"
    return f"{value:+.1f}%"


def _style(change: Change, limit: float | None) -> str:
    """Red for worse than the limit (or at all), green for better."""
    if change.worsening > (limit or 0.0):
        return "red"
    return "green" if change.worsening < 0 else ""
