# SPDX-License-Identifier: MIT
"""A histogram and a time in OpenTelemetry's terms: arithmetic without its packages.

Its exponential histogram has no overflow bucket, and its buckets must add up to the
count. So values above 2^12 s are in the bucket right above (index 384), where nothing
else ever is, and `max` tells how far they went. (Rejected: the bucket of `max`. It
moves, so a bucket's count would go back.) The zero bucket is our underflow: up to
2^-20 s.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Final

from ometrics.export.names import Metric
from ometrics.histogram import LatencyHistogram

INT64_MAX: Final = 2**63 - 1
# Values up to here, in seconds, are in the zero bucket: the lowest bound of the cells.
ZERO_THRESHOLD: Final = 2.0**-20
# OpenTelemetry index of the bucket right above 2^12 s: 12 octaves of 2^5 buckets.
OVERFLOW_INDEX: Final = 12 * 32

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


def exponential(value: LatencyHistogram) -> tuple[int, list[int], int]:
    """`(offset, counts, zero_count)`, the overflow in its bucket right above 2^12 s."""
    offset, counts, underflow, overflow = value.exponential()
    if overflow:
        if not counts:
            offset = OVERFLOW_INDEX
        counts = [*counts, *[0] * (OVERFLOW_INDEX - offset - len(counts)), overflow]
    return offset, counts, underflow


def explicit(
    row: Metric, value: LatencyHistogram
) -> tuple[tuple[float, ...], list[int]]:
    """`(bounds, counts)` of the metric's explicit buckets, the last one without end."""
    bounds = value.bucket_bounds if row.bounds is None else row.bounds
    cumulative = [0, *value.cumulative(bounds), value.count]
    return bounds, [above - below for below, above in pairwise(cumulative)]


def unix_nano(time: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond that `time` is."""
    return (time - _EPOCH) // _MICROSECOND * 1_000
