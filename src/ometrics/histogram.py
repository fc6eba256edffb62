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
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from ometrics import _histogram, _validation
from ometrics._histogram import layout_of
from ometrics.bounds import (
    DEFAULT_BUCKETS,
    GENAI_DURATION_BUCKETS,
    GENAI_TIME_PER_TOKEN_BUCKETS,
    GENAI_TIME_TO_FIRST_TOKEN_BUCKETS,
    GENAI_TOKEN_BUCKETS,
    labels_of,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "DEFAULT_BUCKETS",
    "GENAI_DURATION_BUCKETS",
    "GENAI_TIME_PER_TOKEN_BUCKETS",
    "GENAI_TIME_TO_FIRST_TOKEN_BUCKETS",
    "GENAI_TOKEN_BUCKETS",
    "TOKEN_SECONDS",
    "UINT64_MAX",
    "LatencyHistogram",
    "TokenHistogram",
    "labels_of",
    "layout_of",
]

UINT64_MAX: Final = 2**64 - 1

# How many seconds a token is in the cells; see `TokenHistogram` and `_record.pxd`.
TOKEN_SECONDS: Final = 2.0**-14
_TOKEN_SHIFT: Final = 14 * 2**5  # in buckets of scale 5
_MAX_TOKEN_EXPONENT: Final = 26


def _saturated(value: int) -> int:
    return min(value, UINT64_MAX)


class _Histogram(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What histograms of any unit share: counts in the cells of one layout."""

    #: Values up to this one are in no bucket of the exponential view.
    zero_threshold: ClassVar[float] = 2.0**-20
    #: OpenTelemetry's index of the bucket above the exponential view.
    overflow_index: ClassVar[int] = 12 * 2**5

    _SUM: ClassVar[str]  # the field that holds the sum of the values

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
        layout = layout_of(self.bucket_bounds)
        return layout.quantile(self.first_cell, self.cells, q, self.min, self.max)

    def merge(self, *others: Self) -> Self:
        """
        The histogram of all sets of values. Exact, associative, commutative.

        An extreme is `None` if one of them has values and does not know its own. At
        most 2^64 - 1 values are kept, which is the limit of every count.

        Raises:
            ValueError: Two have different `bucket_bounds`.
        """
        for other in others:
            self._common_layout(other)
        sides = [side for side in (self, *others) if side.cells]
        if len(sides) <= 1:
            return sides[0] if sides else self
        first, cells = layout_of(self.bucket_bounds).add(
            [(side.first_cell, side.cells) for side in sides]
        )
        return type(self)(
            bucket_bounds=self.bucket_bounds,
            min=_if_all_known(min, [side.min for side in sides]),
            max=_if_all_known(max, [side.max for side in sides]),
            first_cell=first,
            cells=cells,
            **{
                self._SUM: _saturated(sum([getattr(side, self._SUM) for side in sides]))
            },
        )

    def __sub__(self, earlier: Self) -> Self:
        """
        The values that came after `earlier`, an earlier state of this histogram.

        `min` and `max` are kept where they must belong to the difference (they are more
        extreme than the earlier ones, or there was nothing before), else `None`.

        Raises:
            ValueError: `earlier` is not an earlier part of this histogram.
        """
        layout = self._common_layout(earlier)
        if not earlier.cells:
            return self
        first, cells = layout.subtract(
            self.first_cell, self.cells, earlier.first_cell, earlier.cells
        )
        if not cells:
            return type(self)(bucket_bounds=self.bucket_bounds)
        if self._sum < earlier._sum:
            raise ValueError("not an earlier part of this histogram: the sum went back")
        # A sum that stopped at its limit says too little of the difference to go with
        # an extreme.
        exact = self._sum < UINT64_MAX
        low, high = _pair(self.min, earlier.min), _pair(self.max, earlier.max)
        return type(self)(
            bucket_bounds=self.bucket_bounds,
            min=low[0] if exact and low and low[0] < low[1] else None,
            max=high[0] if exact and high and high[0] > high[1] else None,
            first_cell=first,
            cells=cells,
            **{self._SUM: self._sum - earlier._sum},
        )

    @property
    def _sum(self) -> int:
        value: int = getattr(self, self._SUM)
        return value

    def _common_layout(self, other: Self) -> _histogram.Layout:
        bounds = self.bucket_bounds
        if bounds is not other.bucket_bounds and bounds != other.bucket_bounds:
            raise ValueError(
                "histograms with different buckets have no common exact counts:"
                f" {self.bucket_bounds} and {other.bucket_bounds}"
            )
        return layout_of(self.bucket_bounds)


def _if_all_known(
    choose: Callable[[list[float]], float], extremes: list[float | None]
) -> float | None:
    """The extreme of all; `None` of nothing, and if one is not known."""
    known = [extreme for extreme in extremes if extreme is not None]
    return choose(known) if known and len(known) == len(extremes) else None


def _pair(one: float | None, other: float | None) -> tuple[float, float] | None:
    """Both, if both are known."""
    return None if one is None or other is None else (one, other)


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

    Raises:
        TypeError: A field is of another type.
        ValueError: The fields are not those of any set of values; also when one is
            unpickled or converted.

    Thread-safety:
        Immutable.
    """

    _SUM: ClassVar[str] = "sum_ns"
    __post_init__ = _validation.check_latencies  # type: ignore[misc]  # called with `self`

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
        """What a person would ask for, in one line."""
        from ometrics.view.lines import histogram_line

        return histogram_line(self)

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ometrics.view.html import of_histogram

        return of_histogram(self)

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

    Raises:
        TypeError: A field is of another type.
        ValueError: The fields are not those of any set of values; also when one is
            unpickled or converted.

    Thread-safety:
        Immutable.
    """

    zero_threshold: ClassVar[float] = 2.0**-6
    overflow_index: ClassVar[int] = _MAX_TOKEN_EXPONENT * 2**5

    _SUM: ClassVar[str] = "total"
    __post_init__ = _validation.check_tokens  # type: ignore[misc]  # called with `self`

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
            return super().packed_cumulative(_in_seconds(bounds))
        except ValueError:
            raise ValueError(
                f"bounds {bounds} must be powers of two from 2^-6 to 2^26"
            ) from None

    def packed_exponential(self) -> tuple[int, bytes, int, int]:
        """As of `LatencyHistogram`, in tokens: 2^-6 to 2^26."""
        offset, counts, underflow, overflow = super().packed_exponential()
        return offset + _TOKEN_SHIFT if counts else 0, counts, underflow, overflow

    def quantile(self, q: float) -> float | None:
        """As of `LatencyHistogram`, in whole tokens."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"quantile {q!r} is not within 0 to 1")
        low, high = (
            None if extreme is None else extreme * TOKEN_SECONDS
            for extreme in (self.min, self.max)
        )
        layout = layout_of(self.bucket_bounds)
        value = layout.quantile(self.first_cell, self.cells, q, low, high)
        return None if value is None else float(round(value / TOKEN_SECONDS))


@lru_cache(maxsize=64)
def _in_seconds(tokens: tuple[float, ...]) -> tuple[float, ...]:
    """Bounds in tokens as bounds of cells."""
    return tuple(n * TOKEN_SECONDS for n in tokens)


def _unpacked(counts: bytes) -> list[int]:
    return memoryview(counts).cast("Q").tolist()


def _cells_of(values: Iterable[float], buckets: tuple[float, ...]) -> tuple[int, bytes]:
    counts = Counter(map(layout_of(buckets).cell, values))
    first, last = min(counts), max(counts)
    kept = array("Q", (counts[i] for i in range(first, last + 1)))
    return first, kept.tobytes()
