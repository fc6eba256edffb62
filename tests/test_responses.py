# SPDX-License-Identifier: MIT
"""`record_response`: what people who call HTTP themselves hand over."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import ollama
import pytest
from instrumenting import MODEL, SUCCEEDED, call_metrics, outcomes
from openai.types.chat import ChatCompletion

from ometrics import MetricsCollector
from ometrics.testing import (
    chat_chunk,
    chat_done,
    chat_response,
    embed_response,
    embeddings_response,
    generate_response,
    openai_embeddings,
    openai_response,
    openai_usage,
)

MS = 1_000_000  # nanoseconds
TIMES = {
    "total_duration": 100 * MS,
    "load_duration": 10 * MS,
    "prompt_eval_duration": 20 * MS,
    "eval_duration": 60 * MS,
}


@pytest.fixture
def collector() -> MetricsCollector:
    """A collector."""
    return MetricsCollector()


ANSWERS: dict[str, tuple[Any, str]] = {
    "chat": (chat_response(), "chat"),
    "last line": (chat_done(), "chat"),
    "raw JSON": (json.dumps(chat_done()).encode(), "chat"),
    "text of JSON": (json.dumps(chat_done(), indent=2), "chat"),
    "chat object": (ollama.ChatResponse(**chat_response()), "chat"),
    "generate": (generate_response(), "text_completion"),
    "generate object": (
        ollama.GenerateResponse(**generate_response()),
        "text_completion",
    ),
    "embed": (embed_response(), "embeddings"),
    "embed object": (ollama.EmbedResponse(**embed_response()), "embeddings"),
    "openai": (openai_response(), "chat"),
    "openai object": (ChatCompletion(**openai_response()), "chat"),
    "openai usage": (openai_usage(), "chat"),
    "openai embeddings": (openai_embeddings(), "embeddings"),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_forms(collector: MetricsCollector, form: str) -> None:
    """Every form counts as one success, with its tokens."""
    answer, operation = ANSWERS[form]
    collector.record_response(answer)
    call = call_metrics(collector, operation)

    assert SUCCEEDED == outcomes(collector, operation)
    assert 16 == call.prompt_tokens
    assert (None if operation == "embeddings" else 8) == call.completion_tokens


def test_the_servers_total_stands_in_for_the_latency(
    collector: MetricsCollector,
) -> None:
    """Nobody timed the call, so the network's share is unknown."""
    collector.record_response(chat_response(**TIMES, prompt_eval_cached_count=4))
    call = call_metrics(collector)

    assert [100 * MS, 10 * MS, 20 * MS, 60 * MS, 10 * MS] == [
        getattr(call, name).sum_ns
        for name in ("latency", "load", "prefill", "decode", "residual")
    ]
    assert 0 == call.network.count
    assert 4 == call.cached_tokens
    assert {"stop": 1} == call.done_reasons


@pytest.mark.parametrize("latency", [0.125, timedelta(milliseconds=125)])
def test_with_a_latency(
    collector: MetricsCollector, latency: float | timedelta
) -> None:
    """What is beyond the server's total is the network's."""
    collector.record_response(chat_response(**TIMES), latency=latency)
    call = call_metrics(collector)

    assert [125 * MS, 25 * MS] == [call.latency.sum_ns, call.network.sum_ns]


@pytest.mark.parametrize(
    ("latency", "reason"),
    [(float("nan"), "nan"), (float("inf"), "infinite"), (-1.0, "negative")],
)
def test_a_latency_that_is_no_duration(
    collector: MetricsCollector, latency: float, reason: str
) -> None:
    """The call still counts, the value by its reason."""
    collector.record_response(chat_response(**TIMES), latency=latency)
    snapshot = collector.snapshot()

    assert {reason: 1} == snapshot.invalid_values
    assert 1 == snapshot.models[MODEL].latency_unknown
    assert (0, 1) == (
        call_metrics(collector).latency.count,
        call_metrics(collector).load.count,
    )


def test_latest_is_one_series(collector: MetricsCollector) -> None:
    """As in instrumented calls."""
    collector.record_response(chat_response(model="x:latest"))
    collector.record_response(chat_response(model="x"))

    assert (2, 0, 0, 0) == outcomes(collector, model="x")


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_load_and_unload_are_not_inference(
    collector: MetricsCollector, reason: str
) -> None:
    """They answer no request for inference."""
    collector.record_response(chat_response("", done_reason=reason))

    assert 0 == collector.snapshot().total_requests


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "not the response"),
        (7, "not the response"),
        ({}, "no fields"),
        ({"error": "model not found"}, "with error"),
        (b"{", "not JSON"),
        (chat_chunk("half"), "not finished"),
        (embeddings_response(), "which model"),
    ],
)
def test_what_is_no_finished_call(
    collector: MetricsCollector, answer: Any, message: str
) -> None:
    """It raises at once and counts nothing."""
    with pytest.raises(TypeError, match=message):
        collector.record_response(answer)

    assert {} == dict(collector.snapshot().models)


def test_latency_that_is_no_number(collector: MetricsCollector) -> None:
    """Neither does this, nor is the call left in flight."""
    with pytest.raises(TypeError):
        collector.record_response(chat_response(), latency="1")  # type: ignore[arg-type]

    assert {} == dict(collector.snapshot().models)
