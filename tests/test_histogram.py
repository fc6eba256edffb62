# SPDX-License-Identifier: MIT
"""The histogram: cells, views, quantiles, merge, difference, against plain oracles."""

from __future__ import annotations

import math
import pickle
import random
from array import array
from bisect import bisect_left, bisect_right
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BUCKETS, LATENCIES, histograms

from ometrics import _histogram
from ometrics.histogram import (
    DEFAULT_BUCKETS,
    GENAI_DURATION_BUCKETS,
    GENAI_TIME_PER_TOKEN_BUCKETS,
    GENAI_TIME_TO_FIRST_TOKEN_BUCKETS,
    GENAI_TOKEN_BUCKETS,
    UINT64_MAX,
    LatencyHistogram,
    TokenHistogram,
    labels_of,
    layout_of,
)

LAYOUTS = [DEFAULT_BUCKETS, GENAI_DURATION_BUCKETS, (1e-9, 3e-6, 0.25, 1e5)]
LOWEST, HIGHEST = 2.0**-20, 2.0**12


def uppers(layout: _histogram.Layout) -> list[float]:
    """Inclusive upper bound of every cell."""
    return [layout.upper(i) for i in range(layout.n_cells)]


# --- Cells


def test_exponential_bounds_are_powers() -> None:
    """Each exponential bound is 2^(k/32) to the last bit or the one beside it."""
    bounds = set(uppers(_histogram.Layout(())))
    exact = [k for k in range(-20 * 32, 12 * 32 + 1) if k % 32 == 0]

    assert all(2.0 ** (k // 32) in bounds for k in exact)
    assert 1025 + 1 == len(bounds)
    for k, bound in zip(range(-20 * 32, 12 * 32 + 1), sorted(bounds)[:-1], strict=True):
        error = Fraction(bound) ** 32 / Fraction(2) ** k - 1
        assert abs(error) <= 32 * Fraction(2) ** -52


@pytest.mark.parametrize("buckets", LAYOUTS)
def test_cells_against_a_sorted_list(buckets: tuple[float, ...]) -> None:
    """Every bound and both its neighbours are in the cell that bisection finds."""
    layout = layout_of(buckets)
    bounds = uppers(layout)
    values = [0.0, 5e-324, 1e300]
    for bound in bounds[:-1]:
        values += (bound, math.nextafter(bound, 0.0), math.nextafter(bound, math.inf))

    assert sorted(set(bounds)) == bounds
    assert [bisect_left(bounds, v) for v in values] == [layout.cell(v) for v in values]


@given(BUCKETS, st.floats(0.0, allow_infinity=False))
def test_any_value_against_a_sorted_list(
    buckets: tuple[float, ...], value: float
) -> None:
    """So is any other finite value."""
    layout = layout_of(buckets)

    assert bisect_left(uppers(layout), value) == layout.cell(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, -5e-324])
def test_no_cell_for_what_is_no_latency(value: float) -> None:
    """The core counts these by reason before it asks for a cell."""
    with pytest.raises(ValueError, match="must be finite and >= 0"):
        layout_of(DEFAULT_BUCKETS).cell(value)


def test_cells_have_ends() -> None:
    """There is no bound beyond the last cell."""
    layout = layout_of(DEFAULT_BUCKETS)

    assert math.inf == layout.upper(layout.n_cells - 1)
    for cell in (-1, layout.n_cells):
        with pytest.raises(IndexError):
            layout.upper(cell)


@pytest.mark.parametrize(
    "bounds",
    [
        (),
        (0.0,),
        (-1.0,),
        (math.nan,),
        (math.inf,),
        (1.0, 1.0),
        (2.0, 1.0),
        (1.0, math.nan),
        tuple(float(i) for i in range(1, 515)),
        (1e-10, 2e-10),
        (1.0, 1.0 + 4e-10),
    ],
)
def test_bad_bounds(bounds: tuple[float, ...]) -> None:
    """
    Bounds must be positive, finite, ascending, and not too many, and have each a label.

    Seen to fail for two in one nanosecond: their counts had one key, so one was lost.
    """
    with pytest.raises(ValueError, match="bucket"):
        layout_of(bounds)


def test_bad_bound_is_named() -> None:
    """The message has the bound and its neighbour."""
    with pytest.raises(ValueError, match=r"bound 1\.0 must be finite and above 2\.0"):
        layout_of((2.0, 1.0))


def test_layouts_pickle() -> None:
    """A layout is its bounds."""
    layout = pickle.loads(pickle.dumps(layout_of((0.5,))))

    assert layout_of((0.5,)).bounds == layout.bounds


# --- Labels


def test_labels_are_the_originals() -> None:
    """The default labels; the last bound only lends its name to the rest."""
    labels = "1ms 5ms 10ms 25ms 50ms 100ms 250ms 500ms 1s 5s 10s+"

    assert labels == " ".join(labels_of(DEFAULT_BUCKETS))


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.0, "1ms"),
        (0.001, "1ms"),
        (math.nextafter(0.001, 1), "5ms"),
        (0.15, "250ms"),
        (5.0, "5s"),
        (math.nextafter(5.0, 6), "10s+"),
        (10.0, "10s+"),
        (1e6, "10s+"),
    ],
)
def test_bounds_are_inclusive(value: float, label: str) -> None:
    """As in the original: up to and including; the last label takes all above 5 s."""
    counted = {k: n for k, n in LatencyHistogram.of([value]).buckets.items() if n}

    assert {label: 1} == counted


