# SPDX-License-Identifier: MIT
"""Merge and difference of histograms, against plain lists, and dying mutants."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import LATENCIES, histograms

from ometrics._histogram import total
from ometrics.histogram import (
    GENAI_DURATION_BUCKETS,
    UINT64_MAX,
    LatencyHistogram,
    TokenHistogram,
    layout_of,
)

Kind = type[LatencyHistogram] | type[TokenHistogram]
Values = list[Any]
FEW_LATENCIES = st.lists(LATENCIES.filter(lambda value: value < 1e7), max_size=30)
FEW_TOKENS = st.lists(st.integers(0, 2**30), max_size=30)
SAMPLES = st.one_of(
    st.tuples(st.just(LatencyHistogram), FEW_LATENCIES, FEW_LATENCIES, FEW_LATENCIES),
    st.tuples(st.just(TokenHistogram), FEW_TOKENS, FEW_TOKENS, FEW_TOKENS),
)


def left_of(whole: Values, earlier: Values, choose: Callable[[Values], Any]) -> Any:
    """The extreme of what came after `earlier`, if the extremes alone tell."""
    if not earlier:
        return choose(whole)
    extreme = choose(whole)
    return extreme if extreme != choose(earlier) else None


def check_algebra(kind: Kind, one: Values, other: Values, third: Values) -> None:
    """Every law of `merge` and `-`, for three lists of values."""
    a: Any = kind.of(one)
    b: Any = kind.of(other)
    c: Any = kind.of(third)
    nothing: Any = kind()
    both = a.merge(b)

    assert both == kind.of(one + other) == b.merge(a)
    assert both.merge(c) == a.merge(b.merge(c)) == a.merge(b, c)
    assert a == a.merge(nothing) == nothing.merge(a) == a - nothing
    assert nothing == a - a
    left = both - a
    assert (b.first_cell, b.cells, b._sum) == (left.first_cell, left.cells, left._sum)
    assert (left.bucket_bounds, type(left)) == (b.bucket_bounds, kind)
    if other:
        assert left_of(one + other, one, min) == left.min
        assert left_of(one + other, one, max) == left.max
    # A window does not know its extremes if the earlier ones hide them, and so neither
    # does what it is merged into.
    for name, choose in (("min", min), ("max", max)):
        if other and getattr(left, name) is None:
            assert getattr(left.merge(c), name) is None
        elif other or third:
            assert choose(other + third) == getattr(left.merge(c), name)


@given(SAMPLES)
def test_merge_and_difference(sample: tuple[Kind, Values, Values, Values]) -> None:
    """The histogram of both, whatever the order; taken away again, the rest is left."""
    check_algebra(*sample)


@given(histograms(), histograms(), histograms())
@settings(max_examples=50)
def test_merge_laws_of_large_counts(
    a: LatencyHistogram, b: LatencyHistogram, c: LatencyHistogram
) -> None:
    """Associative and commutative, also where extremes are unknown."""
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a == a.merge(LatencyHistogram())


def test_difference_needs_an_earlier_part() -> None:
    """A count that would be negative is refused, and so is a sum."""
    one, other = LatencyHistogram.of([0.1]), LatencyHistogram.of([5.0])
    more = LatencyHistogram.of([0.1000001, 0.1])
    for a, b in (
        *((one, other), (one, one.merge(one)), (LatencyHistogram(), one)),
        *((LatencyHistogram.of([0.1, 0.1]), LatencyHistogram.of([0.1001])),),
        (
            more,
            LatencyHistogram(first_cell=more.first_cell, cells=one.cells, sum_ns=9**9),
        ),
    ):
        with pytest.raises(ValueError, match="not an earlier part"):
            a - b


def test_unknown_extremes_stay_unknown() -> None:
    """What an earlier part does not say cannot be said of the difference."""
    known = LatencyHistogram.of([0.1, 0.1, 0.2])
    unknown = LatencyHistogram(
        first_cell=known.first_cell, sum_ns=10**8, cells=array("Q", [1]).tobytes()
    )
    left = known - unknown

    assert (None, None, 2) == (left.min, left.max, left.count)


def test_saturated_sum_goes_with_no_extreme() -> None:
    """Beyond 584 years the sum says too little of a window to go with its extremes."""
    long = LatencyHistogram.of([1e10])
    left = long.merge(LatencyHistogram.of([1.7e10, 1e-3])) - long

    assert (2, None, None) == (left.count, left.min, left.max)


def test_different_buckets_do_not_mix() -> None:
    """Their labels have no common exact counts."""
    one, other = LatencyHistogram.of([1.0]), LatencyHistogram.of([1.0], (1.0,))
    for combine in (LatencyHistogram.merge, LatencyHistogram.__sub__):
        with pytest.raises(ValueError, match="different buckets"):
            combine(one, other)


# --- The limit of counts


def full(value: float, count: int = UINT64_MAX) -> LatencyHistogram:
    """`count` times one value."""
    one = LatencyHistogram.of([value])
    return LatencyHistogram(
        sum_ns=min(one.sum_ns * count, UINT64_MAX),
        min=value,
        max=value,
        first_cell=one.first_cell,
        cells=array("Q", [count]).tobytes(),
    )


def test_counts_saturate() -> None:
    """A cell stops at 2^64 - 1 instead of wrapping."""
    layout = layout_of(GENAI_DURATION_BUCKETS)
    cells = array("Q", [UINT64_MAX]).tobytes()

    assert (3, cells) == layout.add([(3, cells), (3, cells)])


@pytest.mark.parametrize("other", [1, 2**63, UINT64_MAX])
def test_every_view_stops_at_the_same_count(other: int) -> None:
    """
    Beyond 2^64 values all views still add up to one count, and both cells remain.

    Seen to fail before: the count in the JSON wrapped to 0, a bucket to -2^63.
    """
    both = full(0.1).merge(full(7.0, other)).merge(full(0.0))
    _, counts, underflow, overflow = both.exponential()
    bounds = layout_of(both.bucket_bounds).bounds
    below = [0, *both.cumulative(bounds), both.count]

    assert UINT64_MAX == both.count == sum(both.buckets.values())
    assert UINT64_MAX == sum(counts) + underflow + overflow
    assert all(low <= high for low, high in pairwise(below))
    assert (0.0, 7.0) == (both.min, both.max)
    assert full(0.1).merge(full(7.0, other)) == full(7.0, other).merge(full(0.1))


def test_full_histograms_of_all_cells() -> None:
    """However many cells are full: their sum is the limit and none becomes empty."""
    layout = layout_of(GENAI_DURATION_BUCKETS)
    cells = array("Q", [UINT64_MAX] * layout.n_cells).tobytes()
    first, sum_of_both = layout.add([(0, cells), (0, cells)])

    assert (0, UINT64_MAX) == (first, total(sum_of_both))
    assert sum(array("Q", sum_of_both)) == UINT64_MAX
    assert 0 not in array("Q", sum_of_both)


# --- Mutants: the laws above notice each of them


def keep_self(self: Any, _: Any) -> Any:
    """A body that forgets its right side."""
    return self


def keep_other(_: Any, other: Any) -> Any:
    """A body that forgets its left side."""
    return other


def without(
    field: str, value: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A body that forgets one field."""

    def mutant(body: Callable[..., Any]) -> Callable[..., Any]:
        def changed(self: Any, other: Any) -> Any:
            result = body(self, other)
            fields = {name: getattr(result, name) for name in result.__struct_fields__}
            return type(self)(**fields | {field: value})

        return changed

    return mutant


def of_the_left(field: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A body that takes one field from its left side."""

    def mutant(body: Callable[..., Any]) -> Callable[..., Any]:
        def changed(self: Any, other: Any) -> Any:
            return without(field, getattr(self, field))(body)(self, other)

        return changed

    return mutant


MUTANTS = {
    "self": lambda _: keep_self,
    "other": lambda _: keep_other,
    "nothing": lambda _: lambda self, _: type(self)(),
    "no min": without("min", None),
    "no max": without("max", None),
    "min of the left": of_the_left("min"),
    "max of the left": of_the_left("max"),
}
FIXED = {
    LatencyHistogram: ([0.1, 0.3], [0.05, 0.9], [2.5]),
    TokenHistogram: ([10, 30], [5, 90], [250]),
}


@pytest.mark.parametrize("kind", FIXED)
@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("name", ["merge", "__sub__"])
def test_mutants_die(
    kind: Kind, mutant: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body of `merge` or `-` that forgets something fails the laws."""
    samples = FIXED[kind]
    check_algebra(kind, *samples)
    monkeypatch.setattr(kind, name, MUTANTS[mutant](getattr(kind, name)))
    with pytest.raises((AssertionError, ValueError)):
        check_algebra(kind, *samples)
