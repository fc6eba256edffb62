# SPDX-License-Identifier: MIT
"""Exported files as arguments: found, read, and said what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final

import click

from ometrics.snapshot import Snapshot
from ometrics.view.escape import harmless

JSON_FILE: Final = click.File("rb")


class UnreadableFileError(click.ClickException):
    """A file that is not an export; exit code 2, like every wrong argument."""

    exit_code = 2


def load(file: IO[bytes]) -> Snapshot:
    """
    Read an exported file.

    Raises:
        UnreadableFileError: It cannot be read, or is no export of ometrics.
    """
    name = getattr(file, "name", "-")
    name = "standard input" if name in {"-", "<stdin>"} else name
    try:
        return Snapshot.from_json(file.read())
    except (OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{harmless(str(name))}: {harmless(str(error))}\n"
            "Write one with 'ometrics run --json FILE ...' or export_json_to_file()."
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
    path = Path(value).absolute()
    if path.is_dir():
        raise click.BadParameter(f"{value!r} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise click.BadParameter(
            f"directory {str(path.parent)!r} does not exist; make it first"
        )
    return path
