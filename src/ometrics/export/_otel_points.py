# SPDX-License-Identifier: MIT
"""A histogram and a time in OpenTelemetry's terms: arithmetic without its packages.

Its exponential histogram has no overflow bucket, and its buckets must add up to the
count. So values above the range (2^12 s) are in the bucket right above, where nothing
else ever is, and `max` tells how far they went. (Rejected: the bucket of `max`. It
moves, so a bucket's count would go back.) The zero bucket is our underflow: up to
2^-20 s.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Final

from ometrics.export.names import MetricRow
from ometrics.histogram import LatencyHistogram, TokenHistogram

Histogram = LatencyHistogram | TokenHistogram

INT64_MAX: Final = 2**63 - 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


def exponential(value: Histogram) -> tuple[int, list[int], int]:
    """`(offset, counts, zero_count)`, the overflow in its bucket above the range."""
    offset, counts, underflow, overflow = value.exponential()
    if overflow:
        above = value.overflow_index
        if not counts:
            offset = above
        counts = [*counts, *[0] * (above - offset - len(counts)), overflow]
    return offset, counts, underflow


def explicit(row: MetricRow, value: Histogram) -> tuple[tuple[float, ...], list[int]]:
    """`(bounds, counts)` of the metric's explicit buckets, the last one without end."""
    bounds = value.bucket_bounds if row.bounds is None else row.bounds
    cumulative = [0, *value.cumulative(bounds), value.count]
    return bounds, [above - below for below, above in pairwise(cumulative)]


def unix_nano(time: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond that `time` is."""
    return (time - _EPOCH) // _MICROSECOND * 1_000
