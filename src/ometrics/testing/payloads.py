"""
What a genuine server (Ollama 0.33) says, as plain dictionaries.

Counts and durations (integer nanoseconds) bear the names they have on the wire. As on
the wire, `None` and 0 are not sent, but for `prompt_eval_cached_count`, whose 0 says
"none cached" and whose absence says nothing. To send another zero: `chat_done() |
{"eval_count": 0}`. Durations are shorter than a round trip on loopback takes, so that
client and server times of a scripted call add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from .steps import Send

MODEL = "llama3.2"
_SECOND_NS = 1_000_000_000
_START_NS = 1_795_399_034_426_000_000  # 2026-11-23T01:57:14.426Z
_START = _START_NS // _SECOND_NS

#: Residual (total less the three others): 4,416 ns.
TIMINGS: Mapping[str, int] = {
    "total_duration": 38_967,
    "load_duration": 9_751,
    "prompt_eval_count": 16,
    "prompt_eval_duration": 13_700,
    "eval_count": 8,
    "eval_duration": 11_100,
}

OPENAI_DONE = Send(b"data: [DONE]\n\n")
"""The last event of an OpenAI-style stream."""


def created_at(unix_ns: int = _START_NS) -> str:
    """Return RFC 3339 of nanoseconds since 1970, trailing zeros dropped as Go does."""
    seconds, fraction = divmod(unix_ns, _SECOND_NS)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f".{fraction:09}".rstrip("0")
    return f"{text}{digits if fraction else ''}Z"


def chat_chunk(
    content: str = "",
    *,
    thinking: str | None = None,
    tool_calls: Sequence[Mapping[str, Any]] | None = None,
    model: str = MODEL,
    **extra: Any,
) -> dict[str, Any]:
    """Return a chunk of `/api/chat` before the last."""
    message = _message(content, thinking, tool_calls)
    return _stamp(model) | {"message": message, "done": False} | extra


def chat_done(
    content: str = "",
    *,
    thinking: str | None = None,
    tool_calls: Sequence[Mapping[str, Any]] | None = None,
    model: str = MODEL,
    done_reason: str | None = "stop",
    **metrics: Any,
) -> dict[str, Any]:
    """
    Return the last chunk of `/api/chat`.

    Args:
        content: Usually empty in a stream, the whole answer otherwise.
        thinking: The same for the thoughts.
        tool_calls: As in `message.tool_calls`.
        model: The name to answer with.
        done_reason: `stop`, `length`, or `load` and `unload`, which carry no metrics.
        metrics: Replace or add fields; `None` leaves one out.
    """
    message = _message(content, thinking, tool_calls)
    return _stamp(model) | {"message": message} | _ending(done_reason, metrics)


def chat_response(content: str = "Hello, world!", **fields: Any) -> dict[str, Any]:
    """Return the body of an unstreamed `/api/chat`; fields as for `chat_done`."""
    return chat_done(content, **fields)


def generate_chunk(
    response: str = "",
    *,
    thinking: str | None = None,
    model: str = MODEL,
    **extra: Any,
) -> dict[str, Any]:
    """Return a chunk of `/api/generate` before the last."""
    thought = {} if thinking is None else {"thinking": thinking}
    return _stamp(model) | {"response": response, **thought, "done": False} | extra


def generate_done(
    response: str = "",
    *,
    thinking: str | None = None,
    model: str = MODEL,
    done_reason: str | None = "stop",
    **metrics: Any,
) -> dict[str, Any]:
    """Return the last chunk of `/api/generate`; arguments as for `chat_done`."""
    thought = {} if thinking is None else {"thinking": thinking}
    answer = {"response": response, **thought}
    return _stamp(model) | answer | _ending(done_reason, metrics)


def generate_response(response: str = "Hello, world!", **fields: Any) -> dict[str, Any]:
    """Return the body of an unstreamed `/api/generate`."""
    return generate_done(response, **fields)


def embed_response(
    inputs: int = 1, *, dimensions: int = 4, model: str = MODEL, **metrics: Any
) -> dict[str, Any]:
    """Return the body of `/api/embed`: a vector an input, and no `eval_*` fields."""
    vectors = {"model": model, "embeddings": [_vector(dimensions)] * inputs}
    wanted = ("total_duration", "load_duration", "prompt_eval_count")
    return vectors | _sent({name: TIMINGS[name] for name in wanted} | metrics)


def embeddings_response(*, dimensions: int = 4) -> dict[str, Any]:
    """Return the body of the old `/api/embeddings`: no metrics at all."""
    return {"embedding": _vector(dimensions)}


def tags_response(models: Sequence[str] = (MODEL,)) -> dict[str, Any]:
    """Return the body of `/api/tags`: the models on disk."""
    modified = {"modified_at": created_at()}
    return {"models": [_model(name) | modified for name in models]}


def ps_response(models: Sequence[str] = (MODEL,)) -> dict[str, Any]:
    """Return the body of `/api/ps`: the models in memory, on a machine without GPU."""
    state = {
        "expires_at": created_at(_START_NS + 300 * _SECOND_NS),
        "size_vram": 0,
        "context_length": 4096,
    }
    return {"models": [_model(name) | state for name in models]}


def openai_chunk(
    content: str | None = "",
    *,
    finish_reason: str | None = None,
    model: str = MODEL,
    **extra: Any,
) -> dict[str, Any]:
    """Return a `chat.completion.chunk`; the last one has a `finish_reason`."""
    delta = {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _openai("chat.completion.chunk", model) | {"choices": [choice]} | extra


def openai_usage(
    prompt_tokens: int = 16,
    completion_tokens: int = 8,
    *,
    cached_tokens: int | None = None,
    model: str = MODEL,
) -> dict[str, Any]:
    """Return the extra chunk that `stream_options.include_usage` asks for."""
    usage = _usage(prompt_tokens, completion_tokens, cached_tokens)
    return _openai("chat.completion.chunk", model) | {"choices": [], "usage": usage}


def openai_response(
    content: str = "Hello, world!",
    *,
    finish_reason: str = "stop",
    prompt_tokens: int = 16,
    completion_tokens: int = 8,
    cached_tokens: int | None = None,
    model: str = MODEL,
) -> dict[str, Any]:
    """Return the body of an unstreamed `/v1/chat/completions`."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = _usage(prompt_tokens, completion_tokens, cached_tokens)
    head = _openai("chat.completion", model)
    return head | {"choices": [choice], "usage": usage}


