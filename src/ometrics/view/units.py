# SPDX-License-Identifier: MIT
"""Numbers for people: three digits that matter, and a unit. What nobody told is `–`."""

from __future__ import annotations

from math import isfinite
from typing import Final

UNKNOWN: Final = "–"

_UNITS: Final = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (1e-6, "µs", 1e6))


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
    for least, unit, factor in _UNITS:
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


def percent(value: float | None) -> str:
    """Percent with one decimal, except 0 and 100, which are exact."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}%" if value in {0.0, 100.0} else f"{value:.1f}%"
