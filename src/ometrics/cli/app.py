# SPDX-License-Identifier: MIT
"""The command line as a whole: its commands, its help, and how it ends.

A command is a file of this directory that defines a click command of the file's name,
and a line in `COMMANDS`. It is imported when it is called, so that a command costs the
others nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Final, NoReturn

import click

import ometrics
from ometrics.cli.command import Group

# In the order of a first acquaintance.
COMMANDS: Final = {
    "demo": "see it work, with or without an Ollama",
    "run": "measure a program, unchanged",
    "proxy": "measure clients in any language, in between",
    "top": "the agents of this machine, at work",
    "serve": "all processes of a machine for Prometheus, OpenTelemetry",
    "show": "what was measured, as tables and histograms",
    "diff": "compare two runs; fail if one got slower",
    "check": "hold a run against rules; fail if one does not hold",
    "doctor": "why models are slow or fail, and what to do",
    "rules": "check, show and try out a file of rules",
    "history": "what was counted when, as tables and plots over time",
    "store": "look after a history: check, move, forget",
}

EXAMPLES: Final = (
    ("ometrics demo", "see it work"),
    ("ometrics run --live agent.py", "watch a program of yours"),
    ("ometrics run --json new.json agent.py", "keep what it measured"),
    ("ometrics show new.json", "look at it again"),
    ("ometrics diff old.json new.json", "compare two runs"),
    ("ometrics check new.json -e 'errors == 0'", "set a limit"),
    ("ometrics doctor new.json", "why is it slow?"),
    ("ometrics history metrics.db", "what was counted when"),
)


class Commands(Group):
    """The group of all commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them; `None` if there is none of this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"ometrics.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command by its name, and what may have been meant by a wrong one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, 1) or list(COMMANDS)
            ctx.fail(f"there is no command {args[0]!r}; is it {' or '.join(near)}?")
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write what each is for, without importing it."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    examples=EXAMPLES,
    notes="'ometrics COMMAND --help' says more about each.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(ometrics.__version__, prog_name="ometrics")
def ometrics_command() -> None:
    """Exact, nearly free metrics for agents that talk to Ollama models."""


def parse() -> Callable[[], None] | None:
    """
    Do what the arguments say.

    Returns:
        What is to be done outside of click: running the program of `ometrics run`.

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
    if callable(result):
        return result  # type: ignore[no-any-return]  # a command's result is Any
    sys.exit(result or 0)


def _interrupted() -> NoReturn:
    click.echo("ometrics: interrupted", err=True)
    sys.exit(130)  # what shells report of a program that Ctrl-C ended
