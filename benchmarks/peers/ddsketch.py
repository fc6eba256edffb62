# SPDX-License-Identifier: MIT
"""ddsketch: one value into a sketch of the same accuracy (1 %), without any lock."""

from __future__ import annotations

from ddsketch import DDSketch
from rounds import Statement

PACKAGES = ("ddsketch",)


def fast() -> dict[str, Statement]:
    """Adding."""
    return {"add": Statement("sketch.add(0.15)", {"sketch": DDSketch(0.01)})}


def slow() -> dict[str, Statement]:
    """Nothing."""
    return {}
