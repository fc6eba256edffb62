# SPDX-License-Identifier: MIT
"""Histograms as bytes of a row: nothing is lost, and in few of them."""

from __future__ import annotations

import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics import _cells

MOST = 2**63 - 1
COUNTS = st.one_of(st.just(0), st.integers(1, 9), st.integers(1, MOST))


@st.composite
def histograms(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """A tag, a first cell and counts, of which neither end is 0."""
    middle = draw(st.lists(COUNTS, max_size=60))
    gap = [0] * draw(st.sampled_from([0, 0, 1, 500]))
    ends = st.integers(1, MOST)
    counts = [draw(ends), *gap, *middle, draw(ends)]
    first = draw(st.integers(0, 2048 - len(counts)))
    return draw(st.integers(0, 255)), first, array("Q", counts).tobytes()


@given(st.lists(histograms(), max_size=6))
def test_what_is_packed_is_unpacked(many: list[tuple[int, int, bytes]]) -> None:
    """Any counts in any cells come back as they were."""
    assert many == _cells.unpack(_cells.pack(many))


def test_counts_stop_where_both_databases_do() -> None:
    """A count above 2^63 - 1 is written as that."""
    cells = array("Q", [1, 2**64 - 1]).tobytes()

    ((_, _, found),) = _cells.unpack(_cells.pack([(1, 0, cells)]))

    assert [1, MOST] == array("Q", found).tolist()


def test_sixty_single_values_take_little_more_than_a_bit_a_cell() -> None:
    """Sixty values in neighbouring cells: 120 bits, 16 bytes around them at most."""
    cells = array("Q", [1] * 60).tobytes()

    assert 31 >= len(_cells.pack([(1, 700, cells)]))


def test_version_1_is_still_read() -> None:
    """A blob as the first version wrote it: tag 7, 3 and 5 in cells 100 and 103."""
    body = bytes([1, 7, 9, 100, 2, 2 * 3 + 1, 2 * 2, 2 * 5 + 1])
    data = body + zlib.crc32(body).to_bytes(4, "little")

    assert [(7, 100, array("Q", [3, 0, 0, 5]).tobytes())] == _cells.unpack(data)


@pytest.mark.parametrize(
    ("first", "counts", "message"),
    [
        (0, [], "0 cells"),
        (2047, [1, 1], "2049 cells"),
        (0, [0, 1], "empty cells at an end"),
        (0, [1, 0], "empty cells at an end"),
    ],
)
def test_what_is_no_histogram_is_refused(
    first: int, counts: list[int], message: str
) -> None:
    """Nothing is written that could not be read."""
    with pytest.raises(ValueError, match=message):
        _cells.pack([(1, first, array("Q", counts).tobytes())])
