# SPDX-License-Identifier: MIT
"""Lengths of time as text.

Go's duration strings (`"150ms"`, `"1m1.5s"`, `"1.000001ms"`): the original package
exports latencies as `time.Duration.String()` writes them; the rules are those of Go's
documentation of package `time`. And the lengths that people write for windows and
steps, which know days and weeks too: `parse_length`.
"""

from __future__ import annotations

import re
from datetime import timedelta

TYPE_CHECKING = False  # `typing` is slow to load
if TYPE_CHECKING:
    from typing import Final

_MICROSECOND: Final = 1_000
_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
_NS: Final = {
    "ns": 1,
    "µs": _MICROSECOND,
    "us": _MICROSECOND,
    "ms": _MILLISECOND,
    "s": _SECOND,
    "m": _MINUTE,
    "h": 60 * _MINUTE,
}
_PART: Final = re.compile(r"(\d+)(?:\.(\d+))?(ns|us|µs|μs|ms|s|m|h)")
_ALL: Final = re.compile(rf"-?(?:{_PART.pattern})+")
_DAY: Final = 24 * 60 * _MINUTE
_LENGTH_NS: Final = {
    "ms": _MILLISECOND,
    "s": _SECOND,
    "m": _MINUTE,
    "h": 60 * _MINUTE,
    "d": _DAY,
    "w": 7 * _DAY,
}
_LENGTH_PART: Final = re.compile(r"(\d+)(?:\.(\d+))?(ms|[smhdw])")
_LENGTH: Final = re.compile(rf"(?:{_LENGTH_PART.pattern})+")


def format_duration(ns: int) -> str:
    """
    Write a duration as Go does.

    Args:
        ns: Nanoseconds.

    Returns:
        The largest unit below a second, or hours, minutes and seconds; `"0s"` for zero.
    """
    if ns < 0:
        return "-" + format_duration(-ns)
    if ns < _SECOND:
        if ns < _MICROSECOND:
            return f"{ns}ns" if ns else "0s"
        if ns < _MILLISECOND:
            return f"{_decimal(ns, 3)}µs"
        return f"{_decimal(ns, 6)}ms"
    minutes, rest = divmod(ns, _MINUTE)
    seconds = f"{_decimal(rest, 9)}s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _decimal(ns: int, digits: int) -> str:
    """`ns / 10^digits` without trailing zeros."""
    whole, part = divmod(ns, 10**digits)
    return f"{whole}.{part:0{digits}d}".rstrip("0") if part else str(whole)


def parse_duration(text: str) -> int:
    """
    Read a duration as Go writes it.

    Returns:
        Nanoseconds; digits below one nanosecond are dropped.

    Raises:
        ValueError: `text` is not a duration; the message quotes it.
    """
    if not _ALL.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as '1m1.5s'")
    total = 0
    for whole, part, unit in _PART.findall(text):
        scale = _NS["us" if unit == "μs" else unit]
        total += int(whole) * scale + int(part or 0) * scale // 10 ** len(part)
    return -total if text.startswith("-") else total


def parse_length(length: str | float | timedelta) -> float:
    """
    Read a length of time as people write it: `"90s"`, `"5m"`, `"1h30m"`, `"7d"`.

    Args:
        length: Such text; or seconds; or a `timedelta`.

    Returns:
        Seconds, above zero.

    Raises:
        TypeError: `length` is of another type.
        ValueError: `length` is not a length above zero; the message quotes it.
    """
    if isinstance(length, timedelta):
        seconds = length.total_seconds()
    elif isinstance(length, str):
        if not _LENGTH.fullmatch(length):
            raise ValueError(f"{length!r} is not a length such as '90s', '5m' or '7d'")
        seconds = (
            sum(
                int(whole) * _LENGTH_NS[unit]
                + int(part or 0) * _LENGTH_NS[unit] // 10 ** len(part)
                for whole, part, unit in _LENGTH_PART.findall(length)
            )
            / _SECOND
        )
    elif isinstance(length, int | float) and not isinstance(length, bool):
        seconds = float(length)
    else:
        raise TypeError(
            f"a length is text such as '5m', seconds or a timedelta, not {length!r}"
        )
    if not 0 < seconds < float("inf"):
        raise ValueError(f"length {length!r} must be above zero")
    return seconds
