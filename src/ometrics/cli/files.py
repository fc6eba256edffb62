# SPDX-License-Identifier: MIT
"""Exported files as arguments: found, read, and said what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Final

import click

from ometrics.snapshot import Snapshot
from ometrics.view.escape import harmless

_SQLITE: Final = b"SQLite format 3\0"


class StoredFile:
    """
    A history as an argument, `metrics.db` or `metrics.db@yesterday`.

    Args:
        name: File or database URL.
        time: Everything until then; `None` for everything.
    """

    def __init__(self, name: str, time: str | None) -> None:
        self.name = name
        self.time = time

    def snapshot(self) -> Snapshot:
        """
        What had been counted.

        Raises:
            UnreadableFileError: It cannot be read, or the time cannot.
        """
        from ometrics.cli.store import opened

        with opened(self.name) as store:
            try:
                return store.snapshot() if self.time is None else store.at(self.time)
            except ValueError as error:
                raise UnreadableFileError(f"{self.name}: {error}") from None


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """An exported file, `-` for standard input, or a history."""

    name = "file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IO[bytes] | StoredFile:
        """Open an export; a history is opened when it is read."""
        if "://" in value:
            url, at, time = value.rpartition("@")
            # An @ before the host is the login's.
            later = at and "://" in url and "/" not in time
            return StoredFile(url if later else value, time if later else None)
        name, at, time = value.rpartition("@")
        if at and not Path(value).exists() and _is_sqlite(name):
            return StoredFile(name, time)
        if _is_sqlite(value):
            return StoredFile(value, None)
        opened: IO[bytes] = click.File("rb").convert(value, param, ctx)
        return opened


def _is_sqlite(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


JSON_FILE: Final = _Numbers()


class UnreadableFileError(click.ClickException):
    """A file that is not an export; exit code 2, like every wrong argument."""

    exit_code = 2


def load(file: IO[bytes] | StoredFile) -> Snapshot:
    """
    Read an exported file or a history.

    Raises:
        UnreadableFileError: It cannot be read, or is no export of ometrics.
    """
    if isinstance(file, StoredFile):
        return file.snapshot()
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
