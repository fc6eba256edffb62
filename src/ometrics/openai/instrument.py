# SPDX-License-Identifier: MIT
"""`instrument` and `uninstrument`: where the official client is watched.

Every call goes through `request` of the client's base class, with its retries inside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ometrics.observing import Instrumentation, Seam, Underway, report
from ometrics.openai.stream import observe
from ometrics.openai.watch import OPERATIONS, OpenAIWatch
from ometrics.responses import canonical

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector


def instrument(
    collector: MetricsCollector | None = None, *, client: object = None
) -> MetricsCollector:
    """
    Let a collector watch the official client from now on. Idempotent.

    Args:
        collector: Who counts; several may watch at once. `None`: this process's default
            collector, the same each time, shared with `ometrics.ollama`.
        client: An `OpenAI` or `AsyncOpenAI` client, to watch only this one (its
            `with_options()` makes another).

    Returns:
        The collector.

    Raises:
        ImportError: The `openai` package is not installed.
        TypeError: `client` is no such client.

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


def _watches(
    client: Any, options: Any, counts: Callable[[], bool]
) -> tuple[OpenAIWatch, ...]:
    """Who watches this request; nobody if it is no inference."""
    try:
        path = options.url
        if path not in OPERATIONS or options.method.lower() != "post" or not counts():
            return ()
        collectors = _instrumentation.collectors(client)
        model = (options.json_data or {}).get("model")
        if not collectors or not isinstance(model, str):
            return ()
        name = canonical(model)
        return tuple([OpenAIWatch(c, name, path) for c in collectors])
    except Exception as error:  # noqa: BLE001 - the caller's call comes first
        report(_instrumentation.everywhere, error)
        return ()


def _wrapper(original: Any, counts: Callable[[], bool]) -> Any:
    @functools.wraps(original)
    def request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        watches = _watches(self, options, counts)
        with Underway(watches):
            result = original(self, cast_to, options, **kwargs)
        if watches:
            observe(result, watches, is_async=False)
        return result

    return request


def _awrapper(original: Any, counts: Callable[[], bool]) -> Any:
    @functools.wraps(original)
    async def request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        watches = _watches(self, options, counts)
        with Underway(watches):
            result = await original(self, cast_to, options, **kwargs)
        if watches:
            observe(result, watches, is_async=True)
        return result

    return request


def _seams() -> list[Seam]:
    try:
        import openai
    except ImportError:
        raise ImportError(
            "instrumenting OpenAI's client needs it: "
            "pip install 'ollama-metrics[openai]'"
        ) from None

    return [
        Seam(_owner_of_request(openai.OpenAI), "request", _wrapper),
        Seam(_owner_of_request(openai.AsyncOpenAI), "request", _awrapper),
    ]


def _owner_of_request(client: type) -> type:
    """The base class that makes the requests; its module is the client's own affair."""
    return next(kind for kind in client.__mro__ if "request" in vars(kind))


_instrumentation: Final = Instrumentation(_seams)
