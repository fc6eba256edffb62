# SPDX-License-Identifier: MIT
"""The processes of one program as a table: one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.text import Text

from ometrics.view import tables
from ometrics.view.escape import harmless
from ometrics.view.fitted import FittedTable, TableColumn
from ometrics.view.units import count

COMMAND_WIDTH: Final = 48  # characters of a command line, which may have any number


class ProcessRow(NamedTuple):
    """
    What is shown of one process.

    Attributes:
        command: Its command line, or what is known of it.
        pid: Its number; `None` for a row that stands for several processes.
        requests: How many it made.
        errors: How many of them failed.
        end: How it ended, or that it runs.
    """

    command: str
    pid: int | None
    requests: int
    errors: int
    end: str


_COLUMNS: Final = (
    TableColumn("process", left=True),
    TableColumn("pid", 2),
    TableColumn("requests"),
    TableColumn("errors", 1),
    TableColumn("end", left=True),
)


def processes(rows: Sequence[ProcessRow]) -> FittedTable:
    """One row a process."""
    return FittedTable(
        _COLUMNS,
        (
            (
                Text(harmless(row.command, COMMAND_WIDTH)),
                "" if row.pid is None else str(row.pid),
                count(row.requests),
                tables.alarming(row.errors),
                Text(row.end, "red" if "signal" in row.end else "dim"),
            )
            for row in rows
        ),
    )
