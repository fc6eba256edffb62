# SPDX-License-Identifier: MIT
"""Payloads look like those of a genuine Ollama."""

from __future__ import annotations

import pytest

from ometrics.testing import (
    chat_chunk,
    chat_done,
    created_at,
    generate_chunk,
    generate_done,
)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_399_034_426_000_000, "2026-11-23T01:57:14.426Z"),
        (1_795_399_034_426_000_001, "2026-11-23T01:57:14.426000001Z"),
    ],
)
def test_created_at_drops_trailing_zeros(nanoseconds: int, text: str) -> None:
    """Go's RFC 3339 has no fraction, or one without zeros at its end."""
    assert text == created_at(nanoseconds)


def test_the_last_line_looks_like_a_genuine_one() -> None:
    """Names and their order are those of Ollama 0.33; durations are whole numbers."""
    done = chat_done(eval_count=2)
    keys = (
        "model created_at message done done_reason total_duration load_duration "
        "prompt_eval_count prompt_eval_duration eval_count eval_duration"
    )

    assert keys.split() == list(done)
    assert {int} == {type(done[key]) for key in done if key.endswith("_duration")}
    assert 2 == done["eval_count"]


def test_zero_and_none_are_not_sent() -> None:
    """As with Go's `omitempty`; only a cached count of 0 says something."""
    done = generate_done(eval_count=0, total_duration=None, prompt_eval_cached_count=0)

    assert 0 == done["prompt_eval_cached_count"]
    assert not {"eval_count", "total_duration"} & done.keys()
    assert "prompt_eval_cached_count" not in generate_done()


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_and_unloading_carry_no_metrics(reason: str) -> None:
    """Such an answer is no inference and has no duration."""
    done = chat_done(done_reason=reason)

    assert ["model", "created_at", "message", "done", "done_reason"] == list(done)


def test_optional_parts_of_a_message() -> None:
    """Thoughts and tool calls appear only when given."""
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    message = chat_chunk("", thinking="hm", tool_calls=[call])["message"]

    assert {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
        "tool_calls": [call],
    } == (message)
    assert {"role", "content"} == chat_chunk("x")["message"].keys()
    assert "hm" == generate_chunk(thinking="hm")["thinking"]
