# SPDX-License-Identifier: MIT
"""lm15, the client that DSPy brings along: it speaks HTTP over sockets by itself.

Its two transports return a response with the pieces of the body, and a function that is
called once when it is let go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ometrics.instrumentation.endpoints import may_be_call
from ometrics.instrumentation.exchange import Exchange
from ometrics.instrumentation.patching import IsActive, MethodPatch
from ometrics.instrumentation.pieces import WatchedPieces
from ometrics.instrumentation.registry import SentRequest

ExchangeFor = Callable[[Callable[[], SentRequest]], Exchange | None]


def patches(module: Any, exchange_for: ExchangeFor) -> list[MethodPatch]:
    """The patches of one of the two modules with a transport."""
    if hasattr(module, "StdlibTransport"):
        wrap = functools.partial(_wrap, exchange_for)
        return [MethodPatch(module.StdlibTransport, "stream", wrap)]
    awrap = functools.partial(_awrap, exchange_for)
    return [MethodPatch(module.StdlibAsyncTransport, "_do_stream", awrap)]


def _wrap(exchange_for: ExchangeFor, original: Any, is_active: IsActive) -> Any:
    @functools.wraps(original)
    def stream(self: Any, request: Any) -> Any:
        exchange = _begin(exchange_for, is_active, request)
        if exchange is None:
            return original(self, request)
        try:
            response = original(self, request)
        except BaseException as error:
            exchange.broke(error)
            raise
        return _watched(response, exchange)

    return stream


def _awrap(exchange_for: ExchangeFor, original: Any, is_active: IsActive) -> Any:
    @functools.wraps(original)
    async def _do_stream(self: Any, request: Any) -> Any:
        exchange = _begin(exchange_for, is_active, request)
        if exchange is None:
            return await original(self, request)
        try:
            response = await original(self, request)
        except BaseException as error:
            exchange.broke(error)
            raise
        return _watched(response, exchange)

    return _do_stream


def _begin(
    exchange_for: ExchangeFor, is_active: IsActive, request: Any
) -> Exchange | None:
    if not may_be_call(request.method, request.url) or not is_active():
        return None
    exchange = exchange_for(lambda: _read(request))
    if exchange is not None:
        exchange.begin()
    return exchange


def _read(request: Any) -> SentRequest:
    url = urlsplit(request.url)
    headers = {name.lower(): value for name, value in request.headers}
    host = url.hostname or ""
    return SentRequest(request.method, url.path, host, url.port, headers, request.body)


def _watched(response: Any, exchange: Exchange) -> Any:
    exchange.answered(
        response.status,
        response.header("content-type") or "",
        response.header("content-encoding") or "",
    )
    release = response._release  # noqa: SLF001

    def release_and_tell(body_consumed: bool) -> Any:
        exchange.closed()
        return release(body_consumed)

    response._chunks = _Pieces(response._chunks, exchange)  # noqa: SLF001
    response._release = release_and_tell  # noqa: SLF001
    return response


class _Pieces(WatchedPieces):
    """What takes the place of a response's iterator of pieces."""

    def __init__(self, pieces: Any, exchange: Exchange) -> None:
        self._pieces = pieces
        self._exchange = exchange
        self._next = getattr(pieces, "__anext__", None) or pieces.__next__

    def __iter__(self) -> _Pieces:
        return self

    def __aiter__(self) -> _Pieces:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pieces, name)
