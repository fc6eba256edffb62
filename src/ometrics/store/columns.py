# SPDX-License-Identifier: MIT
"""Which columns a read type has in the database: they follow from its declared fields.

A counter is a column of its name; counts by name are one column of JSON; a histogram is
its count, sum, extremes and quantiles, and a part of the row's blob. So a new field is
a new column, which `versions.py` adds to databases that do not have it yet.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final, get_type_hints

import msgspec
from sqlalchemy import BigInteger, Column, Float, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB

from ometrics._rows import Rows
from ometrics.fields import Counter, Counts, Distribution, Extreme, Field, fields_of
from ometrics.histogram import LatencyHistogram, TokenHistogram

# What both databases hold in an integer.
INT64_MAX: Final = 2**63 - 1
JSON: Final = Text().with_variant(JSONB(none_as_null=True), "postgresql")
QUANTILES: Final = ("p50", "p95", "p99")
BLOB: Final = "histograms"

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, int]).decode


class DamagedRowError(ValueError):
    """A row whose histograms cannot be read."""


# What the columns of a kind of histogram are called: endings of the sum, the extremes
# and the quantiles. `_rows.Rows` makes their values.
_ENDINGS: Final[dict[type, tuple[str, str, str]]] = {
    LatencyHistogram: ("_sum_ns", "_ns", "_us"),
    TokenHistogram: ("_sum", "", ""),
}


class _HistogramColumns:
    """The names of one histogram's columns, and its tag in the blob."""

    def __init__(self, field: Field, cls: type) -> None:
        in_sum, in_extremes, in_quantiles = _ENDINGS[cls]
        self.cls: Any = cls
        # Of the name, so that a blob outlives a change of the order of fields.
        self.tag = zlib.crc32(field.name.encode()) & 0xFF
        prefix = field.name.removesuffix("_hist")
        self.sum = f"{prefix}{in_sum}"
        self.extremes = [f"{prefix}_{word}{in_extremes}" for word in ("min", "max")]
        quantiles = [f"{prefix}_{title}{in_quantiles}" for title in QUANTILES]
        self.names = [f"{prefix}_count", self.sum, *self.extremes, *quantiles]


class Columns:
    """
    The columns of a read type's counters and histograms, written and read.

    Args:
        owner: The read type.
        prefix: Put before the names of counters that would say too little.
        without: Names of fields that have their columns elsewhere.
        only: Names of the fields that have theirs here; `None` for all.
    """

    def __init__(
        self,
        owner: type,
        prefix: str = "",
        *,
        without: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> None:
        self.owner: Any = owner
        hints = get_type_hints(owner)
        wanted = set(owner.__struct_fields__ if only is None else only)  # type: ignore[attr-defined]
        wanted -= set(without)
        kept = [f for f in fields_of(owner) if f.name in wanted]
        counters = [f.name for f in kept if type(f) is Counter]
        extremes = [f.name for f in kept if type(f) is Extreme]
        self._numbers = [*counters, *extremes]
        self._counts = [f.name for f in kept if type(f) is Counts]
        self._histograms = [f.name for f in kept if type(f) is Distribution]
        columns = [
            _HistogramColumns(f, hints[f.name]) for f in kept if type(f) is Distribution
        ]
        kinds = [h.cls for h in columns]
        self._rows = Rows(
            *(self._numbers, self._counts, self._histograms),
            *([h.tag for h in columns], kinds),
        )
        self._kinds = dict(zip(self._histograms, kinds, strict=True))
        self._empties: dict[tuple[float, ...], dict[str, Any]] = {}
        self._types: dict[str, Any] = {}
        self._types.update((prefix + name, BigInteger()) for name in counters)
        self._types.update((prefix + name, Float(53)) for name in extremes)
        self._types.update((prefix + name, JSON) for name in self._counts)
        self.needed = list(self._types)
        for h in columns:
            self._types.update((name, BigInteger()) for name in h.names)
            self.needed += [h.sum, *h.extremes]
        if columns:
            self._types[BLOB] = LargeBinary()
            self.needed.append(BLOB)

    @property
    def names(self) -> list[str]:
        """All columns."""
        return list(self._types)

    def columns(self) -> list[Column[Any]]:
        """For a table; all may be null, as later versions add some."""
        return [Column(name, type_) for name, type_ in self._types.items()]

    def write(self, owner: Any, *, always: bool = False) -> list[Any] | None:
        """
        The values of all columns.

        Args:
            owner: Has the fields.
            always: Also where they count nothing; else that is `None`.
        """
        numbers = [getattr(owner, name) for name in self._numbers]
        counts = [getattr(owner, name) for name in self._counts]
        figures, blob = self._rows.write(
            tuple([getattr(owner, name) for name in self._histograms])
        )
        if not (always or blob or any(numbers) or any(counts)):
            return None
        row = [*map(_clipped, numbers), *map(_counts_as_text, counts), *figures]
        return [*row, blob] if self._histograms else row

    def read(
        self, row: tuple[Any, ...], at: int, bounds: tuple[float, ...]
    ) -> dict[str, Any]:
        """
        The fields of a read type, of its row.

        Args:
            row: Has the columns that are `needed` from `at` on.
            at: Place in the row.
            bounds: The latency buckets.

        Raises:
            DamagedRowError: The blob cannot be read, or contradicts the columns.
        """
        try:
            known = self._rows.read(row, at, bounds)
        except ValueError as error:
            raise DamagedRowError(str(error)) from None
        for name in self._counts:
            if name in known:
                known[name] = _counts(name, known[name])
        return self.empty(bounds) | known if self._histograms else known

    def empty(self, bounds: tuple[float, ...]) -> dict[str, Any]:
        """All histograms, empty; they are immutable, so one of each is enough."""
        if bounds not in self._empties:
            self._empties[bounds] = {
                name: kind(bucket_bounds=bounds) for name, kind in self._kinds.items()
            }
        return self._empties[bounds]


def _counts(column: str, value: Any) -> dict[str, int]:
    """
    Counts by name.

    Raises:
        DamagedRowError: They are no JSON of such.
    """
    try:
        return _decode(value) if isinstance(value, str) else dict(value)
    except (TypeError, ValueError) as error:
        raise DamagedRowError(f"{column}: {error}") from None


def clean_text(text: str) -> str:
    """Text that both databases hold: PostgreSQL knows no NUL."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def _clipped(value: Any) -> Any:
    return value if value is None or value <= INT64_MAX else INT64_MAX


def _counts_as_text(counts: Mapping[str, int]) -> str | None:
    if not counts:
        return None
    clean = {clean_text(name): _clipped(n) for name, n in counts.items()}
    return _encode(clean).decode()
