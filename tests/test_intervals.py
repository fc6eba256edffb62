# SPDX-License-Identifier: MIT
"""Confidence intervals: as in the textbooks, and they cover what they should."""

from __future__ import annotations

import random
from math import comb, isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics import LatencyHistogram, intervals
from ometrics.intervals import Interval

FIVE = 0.05  # percent of intervals that may miss


@pytest.mark.parametrize(
    ("count", "q", "ranks"),
    [
        (5, 0.5, None),  # two values of six bound a median with 97 %, of five not
        (6, 0.5, (1, 6)),
        (20, 0.5, (6, 15)),  # Conover, table A3
        (200, 0.5, (86, 115)),
        (367, 0.99, None),
        (368, 0.99, (360, 368)),
    ],
)
def test_ranks_of_the_textbooks(
    count: int, q: float, ranks: tuple[int, int] | None
) -> None:
    """Which two values bound a quantile, and when none do."""
    assert ranks == intervals.quantile_ranks(count, q, FIVE)
    assert (count >= intervals.least_for_quantile(q, FIVE)) == (ranks is not None)


@given(
    st.integers(1, 300), st.sampled_from([0.5, 0.9, 0.95]), st.sampled_from([0.1, 0.01])
)
def test_ranks_miss_as_seldom_as_they_should(
    count: int, q: float, alpha: float
) -> None:
    """By the exact binomial sum, and one rank less would miss too often."""

    def below(rank: int) -> float:
        """Chance that fewer than so many of `count` values are below the quantile."""
        return sum(comb(count, k) * q**k * (1 - q) ** (count - k) for k in range(rank))

    ranks = intervals.quantile_ranks(count, q, alpha)
    if ranks is None:
        return
    low, high = ranks
    assert below(low) <= alpha / 2 * (1 + 1e-9)
    assert 1 - below(high) <= alpha / 2 * (1 + 1e-9)
    assert below(low + 1) > alpha / 2
    assert 1 - below(high - 1) > alpha / 2


@pytest.mark.parametrize(
    ("freedom", "alpha", "point"),
    [(9, 0.05, 2.2622), (9, 0.005, 3.6897), (12, 0.001, 4.3178), (199, 0.05, 1.9720)],
)
def test_student(freedom: int, alpha: float, point: float) -> None:
    """Of the printed tables, to 0.5 %."""
    assert point == pytest.approx(intervals.student(freedom, alpha), rel=0.005)


def test_newcombes_example() -> None:
    """56 of 70 against 48 of 80: his method 10, table II of 1998."""
    change = intervals.difference(
        intervals.share(48, 80, FIVE) or Interval(0, 0, 0),
        intervals.share(56, 70, FIVE) or Interval(0, 0, 0),
    )

    assert [0.2, 0.0524, 0.3339] == [round(x, 4) for x in change]


def test_a_share_of_nothing_or_of_all() -> None:
    """No interval of nothing; none reaches beyond 0 and 1."""
    assert intervals.share(0, 0, FIVE) is None
    none, every = intervals.share(0, 100, FIVE), intervals.share(100, 100, FIVE)

    assert none is not None
    assert every is not None
    assert (0.0, 0.0, 0.037) == tuple(round(x, 4) for x in none)
    assert (1.0, 1.0) == (every.value, every.high)


def test_values_without_spread_have_intervals_without_width() -> None:
    """The extremes are exact, however wide a bucket is."""
    hist = LatencyHistogram.of([0.1] * 100)

    assert Interval(0.1, 0.1, 0.1) == intervals.quantile(hist, 0.5, FIVE)
    mean = intervals.mean(hist, FIVE)
    assert mean is not None
    assert all(isclose(0.1, x) for x in mean)


def test_few_values_have_no_interval() -> None:
    """Nine say nothing of their spread."""
    hist = LatencyHistogram.of([0.1 * i for i in range(1, 10)])

    assert intervals.mean(hist, FIVE) is None
    assert intervals.speed(100, 10**9, hist, FIVE) is None
    assert intervals.quantile(hist, 0.99, FIVE) is None


@given(st.lists(st.floats(1e-5, 1e3), min_size=10, max_size=200))
def test_spread_is_that_of_the_values(values: list[float]) -> None:
    """To the width of a bucket, 2.2 %."""
    mean = sum(values) / len(values)
    spread = sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1)) / mean
    found = intervals.relative_spread(LatencyHistogram.of(values))

    assert found is not None
    assert spread == pytest.approx(found, rel=0.03, abs=0.03)


def test_they_cover() -> None:
    """Of 400 samples, about 95 % have the true median and mean in their intervals."""
    rng = random.Random(7)
    median = mean = 0
    for _ in range(400):
        hist = LatencyHistogram.of([rng.lognormvariate(0, 0.3) for _ in range(100)])
        low_high = intervals.quantile(hist, 0.5, FIVE)
        assert low_high is not None
        median += low_high.low <= 1.0 <= low_high.high
        low_high = intervals.mean(hist, FIVE)
        assert low_high is not None
        mean += low_high.low <= 1.046 <= low_high.high  # exp(0.3^2 / 2)

    assert median >= 370
    assert 365 <= mean <= 395
