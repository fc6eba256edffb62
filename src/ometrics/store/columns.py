# SPDX-License-Identifier: MIT
"""Which columns a read type has in the database: they follow from its declared fields.

A counter is a column of its name; counts by name are one column of JSON; a histogram is
its count, sum, extremes and quantiles, and a part of the row's blob. So a new field is
a new column, which `schema.py` adds to databases that do not have it yet.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec
from sqlalchemy import BigInteger, Column, Float, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB

from ometrics import _cells
from ometrics.fields import Counter, Counts, Extreme, Field, Histogram, fields_of
from ometrics.histogram import LatencyHistogram, TokenHistogram

# What both databases hold in an integer.
INT64_MAX: Final = 2**63 - 1
JSON: Final = Text().with_variant(JSONB(none_as_null=True), "postgresql")
QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
BLOB: Final = "histograms"

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, int]).decode

Row = Mapping[Any, Any]


class DamagedRowError(ValueError):
    """A row whose histograms cannot be read."""


class _Unit(NamedTuple):
    """How a kind of histogram is written: its names, and its values as integers."""

    sum_field: str
    sum: str
    extreme: str
    quantile: str
    per_extreme: float
    per_quantile: float


_UNITS: Final[dict[type, _Unit]] = {
    LatencyHistogram: _Unit("sum_ns", "sum_ns", "ns", "us", 1e9, 1e6),
    TokenHistogram: _Unit("total", "sum", "", "", 1.0, 1.0),
}


class _HistogramColumns:
    """One histogram of a read type: its columns, and its tag in the blob."""

    def __init__(self, field: Field, cls: type) -> None:
        unit = _UNITS[cls]
        self.name = field.name
        self.cls: Any = cls
        self.unit = unit
        # Of the name, so that a blob outlives a change of the order of fields.
        self.tag = zlib.crc32(field.name.encode()) & 0xFFFF
        prefix = field.name.removesuffix("_hist")
        self.prefix = prefix
        self.count = f"{prefix}_count"
        self.sum = f"{prefix}_{unit.sum}"
        self.min = "_".join(filter(None, (prefix, "min", unit.extreme)))
        self.max = "_".join(filter(None, (prefix, "max", unit.extreme)))
        self.quantiles = [
            (q, "_".join(filter(None, (prefix, title, unit.quantile))))
            for q, title in QUANTILES
        ]

    @property
    def names(self) -> list[str]:
        """All columns."""
        quantiles = [name for _, name in self.quantiles]
        return [self.count, self.sum, self.min, self.max, *quantiles]

    def write(self, histogram: Any, row: dict[str, Any]) -> None:
        """Fill the columns in; nothing is known of an empty one."""
        unit = self.unit
        low, high = histogram.min, histogram.max
        row[self.count] = _clipped(histogram.count)
        row[self.sum] = _clipped(getattr(histogram, unit.sum_field))
        row[self.min] = None if low is None else _whole(low * unit.per_extreme)
        row[self.max] = None if high is None else _whole(high * unit.per_extreme)
        for q, name in self.quantiles:
            row[name] = _whole(histogram.quantile(q) * unit.per_quantile)

    def read(
        self, row: Row, first: int, cells: bytes, bounds: tuple[float, ...]
    ) -> Any:
        """
        The histogram.

        Raises:
            DamagedRowError: Its cells contradict the layout or the columns.
        """
        unit = self.unit
        low, high = row[self.min], row[self.max]
        fields = {
            "bucket_bounds": bounds,
            "first_cell": first,
            "cells": cells,
            unit.sum_field: row[self.sum],
        }
        if low is not None and high is not None:
            low, high = low / unit.per_extreme, high / unit.per_extreme
            try:
                return self.cls(min=low, max=high, **fields)
            except ValueError:
                pass  # one on the edge of its cell was rounded across it: unknown
        try:
            return self.cls(**fields)
        except (TypeError, ValueError) as error:
            raise DamagedRowError(f"{self.name}: {error}") from None


class Columns:
    """
    The columns of a read type's counters and histograms, written and read.

    Args:
        owner: The read type.
        prefix: Put before the names of counters that would say too little.
    """

    def __init__(self, owner: type, prefix: str = "") -> None:
        self.owner: Any = owner
        hints = get_type_hints(owner)
        kept = [f for f in fields_of(owner) if f.name in owner.__struct_fields__]  # type: ignore[attr-defined]
        self.counters = [(f.name, prefix + f.name) for f in kept if type(f) is Counter]
        self.counts = [(f.name, prefix + f.name) for f in kept if type(f) is Counts]
        self.extremes = [(f.name, prefix + f.name) for f in kept if type(f) is Extreme]
        self.histograms = [
            _HistogramColumns(f, hints[f.name]) for f in kept if type(f) is Histogram
        ]
        self._numbers = (*self.counters, *self.extremes)
        self._by_tag = {h.tag: h for h in self.histograms}
        self._blank: dict[str, Any] = dict.fromkeys(self._types())
        self._empties: dict[tuple[float, ...], dict[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """All columns."""
        return list(self._types())

    def columns(self) -> list[Column[Any]]:
        """For a table; all may be null, as later versions add some."""
        return [Column(name, type_) for name, type_ in self._types().items()]

    def _types(self) -> dict[str, Any]:
        types: dict[str, Any] = {}
        types.update((column, BigInteger()) for _, column in self.counters)
        types.update((column, JSON) for _, column in self.counts)
        types.update((column, Float(53)) for _, column in self.extremes)
        for h in self.histograms:
            types.update((column, BigInteger()) for column in h.names)
        if self.histograms:
            types[BLOB] = LargeBinary()
        return types

    @cached_property
    def needed(self) -> list[str]:
        """The columns that `read` needs: quantiles are for people."""
        plain = (*self.counters, *self.counts, *self.extremes)
        names = [column for _, column in plain]
        for h in self.histograms:
            names += [h.sum, h.min, h.max]
        return [*names, BLOB] if self.histograms else names

    def write(self, owner: Any) -> dict[str, Any] | None:
        """The row of a read type; `None` where it counts nothing."""
        row: dict[str, Any] = self._blank.copy()
        counted = False
        for name, column in self.counters:
            value = getattr(owner, name)
            counted = counted or bool(value)
            row[column] = None if value is None else _clipped(value)
        for name, column in self.counts:
            counts = getattr(owner, name)
            if counts:
                counted = True
                clean = {clean_text(k): _clipped(n) for k, n in counts.items()}
                row[column] = _encode(clean).decode()
        for name, column in self.extremes:
            row[column] = getattr(owner, name)
        packed = []
        for h in self.histograms:
            histogram = getattr(owner, h.name)
            if histogram.cells:
                h.write(histogram, row)
                packed.append((h.tag, histogram.first_cell, histogram.cells))
        if packed:
            row[BLOB] = _cells.pack(packed)
        return row if counted or packed else None

    def read(self, row: Row, bounds: tuple[float, ...]) -> dict[str, Any]:
        """
        The fields of a read type, of its row.

        Raises:
            DamagedRowError: The blob cannot be read, or contradicts the columns.
        """
        values = self._empty(bounds).copy()
        for name, column in self._numbers:
            value = row[column]
            if value is not None:
                values[name] = _plain(column, value)
        for name, column in self.counts:
            counts = row[column]
            if counts is not None:
                values[name] = _counts(column, counts)
        if self.histograms and row[BLOB]:
            try:
                packed = _cells.unpack(row[BLOB])
            except (TypeError, ValueError) as error:
                raise DamagedRowError(str(error)) from None
            for tag, first, cells in packed:
                h = self._by_tag.get(tag)
                if h is not None:
                    values[h.name] = h.read(row, first, cells, bounds)
        return values

    def _empty(self, bounds: tuple[float, ...]) -> dict[str, Any]:
        """All histograms, empty; they are immutable, so one of each is enough."""
        if bounds not in self._empties:
            self._empties[bounds] = {
                h.name: h.cls(bucket_bounds=bounds) for h in self.histograms
            }
        return self._empties[bounds]


def _plain(column: str, value: Any) -> Any:
    """
    A counter or extreme.

    Raises:
        DamagedRowError: It is no number, or below zero.
    """
    if isinstance(value, (int, float)) and value >= 0:
        return value
    raise DamagedRowError(f"{column} is {value!r}")


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


def _clipped(value: int) -> int:
    return min(value, INT64_MAX)


def _whole(value: float) -> int:
    return min(round(value), INT64_MAX)
