# SPDX-License-Identifier: MIT
"""httpx and its successor httpx2: measured where a request is handed to the network.

What is patched is `handle_request` of their two transports, the interface that httpx
documents for this. The answer's stream is replaced by one that shows each piece to the
exchange; it is an iterator, no generator, so that nothing has to be finalized that the
bare client does not have to finalize.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from ometrics.instrumentation.endpoints import CALL_ENDINGS
from ometrics.instrumentation.exchange import Exchange
from ometrics.instrumentation.patching import IsActive, MethodPatch
from ometrics.instrumentation.pieces import WatchedPieces
from ometrics.instrumentation.registry import SentRequest

ExchangeFor = Callable[[Callable[[], SentRequest]], Exchange | None]

_TYPE_LENGTH: Final = len("content-type")
_CODING_LENGTH: Final = len("content-encoding")

# An extension of a request that names the collectors which measure this one.
COLLECTORS: Final = "ometrics.collectors"


def patches(module: ModuleType, exchange_for: ExchangeFor) -> list[MethodPatch]:
    """The patches of `httpx` or `httpx2`."""
    transport = _Transport(module, exchange_for)
    return [
        MethodPatch(transport.module.HTTPTransport, "handle_request", transport.wrap),
        MethodPatch(
            transport.module.AsyncHTTPTransport, "handle_async_request", transport.awrap
        ),
    ]


def transports_of(client: Any) -> list[Any]:
    """The transports of an httpx client."""
    mounted = vars(client).get("_mounts", {}).values()
    return [t for t in (vars(client)["_transport"], *mounted) if t is not None]


class _Transport:
    """How requests of one of the two packages are measured."""

    def __init__(self, module: Any, exchange_for: ExchangeFor) -> None:
        self.module = module
        streams = (module.SyncByteStream, module.AsyncByteStream)
        self._exchange_for = exchange_for
        self._sent_body: Any = type("SentBody", (_SentBody, *streams), {})
        client = {"client": module.Client.stream.__module__}
        self._body: Any = type("Body", (_Body, *streams), client)

    def wrap(self, original: Any, is_active: IsActive) -> Any:
        """What takes the place of `handle_request`."""
        begin, answered = self._begin, self._answered

        @functools.wraps(original)
        def handle_request(self: Any, request: Any) -> Any:
            if _is_other(request) or not is_active():
                return original(self, request)
            stream = request.stream
            exchange = begin(self, request)
            if exchange is None:
                return original(self, request)
            try:
                response = original(self, request)
            except BaseException as error:
                exchange.broke(error)
                raise
            finally:
                request.stream = stream
            return answered(response, exchange)

        return handle_request

    def awrap(self, original: Any, is_active: IsActive) -> Any:
        """What takes the place of `handle_async_request`."""
        begin, answered = self._begin, self._answered

        @functools.wraps(original)
        async def handle_async_request(self: Any, request: Any) -> Any:
            if _is_other(request) or not is_active():
                return await original(self, request)
            stream = request.stream
            exchange = begin(self, request)
            if exchange is None:
                return await original(self, request)
            try:
                response = await original(self, request)
            except BaseException as error:
                exchange.broke(error)
                raise
            finally:
                request.stream = stream
            return answered(response, exchange)

        return handle_async_request

    def _begin(self, transport: Any, request: Any) -> Exchange | None:
        exchange = self._exchange_for(lambda: self._read(transport, request))
        if exchange is not None:
            request.stream = self._sent_body(request.stream, exchange)
            exchange.begin()
        return exchange

    def _read(self, transport: Any, request: Any) -> SentRequest:
        stream = request.stream
        return SentRequest(
            request.method,
            *_address(request.url),
            request.headers,
            b"".join(stream) if isinstance(stream, self.module.ByteStream) else stream,
            transport,
            request.extensions.get(COLLECTORS, ()),
        )

    def _answered(self, response: Any, exchange: Exchange) -> Any:
        kind = encoding = ""
        for name, value in response.headers.raw:  # `get` goes through all, each time
            if len(name) == _TYPE_LENGTH and name.lower() == b"content-type":
                kind = value.decode("latin-1")
            elif len(name) == _CODING_LENGTH and name.lower() == b"content-encoding":
                encoding = value.decode("latin-1")
        exchange.answered(response.status_code, kind, encoding)
        response.stream = self._body(response.stream, exchange)
        return response


def _is_other(request: Any) -> bool:
    """Whether it is surely no call: asked of each, so the quickest way there is."""
    if request.method != "POST":
        return True
    try:
        path = request.url._uri_reference.path  # noqa: SLF001 - `path` unquotes it
    except AttributeError:
        path = request.url.path
    return path[-4:] not in CALL_ENDINGS


def _address(url: Any) -> tuple[str, str, int | None]:
    """Path, host and port: where nothing is quoted, without looking for quotes."""
    try:
        parts = url._uri_reference  # noqa: SLF001 - the properties decode each time
        path, host, port = parts.path, parts.host, parts.port
    except AttributeError:
        return url.path, url.host, url.port
    if "%" in path or host.startswith("xn--"):
        return url.path, url.host, port
    return path, host, port


class _SentBody:
    """A request's body; asked for when there is a connection to send it on."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Any:
        self._exchange.connected()
        return iter(self._stream)

    def __aiter__(self) -> Any:
        self._exchange.connected()
        return self._stream.__aiter__()


class _Body(WatchedPieces):
    """An answer's body, seen in passing."""

    client: str  # the package's module that defines its clients

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Any:
        self._next = iter(self._stream).__next__
        return self

    def close(self) -> None:
        self._exchange.closed(self._fault())
        self._stream.close()

    def __aiter__(self) -> Any:
        self._next = self._stream.__aiter__().__anext__
        return self

    async def aclose(self) -> None:
        self._exchange.closed(self._fault())
        await self._stream.aclose()

    def _fault(self) -> Exception | None:
        """
        What was raised while the answer was read, if that is why it is closed.

        It came through the `with` of `Client.stream`; an exception that is merely being
        handled somewhere is the caller's own affair.
        """
        error = sys.exc_info()[1]
        if not isinstance(error, Exception) or error.__traceback__ is None:
            return None
        frame = error.__traceback__.tb_frame
        return error if frame.f_globals.get("__name__") == self.client else None
