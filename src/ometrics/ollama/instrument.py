# SPDX-License-Identifier: MIT
"""`instrument`, `uninstrument`, `wrap`: calls in Ollama's own form.

What is measured is the HTTP request of a call (`ometrics.instrumentation`), so that the
client's objects stay what they are: module-level functions, clients that exist already,
subclasses, streams and their generators.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ometrics.instrumentation.on_httpx import COLLECTORS, transports_of
from ometrics.instrumentation.registry import default_collector, registry

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

_Client = TypeVar("_Client")

_INTERFACE: Final = "ollama"


def instrument(
    collector: MetricsCollector | None = None, *, client: object = None
) -> MetricsCollector:
    """
    Let a collector measure Ollama's own interface from now on. Idempotent.

    The official client is measured wherever its server is; other clients where they
    call this machine or `OLLAMA_HOST`. `ometrics.instrument()` measures more.

    Args:
        collector: Who counts; several may at once. `None`: this process's default
            collector, the same each time.
        client: An `ollama.Client` or `AsyncClient`, to measure only this one and what
            shares its connections.

    Returns:
        The collector.

    Raises:
        ImportError: The `ollama` package is not installed.
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


def wrap(client: _Client, collector: MetricsCollector | None = None) -> _Client:
    """
    A client that is measured, and shares connections and settings with `client`.

    `client` itself and all others stay as they are.

    Args:
        client: An `ollama.Client` or `AsyncClient`.
        collector: Who counts; `None`: the process's default collector.

    Returns:
        A client of a subclass of `client`'s class.
    """
    one = default_collector() if collector is None else collector
    known = getattr(client, "_ometrics_collectors", ())
    kind: Any = client.__class__
    wrapped = object.__new__(_wrapped_class(kind))
    wrapped.__dict__ = vars(client)
    wrapped._ometrics_collectors = known if one in known else (*known, one)
    registry.add_marking(wrapped)
    return cast("_Client", wrapped)


@functools.lru_cache(maxsize=64)
def _wrapped_class(kind: Any) -> Any:
    """The subclass of clients that `wrap` returns; one of these stays what it is."""
    if "_ometrics_collectors" in vars(kind):
        return kind

    @functools.wraps(kind._request)  # noqa: SLF001 - what all calls go through
    def _request(self: Any, *args: Any, **kwargs: Any) -> Any:
        # What httpx hands down to the network with the request, and nowhere else.
        extensions = {**(kwargs.get("extensions") or {})}
        extensions[COLLECTORS] = self._ometrics_collectors
        kwargs["extensions"] = extensions
        return kind._request(self, *args, **kwargs)  # noqa: SLF001

    return type(kind)(
        kind.__name__,
        (kind,),
        {
            "__slots__": ("_ometrics_collectors",),
            "__module__": kind.__module__,
            "_request": _request,
        },
    )


def _kinds() -> tuple[type, ...]:
    try:
        import ollama
    except ImportError:
        raise ImportError(
            "instrumenting Ollama's client needs it: "
            "pip install 'ollama-metrics[ollama]'"
        ) from None
    return ollama.Client, ollama.AsyncClient
