# SPDX-License-Identifier: MIT
"""`ometrics doctor`: why models are slow or fail, and what to do about it."""

from __future__ import annotations

import sys
from typing import Final

import click
from rich.text import Text

from ometrics.cli import findings as findings_view
from ometrics.cli.arguments import SOURCE, SOURCES_HELP, snapshot_of
from ometrics.cli.command import Command
from ometrics.diagnosis import diagnose
from ometrics.loaded import LoadedModel
from ometrics.sources import Source
from ometrics.view.escape import harmless
from ometrics.view.terminal import console_for

EXAMPLES: Final = (
    ("ometrics doctor run.json", "of what a run wrote"),
    ("ometrics doctor new.json --earlier old.json", "what became slower too"),
    ("ometrics doctor http://127.0.0.1:9464", "of a process that serves"),
)
NOTES: Final = f"""
Exit codes: 0 nothing is wrong; 1 something is; 2 wrong usage or sources. Each finding
says how sure it is; docs/diagnosis.md says when it is found, and when not.

{SOURCES_HELP}
"""


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.argument("source", type=SOURCE)
@click.option(
    "--earlier",
    type=SOURCE,
    metavar="SOURCE",
    help="A source of an earlier time, to find what became slower.",
)
@click.option(
    "--ollama",
    "server",
    metavar="URL",
    help="Ask this server which models are in memory, and whether on the GPU.",
)
def doctor(source: Source, earlier: Source | None, server: str | None) -> int:
    """Say what is wrong with the models of a SOURCE."""
    snapshot = snapshot_of(source)
    before = None if earlier is None else snapshot_of(earlier)
    findings = diagnose(snapshot, earlier=before, loaded=_loaded(server))
    console = console_for(sys.stdout)
    for finding in findings:
        console.print(findings_view.whole(finding))
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
