# SPDX-License-Identifier: MIT
"""What OpenAI's answers tell: objects of the client, chunks, or bodies of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ometrics.errors import STREAM_ERROR, TRUNCATED
from ometrics.observing import Watch, guarded
from ometrics.responses import (
    CHAT,
    EMBEDDINGS,
    TEXT,
    field,
    finish_reason,
    told_by_usage,
)

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

# The requests that are inference, by path.
OPERATIONS: Final = {
    "/chat/completions": CHAT,
    "/completions": TEXT,
    "/embeddings": EMBEDDINGS,
    "/responses": CHAT,
}


def chat_answers(chunk: Any) -> bool | None:
    """Whether a chunk's output is of the answer; `None` if it has no output."""
    thinks = None
    for choice in chunk.choices:
        delta = choice.delta
        if delta.content or delta.tool_calls:
            return True
        extra = delta.model_extra or {}
        if extra.get("reasoning") or extra.get("reasoning_content"):
            thinks = False
        elif delta.refusal or delta.function_call or extra.get("audio"):
            return True
    return thinks


def text_answers(chunk: Any) -> bool | None:
    """As `chat_answers`, of `/completions`."""
    return True if any(choice.text for choice in chunk.choices) else None


def event_answers(event: Any) -> bool | None:
    """As `chat_answers`, of `/responses`."""
    if not event.type.endswith(".delta"):
        return None
    return not event.type.startswith("response.reasoning")


_READERS: Final[dict[str, Callable[[Any], bool | None]]] = {
    "/chat/completions": chat_answers,
    "/completions": text_answers,
    "/responses": event_answers,
}


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    """What is looked at in a body of bytes; the rest is skipped, not kept."""

    choices: list[_Choice] = []
    status: str | None = None
    usage: dict[str, Any] | None = None


class OpenAIWatch(Watch):
    """A watch that reads OpenAI's answers; it keeps the last usage and reason."""

    __slots__ = ("path", "reason", "usage")

    def __init__(self, collector: MetricsCollector, model: str, path: str) -> None:
        super().__init__(collector, model, OPERATIONS[path])
        self.path = path
        self.usage: object = None
        self.reason: object = None

    @guarded
    def answered(self, answer: object) -> None:
        """The whole answer is here: an object of the client, or the decoded body."""
        if field(answer, "status") == "failed":
            self.failed(STREAM_ERROR, told_by_usage(field(answer, "usage")))
        else:
            reason = finish_reason(answer)
            self.succeeded(told_by_usage(field(answer, "usage"), reason))

    @guarded
    def answered_in(self, http: Any) -> None:
        """The whole body is here; only the numbers in it are decoded."""
        self.answered(msgspec.json.decode(http.content, type=_Body))

    @guarded
    def saw(self, chunk: Any) -> None:
        """A chunk of a stream has arrived."""
        if self.call is None:
            return
        answer = _READERS[self.path](chunk)
        if answer is not None:
            self.call.chunk(answer)
        if self.path == "/responses":
            if chunk.type in ("response.completed", "response.incomplete"):
                self.succeeded(told_by_usage(field(chunk.response, "usage")))
            elif chunk.type in ("response.failed", "error"):
                self.failed(STREAM_ERROR)
            return
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.choices:
            self.reason = chunk.choices[0].finish_reason or self.reason
        elif self.usage is not None and self.reason is not None:
            self.ended()  # a chunk of usage alone is the last

    @guarded
    def ended(self) -> None:
        """The stream is over; without a reason it was cut short."""
        told = told_by_usage(self.usage, self.reason)
        if self.reason is None:
            self.failed(TRUNCATED, told)
        else:
            self.succeeded(told)

    @guarded
    def broke(self, error: BaseException) -> None:
        """The stream raised."""
        self.raised(error, told_by_usage(self.usage, self.reason))

    @guarded
    def closed(self) -> None:
        """The caller closed or dropped the stream; maybe it had all it wanted."""
        told = told_by_usage(self.usage, self.reason)
        if self.reason is None:
            self.cancelled(told)
        else:
            self.succeeded(told)
