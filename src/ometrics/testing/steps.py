"""
The steps of a script: what the server does, one after another.

A step that carries bytes is one write to the socket. Where a step is expected, a
`dict` stands for itself as JSON, framed as the endpoint frames it (a line of a stream,
a server-sent event under `/v1/`, or a whole body), and `bytes` for `Send`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ._request import Framing, Request


class Step:
    """One thing the server does."""


class Body(Step):
    """A step that carries bytes of the body."""

    def writes(self, framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """
        Yield the writes of this step.

        Each write is a sequence of parts; with chunked transfer encoding every part
        is an HTTP chunk of its own.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Send(Body):
    """Send these bytes of the body in one write."""

    data: bytes

    def writes(self, _framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """Yield the bytes as they are."""
        yield (self.data,)


@dataclass(frozen=True)
class Line(Body):
    """Send an object as a line of JSON, whatever the endpoint."""

    payload: Any

    def writes(self, _framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """Yield the line."""
        yield (to_json(self.payload) + b"\n",)


@dataclass(frozen=True)
class Event(Body):
    """Send an object as a server-sent event, whatever the endpoint."""

    payload: Any

    def writes(self, _framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """Yield the event."""
        yield (b"data: " + to_json(self.payload) + b"\n\n",)


@dataclass(frozen=True)
class Split(Body):
    """
    Send one piece in several writes.

    Args:
        piece: What to cut up.
        at: Offsets in bytes, ascending; negative ones count from the end.
    """

    piece: Piece
    at: Sequence[int]

    def writes(self, framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """Yield each cut as a write."""
        data = b"".join(
            part for write in as_body(self.piece).writes(framing) for part in write
        )
        size = len(data)
        cuts = [offset if offset >= 0 else size + offset for offset in self.at]
        if [0, *cuts, size] != sorted([0, *cuts, size]):
            raise ValueError(f"no ascending offsets into {size} bytes: {[*self.at]}")
        for start, end in zip([0, *cuts], [*cuts, size], strict=True):
            if start < end:
                yield (data[start:end],)


@dataclass(frozen=True)
class Together(Body):
    """
    Send many pieces in one write, each still an HTTP chunk of its own.

    The bytes are made once and kept, so that a long answer used many times costs the
    server one write a request.
    """

    pieces: Sequence[Piece]
    _parts: dict[Framing, tuple[bytes, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _chunked: dict[Framing, bytes] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def writes(self, framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """Yield one write of all parts."""
        if framing not in self._parts:
            self._parts[framing] = tuple(
                part
                for piece in self.pieces
                for write in as_body(piece).writes(framing)
                for part in write
            )
        yield self._parts[framing]

    def chunked(self, framing: Framing) -> bytes:
        """Return the one write in chunked transfer encoding."""
        if framing not in self._chunked:
            (parts,) = self.writes(framing)
            self._chunked[framing] = chunked(parts)
        return self._chunked[framing]


@dataclass(frozen=True)
class Raw(Step):
    """
    Send bytes as they are, with no status line, headers or HTTP framing added.

    After it the server adds nothing of its own and closes at the end of the script.
    """

    data: bytes


@dataclass(frozen=True)
class Status(Step):
    """
    Answer with this status.

    With a body it is the whole answer. Without one the status line and headers go out
    at once and the steps that follow are the body. A script without `Status` answers
    200, its head in the same packet as its first bytes.

    Args:
        code: HTTP status.
        body: A `dict` or `list` (sent as JSON), text, or bytes.
        headers: Added to the usual ones or replacing them. With a `Content-Length` or
            `Transfer-Encoding` of your own, the connection closes after the script.
    """

    code: int
    body: Mapping[str, Any] | Sequence[Any] | str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delay(Step):
    """Wait this many seconds; a client that goes away meanwhile ends the script."""

    seconds: float


@dataclass(frozen=True)
class Hang(Step):
    """Wait for `ScriptedOllama.release()`, `close()`, or the client to go away."""


@dataclass(frozen=True)
class Reset(Step):
    """Break the connection with a TCP reset."""


@dataclass(frozen=True)
class Close(Step):
    """Close the connection in good order but early: no terminator, nothing more."""


Piece: TypeAlias = Step | Mapping[str, Any] | bytes
Script: TypeAlias = Sequence[Piece] | Callable[["Request"], Iterable[Piece]]


@dataclass(frozen=True)
class _Payload(Body):
    """An object framed as the endpoint frames it."""

    payload: Mapping[str, Any]

    def writes(self, framing: Framing, /) -> Iterator[Sequence[bytes]]:
        """Yield what the endpoint would send."""
        if framing == "line":
            yield (to_json(self.payload) + b"\n",)
        elif framing == "event":
            yield (b"data: " + to_json(self.payload) + b"\n\n",)
        else:
            yield (to_json(self.payload),)


def as_step(piece: Piece) -> Step:
    """Return the step that a piece of a script stands for."""
    if isinstance(piece, Step):
        return piece
    if isinstance(piece, bytes):
        return Send(piece)
    if isinstance(piece, Mapping):
        return _Payload(piece)
    raise TypeError(f"not a step, a dict or bytes: {type(piece).__name__}")


def as_body(piece: Piece) -> Body:
    """Return the step, which must carry bytes of the body."""
    step = as_step(piece)
    if not isinstance(step, Body):
        raise TypeError(f"{type(step).__name__} carries no bytes of a body")
    return step


def to_json(payload: Any) -> bytes:
    """Return compact JSON in UTF-8, unescaped, as Go writes it."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def chunked(parts: Iterable[bytes]) -> bytes:
    """Return parts in chunked transfer encoding; an empty one would end the body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
