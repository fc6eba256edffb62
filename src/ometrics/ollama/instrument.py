# SPDX-License-Identifier: MIT
"""`instrument`, `uninstrument`, `wrap`: where the official client is watched.

Every call of `ollama.Client` and `ollama.AsyncClient` goes through `_request`, looked
up on the class when called, so a wrapper there also sees module-level functions, which
were bound at import, and clients that exist already. `stream.py` says how an answer is
seen.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ometrics.observing import (
    Instrumentation,
    Seam,
    Underway,
    default_collector,
    report,
)
from ometrics.ollama.stream import (
    AnswerSpy,
    OllamaWatch,
    StreamSpy,
    relative_of,
    seen_by,
    stand_in,
)
from ometrics.responses import CHAT, EMBEDDINGS, TEXT, canonical

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

_Client = TypeVar("_Client")
_Collectors = tuple["MetricsCollector", ...]
_CollectorsOf = Callable[[Any], _Collectors]

# The requests that are inference; `list`, `ps`, `pull` and the like are not counted.
OPERATIONS: Final = {
    "/api/chat": CHAT,
    "/api/generate": TEXT,
    "/api/embed": EMBEDDINGS,
    "/api/embeddings": EMBEDDINGS,
    "/v1/systemone": TEXT,
}


def instrument(
    collector: MetricsCollector | None = None, *, client: object = None
) -> MetricsCollector:
    """
    Let a collector watch the official client from now on. Idempotent.

    Args:
        collector: Who counts; several may watch at once. `None`: this process's default
            collector, the same each time.
        client: An `ollama.Client` or `AsyncClient`, to watch only this one.

    Returns:
        The collector.

    Raises:
        ImportError: The `ollama` package is not installed.

    Thread-safety:
        Any thread, at any time; calls under way stay as they began.
    """
    return _instrumentation.add(collector, client)


def uninstrument(collector: MetricsCollector | None = None) -> None:
    """
    Watch no more; calls under way are counted to their end.

    Args:
        collector: Only this one stops; `None`: all. After the last, the client's
            classes have their own methods back.
    """
    _instrumentation.remove(collector)


def wrap(client: _Client, collector: MetricsCollector | None = None) -> _Client:
    """
    A client that is watched, and shares connections and settings with `client`.

    Nothing is patched: `client` itself and all others stay unwatched.

    Args:
        client: An `ollama.Client` or `AsyncClient`.
        collector: Who counts; `None`: the process's default collector.

    Returns:
        A client of a subclass of `client`'s class.
    """
    watcher = collector if collector is not None else default_collector()
    seen = seen_by(client)
    own = seen if watcher in seen else (*seen, watcher)
    return relative_of(client, _wrapped_class, _ometrics_own=own, _ometrics_seen=own)


@functools.lru_cache(maxsize=64)
def _wrapped_class(kind: Any) -> Any:
    """The subclass of clients that `wrap` returns; one of these stays what it is."""
    if "_ometrics_own" in vars(kind):
        return kind

    def own(client: Any) -> _Collectors:
        return getattr(client, "_ometrics_own", ())  # a stand-in for it has none

    original = kind._request  # noqa: SLF001 - the seam

    @functools.wraps(original)
    def beneath(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kind._request(self, *args, **kwargs)  # noqa: SLF001 - as it is by then

    return type(kind)(
        kind.__name__,
        (kind,),
        {
            "__slots__": ("_ometrics_own", "_ometrics_seen"),
            "__module__": kind.__module__,
            "_request": _wrapper(beneath, own, inspect.iscoroutinefunction(original)),
        },
    )


def _wrapper(original: Any, collectors_of: _CollectorsOf, is_async: bool) -> Any:
    """What takes the place of a client's `_request`."""
    if is_async:

        @functools.wraps(original)
        async def arequest(self: Any, cls: Any, *args: Any, **kwargs: Any) -> Any:
            watches = _watches(collectors_of, self, args, kwargs)
            if not watches:
                return await original(self, cls, *args, **kwargs)
            if kwargs.get("stream"):
                watched = stand_in(self, watches)
                return await original(watched, StreamSpy(cls, watches), *args, **kwargs)
            with Underway(watches):
                answer = await original(self, AnswerSpy(cls, watches), *args, **kwargs)
            for watch in watches:
                watch.succeeded()  # counts only if the spy was never asked
            return answer

        return arequest

    @functools.wraps(original)
    def request(self: Any, cls: Any, *args: Any, **kwargs: Any) -> Any:
        watches = _watches(collectors_of, self, args, kwargs)
        if not watches:
            return original(self, cls, *args, **kwargs)
        if kwargs.get("stream"):
            watched = stand_in(self, watches)
            return original(watched, StreamSpy(cls, watches), *args, **kwargs)
        with Underway(watches):
            answer = original(self, AnswerSpy(cls, watches), *args, **kwargs)
        for watch in watches:
            watch.succeeded()
        return answer

    return request


def _watches(
    collectors_of: _CollectorsOf,
    client: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[OllamaWatch, ...]:
    """Who watches this request; nobody if it is no inference."""
    collectors: _Collectors = ()
    try:
        operation = OPERATIONS.get(args[1] if len(args) > 1 else "")
        if operation is None:
            return ()
        collectors = collectors_of(client)
        model = (kwargs.get("json") or {}).get("model")
        if not collectors or not isinstance(model, str):
            return ()
        name = canonical(model)
        return tuple([OllamaWatch(c, name, operation) for c in collectors])
    except Exception as error:  # noqa: BLE001 - the caller's call comes first
        report(collectors or _instrumentation.everywhere, error)
        return ()


def _seams() -> list[Seam]:
    try:
        import ollama
    except ImportError:
        raise ImportError(
            "instrumenting Ollama's client needs it: "
            "pip install 'ollama-metrics[ollama]'"
        ) from None

    def seam(kind: type, is_async: bool) -> Seam:
        def wrap(original: Any, counts: Callable[[], bool]) -> Any:
            def collectors(client: object) -> _Collectors:
                if not counts():
                    return ()
                seen = seen_by(client)
                watching = _instrumentation.collectors(client)
                return tuple([c for c in watching if c not in seen])

            return _wrapper(original, collectors, is_async)

        return Seam(kind, "_request", wrap)

    return [seam(ollama.Client, False), seam(ollama.AsyncClient, True)]


_instrumentation: Final = Instrumentation(_seams)