# --- Views, against the plain list of values


@given(st.lists(LATENCIES, max_size=60), BUCKETS)
def test_every_view_counts_the_same_values(
    values: list[float], buckets: tuple[float, ...]
) -> None:
    """Labels, every explicit bound and the exponential view equal a plain count."""
    hist = LatencyHistogram.of(values, buckets)
    edges = [0.0, *buckets[:-1], math.inf]
    ordered = sorted(values)
    bounds = layout_of(buckets).bounds
    offset, counts, underflow, overflow = hist.exponential()

    assert len(values) == hist.count == sum(hist.buckets.values())
    assert [
        sum((low < v or v == low == 0.0) and v <= high for v in values)
        for low, high in pairwise(edges)
    ] == list(hist.buckets.values())
    assert [bisect_right(ordered, b) for b in bounds] == hist.cumulative(bounds)
    assert sum(v <= LOWEST for v in values) == underflow
    assert sum(v > HIGHEST for v in values) == overflow
    assert len(values) == sum(counts) + underflow + overflow
    assert min(values, default=None) == hist.min
    assert max(values, default=None) == hist.max
    grid = uppers(_histogram.Layout(()))[:-1]
    inside = [bisect_left(grid, v) - 1 - 640 for v in values if LOWEST < v <= HIGHEST]
    assert sorted(inside) == [
        offset + i for i, count in enumerate(counts) for _ in range(count)
    ]
    assert (5, offset, tuple(counts), underflow, overflow) == (
        *(hist.scale, hist.offset, hist.counts, hist.underflow, hist.overflow),
    )


def test_otel_index_is_upper_inclusive() -> None:
    """`base^i` itself is in bucket `i - 1`, as OpenTelemetry's MapToIndex has it."""
    assert (-1, [1], 0, 0) == LatencyHistogram.of([1.0]).exponential()
    assert 0 == LatencyHistogram.of([math.nextafter(1.0, 2)]).offset


def test_genai_bounds_are_exact_in_every_histogram() -> None:
    """Whatever buckets the user chose."""
    hist = LatencyHistogram.of([0.01, 0.0100001, 7.5], (0.3,))

    for bounds in (
        GENAI_DURATION_BUCKETS,
        GENAI_TIME_PER_TOKEN_BUCKETS,
        GENAI_TIME_TO_FIRST_TOKEN_BUCKETS,
    ):
        below = hist.cumulative(bounds)
        assert [1] == [n for b, n in zip(bounds, below, strict=True) if b == 0.01]


@given(histograms())
def test_packed_views_are_the_same_counts(hist: LatencyHistogram) -> None:
    """What exporters read is what people read, and ends with the count."""
    packed = memoryview(hist.packed_cumulative(hist.bucket_bounds)).cast("Q").tolist()
    offset, counts, *rest = hist.packed_exponential()

    assert [*hist.cumulative(hist.bucket_bounds), hist.count] == packed
    unpacked = memoryview(counts).cast("Q").tolist()
    assert hist.exponential() == (offset, unpacked, *rest)


def test_no_estimates_at_other_bounds() -> None:
    """A bound that is not kept is refused, not guessed."""
    with pytest.raises(ValueError, match=r"0\.123 is not a bound"):
        LatencyHistogram.of([1.0]).cumulative((0.123,))


@given(histograms())
def test_views_determine_the_cells(hist: LatencyHistogram) -> None:
    """The exponential and the explicit view together give every cell back."""
    layout = layout_of(hist.bucket_bounds)
    below = [0, *hist.cumulative(layout.bounds), hist.count]
    explicit = [high - low for low, high in pairwise(below)]

    assert (hist.first_cell, hist.cells) == layout.assemble(
        *hist.exponential(), explicit
    )


def test_views_that_contradict_each_other() -> None:
    """Assembling them is refused, wherever they differ."""
    layout = _histogram.Layout((0.5, 0.75))
    offset, packed, *outer = layout.exponential(
        layout.cell(0.6), array("Q", [1]).tobytes()
    )
    counts = memoryview(packed).cast("Q").tolist()

    assert layout.assemble(offset, counts, *outer, [0, 1, 0])
    for explicit in ([1, 0, 0], [0, 0, 1], [0, 2, 0], [1, 0, 1], [0, -1, 2], [0, 1]):
        with pytest.raises(ValueError, match=r"counts|explicit"):
            layout.assemble(offset, counts, *outer, explicit)
    for outside in (-641, 384, -(2**31), 2**31 - 1):
        with pytest.raises(ValueError, match=r"leaves the range"):
            layout.assemble(outside, counts, 0, 0, [0, 1, 0])
    for many in ([UINT64_MAX + 1], [UINT64_MAX, 1]):
        with pytest.raises(ValueError, match="more than the 18446744073709551615"):
            layout.assemble(offset, many, 0, 0, [0, 1, 0])


