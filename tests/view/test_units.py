# SPDX-License-Identifier: MIT
"""Numbers for people: three digits, a unit, and a dash for what is unknown."""

from __future__ import annotations

import doctest
import math

import pytest

from ometrics.view import units
from ometrics.view.units import (
    compact,
    count,
    counted,
    duration,
    number,
    percent,
    rate,
    signed_percent,
    size,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (0.0, "0s"),
        (2e-9, "2ns"),
        (1.5e-6, "1.5µs"),
        (0.0123456, "12.3ms"),
        (0.9996, "1s"),
        (3.14159, "3.14s"),
        (59.4, "59.4s"),
        (59.9, "1m00s"),
        (61, "1m01s"),
        (3599.9, "1h00m"),
        (90_061, "25h01m"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    """Three digits and the unit that suits; unknown is a dash."""
    assert text == duration(seconds)


def test_numbers() -> None:
    """Small ones keep three digits, large ones every digit; unknown is a dash."""
    assert ["–", "0", "0.123", "41.3", "1,234"] == [
        number(value) for value in (None, 0.0, 0.12345, 41.26, 1234.4)
    ]
    assert ["–", "0%", "0.0%", "12.3%", "100%"] == [
        percent(value) for value in (None, 0.0, 0.01, 12.34, 100.0)
    ]
    assert ["–", "1,000,000"] == [count(None), count(1_000_000)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (12.34, "12.3"),
        (999.4, "999"),
        (999.6, "1k"),
        (12_345, "12.3k"),
        (999_999, "1M"),
        (1.234e9, "1.23G"),
        (1e22, "10,000E"),
        (math.inf, "–"),
    ],
)
def test_compact(value: float | None, text: str) -> None:
    """Three digits and a letter for thousands; rounding never shows 1000k."""
    assert text == compact(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1,023 B"),
        (1536, "1.5 KiB"),
        (5 * 2**30, "5 GiB"),
    ],
)
def test_size(value: float | None, text: str) -> None:
    """Bytes in units of 1,024."""
    assert text == size(value)


def test_rate() -> None:
    """What is rare is given by the minute."""
    assert ["–", "0/s", "3/min", "12.3 req/s"] == [
        rate(None),
        rate(0.0),
        rate(0.05),
        rate(12.34, "req"),
    ]


def test_signed_percent() -> None:
    """A change has its sign; one from nothing has no percentage."""
    assert ["–", "–", "+12.3%", "-50.0%", "+1,200.0%", "from 0"] == [
        signed_percent(value)
        for value in (None, math.nan, 12.34, -50.0, 1200.0, math.inf)
    ]


def test_counted() -> None:
    """One is singular."""
    assert ["0 calls", "1 call", "1,000 calls"] == [
        counted(n, "call") for n in (0, 1, 1000)
    ]


def test_examples_of_the_documentation() -> None:
    """They do what they show."""
    assert 0 == doctest.testmod(units).failed
