# SPDX-License-Identifier: MIT
"""The kinds of findings: what is the same for all of one kind, whatever its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Kind(NamedTuple):
    """
    What all findings of one kind have in common.

    Attributes:
        what: What is so, without the numbers.
        problem: Whether something is wrong, rather than worth knowing.
    """

    what: str
    problem: bool = True


#: Every kind that there is, as `Finding.kind`, in the order of the documentation.
KINDS: Final[Mapping[str, Kind]] = {
    "failing": Kind("requests fail"),
    "timeouts": Kind("requests are given up before they are answered"),
    "hung-calls": Kind("a call has been running for very long"),
    "stalled": Kind("streams stop in the middle, or calls hang"),
    "retries": Kind("calls are tried again and again"),
    "answers-cut": Kind("answers are cut off at their length limit"),
    "prompts-cut": Kind("prompts are as long as the context"),
    "on-the-cpu": Kind("the model, or a part of it, runs on the CPU"),
    "evictions": Kind("other models throw it out of memory"),
    "cold-starts": Kind("the model is loaded again and again"),
    "waiting": Kind("calls wait on the server instead of being worked on"),
    "connecting": Kind("calls wait for a connection before they are sent"),
    "network": Kind("much of the time is spent outside the server"),
    "cache-misses": Kind("long prompts are read from the start each time"),
    "decode-slower": Kind("tokens come slower than before"),
    "long-tail": Kind("some requests take many times the usual time", problem=False),
    "takes-most-time": Kind("most of the time goes into this model", problem=False),
    "few-requests": Kind("too few requests to say more", problem=False),
}
