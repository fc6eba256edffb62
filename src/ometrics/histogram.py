# SPDX-License-Identifier: MIT
"""`LatencyHistogram`: one set of exact counts, read through several views.

Every value is counted in one cell; the cells are cut by the bounds of all views
together, so the original's labels, the GenAI bounds and the exponential histogram are
sums of the same cells and cannot disagree. Sums are integer nanoseconds: merging is
exact, whatever the order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from ometrics import _histogram
from ometrics.durations import format_duration

if TYPE_CHECKING:
    from typing_extensions import Self

UINT64_MAX: Final = 2**64 - 1

# More bounds of the user's would make every record larger than they are worth.
MAX_BUCKETS: Final = 512

# The original package's labels: 1ms ... 5s and 10s+, the last for all above 5 s.
DEFAULT_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0),
)

# OpenTelemetry GenAI metrics (docs/gen-ai/gen-ai-metrics.md, status Development):
# durations of client operations, and the two server metrics with bounds of their own.
GENAI_DURATION_BUCKETS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28),
    *(2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
GENAI_TIME_PER_TOKEN_BUCKETS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
GENAI_TIME_TO_FIRST_TOKEN_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)

# The same conventions' bounds for tokens a call.
GENAI_TOKEN_BUCKETS: Final = tuple(float(4**i) for i in range(14))

# How many seconds a token is in the cells; see `TokenHistogram` and `_record.pxd`.
TOKEN_SECONDS: Final = 2.0**-14
_TOKEN_SHIFT: Final = 14 * 2**5  # in buckets of scale 5
_MAX_TOKEN_EXPONENT: Final = 26

_STANDARD_BOUNDS: Final = frozenset(
    GENAI_DURATION_BUCKETS
    + GENAI_TIME_PER_TOKEN_BUCKETS
    + GENAI_TIME_TO_FIRST_TOKEN_BUCKETS
)


@lru_cache(maxsize=64)
def layout_of(buckets: tuple[float, ...]) -> _histogram.Layout:
    """
    The cells for the user's `buckets` and every standard bound beside them.

    Raises:
        ValueError: `buckets` is empty, not ascending, or has a bound that is not a
            positive finite number of seconds.
    """
    if not buckets:
        raise ValueError("buckets must name at least one bound in seconds")
    if len(buckets) > MAX_BUCKETS:
        raise ValueError(f"{len(buckets)} buckets are more than {MAX_BUCKETS}")
    _histogram.Layout(buckets)  # names a bad bound before sorting would hide it
    return _histogram.Layout(tuple(sorted(_STANDARD_BOUNDS.union(buckets))))


@lru_cache(maxsize=64)
def labels_of(buckets: tuple[float, ...]) -> tuple[str, ...]:
    """
    Bucket labels in the original's manner, such as `1ms`, ..., `5s`, `10s+`.

    The last bound only lends its name to the rest: `10s+` counts all above `5s`.
    """
    names = [format_duration(round(bound * 1e9)) for bound in buckets]
    return (*names[:-1], names[-1] + "+")


def _saturated(value: int) -> int:
    return min(value, UINT64_MAX)


class _Histogram(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What histograms of any unit share: counts in the cells of one layout."""

    #: Values up to this one are in no bucket of the exponential view.
    zero_threshold: ClassVar[float] = 2.0**-20
    #: OpenTelemetry's index of the bucket above the exponential view.
    overflow_index: ClassVar[int] = 12 * 2**5

    bucket_bounds: tuple[float, ...] = DEFAULT_BUCKETS
    min: float | None = None
    max: float | None = None
    first_cell: int = 0
    cells: bytes = b""

    @property
    def count(self) -> int:
        """Number of values."""
        return _histogram.total(self.cells)

    @property
    def scale(self) -> int:
        """Scale of the exponential view: base = 2^(2^-scale), here 2^(1/32)."""
        return 5

    @property
    def offset(self) -> int:
        """OpenTelemetry index of the first of `counts`."""
        return self.exponential()[0]

    @property
    def counts(self) -> tuple[int, ...]:
        """Counts of the exponential view from `offset` on."""
        return tuple(self.exponential()[1])

    def cumulative(self, bounds: tuple[float, ...]) -> list[int]:
        """
        Exact number of values at or below each bound.

        Args:
            bounds: Ascending, in the unit of the values: of `bucket_bounds`, of the
                GenAI bounds, or powers of two in the range of the exponential view.

        Raises:
            ValueError: A bound is none of these, so only an estimate would be possible.
        """
        return _unpacked(self.packed_cumulative(bounds))[:-1]

    def packed_cumulative(self, bounds: tuple[float, ...]) -> bytes:
        """`cumulative` and then `count`, as native unsigned 64-bit counts."""
        layout = layout_of(self.bucket_bounds)
        return layout.cumulative(bounds, self.first_cell, self.cells)

    def exponential(self) -> tuple[int, list[int], int, int]:
        """
        The base-2 exponential view in OpenTelemetry's numbering.

        Returns:
            `(offset, counts, underflow, overflow)`: bucket `offset + i` is
            `(base^(offset+i), base^(offset+i+1)]` and holds `counts[i]`; `underflow`
            counts values up to `zero_threshold` (zero included), `overflow` those above
            the bucket before `overflow_index`.
        """
        offset, counts, underflow, overflow = self.packed_exponential()
        return offset, _unpacked(counts), underflow, overflow

    def packed_exponential(self) -> tuple[int, bytes, int, int]:
        """`exponential`, with native unsigned 64-bit counts."""
        layout = layout_of(self.bucket_bounds)
        return layout.exponential(self.first_cell, self.cells)

    @property
    def underflow(self) -> int:
        """Values below the range of the exponential view, zero included."""
        return self.exponential()[2]

    @property
    def overflow(self) -> int:
        """Values above the range of the exponential view."""
        return self.exponential()[3]

    def quantile(self, q: float) -> float | None:
        """
        The `q`-quantile, by nearest rank, in the unit of the values.

        Within 1.1 % of the exact sample quantile for values in the range of the
        exponential view, and never outside `[min, max]`.

        Args:
            q: 0 to 1.

        Returns:
            The value; `None` of nothing.

        Raises:
            ValueError: `q` is not within 0 to 1.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"quantile {q!r} is not within 0 to 1")
        count = self.count
        if not count:
            return None
        rank = min(max(ceil(q * count), 1), count)
        if rank == 1 and self.min is not None:
            return self.min
        if rank == count and self.max is not None:
            return self.max
        value = self._at(rank)
        if self.max is not None:
            value = min(value, self.max)
        if self.min is not None:
            value = max(value, self.min)
        return value

    def _at(self, rank: int) -> float:
        """Estimate of the `rank`-th smallest value, from 1."""
        layout = layout_of(self.bucket_bounds)
        return layout.quantile(self.first_cell, self.cells, rank)

    def _merged(self, other: Self) -> dict[str, Any]:
        """The common fields of both sets of values together."""
        self._require_same_bounds(other)
        first, cells = _histogram.add(
            self.first_cell, self.cells, other.first_cell, other.cells
        )
        return {
            "bucket_bounds": self.bucket_bounds,
            "min": self._extreme(other, "min", min),
            "max": self._extreme(other, "max", max),
            "first_cell": first,
            "cells": cells,
        }

    def _left(self, earlier: Self) -> dict[str, Any]:
        """The common fields of the values that came after `earlier`."""
        self._require_same_bounds(earlier)
        first, cells = _histogram.subtract(
            self.first_cell, self.cells, earlier.first_cell, earlier.cells
        )
        if not cells:
            return {"bucket_bounds": self.bucket_bounds}
        same_min = bool(earlier.cells) and self.min == earlier.min
        same_max = bool(earlier.cells) and self.max == earlier.max
        return {
            "bucket_bounds": self.bucket_bounds,
            "min": None if same_min else self.min,
            "max": None if same_max else self.max,
            "first_cell": first,
            "cells": cells,
        }

    def _extreme(
        self, other: Self, name: str, choose: Callable[..., float]
    ) -> float | None:
        """The extreme of both; `None` if one has values and does not know its own."""
        sides = [h for h in (self, other) if h.cells]
        known = [getattr(h, name) for h in sides]
        return None if not known or None in known else choose(known)

    def _require_same_bounds(self, other: Self) -> None:
        if self.bucket_bounds != other.bucket_bounds:
            raise ValueError(
                "histograms with different buckets have no common exact counts:"
                f" {self.bucket_bounds} and {other.bucket_bounds}"
            )


def _sum_left(later: int, earlier: int, left: dict[str, Any]) -> int:
    """Difference of two sums; 0 of no values."""
    if "cells" not in left:
        return 0
    if later < earlier:
        raise ValueError("not an earlier part of this histogram: the sum went back")
    return later - earlier


class LatencyHistogram(_Histogram, frozen=True, kw_only=True, gc=False):
    """
    An immutable histogram of durations in seconds.

    The exponential view covers 2^-20 s to 2^12 s.

    Attributes:
        bucket_bounds: The user's bounds in seconds, as given to the collector.
        sum_ns: Sum of all values in nanoseconds; saturates at 2^64 - 1.
        min: Smallest value in seconds; `None` of nothing, or in a difference that
            cannot tell.
        max: Largest value in seconds; `None` likewise.
        first_cell: Index of the first cell kept.
        cells: Native unsigned 64-bit counts from there on; neither end is zero.

    Thread-safety:
        Immutable.
    """

    sum_ns: int = 0

    @classmethod
    def of(
        cls, values: Iterable[float], buckets: tuple[float, ...] = DEFAULT_BUCKETS
    ) -> LatencyHistogram:
        """
        The histogram of finite seconds >= 0, for tests and for data from elsewhere.

        Raises:
            ValueError: A value is NaN, infinite or negative.
        """
        values = list(values)
        if not values:
            return cls(bucket_bounds=buckets)
        first, cells = _cells_of(values, buckets)
        return cls(
            bucket_bounds=buckets,
            sum_ns=_saturated(sum(int(value * 1e9 + 0.5) for value in values)),
            min=min(values),
            max=max(values),
            first_cell=first,
            cells=cells,
        )

    def __repr__(self) -> str:
        """What a person would ask for; `cells` are not for eyes."""
        return (
            f"<LatencyHistogram count={self.count} min={self.min}"
            f" p50={self.quantile(0.5)} p99={self.quantile(0.99)} max={self.max}>"
        )

    @property
    def total(self) -> float:
        """Sum of all values in seconds."""
        return self.sum_ns / 1e9

    @property
    def mean(self) -> float | None:
        """Mean in seconds; `None` of nothing."""
        count = self.count
        return self.sum_ns / count / 1e9 if count else None

    @property
    def buckets(self) -> dict[str, int]:
        """Label -> exact count, not cumulative, in bucket order."""
        below = self.cumulative(self.bucket_bounds[:-1])
        edges = [0, *below, self.count]
        counts = [high - low for low, high in pairwise(edges)]
        return dict(zip(labels_of(self.bucket_bounds), counts, strict=True))

    def merge(self, other: LatencyHistogram) -> LatencyHistogram:
        """
        The histogram of both sets of values. Exact, associative, commutative.

        Raises:
            ValueError: The two have different `bucket_bounds`.
        """
        merged = self._merged(other)
        return LatencyHistogram(sum_ns=_saturated(self.sum_ns + other.sum_ns), **merged)

    def __sub__(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """
        The values that came after `earlier`, an earlier state of this histogram.

        `min` and `max` are kept where they must belong to the difference (they are more
        extreme than the earlier ones, or there was nothing before), else `None`.

        Raises:
            ValueError: `earlier` is not an earlier part of this histogram.
        """
        left = self._left(earlier)
        return LatencyHistogram(
            sum_ns=_sum_left(self.sum_ns, earlier.sum_ns, left), **left
        )


class TokenHistogram(_Histogram, frozen=True, kw_only=True, gc=False):
    """
    An immutable histogram of tokens a call.

    A number of tokens n is counted in the cell of n * 2^-14 seconds: a power of two
    loses nothing, and puts 1 to 2^26 tokens, the range of OpenTelemetry's bounds for
    `gen_ai.client.token.usage`, inside the range of the cells. All that is read here
    is in tokens again.

    Attributes:
        bucket_bounds: The collector's bounds in seconds, which also cut these cells.
        total: Sum of all values; saturates at 2^64 - 1.
        min: Fewest tokens; `None` of nothing, or in a difference that cannot tell.
        max: Most tokens; `None` likewise.
        first_cell: Index of the first cell kept.
        cells: Native unsigned 64-bit counts from there on; neither end is zero.

    Thread-safety:
        Immutable.
    """

    zero_threshold: ClassVar[float] = 2.0**-6
    overflow_index: ClassVar[int] = _MAX_TOKEN_EXPONENT * 2**5

    total: int = 0

    @classmethod
    def of(
        cls, values: Iterable[int], buckets: tuple[float, ...] = DEFAULT_BUCKETS
    ) -> TokenHistogram:
        """
        The histogram of integers >= 0, for tests and for data from elsewhere.

        Raises:
            ValueError: A value is negative.
        """
        values = list(values)
        if not values:
            return cls(bucket_bounds=buckets)
        first, cells = _cells_of([n * TOKEN_SECONDS for n in values], buckets)
        return cls(
            bucket_bounds=buckets,
            total=_saturated(sum(values)),
            min=float(min(values)),
            max=float(max(values)),
            first_cell=first,
            cells=cells,
        )

    def __repr__(self) -> str:
        """What a person would ask for; `cells` are not for eyes."""
        return (
            f"<TokenHistogram count={self.count} min={self.min}"
            f" p50={self.quantile(0.5)} p99={self.quantile(0.99)} max={self.max}>"
        )

    @property
    def mean(self) -> float | None:
        """Mean number of tokens; `None` of nothing."""
        count = self.count
        return self.total / count if count else None

    def packed_cumulative(self, bounds: tuple[float, ...]) -> bytes:
        """As of `LatencyHistogram`, in tokens."""
        try:
            return super().packed_cumulative(tuple([n * TOKEN_SECONDS for n in bounds]))
        except ValueError:
            raise ValueError(
                f"bounds {bounds} must be powers of two from 2^-6 to 2^26"
            ) from None

    def packed_exponential(self) -> tuple[int, bytes, int, int]:
        """As of `LatencyHistogram`, in tokens: 2^-6 to 2^26."""
        offset, counts, underflow, overflow = super().packed_exponential()
        return offset + _TOKEN_SHIFT if counts else 0, counts, underflow, overflow

    def _at(self, rank: int) -> float:
        return float(round(super()._at(rank) / TOKEN_SECONDS))

    def merge(self, other: TokenHistogram) -> TokenHistogram:
        """
        The histogram of both sets of values. Exact, associative, commutative.

        Raises:
            ValueError: The two have different `bucket_bounds`.
        """
        merged = self._merged(other)
        return TokenHistogram(total=_saturated(self.total + other.total), **merged)

    def __sub__(self, earlier: TokenHistogram) -> TokenHistogram:
        """
        The values that came after `earlier`, an earlier state of this histogram.

        Raises:
            ValueError: `earlier` is not an earlier part of this histogram.
        """
        left = self._left(earlier)
        return TokenHistogram(total=_sum_left(self.total, earlier.total, left), **left)


def _unpacked(counts: bytes) -> list[int]:
    return memoryview(counts).cast("Q").tolist()


def _cells_of(values: Iterable[float], buckets: tuple[float, ...]) -> tuple[int, bytes]:
    counts = Counter(map(layout_of(buckets).cell, values))
    first, last = min(counts), max(counts)
    kept = array("Q", (counts[i] for i in range(first, last + 1)))
    return first, kept.tobytes()
