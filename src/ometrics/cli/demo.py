# SPDX-License-Identifier: MIT
"""`ometrics demo`: a team of agents on real inference, watched as it works."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from ometrics.cli.arguments import writable
from ometrics.cli.command import Command
from ometrics.cli.history import history
from ometrics.cli.stored import usable
from ometrics.view.terminal import console_for

EXAMPLES: Final = (
    ("ometrics demo", "on an Ollama if one answers, else the engine"),
    ("ometrics demo --engine --tasks 3", "on the engine: llama.cpp, SmolLM2-135M"),
    ("ometrics demo --model llama3.2", "on this model of an Ollama"),
)
NOTES: Final = """
A planner and a reviewer (threads) and two workers (asyncio) write about things; an
intern makes every mistake once, so that a 404, a cancelled stream and a timeout are
seen. Then come an agent in another language, and three agents in processes of their
own, one of which is killed. The answers come from a real model, as good as it is. At
the end a scripted server stalls, cuts prompts and fails, and all three are named.
"""


#: Of its history, at the end.
SHOWN: Final = "15m"


class MissingPackageError(click.ClickException):
    """A package of the extra `demo` is not installed; exit code 2."""

    exit_code = 2


@click.command(cls=Command, examples=EXAMPLES, notes=NOTES)
@click.option(
    "--tasks",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    metavar="N",
    help="How many tasks the team works on.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 86_400),
    default=45.0,
    show_default=True,
    metavar="S",
    help="How long at most; work that is unfinished then is cancelled.",
)
@click.option(
    "--engine/--no-engine",
    default=None,
    help="Use the embedded engine, or an Ollama; default: what there is.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Which of Ollama's models; default: its smallest.",
)
@click.option(
    "--json",
    metavar="FILE",
    callback=writable,
    help="Where the export goes; default: a new temporary file.",
)
@click.option(
    "--store",
    metavar="STORE",
    help="Keep history in STORE, and show it at the end; the next run continues it.",
)
def demo(
    *,
    tasks: int,
    seconds: float,
    engine: bool | None,
    model: str | None,
    json: Path | None,
    store: str | None,
) -> int:
    """
    Watch a team of agents work on real inference, with or without Ollama.

    Then the summary, a histogram, and the export are shown.
    """
    if engine and model is not None:
        raise click.UsageError("--model chooses among Ollama's; the engine has one")
    try:
        from ometrics.demo import show
        from ometrics.demo.server import NoServerError
    except ImportError as error:
        package = error.name or "a package"
        raise MissingPackageError(
            f"the demo needs {package}: pip install 'ollama-metrics[demo]'"
        ) from None
    try:
        code = show.run(
            console_for(sys.stdout),
            tasks=tasks,
            seconds=seconds,
            engine=engine,
            model=model,
            json=json,
            store=usable(store),
        )
    except NoServerError as error:
        raise click.ClickException(str(error)) from None
    if store is not None and code != show.INTERRUPTED:
        click.echo()
        click.get_current_context().invoke(history, store=store, since=SHOWN)
    return code
