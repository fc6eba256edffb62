# SPDX-License-Identifier: MIT
"""Go's duration strings: `"150ms"`, `"1m1.5s"`, `"1.000001ms"`.

The original package exports latencies as `time.Duration.String()` writes them; the
rules are those of Go's documentation of package `time`.
"""

from __future__ import annotations

import re
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
