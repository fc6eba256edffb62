# SPDX-License-Identifier: MIT
"""`record_response`: a finished answer that the caller has in hand, as any object."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ometrics._calls import record_call
from ometrics.instrumentation.endpoints import CHAT, EMBEDDINGS, TEXT
from ometrics.instrumentation.usage import (
    NOT_INFERENCE,
    Usage,
    canonical,
    field,
    ollama_usage,
    openai_usage,
)

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

_OPENAI_OBJECTS: Final = {
    "chat.completion": CHAT,
    "chat.completion.chunk": CHAT,
    "text_completion": TEXT,
    "list": EMBEDDINGS,
    "response": CHAT,
}
_OLLAMA_FIELDS: Final = (
    ("message", CHAT),
    ("response", TEXT),
    ("embeddings", EMBEDDINGS),
    ("embedding", EMBEDDINGS),
)


def finish_reason(answer: object) -> Any:
    """The `finish_reason` of the first choice that has one."""
    for choice in field(answer, "choices") or ():
        reason = field(choice, "finish_reason")
        if reason is not None:
            return reason
    return None


def record(
    collector: MetricsCollector,
    response: object,
    latency: float | timedelta | None,
) -> None:
    """
    Count a finished call; see `MetricsCollector.record_response`.

    Raises:
        TypeError: `response` is neither form of a finished call, or `latency` is no
            number.
    """
    answer = _decoded(response)
    operation, numbers = _read(answer)
    model = field(answer, "model") or field(answer, "remote_model")
    if not isinstance(model, str):
        raise TypeError("the response does not say which model answered")
    if numbers.done_reason in NOT_INFERENCE:
        return
    seconds = latency.total_seconds() if isinstance(latency, timedelta) else latency
    record_call(collector, canonical(model), operation, seconds, *numbers)


def _decoded(response: object) -> object:
    if not isinstance(response, (str, bytes, bytearray)):
        return response
    try:
        return msgspec.json.decode(response)
    except msgspec.DecodeError as error:
        raise TypeError(f"the response is not JSON: {error}") from None


def _read(answer: object) -> tuple[str, Usage]:
    """Operation and numbers of a finished answer of either form."""
    kind = field(answer, "object")
    usage = field(answer, "usage")
    if kind in _OPENAI_OBJECTS:
        return _OPENAI_OBJECTS[kind], openai_usage(usage, finish_reason(answer))
    present = _fields_of(answer)
    operation = next((op for name, op in _OLLAMA_FIELDS if name in present), None)
    if operation is None:
        raise TypeError(
            f"not the response of a finished call: {type(answer).__name__} with"
            f" {', '.join(sorted(map(str, present))) or 'no fields'}"
        )
    if present.get("done") is False:
        raise TypeError("the response is not finished: it says done is false")
    return operation, ollama_usage(present)


def _fields_of(answer: object) -> Mapping[str, Any]:
    """The fields that a server sent, without copying what they hold."""
    if isinstance(answer, Mapping):
        return answer
    names = getattr(type(answer), "model_fields", ())  # pydantic's
    values = {name: getattr(answer, name, None) for name in names}
    extra = getattr(answer, "model_extra", None) or {}
    return {n: v for n, v in {**values, **extra}.items() if v is not None}
