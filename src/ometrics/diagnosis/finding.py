# SPDX-License-Identifier: MIT
"""`Finding`: what is wrong with which model, by which numbers, and what to do."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ometrics.rules.words import amount
from ometrics.view.escape import harmless

# How sure a finding is: the numbers say so themselves; they have one usual cause; they
# fit, and so would something else.
Certainty: TypeAlias = Literal["certain", "likely", "possible"]


class Evidence(msgspec.Struct, frozen=True):
    """
    A number that a finding rests on.

    Attributes:
        name: What it is; a share begins with "of".
        value: The number.
        unit: `s`, `%`, `tokens/s`, or empty for a count.
    """

    name: str
    value: float
    unit: str = ""

    def __str__(self) -> str:
        value = amount(self.value, self.unit)
        return f"{value} {self.name}" if self.unit == "%" else f"{self.name} {value}"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """
    Something that a person would want to know.

    Attributes:
        kind: Which check found it, such as `answers-cut`; stable, for labels.
        model: Whose; empty if it is no model's.
        what: One sentence.
        evidence: The numbers it rests on.
        certainty: `certain`, `likely` or `possible`.
        advice: What to do.
        problem: Whether something is wrong, rather than worth knowing.
    """

    kind: str
    model: str
    what: str
    evidence: tuple[Evidence, ...]
    certainty: Certainty
    advice: str
    problem: bool = True

    def __str__(self) -> str:
        """Three lines that are safe to print."""
        model = f"{harmless(self.model)}: " if self.model else ""
        numbers = "; ".join(map(str, self.evidence))
        return (
            f"{model}{self.what} ({self.certainty})\n"
            f"  because: {numbers}\n"
            f"  do: {self.advice}"
        )
