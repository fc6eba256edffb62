# SPDX-License-Identifier: MIT
"""Where the demo's inference happens: an Ollama that answers, or the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import ollama

from ometrics.instrumentation.providers import ollama_host
from ometrics.view.escape import harmless

PROBE_TIMEOUT: Final = 2.0  # seconds
# Smaller "models" are entries for models in the cloud, which may cost money.
LEAST_BYTES: Final = 1_000_000
# Families that embed and cannot chat.
EMBEDDERS: Final = ("bert", "nomic")


class NoServerError(RuntimeError):
    """Neither an Ollama nor the engine can be had; the message says what to do."""


@dataclass(frozen=True)
class EngineServer:
    """
    A server and the model to use there.

    Attributes:
        model: Its name.
        host: Its address; `None` for the client's default.
        title: What it is, for people.
    """

    model: str
    host: str | None
    title: str

    @property
    def address(self) -> str:
        """Its URL, as `OLLAMA_HOST` has it if no host is given."""
        if self.host is not None:
            return self.host
        scheme = (
            "https" if os.environ.get("OLLAMA_HOST", "").startswith("https") else "http"
        )
        host, port = ollama_host(os.environ.get("OLLAMA_HOST", ""))
        return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"

    def client(self, timeout: float | None = None) -> ollama.Client:
        """A blocking client; `timeout` in seconds."""
        return ollama.Client(self.host, timeout=timeout, **self._direct())

    def async_client(self) -> ollama.AsyncClient:
        """An asyncio client."""
        return ollama.AsyncClient(self.host, **self._direct())

    def _direct(self) -> dict[str, Any]:
        """Never through a proxy to the engine in this very process."""
        return {} if self.host is None else {"trust_env": False}


@contextmanager
def find_server(
    *, engine: bool | None, model: str | None, progress: Callable[[str], None]
) -> Iterator[EngineServer]:
    """
    Find an Ollama, or start the engine and stop it in the end.

    Args:
        engine: True for the engine, False for an Ollama, `None` for what there is.
        model: Which of Ollama's models; `None` for its smallest.
        progress: Called with a line about each step.

    Raises:
        NoServerError: There is neither; the message says how to get one.
    """
    why = ""
    if not engine:
        progress("looking for an Ollama")
        server, why = _ollama(model)
        if server is not None:
            yield server
            return
        if engine is False or model is not None:
            raise NoServerError(
                f"{why}. Start it with 'ollama serve', get a model with 'ollama pull"
                f" {model or 'llama3.2'}', or use 'ometrics demo --engine'."
            )
    from ometrics.demo.engine import EngineUnavailableError, ModelEngine

    progress(f"{why}: starting an engine" if why else "starting an engine")
    running = ModelEngine(progress=progress)
    try:
        running.start()
    except EngineUnavailableError as error:
        reason = f"{why}, and " if why else ""
        raise NoServerError(f"{reason}{error}") from None
    try:
        title = f"embedded llama.cpp with {running.model}"
        yield EngineServer(running.model, running.url, title)
    finally:
        running.close()


def _ollama(model: str | None) -> tuple[EngineServer | None, str]:
    """The Ollama that answers and has a model, or why there is none."""
    client = ollama.Client(timeout=PROBE_TIMEOUT)
    address = client._client.base_url  # noqa: SLF001 - as the client understood it
    try:
        found = client.list().models
    except (OSError, httpx.HTTPError, ollama.ResponseError):
        return None, f"no Ollama answers at {address}"
    usable = [m for m in found if m.model and _can_chat(m)]
    if model is not None:
        usable = [m for m in usable if m.model in {model, f"{model}:latest"}]
        if not usable:
            return None, f"the Ollama at {address} has no model {harmless(model)!r}"
    if not usable:
        return None, f"the Ollama at {address} has no model"
    smallest = min(usable, key=lambda m: m.size or 0)
    name = smallest.model or ""
    return EngineServer(
        name, None, f"the Ollama at {address} with {harmless(name)}"
    ), ""


def _can_chat(model: Any) -> bool:
    families = (model.details.families or ()) if model.details else ()
    embeds = any(word in family for family in families for word in EMBEDDERS)
    return (model.size or 0) >= LEAST_BYTES and not embeds
