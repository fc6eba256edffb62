# SPDX-License-Identifier: MIT
"""How a call can end."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

OutcomeName: TypeAlias = Literal["success", "failure", "cancelled"]


class Outcome:
    """
    How a call ended; what `Call.end` takes first.

    Attributes:
        SUCCESS: The answer is complete.
        FAILURE: It failed: an error came instead of an answer, or of the rest of one.
        CANCELLED: The caller went away before the end; neither success nor failure.
    """

    SUCCESS: Final = "success"
    FAILURE: Final = "failure"
    CANCELLED: Final = "cancelled"
