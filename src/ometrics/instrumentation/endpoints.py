# SPDX-License-Identifier: MIT
"""Which HTTP requests are calls to a model, and what their bodies ask for."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

CHAT: Final = "chat"
TEXT: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"

# The form of an answer. `chat`, `completions` and `responses` are OpenAI's.
Dialect = Literal["ollama", "chat", "completions", "responses", "messages", "other"]


class ApiEndpoint(NamedTuple):
    """
    One kind of request to a model.

    Attributes:
        operation: `chat`, `text_completion` or `embeddings`.
        dialect: The form of its answer.
        interface: Whose it is: `ollama`, `openai` or `anthropic`.
        counts_success: Whether a success is a call. The details of a model that is
            not there (`/api/show`) fail before its inference could.
    """

    operation: str
    dialect: Dialect
    interface: str
    counts_success: bool = True


# By the last two parts of the path; a server behind a proxy has others before.
_ENDPOINTS: Final = {
    "api/chat": ApiEndpoint(CHAT, "ollama", "ollama"),
    "api/generate": ApiEndpoint(TEXT, "ollama", "ollama"),
    "api/embed": ApiEndpoint(EMBEDDINGS, "ollama", "ollama"),
    "api/embeddings": ApiEndpoint(EMBEDDINGS, "ollama", "ollama"),
    "api/show": ApiEndpoint(CHAT, "other", "ollama", counts_success=False),
    "v1/systemone": ApiEndpoint(TEXT, "ollama", "ollama"),
    "v1/completions": ApiEndpoint(TEXT, "completions", "openai"),
    "v1/embeddings": ApiEndpoint(EMBEDDINGS, "other", "openai"),
    "v1/responses": ApiEndpoint(CHAT, "responses", "openai"),
    "v1/messages": ApiEndpoint(CHAT, "messages", "anthropic"),
    "chat/completions": ApiEndpoint(CHAT, "chat", "openai"),
}
# With OpenAI's own client, whose base address may end otherwise than in `/v1`.
_OPENAI_ENDPOINTS: Final = {
    "completions": _ENDPOINTS["v1/completions"],
    "embeddings": _ENDPOINTS["v1/embeddings"],
    "responses": _ENDPOINTS["v1/responses"],
}
# How they end: what to look at first, as most requests of a program end otherwise.
CALL_ENDINGS: Final = frozenset(path[-4:] for path in _ENDPOINTS)
POST: Final = frozenset({"POST", "post"})

#: The model of a call whose body cannot be looked at without being taken from who sends
#: it (an iterator, a file), or is too large to be decoded and names it at neither end.
UNKNOWN_MODEL: Final = "unknown"

# Above this size a request is not decoded; the fields are looked for at both its ends.
_MAX_DECODED: Final = 4 << 20
_ENDS: Final = 64 << 10
# In JSON a quote within a string is escaped, so this matches no text of a prompt.
_MODEL: Final = re.compile(rb'[{,]\s*"model"\s*:\s*("(?:[^"\\]|\\.){0,1000}")')
_STREAM: Final = re.compile(rb'[{,]\s*"stream"\s*:\s*(true|false)')


def may_be_call(method: str, path: str) -> bool:
    """Whether a request may be a call to a model: quick, for every request there is."""
    if method not in POST:
        return False
    if "?" in path:
        path = path.partition("?")[0]
    return path[-4:] in CALL_ENDINGS


def endpoint_of(
    method: str, path: str, *, by_openai_client: bool = False
) -> ApiEndpoint | None:
    """
    The kind of a request to a model; `None` for every other request.

    Args:
        method: `POST` or `post`.
        path: Of the address, with or without a query.
        by_openai_client: Whether OpenAI's own client made it.
    """
    return _endpoint_at(path, by_openai_client) if may_be_call(method, path) else None


@functools.lru_cache(maxsize=256)
def _endpoint_at(path: str, by_openai_client: bool) -> ApiEndpoint | None:
    parts = path.partition("?")[0].rsplit("/", 3)
    name = "/".join(parts[-2:])
    if name == "chat/completions":
        in_v1 = parts[:-2][-1:] == ["v1"]
        return _ENDPOINTS[name] if in_v1 or by_openai_client else None
    found = _ENDPOINTS.get(name)
    if found is None and by_openai_client:
        found = _OPENAI_ENDPOINTS.get(parts[-1])
    return found


def is_retry(headers: Mapping[str, str]) -> bool | None:
    """
    Whether a client tries an earlier request again; `None` if it does not say.

    Args:
        headers: Looked up by lower-case names. OpenAI's clients and Anthropic's count.
    """
    count = headers.get("x-stainless-retry-count")
    return None if count is None else count != "0"


class Asked(NamedTuple):
    """
    What a request's body asks for.

    Attributes:
        model: The model's name, perhaps `UNKNOWN_MODEL`; `None` if the body names none.
        stream: Whether it asks for a stream; `None` if it does not say.
    """

    model: str | None
    stream: bool | None


class _Request(msgspec.Struct):
    """The two fields that are looked at; the rest is skipped, not decoded."""

    model: Any = None
    stream: Any = None


_decode: Final = msgspec.json.Decoder(_Request).decode


def asked_by(body: object) -> Asked:
    """
    Read a request's body; nothing of it is kept.

    Args:
        body: JSON as `bytes`, `bytearray`, `memoryview` or `str`, or a dictionary;
            `None` if there is none. In any other form it is not looked at.
    """
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    if not isinstance(body, (bytes, bytearray, memoryview)):
        if isinstance(body, Mapping):
            return _asked(body.get("model"), body.get("stream"))
        return Asked(None if body is None else UNKNOWN_MODEL, None)
    if len(body) > _MAX_DECODED:
        return _asked_at_the_ends(body)
    try:
        request = _decode(body)
    except RecursionError:  # nested deeper than is followed
        return _asked_at_the_ends(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _asked_loosely(body)
    return _asked(request.model, request.stream)


def _asked_loosely(body: bytes | bytearray | memoryview) -> Asked:
    """Read what is no JSON to the letter, but is to servers: half an emoji, say."""
    try:
        request = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return Asked(None, None)
    return asked_by(request) if isinstance(request, dict) else Asked(None, None)


def _asked(model: object, stream: object) -> Asked:
    return Asked(
        model if isinstance(model, str) else None,
        stream if isinstance(stream, bool) else None,
    )


def _asked_at_the_ends(body: bytes | bytearray | memoryview) -> Asked:
    ends = bytes(body[:_ENDS]), bytes(body[-_ENDS:])
    model = next(filter(None, map(_MODEL.search, ends)), None)
    stream = next(filter(None, map(_STREAM.search, ends)), None)
    try:
        name = UNKNOWN_MODEL if model is None else msgspec.json.decode(model[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        name = UNKNOWN_MODEL
    return _asked(name, None if stream is None else stream[1] == b"true")
