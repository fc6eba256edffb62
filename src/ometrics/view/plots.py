# SPDX-License-Identifier: MIT
"""Plots of characters: bars, sparklines, charts over time, rows of a histogram.

Plain strings, so that they fit in any table, log or terminal. Blocks in eighths;
`terminal.console_for` makes them ASCII where the encoding has none.

    >>> bar(3, 4, 8), sparkline([1, 2, None, 4]), stack([("a", 1), ("b", 3)], 8)
    ('██████', '▃▅ █', [('a', 2), ('b', 6)])

Pure functions: safe from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil, inf, isfinite, log2
from typing import Final

from ometrics.histogram import LatencyHistogram
from ometrics.view.units import compact, duration

EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
LEVELS: Final = "▁▂▃▄▅▆▇█"
TO_ASCII: Final = dict.fromkeys(EIGHTHS.strip(), "#") | dict(
    zip(LEVELS, "_.-~=+*#", strict=True)
)

# The range of the exponential view in seconds; see `LatencyHistogram.exponential`.
SMALLEST: Final = 2.0**-20
LARGEST: Final = 2.0**12

MAX_ROWS: Final = 16  # of a histogram: what the eye takes in at once


def bar(part: float, whole: float, width: int) -> str:
    """A horizontal bar of at most `width` characters; what is not zero can be seen."""
    if not part or not whole:
        return ""
    eighths = max(round(8 * width * part / whole), 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")


def stack(parts: Sequence[tuple[str, float]], width: int) -> list[tuple[str, int]]:
    """
    Parts of a whole as one bar: how many characters each gets, `width` together.

    Args:
        parts: Name and size of each, in order.
        width: Characters of the whole.

    Returns:
        Name and characters of each; nothing of nothing.
    """
    whole = sum(size for _, size in parts)
    if not whole:
        return []
    edges, below = [0], 0.0
    for _, size in parts:
        below += size
        edges.append(round(width * below / whole))
    return [
        (name, end - begin)
        for (name, _), begin, end in zip(parts, edges, edges[1:], strict=False)
    ]


def sparkline(values: Iterable[float | None], width: int | None = None) -> str:
    """
    One character a value, its height relative to the highest; unknown is a gap.

    Args:
        values: In the order of time, each >= 0 or `None`.
        width: Most characters; more values are averaged to fit.
    """
    heights = _resampled(list(values), width)
    top = max((v for v in heights if v is not None), default=0.0) or 1.0
    return "".join(
        " " if v is None else LEVELS[min(int(8 * v / top), 7)] for v in heights
    )


def chart(
    values: Iterable[float | None],
    width: int,
    height: int = 6,
    show: Callable[[float | None], str] = compact,
) -> list[str]:
    """
    Values over time as columns over a scale that begins at 0.

    Args:
        values: In the order of time, each >= 0 or `None` for a gap; what is too many
            for the width is averaged, below a scale that reaches the highest of all.
        width: Characters of a line, labels included.
        height: Lines.
        show: How to write a value beside the scale, such as `units.duration`.

    Returns:
        `height` lines, the highest first, without trailing blanks; none of no value.
    """
    values = list(values)
    known = [v for v in values if v is not None and isfinite(v)]
    if not known:
        return []
    top = max(known)
    labels = {0: show(top), height - 1: show(0.0)}
    indent = max(map(len, labels.values()))
    heights = _resampled(values, max(width - indent - 2, 1))
    lines = []
    for line in range(height):
        floor = height - 1 - line
        cells = (_level(v, top, height, floor) for v in heights)
        label = labels.get(line, "").rjust(indent)
        lines.append(f"{label} │{''.join(cells)}".rstrip())
    return lines


def _level(value: float | None, top: float, height: int, floor: int) -> str:
    """The character of a column in one line of a chart."""
    if value is None:
        return " "
    eighths = round(8 * height * value / top) if top else 0
    if value and not eighths:
        eighths = 1  # what is not zero can be seen
    here = eighths - 8 * floor
    if here <= 0:
        return " "
    return LEVELS[min(here, 8) - 1]


def _resampled(values: list[float | None], width: int | None) -> list[float | None]:
    """At most `width` values, each the mean of what is known of its share."""
    values = [v if v is not None and isfinite(v) else None for v in values]
    if width is None or len(values) <= width:
        return values
    means: list[float | None] = []
    for i in range(width):
        share = values[i * len(values) // width : (i + 1) * len(values) // width]
        known = [v for v in share if v is not None]
        means.append(sum(known) / len(known) if known else None)
    return means


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


def range_of(low: float, high: float) -> str:
    """The range of a row of `rows_of`, such as `88ms – 120ms`."""
    if not low:
        return f"up to {duration(high, 2)}"
    if high == inf:
        return f"above {duration(low, 2)}"
    return f"{duration(low, 2)} – {duration(high, 2)}"


def marks_of(
    hist: LatencyHistogram, rows: Sequence[tuple[float, float, int]]
) -> list[list[str]]:
    """Which of p50, p95 and p99 lie in each row of `rows_of`."""
    total = hist.count
    ranks = {
        name: max(ceil(q * total), 1)
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    marks, below = [], 0
    for _, _, count in rows:
        here = range(below + 1, below + count + 1)
        marks.append([name for name, rank in ranks.items() if rank in here])
        below += count
    return marks


def _merged(cells: int, per_octave: int) -> int:
    """How many cells to show as one row: a power of two, at least an eighth octave."""
    least = max(ceil(cells / MAX_ROWS), per_octave // 8)
    return 1 << ceil(log2(least))