# --- Quantiles

RANDOM = random.Random(7)
DISTRIBUTIONS = {
    "uniform": lambda: RANDOM.uniform(0.001, 2.0),
    "lognormal": lambda: RANDOM.lognormvariate(-2.0, 1.0),
    "exponential": lambda: RANDOM.expovariate(3.0) + 1e-6,
    "pareto": lambda: min(0.01 * RANDOM.paretovariate(1.1), 3600.0),
    "bimodal": lambda: RANDOM.choice((0.01, 5.0)) * RANDOM.uniform(0.9, 1.1),
    "constant": lambda: 0.15,
    "narrow": lambda: RANDOM.gauss(1.0, 1e-4),
    "log-uniform": lambda: 10.0 ** RANDOM.uniform(-6.0, 3.556),
    "on the bounds": lambda: RANDOM.choice(DEFAULT_BUCKETS),
    "whole milliseconds": lambda: RANDOM.randint(1, 50) / 1000,
}
QUANTILES = (0.0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 101, 1000, 20_000])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_within_their_error(name: str, size: int) -> None:
    """1.1 % of the exact nearest-rank quantile, and inside [min, max]."""
    draw = DISTRIBUTIONS[name]
    values = sorted(min(max(draw(), 1e-6), 3600.0) for _ in range(size))
    hist = LatencyHistogram.of(values)
    for q in QUANTILES:
        exact = values[min(max(math.ceil(q * size), 1), size) - 1]
        estimate = hist.quantile(q)

        assert estimate is not None
        assert abs(estimate - exact) <= 0.011 * exact
        assert values[0] <= estimate <= values[-1]


def test_extreme_ranks_are_exact() -> None:
    """The first and the last value are known, so their ranks need no estimate."""
    hist = LatencyHistogram.of([0.1, 0.2, 0.3])

    assert [0.1, 0.1, 0.3, 0.3] == [hist.quantile(q) for q in (0.0, 0.33, 0.99, 1.0)]


def test_quantile_of_nothing() -> None:
    """There is none; unknown is not zero."""
    hist = LatencyHistogram()

    assert (None, None, None, None) == (
        *(hist.quantile(0.5), hist.mean, hist.min, hist.max),
    )


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_no_such_quantile(q: float) -> None:
    """Out of 0 to 1 is a bug of the caller."""
    with pytest.raises(ValueError, match="not within 0 to 1"):
        LatencyHistogram.of([1.0]).quantile(q)


def test_outer_cells_give_their_bound() -> None:
    """Without known extremes, a value out of the range reads as the range's end."""
    hist = LatencyHistogram.of([1e-9, 1e-9, 1e9, 1e9])
    unknown = LatencyHistogram(first_cell=hist.first_cell, cells=hist.cells)

    assert (LOWEST, HIGHEST) == (unknown.quantile(0.1), unknown.quantile(0.9))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_of_refuses_bad_values(value: float) -> None:
    """It is for tests and for data from elsewhere: the data is at fault."""
    with pytest.raises(ValueError, match="must be finite and >= 0"):
        LatencyHistogram.of([1.0, value])


@given(st.lists(st.integers(0, 2**26), min_size=1, max_size=60))
def test_token_histogram_counts_every_number_in_every_view(numbers: list[int]) -> None:
    """All views of tokens agree, and quantiles are within 1.1 % of the sample's."""
    hist = TokenHistogram.of(numbers)
    _, counts, underflow, overflow = hist.exponential()

    assert hist.count == len(numbers)
    assert hist.total == sum(numbers)
    assert sum(counts) + underflow + overflow == len(numbers)
    assert hist.cumulative(GENAI_TOKEN_BUCKETS) == [
        sum(n <= bound for n in numbers) for bound in GENAI_TOKEN_BUCKETS
    ]
    exact = sorted(numbers)[(len(numbers) + 1) // 2 - 1]
    assert hist.quantile(0.5) == pytest.approx(exact, rel=0, abs=0.011 * exact + 0.5)


@given(st.lists(st.integers(0, 2**30)), st.lists(st.integers(0, 2**30)))
def test_token_histograms_merge_and_subtract(one: list[int], other: list[int]) -> None:
    """A merge is the histogram of both; what is taken away again leaves the rest."""
    both = TokenHistogram.of(one).merge(TokenHistogram.of(other))

    assert both == TokenHistogram.of([*one, *other])
    left = both - TokenHistogram.of(other)
    assert left.total == sum(one)
    assert left.cells == TokenHistogram.of(one).cells


def test_token_bounds_are_powers_of_two() -> None:
    """Any other bound would need an estimate."""
    with pytest.raises(ValueError, match=r"3\.0.* powers of two"):
        TokenHistogram.of([1]).cumulative((3.0,))
