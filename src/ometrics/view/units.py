# SPDX-License-Identifier: MIT
"""Numbers for people: three digits that matter, and a unit. What is unknown is `–`.

    >>> duration(0.4121), duration(125), number(41.263), compact(1_234_567)
    ('412ms', '2m05s', '41.3', '1.23M')
    >>> rate(12.34), rate(0.05), size(1536), percent(12.34), count(1_234_567)
    ('12.3/s', '3/min', '1.5 KiB', '12.3%', '1,234,567')
    >>> signed_percent(12.34), duration(None)
    ('+12.3%', '–')

Every function takes `None` for unknown. Pure functions: safe from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import Final

UNKNOWN: Final = "–"

_RARE: Final = 0.1  # a second; what is rarer is given by the minute

_SECONDS: Final = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (1e-6, "µs", 1e6))
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LARGE: Final = ("", "k", "M", "G", "T", "P", "E")


def duration(seconds: float | None, digits: int = 3) -> str:
    """
    A duration such as `412ms`, `3.07s`, `2m05s`, `1h12m`.

    Args:
        seconds: Seconds >= 0, or `None` for unknown.
        digits: Significant digits below a minute.
    """
    if seconds is None or not isfinite(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    if minutes:
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
    # Rounded first, so that 0.9996 s is 1s and not 1000ms.
    seconds = float(f"{seconds:.{digits}g}")
    for least, unit, factor in _SECONDS:
        if seconds >= least:
            return number(seconds * factor, digits) + unit
    return f"{seconds * 1e9:.0f}ns" if seconds else "0s"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; large ones whole, with separators."""
    if value is None or not isfinite(value):
        return UNKNOWN
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):g}"


def count(value: int | None) -> str:
    """An exact count with separators of thousands."""
    return UNKNOWN if value is None else f"{value:,}"


def compact(value: float | None) -> str:
    """A large number in little room: `12.3k`, `4.56M`, for axes and narrow columns."""
    return UNKNOWN if value is None else _scaled(value, 1000.0, _LARGE, "")


def rate(per_second: float | None, unit: str = "") -> str:
    """
    How often: `12.3/s`, or `3/min` of what is rarer than once in ten seconds.

    Args:
        per_second: Events a second, or `None` for unknown.
        unit: What they are: `rate(2, "req")` is `2 req/s`.
    """
    if per_second is None or not isfinite(per_second):
        return UNKNOWN
    unit = f" {unit}" if unit else ""
    if 0 < per_second < _RARE:
        return f"{number(per_second * 60)}{unit}/min"
    return f"{number(per_second)}{unit}/s"


def size(number_of_bytes: float | None) -> str:
    """Bytes in units of 1,024, such as `1.5 KiB`."""
    if number_of_bytes is None:
        return UNKNOWN
    return _scaled(number_of_bytes, 1024.0, _SIZES, " ")


def percent(value: float | None) -> str:
    """Percent with one decimal, except 0 and 100, which are exact."""
    if value is None or not isfinite(value):
        return UNKNOWN
    return f"{value:.0f}%" if value in {0.0, 100.0} else f"{value:.1f}%"


def signed_percent(value: float | None) -> str:
    """A change in percent, such as `+12.3%`; from nothing to something is `from 0`."""
    if value == inf:
        return "from 0"
    if value is None or not isfinite(value):
        return UNKNOWN
    return f"{value:+,.1f}%"


def counted(amount: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def _scaled(value: float, base: float, units: Sequence[str], space: str) -> str:
    """Three digits of a value in the largest of its units that leaves it above 1."""
    if not isfinite(value):
        return UNKNOWN
    power = 0
    # Rounded first, so that 999,999 is 1M and not 1000k.
    while abs(float(f"{value:.3g}")) >= base and power < len(units) - 1:
        value /= base
        power += 1
    return f"{number(value)}{space}{units[power]}"