def openai_embeddings(
    inputs: int = 1, *, dimensions: int = 4, model: str = MODEL
) -> dict[str, Any]:
    """Return the body of `/v1/embeddings`."""
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(dimensions)}
        for index in range(inputs)
    ]
    usage = {"prompt_tokens": 16, "total_tokens": 16}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _stamp(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": created_at()}


def _message(
    content: str,
    thinking: str | None,
    tool_calls: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking is not None:
        message["thinking"] = thinking
    if tool_calls is not None:
        message["tool_calls"] = list(tool_calls)
    return message


def _ending(done_reason: str | None, metrics: Mapping[str, Any]) -> dict[str, Any]:
    timings = {} if done_reason in ("load", "unload") else TIMINGS
    reason = {} if done_reason is None else {"done_reason": done_reason}
    return {"done": True, **reason, **_sent({**timings, **metrics})}


def _sent(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what Go's `omitempty` leaves out."""
    return {
        name: value
        for name, value in fields.items()
        if value or (name == "prompt_eval_cached_count" and value is not None)
    }


def _vector(dimensions: int) -> list[float]:
    return [round(0.5 / (index + 1), 6) for index in range(dimensions)]


def _model(name: str) -> dict[str, Any]:
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }
    tagged = name if ":" in name else f"{name}:latest"
    size = {"size": 2_019_393_189, "digest": "a" * 64, "details": details}
    return {"name": tagged, "model": tagged, **size}


def _openai(kind: str, model: str) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": kind, "created": _START}
    return {**head, "model": model, "system_fingerprint": "fp_ollama"}


def _usage(prompt: int, completion: int, cached: int | None) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return usage
