# SPDX-License-Identifier: MIT
"""What several commands take: a source of numbers to read, a file to write."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from ometrics import documents, sources
from ometrics.cli.stored import stored
from ometrics.snapshot import Snapshot
from ometrics.view.escape import harmless

TOKEN: Final = "OMETRICS_TOKEN"  # noqa: S105 - the name of a variable

# For the notes of every command that takes a source.
SOURCES_HELP: Final = (
    "A source is a file that 'ometrics run --json' or export_json_to_file() wrote, '-'"
    " for standard input, a directory of processes (OMETRICS_DIR), the URL of an"
    " endpoint, such as http://127.0.0.1:9464 (its bearer token, if it has one, is"
    f" taken from the variable {TOKEN}), or a history: metrics.db,"
    " metrics.db@yesterday, postgresql://..."
)


class UnreadableSourceError(click.ClickException):
    """A source that is no export; exit code 2, like every wrong argument."""

    exit_code = 2


class SourceType(click.ParamType):  # type: ignore[type-arg]
    """A file, a directory, `-`, a URL or a history, as an `ometrics.Source`."""

    name = "source"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> sources.Source:
        """The source; fails for a URL that is none."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        if value == "-":
            return StandardInput()
        is_endpoint = value.startswith(("http://", "https://"))
        if not is_endpoint and (history := stored(value)) is not None:
            return history
        token = os.environ.get(TOKEN) if is_endpoint else None
        try:
            return sources.read(value, token=token or None)
        except (OSError, ValueError) as error:
            self.fail(harmless(str(error)), param, ctx)


class StandardInput:
    """What is piped in, as a source that can be read once."""

    def snapshot(self) -> Snapshot:
        """
        The export on standard input.

        Raises:
            ValueError: It is none.
        """
        data = documents.in_pieces(sys.stdin.buffer.read)
        return documents.parse(data, "standard input")


SOURCE: Final = SourceType()


def snapshot_of(source: sources.Source) -> Snapshot:
    """
    What a source says now.

    Raises:
        UnreadableSourceError: It cannot be read, or is no export of ometrics.
    """
    try:
        return source.snapshot()
    except (OSError, ValueError) as error:
        raise UnreadableSourceError(_why(error)) from None


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename:
        return (
            f"{harmless(str(error.filename))}: {error.strerror}\n"
            "Write one with 'ometrics run --json FILE ...' or export_json_to_file()."
        )
    return harmless(str(error))


def absolute(path: str | Path) -> Path:
    """
    A path that holds also if the program goes to another working directory.

    Raises:
        click.BadParameter: It is relative, and the working directory was removed.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        raise click.BadParameter(
            f"there is no working directory any more for {str(path)!r} to be in; give"
            " an absolute path, or go elsewhere first"
        ) from None


def writable(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Path | None:
    """
    Check the file of an option before hours of work are lost to a typing error.

    Returns:
        The absolute path, as the program may change its directory; `None` for none.

    Raises:
        click.BadParameter: It is a directory, or its directory does not exist.
    """
    del context, parameter
    if value is None:
        return None
    path = absolute(value)
    if path.is_dir():
        raise click.BadParameter(f"{value!r} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise click.BadParameter(
            f"directory {str(path.parent)!r} does not exist; make it first"
        )
    return path
