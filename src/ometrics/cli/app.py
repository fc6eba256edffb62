# SPDX-License-Identifier: MIT
"""The command line as a whole: its commands, its help, and how it ends."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

import ometrics
from ometrics.cli.check import check_command
from ometrics.cli.demo import demo
from ometrics.cli.diff import diff
from ometrics.cli.doctor import doctor
from ometrics.cli.history import history
from ometrics.cli.proxy import proxy
from ometrics.cli.rules import rules
from ometrics.cli.run import Program, run
from ometrics.cli.show import show
from ometrics.cli.store import store_command

# Not the docstring: there `\b`, which keeps click from filling lines, would be text.
HELP = """
Exact, nearly free metrics for agents that talk to Ollama models.

\b
  ometrics demo                          see it work, with or without Ollama
  ometrics run --live agent.py           watch a program of yours
  ometrics run --json new.json agent.py  keep what it measured
  ometrics proxy                         measure clients in any language
  ometrics show new.json                 look at it again
  ometrics diff old.json new.json        compare two runs
  ometrics check new.json --rules TOML   hold it against limits
  ometrics doctor new.json               why is it slow?
  ometrics history metrics.db            what was counted when
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="See 'ometrics COMMAND --help' for each command, with examples.",
    help=HELP,
)
@click.version_option(ometrics.__version__, prog_name="ometrics")
def ometrics_command() -> None:
    """All commands."""


for command in (
    demo,
    run,
    proxy,
    show,
    diff,
    check_command,
    doctor,
    rules,
    history,
    store_command,
):
    ometrics_command.add_command(command)


def parse() -> Program | None:
    """
    Do what the arguments say.

    Returns:
        The program to run, of `ometrics run`, for the caller to execute.

    Raises:
        SystemExit: Of every other command, with its exit code.
    """
    try:
        result = ometrics_command.main(prog_name="ometrics", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _interrupted()
    if isinstance(result, Program):
        return result
    sys.exit(result or 0)


def _interrupted() -> NoReturn:
    click.echo("ometrics: interrupted", err=True)
    sys.exit(130)  # what shells report of a program that Ctrl-C ended
