# SPDX-License-Identifier: MIT
"""Go's duration strings, against 525 that Go itself wrote."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics._json import go_duration, go_duration_ns
from ometrics.durations import format_duration, parse_duration, parse_length

PAIRS = [
    (int(ns), text)
    for line in (Path(__file__).parent / "data" / "go_durations.tsv")
    .read_text(encoding="utf-8")
    .splitlines()
    for ns, text in [line.split("\t")]
]
NANOSECONDS = st.one_of(st.integers(0, 10**13), st.integers(0, 2**64 - 1))


def test_all_pairs_are_there() -> None:
    """The table has its 525 rows; an empty one would pass every other test."""
    assert 525 == len(PAIRS)


def test_formats_as_go_does() -> None:
    """Every pair is written as Go writes it."""
    assert [text for _, text in PAIRS] == [format_duration(ns) for ns, _ in PAIRS]


def test_compiled_formatter_writes_as_go_does() -> None:
    """The exporter's formatter writes every pair (those up to 2^64 - 1) the same."""
    pairs = [(ns, text) for ns, text in PAIRS if ns >= 0]

    assert [text for _, text in pairs] == [go_duration_ns(ns) for ns, _ in pairs]


def test_parses_what_go_wrote() -> None:
    """Every pair is read back exactly."""
    assert [ns for ns, _ in PAIRS] == [parse_duration(text) for _, text in PAIRS]


@given(NANOSECONDS)
def test_round_trip(ns: int) -> None:
    """Formatting loses nothing, and the compiled formatter is the same function."""
    assert ns == parse_duration(format_duration(ns))
    assert format_duration(ns) == go_duration_ns(ns)
    assert -ns == parse_duration(format_duration(-ns))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.125, "125ms"), (4e-10, "0s"), (6e-10, "1ns"), (61.5, "1m1.5s")],
)
def test_seconds(seconds: float, text: str) -> None:
    """Seconds are rounded to nanoseconds."""
    assert text == go_duration(seconds)


def test_seconds_past_64_bits() -> None:
    """More than 584 years stop there instead of wrapping."""
    assert format_duration(2**64 - 1) == go_duration(1e300)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("1h", 3600 * 10**9), ("1us", 1000), ("1μs", 1000), ("1.5s", 15 * 10**8)],
)
def test_parses_other_spellings(text: str, ns: int) -> None:
    """What Go's `ParseDuration` takes beyond what Go writes."""
    assert ns == parse_duration(text)


@pytest.mark.parametrize("text", ["", "1", "s", "1.s", "1s ", "1 s", "--1s", "1x"])
def test_refuses_other_text(text: str) -> None:
    """The error quotes what is not a duration."""
    with pytest.raises(ValueError, match="is not a duration") as caught:
        parse_duration(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("length", "seconds"),
    [
        ("5m", 300.0),
        ("90s", 90.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        (300, 300.0),
        (0.5, 0.5),
        (timedelta(minutes=5), 300.0),
    ],
)
def test_a_length_is_read(length: str | float | timedelta, seconds: float) -> None:
    """Text with a unit, seconds and a timedelta mean the same."""
    assert seconds == parse_length(length)


@pytest.mark.parametrize(
    "length", ["", "5", "m", "5 m", "-5m", "0s", "5M", "5m\n", 0, -1, float("inf")]
)
def test_no_length_is_refused(length: str | float) -> None:
    """What is not a length above zero is quoted in the error."""
    with pytest.raises(ValueError, match="length") as caught:
        parse_length(length)
    assert repr(length) in str(caught.value)


@pytest.mark.parametrize("length", [None, True, b"5m", ["5m"]])
def test_a_length_of_another_type_is_refused(length: object) -> None:
    """A wrong type is a TypeError that shows the value."""
    with pytest.raises(TypeError, match="a length is text"):
        parse_length(length)
