# SPDX-License-Identifier: MIT
"""The Ollama API of the embedded engine: HTTP in, one completion, HTTP out.

Field by field it answers as a genuine server does: durations are integer
nanoseconds, zeros are left out, a stream's metrics come with its last line, an error
before the first chunk gets a status and one after it a line. `/v1` answers are
llama.cpp's own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from ometrics.demo.engine_http import (
    CallerGoneError,
    EngineError,
    EngineListener,
    Json,
    JsonHandler,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Not a version of Ollama: nobody should take the embedded engine for one.
VERSION = "0.0.0-ometrics"
KEEP_ALIVE = timedelta(minutes=5)

# Ollama's names of sampling options -> llama.cpp's; others are ignored.
OPTIONS = {
    "num_predict": "max_tokens",
    "temperature": "temperature",
    "seed": "seed",
    "stop": "stop",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


@dataclass(frozen=True)
class Completion:
    """How a completion ended; `admitted_ns` is `perf_counter_ns` at its slot."""

    admitted_ns: int
    reason: str
    timings: Json


class Complete(Protocol):
    """`Engine.complete`, all that this file knows of the engine."""

    def __call__(
        self,
        request: Json,
        sink: Callable[[Json], None],
        gone: Callable[[], bool],
        *,
        chat: bool,
    ) -> Completion:
        """Run one completion to its end."""
        ...


@dataclass(frozen=True)
class ModelFacts:
    """What `/api/tags`, `/api/ps` and `/api/show` answer about the model."""

    name: str
    path: Path
    size: int
    context: int
    meta: Json

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, read once, on first use."""
        digest = sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @property
    def details(self) -> Json:
        """The `details` of every listing."""
        return {
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": f"{self.meta.get('n_params', 0) / 1e6:.2f}M",
            "quantization_level": self.meta.get("ftype", ""),
        }

    def listing(self) -> Json:
        """The part that `/api/tags` and `/api/ps` share."""
        return {
            "name": self.name,
            "model": self.name,
            "size": self.size,
            "digest": self.digest,
            "details": self.details,
        }


class ApiListener(EngineListener):
    """The listener with what its handlers need."""

    def __init__(self, complete: Complete, facts: ModelFacts) -> None:
        self.complete = complete
        self.facts = facts
        super().__init__(_Handler)


