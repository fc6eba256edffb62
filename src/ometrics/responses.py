# SPDX-License-Identifier: MIT
"""What a finished answer tells: Ollama's and OpenAI's forms -> numbers of a call.

Only numbers, `done_reason` and the model's name are read. A field that is absent is
`None`: both servers leave out what they do not know, Ollama also what is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ometrics._calls import record_call

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

CHAT: Final = "chat"
TEXT: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"

# Answers to a request that only loads or unloads a model: not inference.
NOT_INFERENCE: Final = frozenset({"load", "unload"})

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


class Told(NamedTuple):
    """What a server told of a call, in the order of `Call.end`; durations in ns."""

    total: object = None
    load: object = None
    prefill: object = None
    decode: object = None
    prompt_tokens: object = None
    cached_tokens: object = None
    completion_tokens: object = None
    done_reason: object = None


NOTHING: Final = Told()


def canonical(model: str) -> str:
    """The model's name without the tag that Ollama adds where there is none."""
    return model.removesuffix(":latest")


def told_by_ollama(answer: Mapping[str, Any]) -> Told:
    """The numbers of Ollama's body, or of the last line of its stream."""
    get = answer.get
    return Told(
        get("total_duration"),
        get("load_duration"),
        get("prompt_eval_duration"),
        get("eval_duration"),
        get("prompt_eval_count"),
        get("prompt_eval_cached_count"),
        get("eval_count"),
        get("done_reason"),
    )


def told_by_usage(usage: object, reason: object = None) -> Told:
    """
    The numbers of OpenAI's `usage`, which tells tokens and no durations.

    Args:
        usage: Dictionary or object; `None` if the server sent none.
        reason: The `finish_reason`.
    """
    if usage is None:
        return Told(done_reason=reason)
    prompt, completion = (
        field(usage, "prompt_tokens"),
        field(usage, "completion_tokens"),
    )
    details = field(usage, "prompt_tokens_details")
    if prompt is None:  # the Responses interface has other names for the same
        prompt, completion = field(usage, "input_tokens"), field(usage, "output_tokens")
        details = field(usage, "input_tokens_details")
    cached = None if details is None else field(details, "cached_tokens")
    return Told(
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        done_reason=reason,
    )


def field(holder: object, name: str) -> Any:
    """A field of a dictionary or of a client's object; `None` if it is not there."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)


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
    operation, told = _read(answer)
    model = field(answer, "model") or field(answer, "remote_model")
    if not isinstance(model, str):
        raise TypeError("the response does not say which model answered")
    if told.done_reason in NOT_INFERENCE:
        return
    seconds = latency.total_seconds() if isinstance(latency, timedelta) else latency
    record_call(collector, canonical(model), operation, seconds, *told)


def _decoded(response: object) -> object:
    if not isinstance(response, (str, bytes, bytearray)):
        return response
    try:
        return msgspec.json.decode(response)
    except msgspec.DecodeError as error:
        raise TypeError(f"the response is not JSON: {error}") from None


def _read(answer: object) -> tuple[str, Told]:
    """Operation and numbers of a finished answer of either form."""
    kind = field(answer, "object")
    usage = field(answer, "usage")
    if kind in _OPENAI_OBJECTS:
        return _OPENAI_OBJECTS[kind], told_by_usage(usage, finish_reason(answer))
    present = _fields_of(answer)
    operation = next((op for name, op in _OLLAMA_FIELDS if name in present), None)
    if operation is None:
        raise TypeError(
            f"not the response of a finished call: {type(answer).__name__} with"
            f" {', '.join(sorted(map(str, present))) or 'no fields'}"
        )
    if present.get("done") is False:
        raise TypeError("the response is not finished: it says done is false")
    return operation, told_by_ollama(present)


def _fields_of(answer: object) -> Mapping[str, Any]:
    """The fields that a server sent, without copying what they hold."""
    if isinstance(answer, Mapping):
        return answer
    names = getattr(type(answer), "model_fields", ())  # pydantic's
    values = {name: getattr(answer, name, None) for name in names}
    extra = getattr(answer, "model_extra", None) or {}
    return {n: v for n, v in {**values, **extra}.items() if v is not None}
