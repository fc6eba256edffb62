# SPDX-License-Identifier: MIT
"""`Usage`: the numbers at the end of an answer, from each server's form of them.

Only numbers, the reason and the model's name are read. A field that is absent is
`None`: servers leave out what they do not know, Ollama also what is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

# Answers to a request that only loads or unloads a model: not inference.
NOT_INFERENCE: Final = frozenset({"load", "unload"})


class Usage(NamedTuple):
    """
    What a server reported of one call; `None` where it did not.

    Attributes:
        total: The server's whole duration in nanoseconds, as the three that follow.
        load: Waiting for a slot and loading.
        prefill: Evaluating the prompt.
        decode: Generating.
        prompt_tokens: Cached ones included.
        cached_tokens: Part of these that came from the cache.
        completion_tokens: Thinking included.
        done_reason: Why the answer ended, in the server's word.
    """

    total: object = None
    load: object = None
    prefill: object = None
    decode: object = None
    prompt_tokens: object = None
    cached_tokens: object = None
    completion_tokens: object = None
    done_reason: object = None


UNKNOWN: Final = Usage()


def canonical(model: str) -> str:
    """The model's name without the tag that Ollama adds where there is none."""
    return model.removesuffix(":latest")


def ollama_usage(answer: Mapping[str, Any]) -> Usage:
    """The numbers of Ollama's body, or of the last line of its stream."""
    get = answer.get
    return Usage(
        get("total_duration"),
        get("load_duration"),
        get("prompt_eval_duration"),
        get("eval_duration"),
        get("prompt_eval_count"),
        get("prompt_eval_cached_count"),
        get("eval_count"),
        get("done_reason"),
    )


def openai_usage(usage: object, reason: object = None) -> Usage:
    """
    The numbers of OpenAI's `usage`: tokens, no durations.

    Args:
        usage: Dictionary or object; `None` if the server sent none.
        reason: The `finish_reason`.
    """
    if usage is None:
        return Usage(done_reason=reason)
    prompt = field(usage, "prompt_tokens")
    completion = field(usage, "completion_tokens")
    details = field(usage, "prompt_tokens_details")
    if prompt is None:  # the Responses interface has other names for the same
        prompt, completion = field(usage, "input_tokens"), field(usage, "output_tokens")
        details = field(usage, "input_tokens_details")
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=None if details is None else field(details, "cached_tokens"),
        completion_tokens=completion,
        done_reason=reason,
    )


def anthropic_usage(usage: Mapping[str, Any] | None, reason: object = None) -> Usage:
    """The numbers of Anthropic's `usage`, whose `input_tokens` leave out the cache."""
    if usage is None:
        return Usage(done_reason=reason)
    prompt = usage.get("input_tokens")
    cached = usage.get("cache_read_input_tokens")
    if isinstance(prompt, int):
        for part in (cached, usage.get("cache_creation_input_tokens")):
            prompt += part if isinstance(part, int) else 0
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=usage.get("output_tokens"),
        done_reason=reason,
    )


def field(holder: object, name: str) -> Any:
    """A field of a dictionary or of a client's object; `None` if it is not there."""
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)
