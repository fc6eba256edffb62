# SPDX-License-Identifier: MIT
"""Commands whose help teaches: what they do, their options, examples, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

import click


class _Teaching(click.Command):
    """
    What commands and groups share: a help that ends with examples and notes.

    Args:
        *args: As of `click.Command`.
        examples: A command line each, and what it is for.
        notes: Paragraphs with empty lines between, such as what exit codes mean.
        **kwargs: As of `click.Command`.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[tuple[str, str]] = (),
        notes: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.notes = notes

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and notes."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                write_examples(formatter, self.examples)
        if self.notes:
            formatter.write_paragraph()
            formatter.write_text(cleandoc(self.notes))


class Command(_Teaching):
    """A command; its arguments are those of `_Teaching`."""


class Group(_Teaching, click.Group):
    """A command of commands; its arguments are those of `_Teaching`."""

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write what each is for, in full."""
        commands = {
            name: self.get_command(ctx, name) for name in self.list_commands(ctx)
        }
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=1000))
                    for name, command in commands.items()
                    if command is not None
                ]
            )


def write_examples(
    formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]
) -> None:
    """Write examples beside what they are for, or below each other if it is narrow."""
    longest = max(len(line) for line, _ in examples)
    words = max(len(purpose) for _, purpose in examples)
    indent = " " * formatter.current_indent
    if len(indent) + longest + 2 + words <= formatter.width:
        for line, purpose in examples:
            formatter.write(f"{indent}{line:<{longest}}  {purpose}".rstrip() + "\n")
        return
    for line, purpose in examples:
        formatter.write(f"{indent}{line}\n")
        if purpose:
            with formatter.indentation(), formatter.indentation():
                formatter.write_text(purpose)
