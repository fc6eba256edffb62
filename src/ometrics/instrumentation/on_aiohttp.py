# SPDX-License-Identifier: MIT
"""aiohttp: measured at `ClientSession._request`, which every request goes through.

The answer's `content` is replaced by one that has the same methods and shows each piece
to the exchange. aiohttp unpacks a compressed answer before it gets there.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

import aiohttp
from aiohttp.streams import AsyncStreamIterator, ChunkTupleAsyncStreamIterator

from ometrics.instrumentation.endpoints import CALL_ENDINGS, may_be_call
from ometrics.instrumentation.exchange import Exchange
from ometrics.instrumentation.patching import IsActive, MethodPatch
from ometrics.instrumentation.registry import SentRequest

ExchangeFor = Callable[[Callable[[], SentRequest]], Exchange | None]

# The exchange whose request is being sent, for `ClientRequest` to know it.
_current: Final[ContextVar[Exchange | None]] = ContextVar(
    "ometrics_current", default=None
)


def patches(_: ModuleType, exchange_for: ExchangeFor) -> list[MethodPatch]:
    """The patches of `aiohttp`."""

    def wrap(original: Any, is_active: IsActive) -> Any:
        # No coroutine function, so that other requests get aiohttp's own coroutine; and
        # none with named arguments, which would be packed and unpacked for each.
        @functools.wraps(original)
        def _request(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            try:
                session, method, url = args
                # Asked of every request, so the quickest way there is.
                path = url if isinstance(url, str) else url.path
                if path[-4:] not in CALL_ENDINGS and "?" not in path:
                    return made
            except (AttributeError, TypeError, ValueError):  # aiohttp refuses it too
                return made
            if not may_be_call(method, path) or not is_active():
                return made
            return begun(made, session, method, url, kwargs)

        return _request

    def begun(made: Any, session: Any, method: str, url: Any, kwargs: Any) -> Any:
        exchange = exchange_for(lambda: _read(session, method, url, kwargs))
        return made if exchange is None else _measured(session, made, exchange)

    return [
        MethodPatch(aiohttp.ClientSession, "_request", wrap),
        MethodPatch(aiohttp.ClientRequest, "send", _wrap_send),
    ]


async def _measured(session: Any, made: Awaitable[Any], exchange: Exchange) -> Any:
    exchange.begin()
    token = _current.set(exchange)
    try:
        response = await made
    except BaseException as error:
        exchange.broke(error)
        raise
    finally:
        _current.reset(token)
    get = response.headers.get
    encoding = "" if session.auto_decompress else get("Content-Encoding", "")
    exchange.answered(response.status, get("Content-Type", ""), encoding)
    if response.content.at_eof():
        exchange.finished()
    else:
        response.content = _Content(response.content, exchange)
    return response


def _wrap_send(original: Any, is_active: IsActive) -> Any:
    current = _current.get

    @functools.wraps(original)
    def send(self: Any, connection: Any) -> Any:
        exchange = current()
        if exchange is not None and is_active():
            exchange.connected()
        return original(self, connection)

    return send


def _read(
    session: Any, method: str, url: Any, kwargs: Mapping[str, Any]
) -> SentRequest:
    whole = session._build_url(url)  # noqa: SLF001 - with the session's base address
    given = kwargs.get("headers") or {}
    headers = {**session.headers, **given}
    body = kwargs.get("json")
    if body is None:
        body = kwargs.get("data")
    return SentRequest(
        method,
        whole.path,
        whole.host or "",
        whole.port,
        {str(name).lower(): value for name, value in headers.items()},
        body,
        session,
    )


class _Content(aiohttp.StreamReader):
    """An answer's body, seen in passing; what is not defined here is the other's."""

    __slots__ = ("_exchange", "_inner")

    def __init__(self, inner: Any, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "_inner"), name)

    def __aiter__(self) -> Any:
        return AsyncStreamIterator(self.readline)

    def __repr__(self) -> str:
        return repr(self._inner)

    def iter_chunked(self, n: int) -> Any:
        self._inner.set_read_chunk_size(n)
        return AsyncStreamIterator(lambda: self.read(n))

    def iter_any(self) -> Any:
        return AsyncStreamIterator(self.readany)

    def iter_chunks(self) -> Any:
        return ChunkTupleAsyncStreamIterator(self)

    async def read(self, n: int = -1) -> bytes:
        return await self._seen(self._inner.read(n))

    async def readany(self) -> bytes:
        return await self._seen(self._inner.readany())

    async def readline(self, *args: Any, **kwargs: Any) -> bytes:
        return await self._seen(self._inner.readline(*args, **kwargs))

    async def readuntil(self, *args: Any, **kwargs: Any) -> bytes:
        return await self._seen(self._inner.readuntil(*args, **kwargs))

    async def readexactly(self, n: int) -> bytes:
        return await self._seen(self._inner.readexactly(n))

    async def readchunk(self) -> tuple[bytes, bool]:
        try:
            chunk: tuple[bytes, bool] = await self._inner.readchunk()
        except BaseException as error:
            self._exchange.broke(error)
            raise
        self._see(chunk[0])
        return chunk

    def read_nowait(self, n: int = -1) -> bytes:
        data: bytes = self._inner.read_nowait(n)
        self._see(data)
        return data

    def set_exception(self, *args: Any, **kwargs: Any) -> None:
        """Note that the answer is closed or let go."""
        self._exchange.closed()
        self._inner.set_exception(*args, **kwargs)

    async def _seen(self, made: Awaitable[bytes]) -> bytes:
        try:
            data = await made
        except BaseException as error:
            self._exchange.broke(error)
            raise
        self._see(data)
        return data

    def _see(self, data: bytes) -> None:
        if data:
            self._exchange.data(data)
        if self._inner.at_eof():
            self._exchange.finished()


_OWN: Final = frozenset(vars(_Content)) | {"__class__"}
