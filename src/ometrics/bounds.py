# SPDX-License-Identifier: MIT
"""The explicit bounds of histograms, and what their buckets are called."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

TYPE_CHECKING = False  # `typing` is slow to load
if TYPE_CHECKING:
    from typing import Final

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

# Kept exactly in every histogram, beside the user's.
STANDARD_BOUNDS: Final = frozenset(
    GENAI_DURATION_BUCKETS
    + GENAI_TIME_PER_TOKEN_BUCKETS
    + GENAI_TIME_TO_FIRST_TOKEN_BUCKETS
)


def check_buckets(buckets: tuple[float, ...]) -> None:
    """
    Refuse bounds that cannot name the buckets of a histogram.

    Args:
        buckets: Seconds, finite, positive and ascending.

    Raises:
        ValueError: There is none, there are too many, or two have one label.
    """
    if not buckets:
        raise ValueError("buckets must name at least one bound in seconds")
    if len(buckets) > MAX_BUCKETS:
        raise ValueError(f"{len(buckets)} buckets are more than {MAX_BUCKETS}")
    for low, high in pairwise(buckets):
        if _nanoseconds(low) == _nanoseconds(high):
            from ometrics.durations import format_duration

            raise ValueError(
                f"bucket bounds {low!r} and {high!r} share the label"
                f" {format_duration(_nanoseconds(low))!r}: labels are in whole"
                " nanoseconds, so bounds must differ by one"
            )


@lru_cache(maxsize=64)
def labels_of(buckets: tuple[float, ...]) -> tuple[str, ...]:
    """
    Bucket labels in the original's manner, such as `1ms`, ..., `5s`, `10s+`.

    The last bound only lends its name to the rest: `10s+` counts all above `5s`.
    """
    from ometrics.durations import format_duration

    names = [format_duration(_nanoseconds(bound)) for bound in buckets]
    return (*names[:-1], names[-1] + "+")


def _nanoseconds(bound: float) -> int:
    # A float of 2^53 and more is whole, and one of 1e300 times 1e9 would be infinite.
    return round(bound * 1e9) if bound < 1 << 53 else int(bound) * 1_000_000_000
