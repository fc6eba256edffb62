# SPDX-License-Identifier: MIT
"""hdrhistogram: one value, 1 us to 1 h, two digits (1 %), without any lock."""

from __future__ import annotations

from hdrh.histogram import HdrHistogram
from rounds import Statement

PACKAGES = ("hdrhistogram",)


def fast() -> dict[str, Statement]:
    """Recording, in microseconds."""
    names = {"histogram": HdrHistogram(1, 3_600_000_000, 2)}
    return {"record_value": Statement("histogram.record_value(150_000)", names)}


def slow() -> dict[str, Statement]:
    """Nothing."""
    return {}
