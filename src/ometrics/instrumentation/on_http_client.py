# SPDX-License-Identifier: MIT
"""http.client, and so urllib, urllib3 and requests, which all send by it.

`HTTPConnection.request` is patched, and urllib3's own of the same name. For a call to a
model the connection makes its answer's file one that shows what it reads to the
exchange: with the framing of HTTP, which is why there is a `BodyReader` to take it off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, IncompleteRead
from typing import Any, Final
from urllib.parse import urlsplit

from ometrics.instrumentation.endpoints import CALL_ENDINGS, POST, may_be_call
from ometrics.instrumentation.exchange import Exchange
from ometrics.instrumentation.patching import IsActive, MethodPatch
from ometrics.instrumentation.registry import SentRequest

ExchangeFor = Callable[[Callable[[], SentRequest]], Exchange | None]

_MAX_LINE: Final = 65_536
_NO_HEADERS: Final[dict[str, str]] = {}


def patches(module: Any, exchange_for: ExchangeFor) -> list[MethodPatch]:
    """The patches of `http.client` or `urllib3.connection`."""

    def wrap(original: Any, is_active: IsActive) -> Any:
        @functools.wraps(original)
        def request(
            self: Any,
            method: str,
            url: str,
            body: Any = None,
            headers: Any = _NO_HEADERS,
            **kwargs: Any,
        ) -> Any:
            # Asked of every request, so the quickest way there is.
            is_other = method not in POST or (
                url[-4:] not in CALL_ENDINGS
                and not ("?" in url and may_be_call(method, url))
            )
            if is_other or not is_active():
                if not kwargs:
                    return original(self, method, url, body, headers)
                return original(self, method, url, body, headers, **kwargs)
            return measured(original, self, method, url, body, headers, **kwargs)

        return request

    def measured(original: Any, connection: Any, *asked: Any, **kwargs: Any) -> Any:
        exchange = exchange_for(lambda: _read(connection, *asked))
        if exchange is None:
            return original(connection, *asked, **kwargs)
        exchange.begin()
        _prepare(connection, exchange)
        try:
            return original(connection, *asked, **kwargs)
        except BaseException as error:
            exchange.broke(error)
            raise
        finally:
            vars(connection).pop("connect", None)

    if not issubclass(module.HTTPConnection, HTTPConnection):
        return []  # another package by the name of urllib3, which sends by itself
    return [MethodPatch(module.HTTPConnection, "request", wrap)]


def _read(
    connection: Any, method: str, url: str, body: Any, headers: Any
) -> SentRequest:
    names = {str(name).lower(): value for name, value in dict(headers or {}).items()}
    host, port, path = connection.host, connection.port, url
    tunnel = getattr(connection, "_tunnel_host", None)
    if "://" in url:  # whole, for a proxy that is asked to pass it on
        address = urlsplit(url)
        host, port, path = address.hostname or "", address.port, address.path
    elif tunnel:  # through a proxy
        host, port = tunnel, connection._tunnel_port  # noqa: SLF001
    return SentRequest(method, path, host.lower(), port, names, body, connection)


def _prepare(connection: Any, exchange: Exchange) -> None:
    """Have a connection tell when it is there, and show what its answer reads."""
    own = vars(connection)
    for name in ("connect", "response_class"):  # of a request that got no answer
        own.pop(name, None)
    if connection.sock is None:

        def connect() -> None:
            own.pop("connect", None)
            connection.connect()
            exchange.connected()

        own["connect"] = connect
    else:
        exchange.connected()

    def response_class(*args: Any, **kwargs: Any) -> Any:
        own.pop("response_class", None)
        response = connection.response_class(*args, **kwargs)
        vars(response)["begin"] = functools.partial(_begin, response, exchange)
        return response

    own["response_class"] = response_class


def _begin(response: Any, exchange: Exchange) -> None:
    """Read the answer's headers, then watch its file."""
    vars(response).pop("begin", None)
    try:
        response.begin()
    except BaseException as error:
        exchange.broke(error)
        raise
    get = response.headers.get
    exchange.answered(
        response.status, get("content-type", ""), get("content-encoding", "")
    )
    if response.fp is None or response.length == 0:
        exchange.finished()
    else:
        length = None if response.chunked else response.length
        response.fp = _File(response.fp, BodyReader(exchange, length, response.chunked))


class BodyReader:
    """
    The body within an answer's bytes.

    Args:
        exchange: Whom to show it.
        length: Of the body; `None` if it ends with the connection.
        is_chunked: Whether it comes with chunked transfer encoding.
    """

    __slots__ = ("_exchange", "_is_chunked", "_left", "_line")

    def __init__(
        self,
        exchange: Exchange,
        length: int | None,
        is_chunked: bool,
    ) -> None:
        self._exchange = exchange
        self._is_chunked = is_chunked
        self._left = length  # of the body, or of the chunk under way
        self._line = b""  # the size of the next chunk, as far as it is here

    def feed(self, data: bytes) -> None:
        """The answer's next bytes; no bytes are its end."""
        if not data:
            if self._is_chunked or self._left is not None:
                self._exchange.broke(IncompleteRead(b""))
            else:
                self._exchange.finished()
        elif self._is_chunked:
            self._unchunk(data)
        else:
            self._exchange.data(data)
            if self._left is not None:
                self._left -= len(data)
                if self._left <= 0:
                    self._exchange.finished()

    def _unchunk(self, data: bytes) -> None:
        """Take off the sizes before and the line ends behind each chunk."""
        while data:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._exchange.data(piece)
                continue
            line, end, data = data.partition(b"\n")
            self._line += line[:_MAX_LINE]
            if not end:
                return
            size, self._line = self._line.partition(b";")[0].strip(), b""
            if size:  # else the end of the chunk before
                self._left = int(size, 16)
                if self._left == 0:
                    self._is_chunked = False
                    self._exchange.finished()
                    return

    def broke(self, error: BaseException) -> None:
        """Reading raised."""
        self._exchange.broke(error)

    def closed(self) -> None:
        """The file is closed, after its end or before."""
        self._exchange.closed()


class _File:
    """An answer's file, which shows what is read from it."""

    def __init__(self, file: Any, body: BodyReader) -> None:
        self._file = file
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def read(self, *args: Any) -> bytes:
        return self._seen(self._file.read, args)

    def read1(self, *args: Any) -> bytes:
        return self._seen(self._file.read1, args)

    def readline(self, *args: Any) -> bytes:
        return self._seen(self._file.readline, args)

    def readinto(self, buffer: Any) -> int:
        try:
            count: int = self._file.readinto(buffer)
        except BaseException as error:
            self._body.broke(error)
            raise
        if len(buffer):
            self._feed(bytes(memoryview(buffer)[:count]))
        return count

    def close(self) -> None:
        self._body.closed()
        self._file.close()

    def _seen(self, read: Callable[..., bytes], args: tuple[Any, ...]) -> bytes:
        try:
            data = read(*args)
        except BaseException as error:
            self._body.broke(error)
            raise
        if data or args != (0,):
            self._feed(data)
        return data

    def _feed(self, data: bytes) -> None:
        try:
            self._body.feed(data)
        except Exception as error:  # noqa: BLE001 - framing that is none is theirs
            self._body.broke(error)
