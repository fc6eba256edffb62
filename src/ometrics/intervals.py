# SPDX-License-Identifier: MIT
"""Confidence intervals of what is measured, and of how much it changed.

Each kind of figure has the interval of its textbook:

- a quantile: two order statistics, by the binomial distribution of how many values lie
  below it, whatever the distribution of the values (Conover, Practical Nonparametric
  Statistics, 3rd ed., 3.2; Hahn and Meeker, Statistical Intervals, 5.2);
- a mean: Student's t (a histogram's variance is to about 1 %);
- a share: Wilson's score interval (Wilson, JASA 22, 1927);
- a ratio of two sums over the same calls: Student's t for ratio estimators (Cochran,
  Sampling Techniques, 3rd ed., 6.3).

The change from one run to another is "the method of variance estimates recovery": the
two intervals' arms, squared and added. Of shares this is Newcombe's hybrid score
interval (Newcombe, Statistics in Medicine 17, 1998, method 10); of all others it is
taken of logarithms, which gives the interval of the ratio (Zou and Donner, Statistics
in Medicine 27, 2008).

Requests count as independent of each other. Pure functions: safe from any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, exp, floor, inf, lgamma, log, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

from ometrics.histogram import LatencyHistogram

#: Fewer values say nothing of their spread, which the t interval needs to know.
LEAST_FOR_MEAN: Final = 10


class Interval(NamedTuple):
    """
    A figure with the range that it may well have had.

    Attributes:
        value: The estimate.
        low: Lower end of the confidence interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def quantile(hist: LatencyHistogram, q: float, alpha: float) -> Interval | None:
    """
    The `q`-quantile, `0 < q < 1`, in seconds.

    The ends are those of the histogram's buckets, so they hold in spite of its width.

    Args:
        hist: The values.
        q: Which quantile.
        alpha: Chance that the interval misses the true quantile, at most.

    Returns:
        `None` of fewer values than `least_for_quantile`, which cannot bound it.
    """
    count = hist.count
    value = hist.quantile(q)
    ranks = quantile_ranks(count, q, alpha)
    if ranks is None or value is None:
        return None
    low, high = (_bounds_at(hist, rank) for rank in ranks)
    return Interval(value, min(low[0], value), max(high[1], value))


def least_for_quantile(q: float, alpha: float) -> int:
    """How many values it takes to bound the `q`-quantile on both sides."""
    return ceil(log(alpha / 2) / log(max(q, 1 - q)))


def quantile_ranks(count: int, q: float, alpha: float) -> tuple[int, int] | None:
    """
    Ranks, from 1, of the two values between which the `q`-quantile lies.

    Returns:
        `None` where the smallest and the largest value are not enough.
    """
    # How many values lie below the quantile is binomial: `lower` is the most of which
    # fewer have at most half of `alpha`, `upper` is the same from above.
    lower = _binomial_tail(count, q, alpha / 2)
    upper = count + 1 - _binomial_tail(count, 1 - q, alpha / 2)
    return (lower, upper) if lower >= 1 and upper <= count else None


def mean(hist: LatencyHistogram, alpha: float) -> Interval | None:
    """
    The mean in seconds.

    Returns:
        `None` of fewer than `LEAST_FOR_MEAN` values.
    """
    value = hist.mean
    spread = relative_spread(hist)
    if value is None or spread is None:
        return None
    arm = value * spread / sqrt(hist.count) * student(hist.count - 1, alpha)
    return Interval(value, max(value - arm, 0.0), value + arm)


def share(part: int, whole: int, alpha: float) -> Interval | None:
    """
    A share, from 0 to 1.

    Returns:
        `None` of nothing.
    """
    if not whole:
        return None
    z = NormalDist().inv_cdf(1 - alpha / 2)
    value = part / whole
    centre = (value + z * z / (2 * whole)) / (1 + z * z / whole)
    arm = z / (1 + z * z / whole)
    arm *= sqrt(value * (1 - value) / whole + z * z / (4 * whole * whole))
    return Interval(value, max(centre - arm, 0.0), min(centre + arm, 1.0))


