# SPDX-License-Identifier: MIT
"""What one line or body of an answer says, in the form of each interface.

Fields that are not named here are skipped, not decoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from ometrics.errors import STREAM_ERROR, TRUNCATED, code_of
from ometrics.instrumentation.usage import (
    Usage,
    openai_usage,
)

if TYPE_CHECKING:
    from ometrics.instrumentation.answers import AnswerReader


class Document(Protocol):
    """What one line or body says."""

    def output(self) -> bool | None:
        """Whether it holds output of the answer; `False`: thinking; `None`: none."""

    def read_into(self, reader: AnswerReader) -> None:
        """Note the numbers, and whether the answer is over."""


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Ollama(msgspec.Struct):
    """A line of Ollama's stream, or its body."""

    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    image: Any = None
    done: Any = None
    error: Any = None
    done_reason: Any = None
    total_duration: Any = None
    load_duration: Any = None
    prompt_eval_duration: Any = None
    eval_duration: Any = None
    prompt_eval_count: Any = None
    prompt_eval_cached_count: Any = None
    eval_count: Any = None
    usage: dict[str, Any] | None = None  # of `/v1/systemone`

    def output(self) -> bool | None:
        message = self.message
        if message is not None:
            if message.content or message.tool_calls:
                return True
            return False if message.thinking else None
        if self.response or self.image:
            return True
        return False if self.thinking else None

    def read_into(self, reader: AnswerReader) -> None:
        if self.error:
            reader.fail(STREAM_ERROR)
        elif self.done or (self.done is None and not reader.is_stream):
            reader.complete(self._numbers())
        elif not reader.is_stream:
            reader.fail(TRUNCATED, self._numbers())

    def _numbers(self) -> Usage:
        if self.usage is not None:
            return openai_usage(self.usage, self.done_reason)
        return Usage(
            self.total_duration,
            self.load_duration,
            self.prompt_eval_duration,
            self.eval_duration,
            self.prompt_eval_count,
            self.prompt_eval_cached_count,
            self.eval_count,
            self.done_reason,
        )


class _Delta(msgspec.Struct):
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None
    audio: Any = None
    reasoning: Any = None
    reasoning_content: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: Any = None
    finish_reason: Any = None


class _OpenAI(msgspec.Struct):
    """A chunk or body of `/chat/completions` or `/completions`."""

    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None

    def output(self) -> bool | None:
        thinks = None
        for choice in self.choices or ():
            delta = choice.delta
            if choice.text:
                return True
            if delta is None:
                continue
            if delta.content or delta.tool_calls:
                return True
            if delta.reasoning or delta.reasoning_content:
                thinks = False
            elif delta.refusal or delta.function_call or delta.audio:
                return True
        return thinks

    def read_into(self, reader: AnswerReader) -> None:
        if self.error:
            reader.fail(STREAM_ERROR)
            return
        reason = reader.usage.done_reason
        for choice in self.choices or ():
            if choice.finish_reason is not None:
                reason = choice.finish_reason
                break
        if self.usage is not None:
            reader.usage = openai_usage(self.usage, reason)
        elif reason is not reader.usage.done_reason:
            reader.usage = reader.usage._replace(done_reason=reason)
        if not reader.is_stream:
            reader.complete(reader.usage)
        elif reason is not None:
            reader.has_all_output = True
            if self.usage is not None and not self.choices:
                reader.complete(reader.usage)  # a chunk of usage alone is the last


class _Response(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct):
    """An event or body of `/responses`."""

    type: str = ""
    response: _Response | None = None
    status: Any = None
    usage: dict[str, Any] | None = None
    error: Any = None

    def output(self) -> bool | None:
        if not self.type.endswith(".delta"):
            return None
        return not self.type.startswith("response.reasoning")

    def read_into(self, reader: AnswerReader) -> None:
        usage = self.usage if self.response is None else self.response.usage
        has_failed = self.status == "failed" or self.type in _FAILURES
        if self.error or has_failed:
            reader.fail(STREAM_ERROR, openai_usage(usage))
        elif not reader.is_stream or self.type in _LAST_EVENTS:
            reader.complete(openai_usage(usage))


_FAILURES: Final = frozenset({"response.failed", "error"})
_LAST_EVENTS: Final = frozenset({"response.completed", "response.incomplete"})


class _Block(msgspec.Struct):
    type: Any = None
    stop_reason: Any = None
    usage: dict[str, Any] | None = None


class _AnthropicEvent(msgspec.Struct):
    """An event or body of `/messages`."""

    type: Any = None
    delta: _Block | None = None
    message: _Block | None = None
    stop_reason: Any = None
    usage: dict[str, Any] | None = None

    def output(self) -> bool | None:
        if self.type != "content_block_delta" or self.delta is None:
            return None
        if self.delta.type in ("text_delta", "input_json_delta"):
            return True
        return False if self.delta.type == "thinking_delta" else None

    def read_into(self, reader: AnswerReader) -> None:
        if self.type == "error":
            reader.fail(STREAM_ERROR)
            return
        usage, reason = self.usage, self.stop_reason
        if self.message is not None:
            usage = self.message.usage
        if self.delta is not None:
            reason = self.delta.stop_reason
        if usage is not None or reason is not None:
            reader.add_anthropic(usage, reason)
        if not reader.is_stream or self.type == "message_stop":
            reader.complete(reader.usage)


class _Other(msgspec.Struct):
    """Any other body: of embeddings, say, in OpenAI's form."""

    usage: dict[str, Any] | None = None
    error: Any = None

    def output(self) -> bool | None:
        return None

    def read_into(self, reader: AnswerReader) -> None:
        reader.complete(openai_usage(self.usage))


DECODERS: Final[dict[str, Callable[[bytes], Document]]] = {
    "ollama": msgspec.json.Decoder(_Ollama).decode,
    "chat": msgspec.json.Decoder(_OpenAI).decode,
    "completions": msgspec.json.Decoder(_OpenAI).decode,
    "responses": msgspec.json.Decoder(_Event).decode,
    "messages": msgspec.json.Decoder(_AnthropicEvent).decode,
    "other": msgspec.json.Decoder(_Other).decode,
}


def decoded_loosely(
    decode: Callable[[bytes], Document], data: bytes
) -> Document | None:
    """Read what is no JSON to the letter, but is to clients: half an emoji, say."""
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
        return decode(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def json_code_of(error: Exception) -> str:
    """What the client will raise of the same bytes: it reads them with `json`."""
    if type(error) is msgspec.DecodeError:
        return "JSONDecodeError"
    return code_of(error)
