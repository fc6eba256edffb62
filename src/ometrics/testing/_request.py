"""What the scripted server remembers of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

# How a `dict` in a script becomes bytes.
Framing: TypeAlias = Literal["line", "event", "body"]
Outcome: TypeAlias = Literal["running", "complete", "disconnected", "cut"]

# Ollama streams these unless asked not to; everything else only when asked to.
_STREAMING = {f"/api/{name}" for name in ("chat", "generate", "pull", "push", "create")}


@dataclass(eq=False)
class Request:
    """
    What a client asked, and what became of the answer.

    Attributes:
        method: `GET`, `POST`, ...
        path: Without the query.
        query: What followed the `?`, undecoded.
        headers: By lower-case name.
        body: As received.
        json: The body parsed, or None when it is not JSON.
        stream: Whether a stream is wanted: as asked, else the endpoint's default.
        connection: Number of the connection it came by; tells reuse from a new one.
        outcome: `running`; `complete`: every byte was handed to the socket;
            `disconnected`: the client went away first; `cut`: `Reset`, `Close`,
            a failed script or the server's own `close()` ended it. That a client left
            is seen at once at a `Hang` or a `Delay` of over 2 ms, else when a later
            write fails, which is not always the next.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    json: Any = field(init=False, default=None)
    stream: bool = field(init=False)
    outcome: Outcome = field(init=False, default="running")

    def __post_init__(self) -> None:
        with suppress(ValueError, RecursionError):
            self.json = json.loads(self.body)
        asked = self.json if isinstance(self.json, dict) else {}
        self.stream = bool(asked.get("stream", self.path in _STREAMING))

    @property
    def disconnected(self) -> bool:
        """Whether the client went away before the end of the answer."""
        return self.outcome == "disconnected"

    @property
    def framing(self) -> Framing:
        """How a `dict` in the script becomes bytes."""
        if not self.stream:
            return "body"
        return "event" if self.path.startswith("/v1/") else "line"
