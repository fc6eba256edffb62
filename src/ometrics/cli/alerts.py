# SPDX-License-Identifier: MIT
"""The option `--rules` of commands that go on for a while, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from ometrics.rules import Alert
from ometrics.rules.load import RuleSet
from ometrics.rules.receivers import Receiver
from ometrics.rules.watch import Watch
from ometrics.rules.words import sentence
from ometrics.sources import Source

rules_option: Final = click.option(
    "--rules",
    "rules_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="TOML",
    help="Say when a rule of this file is broken; 'default' for those that suit most.",
)


def watch(source: Source, rules: RuleSet, console: Console) -> Watch:
    """Say when a rule is broken or a call stalls, and tell whom the file names."""

    def say(alert: Alert) -> None:
        style = "bold red" if alert.state == "firing" else "green"
        console.print(Text(f"ometrics: {alert.state} {sentence(alert)}", style))

    told: list[Receiver | Callable[[Alert], object]] = [*rules.notify, say]
    return Watch(source, rules.rules, notify=told, stalls=rules.stalls).start()
