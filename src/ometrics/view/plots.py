# SPDX-License-Identifier: MIT
"""Plots of characters: bars, sparklines and a histogram of latencies.

Blocks in eighths; `terminal.py` makes them ASCII where the encoding has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, inf, log2
from typing import Final

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import percentage
from ometrics.view.units import duration, percent

EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
LEVELS: Final = "▁▂▃▄▅▆▇█"

# The range of the exponential view in seconds; see `LatencyHistogram.exponential`.
SMALLEST: Final = 2.0**-20
LARGEST: Final = 2.0**12

MAX_ROWS: Final = 16  # of a histogram: what the eye takes in at once
MAX_BAR: Final = 48  # characters; longer bars tell no more
MIN_BAR: Final = 8
GAP: Final = 2  # between columns

_MARKS: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def bar(part: float, whole: float, width: int) -> str:
    """A horizontal bar of at most `width` characters; what is not zero can be seen."""
    if not part or not whole:
        return ""
    eighths = max(round(8 * width * part / whole), 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")


def sparkline(values: Iterable[float]) -> str:
    """One character a value, its height relative to the highest."""
    values = list(values)
    top = max(values, default=0.0) or 1.0
    return "".join(LEVELS[min(int(8 * value / top), 7)] for value in values)


def rows_of(hist: LatencyHistogram) -> list[tuple[float, float, int]]:
    """
    A histogram in about `MAX_ROWS` rows of equal ratio, from first to last count.

    Returns:
        `(above, up_to, count)` with bounds in seconds, ascending; an underflow begins
        at 0, an overflow ends at infinity, and between the two there are no gaps.
    """
    offset, counts, underflow, overflow = hist.exponential()
    per_octave = 2**hist.scale
    rows = []
    if counts:
        merged = _merged(len(counts), per_octave)
        first = offset // merged
        last = (offset + len(counts) - 1) // merged
        for group in range(first, last + 1):
            start = group * merged - offset
            count = sum(counts[max(start, 0) : start + merged])
            low, high = (2.0 ** (g * merged / per_octave) for g in (group, group + 1))
            rows.append((low, high, count))
    if underflow:
        rows.insert(0, (0.0, SMALLEST, underflow))
    if overflow:
        rows.append((LARGEST, inf, overflow))
    return rows


def _merged(cells: int, per_octave: int) -> int:
    """How many cells to show as one row: a power of two, at least an eighth octave."""
    least = max(ceil(cells / MAX_ROWS), per_octave // 8)
    return 1 << ceil(log2(least))


class HistogramPlot:
    """
    A latency histogram as wide as there is room: range, bar, count, share, quantiles.

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
            "range": [_range(low, high) for low, high, _ in rows],
            "count": [f"{count:,}" for _, _, count in rows],
            "share": [percent(percentage(count, total)) for _, _, count in rows],
            "marks": list(_marks(self.hist, rows)),
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


def _range(low: float, high: float) -> str:
    if not low:
        return f"up to {duration(high, 2)}"
    if high == inf:
        return f"above {duration(low, 2)}"
    return f"{duration(low, 2)} – {duration(high, 2)}"


def _marks(
    hist: LatencyHistogram, rows: Sequence[tuple[float, float, int]]
) -> Iterator[str]:
    """Which quantiles lie in each row."""
    total = hist.count
    below = 0
    for _, _, count in rows:
        here = range(below + 1, below + count + 1)
        names = [name for q, name in _MARKS if max(ceil(q * total), 1) in here]
        yield f"◂ {' '.join(names)}" if names else ""
        below += count


def _left(room: int, columns: Mapping[str, Sequence[str]]) -> int:
    """What the columns and the gaps leave of the room for the bars."""
    return room - sum(max(map(len, cells)) + GAP for cells in columns.values()) - GAP
