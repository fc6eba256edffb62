# SPDX-License-Identifier: MIT
"""Plots of characters: what is not zero is seen, what is unknown is a gap."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from ometrics import LatencyHistogram
from ometrics.view import plots
from ometrics.view.plots import MAX_ROWS, bar, chart, rows_of, sparkline, stack
from ometrics.view.units import duration


def test_bars_show_what_is_not_zero() -> None:
    """A whole bar is its width, a tiny part is an eighth, nothing is nothing."""
    assert ["████", "██", "▏", "", ""] == [
        bar(part, whole, 4)
        for part, whole in ((8, 8), (4, 8), (1, 10**9), (0, 8), (0, 0))
    ]


def test_sparkline() -> None:
    """A character a value, relative to the highest."""
    assert "▁▅█▁" == sparkline([0.0, 0.5, 1.0, 0.01])
    assert "▁▁" == sparkline([0.0, 0.0])
    assert "" == sparkline([])


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_histogram_rows_hold_every_value(values: list[float]) -> None:
    """Rows ascend, do not overlap, are not too many, and their counts add up."""
    rows = rows_of(LatencyHistogram.of(values))

    assert len(values) == sum(n for _, _, n in rows)
    assert len(rows) <= 2 * MAX_ROWS + 2
    edges = [edge for low, high, _ in rows for edge in (low, high)]
    assert sorted(edges) == edges


def test_sparkline_of_gaps_and_of_many() -> None:
    """Unknown is a blank; too many values are averaged by shares."""
    assert "█ █" == sparkline([1.0, None, 1.0])
    assert "▅ █" == sparkline([0.0, 1.0, None, None, 1.0, None], width=3)


@given(
    st.lists(st.none() | st.just(0.0) | st.floats(1e-3, 1e12), max_size=300),
    st.integers(1, 120),
    st.integers(2, 12),
)
def test_charts_fit(values: list[float | None], width: int, height: int) -> None:
    """As many lines as asked for, none wider than a label and one column."""
    lines = chart(values, width, height)

    assert len(lines) in {0, height}
    assert all(len(line) <= max(width, 14) for line in lines)
    assert all(line.isprintable() for line in lines)


def test_chart() -> None:
    """The highest value reaches the top, a small one is seen, a gap is empty."""
    assert [
        "4s │ █",
        "   │▄█",
        "0s │██ ▁",
    ] == chart([2.0, 4.0, None, 0.001], 40, 3, duration)


@given(
    st.lists(st.tuples(st.text(max_size=2), st.floats(0, 1e9)), max_size=9),
    st.integers(1, 80),
)
def test_a_stack_is_as_wide_as_it_should_be(
    parts: list[tuple[str, float]], width: int
) -> None:
    """The parts add up to the width, or there is nothing to see."""
    drawn = stack(parts, width)
    whole = sum(size for _, size in parts)

    assert (width if whole else 0) == sum(cells for _, cells in drawn)
    assert all(cells >= 0 for _, cells in drawn)


def test_examples_of_the_documentation() -> None:
    """They do what they show."""
    assert 0 == doctest.testmod(plots).failed
