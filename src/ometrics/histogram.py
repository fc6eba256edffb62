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
from typing import Final

import msgspec

from ometrics import _histogram
from ometrics.durations import format_duration

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


class LatencyHistogram(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    An immutable histogram of durations in seconds.

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

    bucket_bounds: tuple[float, ...] = DEFAULT_BUCKETS
    sum_ns: int = 0
    min: float | None = None
    max: float | None = None
    first_cell: int = 0
    cells: bytes = b""

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
        counts = Counter(map(layout_of(buckets).cell, values))
        if not values:
            return cls(bucket_bounds=buckets)
        first, last = min(counts), max(counts)
        return cls(
            bucket_bounds=buckets,
            sum_ns=_saturated(sum(int(value * 1e9 + 0.5) for value in values)),
            min=min(values),
            max=max(values),
            first_cell=first,
            cells=array("Q", (counts[i] for i in range(first, last + 1))).tobytes(),
        )

    def __repr__(self) -> str:
        """What a person would ask for; `cells` are not for eyes."""
        return (
            f"<LatencyHistogram count={self.count} min={self.min}"
            f" p50={self.quantile(0.5)} p99={self.quantile(0.99)} max={self.max}>"
        )

    @property
    def count(self) -> int:
        """Number of values."""
        return _histogram.total(self.cells)

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

    def cumulative(self, bounds: tuple[float, ...]) -> list[int]:
        """
        Exact number of values at or below each bound.

        Args:
            bounds: Ascending seconds, each of `bucket_bounds` or of the GenAI bounds.

        Raises:
            ValueError: A bound is neither, so only an estimate would be possible.
        """
        layout = layout_of(self.bucket_bounds)
        return layout.cumulative(bounds, self.first_cell, self.cells)

    @property
    def scale(self) -> int:
        """Scale of the exponential view: base = 2^(2^-scale), here 2^(1/32)."""
        return 5

    def exponential(self) -> tuple[int, list[int], int, int]:
        """
        The base-2 exponential view in OpenTelemetry's numbering.

        Returns:
            `(offset, counts, underflow, overflow)`: bucket `offset + i` is
            `(base^(offset+i), base^(offset+i+1)]` and holds `counts[i]`; `underflow`
            counts values up to 2^-20 s (zero included), `overflow` those above 2^12 s.
        """
        layout = layout_of(self.bucket_bounds)
        return layout.exponential(self.first_cell, self.cells)

    @property
    def offset(self) -> int:
        """OpenTelemetry index of the first of `counts`."""
        return self.exponential()[0]

    @property
    def counts(self) -> tuple[int, ...]:
        """Counts of the exponential view from `offset` on."""
        return tuple(self.exponential()[1])

    @property
    def underflow(self) -> int:
        """Values at or below 2^-20 s."""
        return self.exponential()[2]

    @property
    def overflow(self) -> int:
        """Values above 2^12 s."""
        return self.exponential()[3]

    def quantile(self, q: float) -> float | None:
        """
        The `q`-quantile in seconds, by nearest rank.

        Within 1.1 % of the exact sample quantile for values from 1 us to 1 h, and never
        outside `[min, max]`.

        Args:
            q: 0 to 1.

        Returns:
            Seconds; `None` of nothing.

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
        layout = layout_of(self.bucket_bounds)
        value = layout.quantile(self.first_cell, self.cells, rank)
        if self.max is not None:
            value = min(value, self.max)
        if self.min is not None:
            value = max(value, self.min)
        return value

    def merge(self, other: LatencyHistogram) -> LatencyHistogram:
        """
        The histogram of both sets of values. Exact, associative, commutative.

        Raises:
            ValueError: The two have different `bucket_bounds`.
        """
        self._require_same_bounds(other)
        first, cells = _histogram.add(
            self.first_cell, self.cells, other.first_cell, other.cells
        )
        return LatencyHistogram(
            bucket_bounds=self.bucket_bounds,
            sum_ns=_saturated(self.sum_ns + other.sum_ns),
            min=self._extreme(other, "min", min),
            max=self._extreme(other, "max", max),
            first_cell=first,
            cells=cells,
        )

    def __sub__(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """
        The values that came after `earlier`, an earlier state of this histogram.

        `min` and `max` are kept where they must belong to the difference (they are more
        extreme than the earlier ones, or there was nothing before), else `None`.

        Raises:
            ValueError: `earlier` is not an earlier part of this histogram.
        """
        self._require_same_bounds(earlier)
        first, cells = _histogram.subtract(
            self.first_cell, self.cells, earlier.first_cell, earlier.cells
        )
        if not cells:
            return LatencyHistogram(bucket_bounds=self.bucket_bounds)
        if self.sum_ns < earlier.sum_ns:
            raise ValueError("not an earlier part of this histogram: the sum went back")
        same_min = bool(earlier.cells) and self.min == earlier.min
        same_max = bool(earlier.cells) and self.max == earlier.max
        return LatencyHistogram(
            bucket_bounds=self.bucket_bounds,
            sum_ns=self.sum_ns - earlier.sum_ns,
            min=None if same_min else self.min,
            max=None if same_max else self.max,
            first_cell=first,
            cells=cells,
        )

    def _extreme(
        self, other: LatencyHistogram, name: str, choose: Callable[..., float]
    ) -> float | None:
        """The extreme of both; `None` if one has values and does not know its own."""
        sides = [h for h in (self, other) if h.cells]
        known = [getattr(h, name) for h in sides]
        return None if not known or None in known else choose(known)

    def _require_same_bounds(self, other: LatencyHistogram) -> None:
        if self.bucket_bounds != other.bucket_bounds:
            raise ValueError(
                "histograms with different buckets have no common exact counts:"
                f" {self.bucket_bounds} and {other.bucket_bounds}"
            )
