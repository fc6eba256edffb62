# SPDX-License-Identifier: MIT
"""`ometrics doctor`: why models are slow or fail, and what to do about it."""

from __future__ import annotations

import sys
from typing import IO

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ometrics.cli.files import JSON_FILE, load
from ometrics.diagnosis import Finding, diagnose
from ometrics.loaded import LoadedModel
from ometrics.view.escape import harmless
from ometrics.view.terminal import console_for

EXAMPLES = """
\b
Examples:
  ometrics run --json run.json agent.py && ometrics doctor run.json
  ometrics doctor run.json --earlier yesterday.json --ollama http://localhost:11434
  curl -s localhost:9464/metrics.json | ometrics doctor -

Exit codes: 0 nothing is wrong; 1 something is; 2 wrong usage or files. Each finding
says how sure it is; docs/diagnosis.md says when it is found, and when not.
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=JSON_FILE)
@click.option(
    "--earlier",
    type=JSON_FILE,
    metavar="FILE",
    help="An export of an earlier time, to find what became slower.",
)
@click.option(
    "--ollama",
    "server",
    metavar="URL",
    help="Ask this server which models are in memory, and whether on the GPU.",
)
def doctor(file: IO[bytes], earlier: IO[bytes] | None, server: str | None) -> int:
    """Say what is wrong with the models of FILE, an exported JSON; '-' reads stdin."""
    snapshot = load(file)
    before = None if earlier is None else load(earlier)
    findings = diagnose(snapshot, earlier=before, loaded=_loaded(server))
    console = console_for(sys.stdout)
    for finding in findings:
        console.print(_text(finding))
    problems = sum(finding.problem for finding in findings)
    if not problems:
        calls = f"{snapshot.total_requests:,} requests"
        console.print(Text(f"nothing wrong stands out in {calls}", "green"))
    return int(bool(problems))


def _loaded(server: str | None) -> list[LoadedModel]:
    if server is None:
        return []
    from ometrics.ollama import Residency

    try:
        residency = Residency(server)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--ollama") from None
    if not residency.poll():
        raise click.BadParameter(
            f"no Ollama answers at {harmless(server)}; is it running, and at that"
            " address?",
            param_hint="--ollama",
        )
    return [model for model in residency.models if model.loaded]


def _text(finding: Finding) -> Group:
    """A line to read, and two to read on, which stay indented when they wrap."""
    style = "bold red" if finding.problem else "bold"
    model = harmless(finding.model) or "all models"
    more = Table.grid(padding=(0, 2, 0, 0))
    more.add_row("  because", "; ".join(map(str, finding.evidence)))
    more.add_row("  do", finding.advice)
    return Group(
        Text.assemble(
            (model, "bold"),
            ": ",
            (finding.what, style),
            (f"  {finding.certainty}", "dim"),
        ),
        more,
        "",
    )
