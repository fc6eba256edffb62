"""The HTTP framing of one answer: status line, headers, length or chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from ._request import Framing, Request
from .steps import Body, Status, Step, Together, chunked, to_json

_CONTENT_TYPES: Mapping[Framing, str] = {
    "line": "application/x-ndjson",
    "event": "text/event-stream",
    "body": "application/json; charset=utf-8",
}
# Informational answers, "no content", "not modified".
_BODYLESS = {*range(100, 200), 204, 304}


class Answer:
    """
    One answer on its way out.

    Args:
        write: Puts bytes on the socket, in one call.
        request: What is answered.

    Attributes:
        keep_alive: Whether the connection can be used again afterwards.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        request: Request,
    ) -> None:
        self._write = write
        self._request = request
        self._length: int | None = None
        self._head: bytes | None = None
        self._chunked = False
        self._bodyless = request.method == "HEAD"
        self._finished = False
        self.keep_alive = request.headers.get("connection", "").lower() != "close"

    @property
    def started(self) -> bool:
        """Whether anything was sent."""
        return self._head is not None

    def announce(self, steps: Sequence[Step]) -> None:
        """Note the length of the whole body, for an answer that is no stream."""
        if self._request.stream:
            return
        framing = self._request.framing
        self._length = sum(
            len(part)
            for step in steps
            if isinstance(step, Body)
            for write in step.writes(framing)
            for part in write
        )

    def start(self, status: Status) -> None:
        """Send the head, with the body if the status has one."""
        if self.started:
            raise ValueError(f"status {status.code} after the head of the answer")
        if status.body is None:
            self._write(self._make_head(status))
            return
        body, kind = _encode(status.body)
        head = self._make_head(status, kind, len(body))
        self._write(head if self._bodyless else head + body)
        self._finished = True

    def send(self, step: Body, *, last: bool) -> None:
        """Send a step; the head goes with the first write, the end with the last."""
        if self._finished:
            raise ValueError(f"{type(step).__name__} after the end of the answer")
        head = b"" if self.started else self._make_head(Status(200))
        if self._bodyless:
            self._write(head)
            return
        writes = self._frame(step)
        if last:
            writes = [*writes[:-1], b"".join(writes[-1:]) + self._end()]
        for data in writes or [b""]:
            self._write(head + data)
            head = b""

    def send_raw(self, data: bytes) -> None:
        """Send bytes outside any framing, which is the script's from here on."""
        self._head = self._head or b""
        self._finished = True
        self.keep_alive = False
        self._write(data)

    def finish(self) -> None:
        """Send what is missing of a complete answer."""
        missing = b"" if self.started else self._make_head(Status(200))
        missing += self._end()
        if missing:
            self._write(missing)

    def _end(self) -> bytes:
        ended, self._finished = self._finished, True
        return b"0\r\n\r\n" if self._chunked and not ended else b""

    def _frame(self, step: Body) -> list[bytes]:
        framing = self._request.framing
        if not self._chunked:
            return [b"".join(parts) for parts in step.writes(framing)]
        if isinstance(step, Together):
            return [step.chunked(framing)]
        return [chunked(parts) for parts in step.writes(framing)]

    def _make_head(
        self, status: Status, kind: str | None = None, length: int | None = None
    ) -> bytes:
        headers = {"content-type": kind or _CONTENT_TYPES[self._request.framing]}
        given = {name.lower(): value for name, value in status.headers.items()}
        if given.keys() & {"content-length", "transfer-encoding"}:
            self.keep_alive = False
        elif status.code in _BODYLESS:
            self._bodyless = True
        else:
            length = self._length if length is None else length
            if length is None:
                headers["transfer-encoding"] = "chunked"
            else:
                headers["content-length"] = str(length)
        headers |= given
        if headers.get("connection", "").lower() == "close":
            self.keep_alive = False
        self._chunked = (
            headers.get("transfer-encoding") == "chunked" and not self._bodyless
        )
        lines = [f"HTTP/1.1 {status.code} {_reason(status.code)}"]
        lines += [f"{name.title()}: {value}" for name, value in headers.items()]
        self._head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return self._head


def _encode(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain"
    return to_json(body), _CONTENT_TYPES["body"]


def _reason(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Unknown"
