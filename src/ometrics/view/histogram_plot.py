# SPDX-License-Identifier: MIT
"""A latency histogram in a terminal, as wide as there is room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import percentage
from ometrics.view.plots import bar, marks_of, range_of, rows_of
from ometrics.view.units import percent

MAX_BAR: Final = 48  # characters; longer bars tell no more
MIN_BAR: Final = 8
GAP: Final = 2  # between columns


class HistogramPlot:
    """
    A row a range: its bar, its count, its share, and the quantiles that lie in it.

    Args:
        hist: What to show.
    """

    def __init__(self, hist: LatencyHistogram) -> None:
        self.hist = hist

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render for rich."""
        total = self.hist.count
        if not total:
            yield Text("no latencies yet", style="dim")
            return
        rows = rows_of(self.hist)
        columns = {
            "range": [range_of(low, high) for low, high, _ in rows],
            "count": [f"{count:,}" for _, _, count in rows],
            "share": [percent(percentage(count, total)) for _, _, count in rows],
            "marks": [
                f"◂ {' '.join(names)}" if names else ""
                for names in marks_of(self.hist, rows)
            ],
        }
        for spare in ("share", "marks", "count"):
            if _left(options.max_width, columns) >= MIN_BAR:
                break
            del columns[spare]
        width = max(min(_left(options.max_width, columns), MAX_BAR), 1)
        most = max(count for _, _, count in rows)
        bars = [bar(count, most, width) for _, _, count in rows]
        table = Table.grid(padding=(0, GAP, 0, 0))
        table.add_column(justify="right", style="cyan", no_wrap=True)
        table.add_column(width=width, style="green", no_wrap=True)
        for title in list(columns)[1:]:
            justify: JustifyMethod = "left" if title == "marks" else "right"
            table.add_column(justify=justify, no_wrap=True)
        ranges, *others = columns.values()
        for cells in zip(ranges, bars, *others, strict=True):
            table.add_row(*map(Text, cells))
        yield table


def _left(room: int, columns: Mapping[str, Sequence[str]]) -> int:
    """What the columns and the gaps leave of the room for the bars."""
    return room - sum(max(map(len, cells)) + GAP for cells in columns.values()) - GAP
