"""What the scripted server answers when no script says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from . import payloads as p
from ._request import Request
from .steps import Piece, Status, Together

#: The version whose payloads are imitated.
VERSION = "0.33.2"


class Defaults:
    """
    Answers of a healthy server.

    Args:
        answer: The pieces of every answer, one chunk each.
        models: The models it has; None means any.

    Thread-safety:
        `reply` may be called from any thread.
    """

    def __init__(self, answer: Sequence[str], models: Sequence[str] | None) -> None:
        self._answer = tuple(answer)
        self._models = None if models is None else {_tagged(name) for name in models}
        self._listed = models if models is not None else (p.MODEL,)
        # A long answer is rendered once, so that a benchmark times its client.
        self._talk = lru_cache(maxsize=64)(self._make_talk)

    def reply(self, request: Request) -> Sequence[Piece]:
        """Return the script for a request."""
        path = request.path
        fixed: dict[str, Any] = {
            "/api/tags": p.tags_response(self._listed),
            "/api/ps": p.ps_response(self._listed),
            "/api/version": {"version": VERSION},
        }
        if path in fixed:
            return [fixed[path]]
        if path == "/":
            return [Status(200, "Ollama is running")]
        body = request.json if isinstance(request.json, dict) else {}
        model = str(body.get("model") or "")
        if path in _EMBED or path in _TALK:
            problem = self._problem(model, openai=path.startswith("/v1/"))
            if problem:
                return [problem]
        if path in _EMBED:
            asked = body.get("input", "")
            count = len(asked) if isinstance(asked, list) else 1
            return [_EMBED[path](model, count)]
        if path in _TALK:
            return self._reply_talk(request, body, model)
        return [Status(404, "404 page not found")]

    def _problem(self, model: str, *, openai: bool) -> Status | None:
        if not model:
            code, message = 400, "model is required"
        elif self._models is not None and _tagged(model) not in self._models:
            code, message = 404, f"model '{model}' not found"
        else:
            return None
        if not openai:
            return Status(code, {"error": message})
        error = {"message": message, "type": "api_error", "param": None, "code": None}
        return Status(code, {"error": error})

    def _reply_talk(
        self, request: Request, body: dict[str, Any], model: str
    ) -> Sequence[Piece]:
        if request.path in _ASKED_IN and not body.get(_ASKED_IN[request.path]):
            reason = "unload" if body.get("keep_alive") == 0 else "load"
            done = p.chat_done if request.path == "/api/chat" else p.generate_done
            return [done(model=model, done_reason=reason)]
        options = body.get("stream_options") or {}
        usage = bool(options.get("include_usage"))
        return self._talk(request.path, request.stream, model, usage)

    def _make_talk(
        self, path: str, stream: bool, model: str, usage: bool
    ) -> Sequence[Piece]:
        words = self._answer
        tokens = len(words)
        if path == "/v1/chat/completions":
            if not stream:
                text = "".join(words)
                return [p.openai_response(text, model=model, completion_tokens=tokens)]
            pieces: list[Piece] = [p.openai_chunk(word, model=model) for word in words]
            pieces.append(p.openai_chunk(finish_reason="stop", model=model))
            if usage:
                pieces.append(p.openai_usage(completion_tokens=tokens, model=model))
            return [Together([*pieces, p.OPENAI_DONE])]
        chunk, done = (
            (p.chat_chunk, p.chat_done)
            if path == "/api/chat"
            else (p.generate_chunk, p.generate_done)
        )
        if not stream:
            return [done("".join(words), model=model, eval_count=tokens)]
        parts = [chunk(word, model=model) for word in words]
        return [Together([*parts, done(model=model, eval_count=tokens)])]


_ASKED_IN = {"/api/chat": "messages", "/api/generate": "prompt"}
_TALK = {*_ASKED_IN, "/v1/chat/completions"}
_EMBED: Mapping[str, Callable[[str, int], dict[str, Any]]] = {
    "/api/embed": lambda model, count: p.embed_response(count, model=model),
    "/api/embeddings": lambda _model, _count: p.embeddings_response(),
    "/v1/embeddings": lambda model, count: p.openai_embeddings(count, model=model),
}


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"
