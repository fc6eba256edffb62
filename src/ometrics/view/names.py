# SPDX-License-Identifier: MIT
"""What people call the parts of a snapshot, named once for all summaries and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ometrics.snapshot import Snapshot
from ometrics.view.escape import harmless


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


# In the order of time; together they are a call's latency.
PHASES: Final = (
    Phase("load + queue", "load", "magenta"),
    Phase("prefill", "prefill", "blue"),
    Phase("decode", "decode", "green"),
    Phase("residual", "residual", "yellow"),
    Phase("network", "network", "cyan"),
)

# What the client sees of a call: title -> histogram in `CallMetrics`.
CLIENT_TIMES: Final = {
    "latency": "latency",
    "first chunk": "time_to_first_chunk",
    "first answer": "time_to_first_answer",
    "between chunks": "time_per_output_chunk",
}

# Tokens by kind: title -> field of `CallMetrics`.
TOKENS: Final = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "completion": "completion_tokens",
}


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
