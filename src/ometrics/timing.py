# SPDX-License-Identifier: MIT
"""`time()` as a decorator: each call gets a timer of its own, whatever kind it is."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ometrics._core import Core


def timed(function: Callable[..., Any], core: Core, model: str) -> Callable[..., Any]:
    """
    Time every call of a function, coroutine function or (async) generator function.

    A generator is timed from its first item to its end.
    """
    wrapper: Callable[..., Any]

    if inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with core.time(model):
                return await function(*args, **kwargs)

    elif inspect.isasyncgenfunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            # Closed with its reader: `async for` alone would leave it to the collector.
            with core.time(model):
                async with aclosing(function(*args, **kwargs)) as items:
                    async for item in items:
                        yield item

    elif inspect.isgeneratorfunction(function):

        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with core.time(model):
                return (yield from function(*args, **kwargs))

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with core.time(model):
                return function(*args, **kwargs)

    return wraps(function)(wrapper)
