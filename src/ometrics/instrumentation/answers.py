# SPDX-License-Identifier: MIT
"""`AnswerReader`: an answer's bytes, read in passing, whatever the network cut them to.

A reader keeps the line under way and the numbers of the last one, both bounded; of a
whole body that is too long, its end, where every server puts its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from ometrics._lines import count_texts
from ometrics.errors import TRUNCATED, code_of_status
from ometrics.instrumentation.dialects import (
    DECODERS,
    Document,
    decoded_loosely,
    json_code_of,
)
from ometrics.instrumentation.endpoints import Dialect
from ometrics.instrumentation.unpacking import Unpack, unpacker
from ometrics.instrumentation.usage import (
    UNKNOWN,
    Usage,
    anthropic_usage,
    ollama_usage,
    openai_usage,
)

# The most of one line or body that is kept to be decoded whole; of a longer one only
# its last part is kept. Bytes.
MAX_DOCUMENT: Final = 1 << 20
_TAIL: Final = 64 << 10
_MAX_ERROR: Final = 16 << 10
# The code of one that cannot be unpacked: httpx's exception.
_UNDECODABLE: Final = "DecodingError"

FIRST_ERROR: Final = 400  # of HTTP's statuses

Observe = Callable[[bool], object]


# The numbers in the last part of a document that was too long to keep. Within a string
# of JSON each quote is escaped, so these match no text of an answer.
_NUMBER: Final = re.compile(
    rb'[{,]\s*"(total_duration|load_duration|prompt_eval_duration|eval_duration|'
    rb"prompt_eval_count|prompt_eval_cached_count|eval_count|prompt_tokens|"
    rb'completion_tokens|input_tokens|output_tokens|cached_tokens)"\s*:\s*(\d{1,19})\b'
)
_REASON: Final = re.compile(
    rb'[{,]\s*"(?:done|finish|stop)_reason"\s*:\s*"([a-z_]{1,50})"'
)
_NOT_DONE: Final = re.compile(rb'[{,]\s*"done"\s*:\s*false')


class AnswerReader:
    """
    What an answer says, from its bytes as they come.

    Args:
        dialect: Of its endpoint.
        observe: Called for each chunk with output, as it arrives: `True` for output of
            the answer, `False` for thinking. Not called for an answer in one piece.
        status: Of the HTTP answer.
        content_type: The header.
        content_encoding: The header. An answer whose packing cannot be undone here
            counts by its status, with nothing known of it.

    Attributes:
        usage: The numbers as far as they are known.
        error: The code of what is wrong with the answer; `None` if nothing is.
        is_over: The answer has said that it is complete, or that it failed.
        has_all_output: All its output has come, though its numbers may not have.
        is_stream: Whether it comes in lines or events.

    Thread-safety:
        One thread at a time.
    """

    __slots__ = (
        "_anthropic",
        "_are_events",
        "_decode",
        "_feed",
        "_is_long",
        "_observe",
        "_pending",
        "_unpack",
        "error",
        "has_all_output",
        "is_over",
        "is_stream",
        "status",
        "usage",
    )

    def __init__(
        self,
        dialect: Dialect,
        observe: Observe,
        *,
        status: int = 200,
        content_type: str = "",
        content_encoding: str = "",
    ) -> None:
        self.usage = UNKNOWN
        self.error: str | None = None
        self.is_over = False
        self.has_all_output = False
        self.status = status
        self._observe = observe
        self._decode = DECODERS[dialect]
        self._pending: bytes = b""
        self._is_long = False
        self._anthropic: dict[str, Any] = {}
        kind = content_type.lower()
        # Functions, not bound methods: a reader must not refer to itself.
        self._feed: Callable[[AnswerReader, bytes], None]
        self.is_stream = self._are_events = False
        if status >= FIRST_ERROR:
            self._feed = AnswerReader._feed_error
        elif "ndjson" in kind:
            self._feed = AnswerReader._feed_lines
            self.is_stream = True
        elif "event-stream" in kind:
            self._feed = AnswerReader._feed_events
            self.is_stream = self._are_events = True
        else:
            self._feed = AnswerReader._keep  # one document
        encoding = content_encoding.strip().lower()
        self._unpack: Unpack | None = None
        if encoding not in ("", "identity"):
            self._unpack = unpacker(encoding)
            if self._unpack is None and status < FIRST_ERROR:
                self._feed = AnswerReader._feed_nothing

    def feed(self, data: bytes) -> None:
        """
        Read what has arrived.

        Args:
            data: The next bytes, cut anywhere. Not kept beyond the line under way.
        """
        if self.is_over:
            return
        if self._unpack is not None:
            self._feed_packed(self._unpack(data))
            return
        if self.is_stream and not self._pending:
            texts = count_texts(data, self._are_events)
            if texts:
                for _ in range(texts):
                    self._observe(True)
                return
        self._feed(self, data)

    def finish(self) -> None:
        """The body has come to its end; sets `error` if it was cut short."""
        if self.is_over:
            return
        if self.status >= FIRST_ERROR:
            self.fail(code_of_status(self.status, self._text()))
        elif self._feed is AnswerReader._feed_nothing:
            self.complete(UNKNOWN)
        elif self._is_long:
            self._long_document(self._pending)
        elif not self.is_stream:
            self._body(self._pending)
        elif self._pending:  # a last line without its end
            self._feed(self, b"\n")
        if not self.is_over:
            if self.has_all_output:
                self.complete(self.usage)
            else:
                self.fail(TRUNCATED, self.usage)

    def complete(self, usage: Usage) -> None:
        """The answer is complete."""
        self.usage = usage
        self.is_over = True
        self._pending = b""

    def fail(self, code: str, usage: Usage | None = None) -> None:
        """The answer is a failure, or was cut short."""
        if usage is not None:
            self.usage = usage
        self.error = code
        self.is_over = True
        self._pending = b""

    def add_anthropic(self, usage: dict[str, Any] | None, reason: object) -> None:
        """Add what one event of `/messages` tells; each tells a part of the usage."""
        if usage is not None:
            self._anthropic.update({k: v for k, v in usage.items() if v is not None})
        if reason is None:
            reason = self.usage.done_reason
        self.usage = anthropic_usage(self._anthropic or None, reason)

    # --- the ways in which documents come ---

    def _feed_packed(self, pieces: Iterable[bytes]) -> None:
        """Unpacked pieces; what cannot be unpacked, its reader cannot read either."""
        pieces = iter(pieces)
        while not self.is_over:
            try:
                piece = next(pieces, None)
            except Exception:  # noqa: BLE001 - of one of several packages
                if self.status < FIRST_ERROR:
                    self.fail(_UNDECODABLE, self.usage)
                return
            if piece is None:
                return
            self._feed(self, piece)

    def _feed_lines(self, data: bytes) -> None:
        """Lines of JSON, each a document."""
        for line in self._lines(data):
            self._document(line)

    def _feed_events(self, data: bytes) -> None:
        """Server-sent events, each of which brings a document."""
        for line in self._lines(data):
            if line.startswith(b"data:"):
                self._document(line[5:])

    def _lines(self, data: bytes) -> list[bytes]:
        """The lines that are whole now; the rest is kept."""
        lines = data.split(b"\n")
        if self._pending:
            self._keep(lines[0])
            if len(lines) == 1:
                return []
            lines[0], self._pending = self._pending, b""
            if self._is_long:
                self._long_document(lines.pop(0))
        rest = lines.pop()
        if rest:
            self._keep(rest)
        return lines

    def _feed_error(self, data: bytes) -> None:
        """The body of a failure: looked at for what it tells of a load."""
        self._pending += data[: _MAX_ERROR - len(self._pending)]

    def _feed_nothing(self, data: bytes) -> None:
        """An answer that cannot be unpacked here."""

    def _keep(self, data: bytes) -> None:
        """Add to the document under way; of a long one only the end is kept."""
        if len(self._pending) + len(data) > MAX_DOCUMENT:
            self._is_long = True
        self._pending += data
        if self._is_long:
            self._pending = self._pending[-_TAIL:]

    def _text(self) -> str:
        return self._pending.decode("utf-8", "replace")

    def _body(self, data: bytes) -> None:
        """
        Read a body: one document, or a stream that is not called one.

        When its chunks came is not known, as nobody looked.
        """
        lines = data.strip().split(b"\n")
        if len(lines) > 1 and self._is_document(lines[0].removeprefix(b"data:")):
            self.is_stream, self._observe = True, bool
            for line in lines:
                self._document(line.removeprefix(b"data:"))
        else:
            self._document(data)

    def _is_document(self, data: bytes) -> bool:
        try:
            self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return True

    def _document(self, data: bytes) -> None:
        """Read one document; an empty line is none."""
        if self.is_over or not data or data.isspace():
            return
        document: Document | None
        try:
            document = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            document = decoded_loosely(self._decode, data)
            if document is None:
                self._no_document(data, error)
                return
        if self.is_stream:
            output = document.output()
            if output is not None:
                self._observe(output)
        document.read_into(self)

    def _no_document(self, data: bytes, error: Exception) -> None:
        if not data.strip().startswith(b"[DONE]"):
            self.fail(json_code_of(error), self.usage)
        elif self.has_all_output:
            self.complete(self.usage)

    def _long_document(self, tail: bytes) -> None:
        """Read the numbers in the end of a document that was not kept."""
        self._is_long = False
        found = {m[1].decode(): int(m[2]) for m in _NUMBER.finditer(tail)}
        reasons = _REASON.findall(tail)
        reason = reasons[-1].decode() if reasons else None
        if self.is_stream:
            self._observe(True)
        if _NOT_DONE.search(tail):
            return
        if "total_duration" in found:
            self.complete(ollama_usage(found | {"done_reason": reason}))
        elif not self.is_stream:
            cached = found.get("cached_tokens")
            usage = openai_usage(found, reason)
            self.complete(usage._replace(cached_tokens=cached))
