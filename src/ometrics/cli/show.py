# SPDX-License-Identifier: MIT
"""`ometrics show`: an exported file as tables and a latency histogram."""

from __future__ import annotations

import sys
from typing import IO

import click
from rich.console import Group
from rich.text import Text

from ometrics.cli.files import JSON_FILE, load
from ometrics.snapshot import PerformanceMetrics
from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.histogram_plot import HistogramPlot
from ometrics.view.terminal import console_for

EXAMPLES = """
\b
Examples:
  ometrics run --json run.json agent.py && ometrics show run.json
  ometrics show run.json --model llama3.2
  curl -s localhost:9464/metrics.json | ometrics show -
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=JSON_FILE)
@click.option(
    "--model",
    "names",
    multiple=True,
    metavar="NAME",
    help="Details of this model only; may be given several times.",
)
def show(file: IO[bytes], names: tuple[str, ...]) -> None:
    """
    Show FILE, an exported JSON, as tables and latency histograms.

    FILE is what 'ometrics run --json' or 'export_json_to_file' wrote; '-' reads
    standard input. Quantiles are exact to 1 %, counts and sums are exact.
    """
    snapshot = load(file)
    unknown = [n for n in names if n not in snapshot.models]
    if unknown:
        known = ", ".join(harmless(n) for n in snapshot.models) or "none"
        raise click.BadParameter(
            f"{harmless(unknown[0])!r} is not in the file; it has: {known}",
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
    """Tokens by kind, as far as anybody told."""
    kinds = []
    for title, field in (
        ("prompt", "prompt_tokens"),
        ("cached", "cached_tokens"),
        ("completion", "completion_tokens"),
    ):
        known = [
            value
            for call in metrics.calls.values()
            if (value := getattr(call, field)) is not None
        ]
        if known:
            kinds.append(f"{sum(known):,} {title}")
    return f"  {', '.join(kinds)} tokens" if kinds else ""
