# SPDX-License-Identifier: MIT
"""What people call the parts of a snapshot, named once for all summaries and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ometrics.fields import Counter, Field, fields_of
from ometrics.models import CallMetrics
from ometrics.snapshot import Snapshot
from ometrics.view.escape import harmless
from ometrics.view.units import counted


class Phase(NamedTuple):
    """
    A part of a call's time.

    Attributes:
        title: Its name, whose initial stands for it in plots without colour.
        field: Its histogram in `CallMetrics`.
        colour: Its colour in a terminal.
    """

    title: str
    field: str
    colour: str


_COLOURS: Final = {
    "connect": "red",
    "load": "magenta",
    "prefill": "blue",
    "decode": "green",
    "residual": "yellow",
    "network": "cyan",
}


def _title(field: Field) -> str:
    return field.title or field.name.replace("_", " ")


_HISTOGRAMS: Final = tuple(
    field for field in fields_of(CallMetrics) if field.kind == "histogram"
)

# As they are declared; together they are a call's latency.
PHASES: Final = tuple(
    Phase(_title(field), field.name, _COLOURS.get(field.name, "white"))
    for field in _HISTOGRAMS
    if "phase" in field.labels
)

# What the client sees of a call: title -> histogram in `CallMetrics`.
CLIENT_TIMES: Final = {
    _title(field): field.name
    for field in _HISTOGRAMS
    if "phase" not in field.labels and field.metric and field.metric.unit == "s"
}

# Tokens by kind: title -> field of `CallMetrics`.
TOKENS: Final = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "completion": "completion_tokens",
}


_TOKENS_KNOWN: Final = next(
    (
        field.known_by
        for field in fields_of(CallMetrics)
        if field.name == "prompt_tokens" and isinstance(field, Counter)
    ),
    None,
)


def tokens_known(call: CallMetrics) -> str | None:
    """How many calls gave their tokens, such as `3 of 6 calls`; `None` if all did.

    Also `None` of what was exported before that was counted.
    """
    if _TOKENS_KNOWN is None or not call.successful_reqs:
        return None
    known: int = getattr(call, _TOKENS_KNOWN)
    if known >= call.successful_reqs or (not known and call.prompt_tokens is not None):
        return None
    return f"{known:,} of {counted(call.successful_reqs, 'call')}"


def losses(snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    """What was not counted in full, and how often; nothing where all was."""
    for reason, number in snapshot.invalid_values.items():
        if number:
            yield f"invalid values ({harmless(reason)})", number
    counts = {
        "requests past the limit of models": snapshot.overflowed_requests,
        "names cut": snapshot.truncated_names,
        "sums at their limit": snapshot.saturated,
        "events dropped": snapshot.events_dropped,
        "internal errors": snapshot.internal_errors,
    }
    yield from ((name, number) for name, number in counts.items() if number)