def speed(
    tokens: int, ns: int, times: LatencyHistogram, alpha: float
) -> Interval | None:
    """
    Tokens a second: all tokens over all of the time.

    A snapshot has the sum of the tokens of all calls and the time of each. The spread
    of the times is that of the speed and more, as long as how fast a call is does not
    depend on its length; the interval is too wide rather than too narrow.

    Args:
        tokens: Of all calls.
        ns: Nanoseconds of the same calls.
        times: How long each took.
        alpha: Chance that the interval misses the true speed.

    Returns:
        `None` of fewer than `LEAST_FOR_MEAN` calls, or of no tokens.
    """
    spread = relative_spread(times)
    if not ns or not tokens or spread is None:
        return None
    value = tokens / ns * 1e9
    arm = spread / sqrt(times.count) * student(times.count - 1, alpha)
    return Interval(value, value * exp(-arm), value * exp(arm))


def ratio(old: Interval, new: Interval) -> Interval:
    """How many times the old figure the new one is; both above 0."""
    change = _moved(_logarithm(old), _logarithm(new))
    return Interval(*map(exp, change))


def difference(old: Interval, new: Interval) -> Interval:
    """By how much the new share is above the old one."""
    return _moved(old, new)


def relative_spread(hist: LatencyHistogram) -> float | None:
    """
    Standard deviation over mean, of the buckets' middles.

    Returns:
        `None` of fewer than `LEAST_FOR_MEAN` values, or if all are 0.
    """
    count, centre = hist.count, hist.mean
    if count < LEAST_FOR_MEAN or not centre:
        return None
    squares: float = sum(
        number * ((low + high) / 2 - centre) ** 2
        for low, high, number in _buckets(hist)
    )
    return sqrt(squares / (count - 1)) / centre


def student(freedom: int, alpha: float) -> float:
    """
    The two-sided `alpha` point of Student's t, to 0.5 % from 9 degrees of freedom on.

    By Cornish and Fisher's expansion (Abramowitz and Stegun, 26.7.5).
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    correction: float = sum(term / freedom**i for i, term in enumerate(terms, 1))
    return z + correction


def _moved(old: Interval, new: Interval) -> Interval:
    """The difference of two independent figures."""
    change = new.value - old.value
    return Interval(
        change,
        change - sqrt((new.value - new.low) ** 2 + (old.high - old.value) ** 2),
        change + sqrt((new.high - new.value) ** 2 + (old.value - old.low) ** 2),
    )


def _logarithm(figure: Interval) -> Interval:
    return Interval(*(log(x) if x > 0 else -inf for x in figure))


def _binomial_tail(count: int, chance: float, tail: float) -> int:
    """The largest `k` with `P(X < k) <= tail`, for `X` of `count` trials."""
    # Below this there is less than any `tail` in use, so that the sum may begin there.
    begin = max(floor(count * chance - 9 * sqrt(count * chance * (1 - chance))), 0)
    below = 0.0
    for k in range(begin, count + 1):
        below += exp(
            lgamma(count + 1)
            - lgamma(k + 1)
            - lgamma(count - k + 1)
            + k * log(chance)
            + (count - k) * log(1 - chance)
        )
        if below > tail:
            return k
    return count


def _buckets(hist: LatencyHistogram) -> Iterator[tuple[float, float, int]]:
    """`(low, high, count)` in seconds, ascending; within the extremes, where known."""
    offset, counts, underflow, overflow = hist.exponential()
    base = 2.0 ** (2.0**-hist.scale)
    smallest = 0.0 if hist.min is None else hist.min
    largest = inf if hist.max is None else hist.max
    rows = [
        (0.0, 2.0**-20, underflow),
        *((base**i, base ** (i + 1), n) for i, n in enumerate(counts, offset)),
        (2.0**12, 2.0**13, overflow),
    ]
    for low, high, number in rows:
        if number:
            yield max(low, smallest), min(high, largest), number


def _bounds_at(hist: LatencyHistogram, rank: int) -> tuple[float, float]:
    """Between which bounds the value of a rank, from 1 to the count, lies."""
    below = 0
    for low, high, number in _buckets(hist):
        below += number
        if rank <= below:
            return low, high
    raise ValueError(f"rank {rank} is not within 1 to {below}")
