# SPDX-License-Identifier: MIT
"""Tables and lines that fit into a terminal: what is worth least goes first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

LEAST_NAME: Final = 16  # characters that a name keeps in a narrow terminal


@dataclass(frozen=True)
class TableColumn:
    """
    A column of a `FittedTable`.

    Attributes:
        title: Its heading.
        rank: Columns of the highest rank are the first to go; those of 0 stay.
        left: Align to the left, as text is.
    """

    title: str
    rank: int = 0
    left: bool = False


class FittedTable:
    """
    A table that leaves out columns, then shortens the first, until it fits.

    Args:
        columns: What is known of each column; the first one holds names.
        rows: As many cells each.
    """

    def __init__(
        self,
        columns: Sequence[TableColumn],
        rows: Iterable[Sequence[Text | str]],
    ) -> None:
        self.columns = columns
        self.rows = list(rows)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        kept = list(range(len(self.columns)))
        names = min(self._width(0), LEAST_NAME)
        while self._needs(console, options, kept, names) > options.max_width:
            worst = max(kept, key=lambda i: (self.columns[i].rank, i))
            if not self.columns[worst].rank:
                break
            kept.remove(worst)
        surplus = self._needs(console, options, kept, None) - options.max_width
        limit = max(self._width(0) - surplus, 1) if surplus > 0 else None
        yield self._table(kept, limit)

    def _width(self, column: int) -> int:
        cells = (str(row[column]) for row in self.rows)
        return max(map(cell_len, (self.columns[column].title, *cells)))

    def _needs(
        self,
        console: Console,
        options: ConsoleOptions,
        kept: Sequence[int],
        names: int | None,
    ) -> int:
        """Columns of the terminal that it takes with names of so many characters."""
        table = self._table(kept, names)
        roomy = options.update(width=10_000)
        return Measurement.get(console, roomy, table).maximum

    def _table(self, kept: Sequence[int], names: int | None) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold",
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        for i in kept:
            column = self.columns[i]
            table.add_column(
                Text(column.title),
                justify="left" if column.left else "right",
                no_wrap=True,
                overflow="ellipsis",
                max_width=None if i else names,
            )
        for row in self.rows:
            table.add_row(*(row[i] for i in kept))
        return table


class Flow:
    """
    Short texts in a row, which breaks between two of them and never within one.

    Args:
        parts: The texts; each begins and ends as it is.
        separator: What stands between two on one line.
    """

    def __init__(self, parts: Iterable[Text | str], separator: str = " · ") -> None:
        self.parts = [Text(p) if isinstance(p, str) else p for p in parts]
        self.separator = separator

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        del console
        line = Text()
        for part in self.parts:
            longer = line + self.separator + part if line else part
            if line and longer.cell_len > options.max_width:
                yield line
                longer = part
            line = longer
        if line:
            yield line
