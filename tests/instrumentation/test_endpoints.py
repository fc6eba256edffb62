# SPDX-License-Identifier: MIT
"""Which requests are calls to a model, and what their bodies ask for."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics.instrumentation import endpoints
from ometrics.instrumentation.endpoints import Asked, asked_by, endpoint_of

CALLS = {
    "/api/chat": ("chat", "ollama"),
    "/api/generate": ("text_completion", "ollama"),
    "/api/embed": ("embeddings", "ollama"),
    "/api/embeddings": ("embeddings", "ollama"),
    "/v1/chat/completions": ("chat", "openai"),
    "/v1/completions": ("text_completion", "openai"),
    "/v1/responses": ("chat", "openai"),
    "/v1/embeddings": ("embeddings", "openai"),
    "/v1/messages": ("chat", "anthropic"),
}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("prefix", ["", "/ollama", "/a/b"])
def test_calls(path: str, prefix: str) -> None:
    """Each interface's paths, with whatever a proxy puts before them."""
    found = endpoint_of("post", f"{prefix}{path}?x=/y")

    assert found is not None
    assert CALLS[path] == (found.operation, found.interface)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", path) for path in CALLS],
        *[("POST", path) for path in ("/api/pull", "/chat", "/messages", "/", "")],
        ("POST", "/chat/completions"),
        ("POST", "/embeddings"),
        ("POST", "/v1/chat/completions/id"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/messages/"),
    ],
)
def test_what_is_no_call(method: str, path: str) -> None:
    """Listing, pulling and other programs' paths are none."""
    assert endpoint_of(method, path) is None


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/chat/completions", "chat"),
        ("/openai/deployments/x/chat/completions", "chat"),
        ("/openai/deployments/x/embeddings", "embeddings"),
        ("/responses", "chat"),
    ],
)
def test_openai_client_at_another_address(path: str, operation: str) -> None:
    """OpenAI's own client is known wherever its base address ends."""
    found = endpoint_of("POST", path, by_openai_client=True)

    assert endpoint_of("POST", path) is None
    assert found is not None
    assert operation == found.operation


def test_details_of_a_model_count_only_failures() -> None:
    """A model that is not there fails where its details are asked for."""
    found = endpoint_of("POST", "/api/show")

    assert found is not None
    assert not found.counts_success


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
    ),
    st.none() | st.text(),
    st.none() | st.booleans(),
)
def test_asked_by_any_body(
    body: dict[str, Any], model: str | None, stream: bool | None
) -> None:
    """Model and `stream` of a body in any form, whatever else it holds."""
    body = body | {"model": model, "stream": stream}
    text = json.dumps(body)
    expected = Asked(model, stream)

    assert expected == asked_by(body) == asked_by(text)
    assert expected == asked_by(text.encode()) == asked_by(memoryview(text.encode()))


@pytest.mark.parametrize("body", [None, b"", b"[1]", b"\xff", b"{", b'{"model":1}'])
def test_asked_by_what_is_no_request(body: object) -> None:
    """Nothing is known of what is no JSON object with a model."""
    assert Asked(None, None) == asked_by(body)


@pytest.mark.parametrize("text", ["\ud83d", "\ude00\ud83d", float("nan")])
def test_asked_by_what_is_json_but_to_the_letter(text: object) -> None:
    """Half an emoji, as of a string cut in JavaScript, hides no call."""
    body = json.dumps({"messages": [{"content": text}], "model": "m"}).encode()

    assert Asked("m", None) == asked_by(body) == asked_by(bytearray(body))


@pytest.mark.parametrize(
    "body", [iter([b"{}"]), io.BytesIO(b"{}"), b" " * (endpoints._MAX_DECODED + 1)]
)
def test_asked_by_what_cannot_be_looked_at(body: object) -> None:
    """What would have to be taken from its sender, or is too large, is a call."""
    assert Asked("unknown", None) == asked_by(body)


@pytest.mark.parametrize("first", [True, False])
def test_asked_by_a_large_body(first: bool) -> None:
    """Of one with large pictures, both ends are looked at, and no prompt is a field."""
    lie = 'say ,"model": "no" and {"stream": true}'
    fields = {"model": 'a"b', "stream": False}
    said = {"messages": [{"content": lie}, {"images": ["x" * endpoints._MAX_DECODED]}]}
    body = fields | said if first else said | fields

    assert Asked('a"b', False) == asked_by(json.dumps(body).encode())
