# SPDX-License-Identifier: MIT
"""`ometrics show`: an exported file as tables and a latency histogram."""

from __future__ import annotations

import sys
from typing import Final

import click
from rich.console import Group
from rich.text import Text

from ometrics.cli.arguments import SOURCE, SOURCES_HELP, snapshot_of
from ometrics.cli.command import Command
from ometrics.snapshot import PerformanceMetrics
from ometrics.sources import Source
from ometrics.view import tables
from ometrics.view.calls import all_calls
from ometrics.view.escape import harmless
from ometrics.view.histogram_plot import HistogramPlot
from ometrics.view.names import TOKENS
from ometrics.view.terminal import console_for

EXAMPLES: Final = (
    ("ometrics show run.json", "what a run wrote"),
    ("ometrics show run.json --model llama3.2", "details of one model"),
    ("ometrics show http://127.0.0.1:9464", "of a process that serves"),
)


@click.command(cls=Command, examples=EXAMPLES, notes=SOURCES_HELP)
@click.argument("source", type=SOURCE)
@click.option(
    "--model",
    "names",
    multiple=True,
    metavar="NAME",
    help="Details of this model only; may be given several times.",
)
def show(source: Source, names: tuple[str, ...]) -> None:
    """
    Show a SOURCE as tables and latency histograms.

    Counts and sums are exact, quantiles are to 1 %.
    """
    snapshot = snapshot_of(source)
    unknown = [n for n in names if n not in snapshot.models]
    if unknown:
        known = ", ".join(harmless(n) for n in snapshot.models) or "none"
        raise click.BadParameter(
            f"{harmless(unknown[0])!r} is not there; known are: {known}",
            param_hint="--model",
        )
    console = console_for(sys.stdout)
    begin, end = (
        f"{t:%Y-%m-%d %H:%M:%S}"
        for t in (snapshot.start_time, snapshot.collection_time)
    )
    console.print(Text(f"{begin} to {end} UTC", style="dim"))
    console.print(tables.report(snapshot))
    for model, metrics in snapshot.models.items():
        if not names or model in names:
            console.print(details(metrics))


def details(metrics: PerformanceMetrics) -> Group:
    """One model: its tokens, its times, and its latencies as a histogram."""
    title = Text.assemble(tables.name(metrics.model), (_tokens(metrics), "dim"))
    if not metrics.latency_hist.count:
        return tables.spaced(title, Text("no request succeeded", style="dim"))
    plot = HistogramPlot(metrics.latency_hist)
    return tables.spaced(title, tables.times(metrics), plot)


def _tokens(metrics: PerformanceMetrics) -> str:
    """Tokens by kind, as far as they are known."""
    calls = all_calls(metrics)
    kinds = [
        f"{amount:,} {kind}"
        for kind, field in TOKENS.items()
        if (amount := getattr(calls, field)) is not None
    ]
    return f"  tokens: {', '.join(kinds)}" if kinds else ""