class _Handler(JsonHandler):
    """One connection; every request of it in turn."""

    server: ApiListener

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        """Answer the listings."""
        facts = self.server.facts
        route = self.path.partition("?")[0]
        if route == "/":
            self.send(200, b"Ollama is running", "text/plain; charset=utf-8")
        elif route == "/api/version":
            self.send_json(200, {"version": VERSION})
        elif route == "/api/tags":
            changed = datetime.fromtimestamp(facts.path.stat().st_mtime, timezone.utc)
            listing = {**facts.listing(), "modified_at": changed.isoformat()}
            self.send_json(200, {"models": [listing]})
        elif route == "/api/ps":
            running = {
                **facts.listing(),
                "size_vram": 0,
                "context_length": facts.context,
                "expires_at": (datetime.now(timezone.utc) + KEEP_ALIVE).isoformat(),
            }
            self.send_json(200, {"models": [running]})
        elif route == "/v1/models":
            model = {"id": facts.name, "object": "model", "created": 0}
            data = [{**model, "owned_by": "library"}]
            self.send_json(200, {"object": "list", "data": data})
        else:
            self.send(404, b"404 page not found", "text/plain")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        """Answer a completion, or refuse it."""
        self._entered_ns = time.perf_counter_ns()
        self.streaming = False
        answers: dict[str, Callable[[Json], None]] = {
            "/api/chat": self._chat,
            "/api/generate": self._generate,
            "/api/show": self._show,
            "/api/embed": self._no_embeddings,
            "/api/embeddings": self._no_embeddings,
            "/v1/chat/completions": self._openai,
        }
        route = self.path.partition("?")[0]
        if route not in answers:
            self.send(404, b"404 page not found", "text/plain")
            self.close_connection = True
            return

        try:
            body = self.body()
            self._check(body)
            answers[route](body)
        except EngineError as error:
            self._refuse(error)
        except CallerGoneError:
            self.close_connection = True

    # The requests

    def _chat(self, body: Json) -> None:
        messages = body.get("messages") or []
        if not messages:
            message = {"role": "assistant", "content": ""}
            self.send_json(200, self._loaded(body, message=message))
            return

        kept = [
            {
                "role": message.get("role", "user"),
                "content": message.get("content") or "",
            }
            for message in messages
        ]
        self._complete(
            body,
            {"messages": kept},
            lambda text: {"message": {"role": "assistant", "content": text}},
            chat=True,
        )

    def _generate(self, body: Json) -> None:
        prompt = body.get("prompt") or ""
        if not prompt:
            self.send_json(200, self._loaded(body, response=""))
            return

        if body.get("raw"):
            request: Json = {"prompt": prompt}
        else:
            messages = [{"role": "user", "content": prompt}]
            if system := body.get("system"):
                messages.insert(0, {"role": "system", "content": system})
            request = {"messages": messages}
        self._complete(
            body,
            request,
            lambda text: {"response": text},
            chat="messages" in request,
        )

    def _show(self, _: Json) -> None:
        facts = self.server.facts
        info = {
            "general.architecture": "llama",
            "general.parameter_count": facts.meta.get("n_params"),
            "llama.context_length": facts.meta.get("n_ctx_train"),
            "llama.embedding_length": facts.meta.get("n_embd"),
        }
        answer = {"details": facts.details, "model_info": info}
        self.send_json(200, {**answer, "capabilities": ["completion"]})

    def _no_embeddings(self, _: Json) -> None:
        raise EngineError(501, "this model does not support embeddings")

    def _complete(
        self, body: Json, request: Json, shape: Callable[[str], Json], *, chat: bool
    ) -> None:
        """
        Run a completion and answer as `/api/chat` and `/api/generate` do.

        Args:
            body: The client's request.
            request: llama.cpp's `messages` or `prompt`.
            shape: Puts a piece of text where this endpoint has it.
            chat: Whether `request` holds messages.
        """
        stream = body.get("stream", True) is not False
        texts: list[str] = []

        def sink(chunk: Json) -> None:
            text = _text(chunk)
            if text and stream:
                self.send_line(self._head(body, shape(text), done=False))
            elif text:
                texts.append(text)

        request = {**request, **_sampling(body)}
        end = self.server.complete(request, sink, self.gone, chat=chat)
        last = {
            **self._head(body, shape("".join(texts)), done=True),
            "done_reason": "length" if end.reason == "length" else "stop",
            **self._metrics(end),
        }
        if stream:
            self.send_line(last)
            self.end_stream()
        else:
            self.send_json(200, last)

    def _openai(self, body: Json) -> None:
        """Pass llama.cpp's own answer through, put together if not streamed."""
        if body.get("stream"):
            self.server.complete(body, self.send_event, self.gone, chat=True)
            self.write_stream(b"data: [DONE]\n\n")
            self.end_stream()
            return

        if body.get("n", 1) != 1:
            raise EngineError(400, "only n = 1 is supported")
        chunks: list[Json] = []
        request = {**body, "stream_options": {"include_usage": True}}
        end = self.server.complete(request, chunks.append, self.gone, chat=True)
        text = "".join(map(_text, chunks))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": end.reason,
        }
        answer = {**chunks[-1], "object": "chat.completion", "choices": [choice]}
        self.send_json(200, answer)

    # What a request must be

    def _check(self, body: Json) -> None:
        model = body.get("model")
        if not model:
            raise EngineError(400, "model is required")
        full = model if ":" in str(model) else f"{model}:latest"
        if full != self.server.facts.name:
            raise EngineError(404, f"model '{model}' not found")
        if body.get("tools"):
            raise EngineError(400, f"{model} does not support tools")
        messages = body.get("messages") or []
        if not isinstance(messages, list) or not all(
            isinstance(message, dict) for message in messages
        ):
            raise EngineError(400, "messages must be a list of objects")
        if body.get("images") or any(message.get("images") for message in messages):
            raise EngineError(400, f"{model} does not support images")
        if not isinstance(body.get("options") or {}, dict):
            raise EngineError(400, "options must be an object")

    # What answers are made of

    def _refuse(self, error: EngineError) -> None:
        """Tell of an error: by status, or in a stream that has begun by a line."""
        openai = self.path.startswith("/v1/")
        details: Json = {"message": str(error), "type": "api_error"}
        answer: Json = {"error": details if openai else str(error)}
        if not self.streaming:
            self.send_json(error.status, answer)
            return

        send = self.send_event if openai else self.send_line
        send(answer)
        self.end_stream()

    def _head(self, body: Json, content: Json, *, done: bool) -> Json:
        return {"model": body["model"], "created_at": _now(), **content, "done": done}

    def _loaded(self, body: Json, **content: Any) -> Json:
        """The answer to an empty prompt: no inference, so no durations."""
        unload = body.get("keep_alive") in (0, "0", "0s", "0m")
        return {
            **self._head(body, content, done=True),
            "done_reason": "unload" if unload else "load",
        }

    def _metrics(self, end: Completion) -> Json:
        """The final line's figures; a zero is left out, except of the cached ones."""
        timings = end.timings
        cached = timings.get("cache_n")
        metrics = {
            "total_duration": time.perf_counter_ns() - self._entered_ns,
            "load_duration": end.admitted_ns - self._entered_ns,
            "prompt_eval_count": (cached or 0) + timings.get("prompt_n", 0),
            "prompt_eval_duration": _ns(timings.get("prompt_ms", 0)),
            "eval_count": timings.get("predicted_n", 0),
            "eval_duration": _ns(timings.get("predicted_ms", 0)),
        }
        sent: Json = {name: value for name, value in metrics.items() if value}
        if cached is not None:
            sent["prompt_eval_cached_count"] = cached
        return sent


def _sampling(body: Json) -> Json:
    """Ollama's `options` and `format` as llama.cpp wants them."""
    options = body.get("options") or {}
    request = {
        OPTIONS[name]: value
        for name, value in options.items()
        if name in OPTIONS and value is not None
    }
    wanted = body.get("format")
    if wanted == "json":
        request["response_format"] = {"type": "json_object"}
    elif isinstance(wanted, dict):
        schema = {"name": "format", "schema": wanted}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def _text(chunk: Json) -> str:
    """The text of one chunk of a chat or of a plain completion."""
    choice: Json = (chunk.get("choices") or [{}])[0]
    return choice.get("text") or choice.get("delta", {}).get("content") or ""


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


def _now() -> str:
    """RFC 3339 as Go prints it: UTC, nanoseconds without their trailing zeros."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{stamp}{fraction}Z"
