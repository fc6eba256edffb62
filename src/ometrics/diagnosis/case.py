# SPDX-License-Identifier: MIT
"""`Case`: what is known of one model; what every check is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeAlias

from ometrics.diagnosis.finding import Evidence, Finding
from ometrics.loaded import LoadedModel
from ometrics.models import CallMetrics, PerformanceMetrics

PERCENT: Final = 100.0
FEW: Final = 20  # requests below which shares and quantiles say little
# The operations that generate text: an embedding has no phases to speak of.
_GENERATING: Final = ("chat", "text_completion")


@dataclass(frozen=True)
class Case:
    """
    What is known of one model.

    Attributes:
        model: Its requests.
        calls: Its calls that generate text, together; `None` for none.
        earlier: The same calls at an earlier time, to compare with.
        loaded: What the server says of it, if it was asked.
    """

    model: PerformanceMetrics
    calls: CallMetrics | None
    earlier: CallMetrics | None = None
    loaded: LoadedModel | None = None

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.model


Check: TypeAlias = Callable[[Case], Iterator[Finding]]


def generating(model: PerformanceMetrics | None) -> CallMetrics | None:
    """A model's calls that generate text, of all providers; `None` for none."""
    calls = () if model is None else model.calls.values()
    found = [call for call in calls if call.operation in _GENERATING]
    return reduce(CallMetrics.merge, found) if found else None


def part(name: str, share: float) -> Evidence:
    """A share as evidence, in percent."""
    return Evidence(name, PERCENT * share, "%")
