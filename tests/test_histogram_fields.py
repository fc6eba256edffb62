# SPDX-License-Identifier: MIT
"""A histogram that no values could have made is refused, however it is made."""

from __future__ import annotations

import math
import pickle
from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from strategies import histograms

from ometrics.histogram import UINT64_MAX, LatencyHistogram, TokenHistogram

HIST = LatencyHistogram.of([0.1, 0.2, 0.2])
FIELDS = {name: getattr(HIST, name) for name in HIST.__struct_fields__}
ONE = array("Q", [1]).tobytes()
ZERO = bytes(8)

BAD: list[tuple[dict[str, Any], str]] = [
    ({"first_cell": 2**31 - 1}, "first_cell 2147483647 is not one of"),
    ({"first_cell": -(2**31)}, "first_cell -2147483648 is not one of"),
    ({"first_cell": 2**70}, "first_cell .* is not one of"),
    ({"first_cell": -1}, "first_cell -1"),
    ({"first_cell": 1055}, "bytes of cells from 1055 on"),
    ({"cells": FIELDS["cells"][:-1]}, "bytes of cells"),
    ({"cells": bytes(15)}, "15 bytes of cells"),
    ({"cells": ONE * 1100}, "8800 bytes of cells"),
    ({"cells": ZERO + FIELDS["cells"]}, "trimmed"),
    ({"cells": FIELDS["cells"] + ZERO}, "trimmed"),
    ({"cells": array("Q", [UINT64_MAX, 1]).tobytes()}, "more than"),
    ({"cells": b""}, "first_cell .* of no values must be 0"),
    ({"cells": b"", "first_cell": 0}, "sum_ns 500000000 of no values must be 0"),
    ({"cells": b"", "first_cell": 0, "sum_ns": 0}, "min 0.1 of no values"),
    ({"sum_ns": -1}, "sum_ns -1 is not within"),
    ({"sum_ns": 2**64}, "sum_ns 18446744073709551616 is not within"),
    ({"sum_ns": 299_999_999}, "sum_ns 299999999 is below 3 times min 0.1"),
    ({"sum_ns": 600_000_001}, "sum_ns 600000001 is above 3 times max 0.2"),
    ({"min": 0.09}, "min 0.09 is not in the first cell"),
    ({"min": math.nan}, "min nan"),
    ({"min": -1.0}, "min -1.0"),
    ({"max": 0.3}, "max 0.3 is not in the last cell"),
    ({"max": math.inf}, "max inf"),
    ({"bucket_bounds": ()}, "at least one bound"),
    ({"bucket_bounds": (2.0, 1.0)}, "bucket bound 1.0"),
]
WRONG_TYPES: list[dict[str, Any]] = [
    {"cells": bytearray(ONE)},
    {"cells": None},
    {"bucket_bounds": [1.0]},
    {"first_cell": 1.0},
    {"first_cell": None},
    {"sum_ns": "5"},
    {"min": "0.1"},
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    """
    The message names the field.

    Seen to fail before: a merge with the first of these crashed the interpreter, one
    with 15 bytes wrote beyond the heap's block.
    """
    with pytest.raises(ValueError, match=message):
        LatencyHistogram(**FIELDS | change)


@pytest.mark.parametrize("change", WRONG_TYPES)
def test_wrong_types_are_refused(change: dict[str, Any]) -> None:
    """At once, not when somebody merges it."""
    with pytest.raises(TypeError):
        LatencyHistogram(**FIELDS | change)


@pytest.mark.parametrize(("change", "message"), BAD)
def test_no_way_around_the_constructor(change: dict[str, Any], message: str) -> None:
    """Unpickling, converting and replacing check as well."""
    fields = FIELDS | change

    class Hostile:
        def __reduce__(self) -> Any:
            rebuild, arguments = HIST.__reduce__()
            return rebuild, (arguments[0], arguments[1] | fields)

    for make in (
        lambda: pickle.loads(pickle.dumps(Hostile())),
        lambda: msgspec.convert(fields, LatencyHistogram),
        lambda: msgspec.structs.replace(HIST, **change),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_tokens_are_checked_in_their_own_unit() -> None:
    """Extremes and the total are tokens, not seconds."""
    hist = TokenHistogram.of([10, 20, 20])
    for change, message in (
        ({"min": 9.0}, "min 9.0 is not in the first cell"),
        ({"max": 30.0}, "max 30.0 is not in the last cell"),
        ({"total": 29}, "total 29 is below 3 times min 10.0"),
        ({"total": 61}, "total 61 is above 3 times max 20.0"),
        ({"total": -1}, "total -1 is not within"),
    ):
        with pytest.raises(ValueError, match=message):
            msgspec.structs.replace(hist, **change)


@pytest.mark.parametrize("count", [2**53 + 3, 2**60 + 1, 2**63 + 5])
def test_tokens_beyond_exact_floats(count: int) -> None:
    """The extremes are rounded there, so they do not contradict the total."""
    assert count == TokenHistogram.of([count]).total


def test_extremes_in_one_cell_are_in_order() -> None:
    """A minimum above the maximum is refused even if both have the right cell."""
    hist = LatencyHistogram.of([0.1001, 0.1002])
    with pytest.raises(ValueError, match=r"min 0\.1002 is above max 0\.1001"):
        msgspec.structs.replace(hist, min=0.1002, max=0.1001)


@given(histograms())
def test_whatever_values_make_is_accepted(hist: LatencyHistogram) -> None:
    """A copy of any histogram is that histogram."""
    assert hist == pickle.loads(pickle.dumps(hist))
    assert hist == msgspec.convert(msgspec.to_builtins(hist), LatencyHistogram)
