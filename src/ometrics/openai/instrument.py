# SPDX-License-Identifier: MIT
"""`instrument` and `uninstrument`: calls in OpenAI's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from ometrics.instrumentation.on_httpx import transports_of
from ometrics.instrumentation.registry import default_collector, registry

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

_INTERFACE: Final = "openai"


def instrument(
    collector: MetricsCollector | None = None, *, client: object = None
) -> MetricsCollector:
    """
    Let a collector measure OpenAI's interface from now on. Idempotent.

    The official client is measured wherever its server is; other clients where they
    call this machine or `OLLAMA_HOST`. What the client tries again is a call each.
    `ometrics.instrument()` measures more.

    Args:
        collector: Who counts; several may at once. `None`: this process's default
            collector, the same each time, shared with `ometrics.ollama`.
        client: An `OpenAI` or `AsyncOpenAI` client, to measure only this one and what
            shares its connections (as what its `with_options()` returns).

    Returns:
        The collector.

    Raises:
        ImportError: The `openai` package is not installed.
        TypeError: `client` is no such client.

    Thread-safety:
        Any thread, at any time; calls under way stay as they began.
    """
    collector = default_collector() if collector is None else collector
    kinds = _kinds()
    if client is None:
        registry.add(collector, (_INTERFACE,))
    elif isinstance(client, kinds):
        http = cast("Any", client)._client  # noqa: SLF001 - it has no public name
        registry.add_client(collector, _INTERFACE, transports_of(http))
    else:
        raise TypeError(f"not a client that can be measured: {client!r:.200}")
    return collector


def uninstrument(collector: MetricsCollector | None = None) -> None:
    """
    Measure it no more; calls under way are counted to their end.

    Args:
        collector: Only this one stops; `None`: all. After the last, the HTTP clients
            have their own methods back.
    """
    registry.remove(collector, (_INTERFACE,))


def _kinds() -> tuple[type, ...]:
    try:
        import openai
    except ImportError:
        raise ImportError(
            "instrumenting OpenAI's client needs it: "
            "pip install 'ollama-metrics[openai]'"
        ) from None
    return openai.OpenAI, openai.AsyncOpenAI
