# SPDX-License-Identifier: MIT
"""`Passage`: one request on its way to the server, and its answer on the way back.

Bytes pass as they come: nothing is unpacked, redirected or timed out, and no call is
sent twice (a GET is, where a connection to the server had been closed). Of the headers
only those of one connection are left out (RFC 9110, 7.6.1), and `Host`, which names
this proxy; `Expect` is answered here. What can go wrong on either side is not
alike: the caller gone closes the server's side at once, the server gone is a 502, or
breaks off what was being answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict
from yarl import URL

from ometrics.instrumentation.endpoints import (
    UNKNOWN_MODEL,
    ApiEndpoint,
    asked_by,
    endpoint_of,
    is_retry,
)
from ometrics.instrumentation.exchange import Exchange, report
from ometrics.instrumentation.providers import provider_of
from ometrics.proxy.numbers import ProxyCounts, Result
from ometrics.proxy.upload import Upload
from ometrics.proxy.upstream import Upstream

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

#: Headers of one connection, not of the message.
_HOP_BY_HOP: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
#: Of a request, not passed on.
NOT_SENT: Final = _HOP_BY_HOP | {"host", "expect"}
#: What the server library adds to an answer that lacks it.
_ADDED: Final = ("Content-Type", "Date", "Server")

# Whose request this task sends.
_sending: Final[ContextVar[Passage]] = ContextVar("ometrics_sending")

_ANY: Final = "surrogateescape"  # a header may hold any bytes
_GO_ON: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
RawHeaders = tuple[tuple[bytes, bytes], ...]

_FROM_THE_SERVER: Final = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


class Connector(aiohttp.TCPConnector):
    """Connections to the server; tells each request when it has one."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """As ever; to trace it as aiohttp offers costs ten calls a request more."""
        connection = await super().connect(*args, **kwargs)
        _sending.get().connected()
        return connection


class PassedAnswer(web.StreamResponse):
    """The server's answer, with its headers and no others."""

    def __init__(self, upstream: aiohttp.ClientResponse) -> None:
        headers = passed_on(upstream.raw_headers, _HOP_BY_HOP)
        self._absent = [name for name in _ADDED if name not in headers]
        super().__init__(
            status=upstream.status, reason=upstream.reason, headers=headers
        )
        # Headers go out at once, or with the first of the body where that is here too.
        self._send_headers_immediately = not upstream.content.total_bytes

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        for name in self._absent:
            self.headers.popall(name, None)


class Passage:
    """
    One request's way.

    Args:
        request: From the caller.
        upstream: Where it goes.
        session: What sends it there.
        collectors: Who counts it, if it is a call to a model.
        counts: The proxy's own numbers.
        drops: Headers that are not to be passed on; lower case.

    Thread-safety:
        One task at a time.
    """

    __slots__ = (
        *("_collectors", "_counts", "_drops", "_endpoint", "_exchange", "_request"),
        *("_is_counted", "_session", "_upload", "_upstream"),
    )

    def __init__(
        self,
        request: web.BaseRequest,
        *,
        upstream: Upstream,
        session: aiohttp.ClientSession,
        collectors: Sequence[MetricsCollector],
        counts: ProxyCounts,
        drops: frozenset[str] = NOT_SENT,
    ) -> None:
        self._request = request
        self._upstream = upstream
        self._session = session
        self._collectors = collectors
        self._counts = counts
        self._drops = drops
        self._exchange: Exchange | None = None
        self._is_counted = False
        self._endpoint = endpoint_of(
            request.method,
            request.raw_path,
            by_openai_client="X-Stainless-Lang" in request.headers,
        )
        self._upload = Upload(request, self._count_upload)

    async def run(self) -> web.StreamResponse:
        """
        Pass it on and answer.

        Raises:
            CancelledError: The caller is gone; so is, then, the server's side.
            ConnectionError: The same.
        """
        try:
            return await self._run()
        except (asyncio.CancelledError, ConnectionError):
            self._count("caller_gone")
            raise
        except BaseException:
            self._count("failed")
            raise

    async def _run(self) -> web.StreamResponse:
        request = self._request
        if "Expect" in request.headers and request.version == HttpVersion11:
            await request.writer.write(_GO_ON)
            request.writer.output_size = 0  # the answer has not begun
        if self._endpoint is not None:
            await self._upload.read_ahead()
            self._begin_exchange()
        try:
            upstream = await self._send()
        except _FROM_THE_SERVER as error:
            return self._unreachable(error)
        except BaseException as error:
            if self._exchange is not None:
                self._exchange.broke(error)
            raise
        self._counts.upstream_up = True
        try:
            return await self._answer(upstream)
        except BaseException:
            if self._exchange is not None:
                self._exchange.closed()
            raise
        finally:
            upstream.close()  # at its end it is back in the pool, and this does nothing

    def connected(self) -> None:
        """There is a connection to the server."""
        if self._exchange is not None:
            self._exchange.connected()

    def _begin_exchange(self) -> None:
        """Measure from now on, if it can be known what."""
        if self._exchange is not None or self._endpoint is None:
            return
        try:
            self._begin(self._endpoint)
        except Exception as error:  # noqa: BLE001 - the request passes all the same
            report(self._collectors, error)

    def _begin(self, endpoint: ApiEndpoint) -> None:
        model = asked_by(self._upload.known).model
        is_known = model != UNKNOWN_MODEL or self._upload.is_whole
        if model is not None and is_known:
            host, port = self._upstream.host, self._upstream.port
            provider = provider_of(endpoint.interface, host, port)
            retry = is_retry(self._request.headers)
            exchange = Exchange(self._collectors, model, endpoint, provider, retry)
            exchange.begin()
            self._exchange = exchange

    async def _send(self) -> aiohttp.ClientResponse:
        _sending.set(self)
        request = self._request
        data: Any = None
        if request.body_exists:
            small = self._upload.take_small()
            if small is not None:
                data = aiohttp.BytesPayload(small)
            else:
                data = self._upload.pieces(at_end=self._begin_exchange)
        return await self._session.request(
            request.method,
            URL(self._upstream.base + target_of(request), encoded=True),
            headers=passed_on(request.raw_headers, self._drops),
            data=data,
            allow_redirects=False,
        )

    async def _answer(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        exchange, counts = self._exchange, self._counts
        if exchange is not None:
            kind = upstream.headers.get("Content-Type", "")
            packed = upstream.headers.get("Content-Encoding", "")
            exchange.answered(upstream.status, kind, packed)
        elif self._endpoint is not None:
            counts.unmeasured += 1
        response = PassedAnswer(upstream)
        await response.prepare(self._request)
        content = upstream.content
        while True:
            try:
                data = await content.readany()
            except _FROM_THE_SERVER as error:
                return self._broken(response, error)
            counts.answer_bytes += len(data)
            if exchange is not None:
                exchange.data(data)
            is_last = content.at_eof()
            if is_last:  # counted before the caller can know that it is over
                if exchange is not None:
                    exchange.finished()
                self._count("answered")
            if is_last:
                await response.write_eof(data)  # in one with its end
                return response
            if data:
                await response.write(data)

    def _unreachable(self, error: BaseException) -> web.StreamResponse:
        """Answer that the server cannot be reached, unless it is the caller's fault."""
        exchange = self._exchange
        if self._is_caller_gone():
            if exchange is not None:
                exchange.closed()
            raise ConnectionResetError("the caller is gone") from error
        if exchange is not None:
            exchange.broke(error)
        self._counts.upstream_up = False
        self._count("upstream_unreachable")
        return failure(
            502,
            f"ometrics proxy: no answer from {self._upstream.base}"
            f" ({type(error).__name__}); is the server running?",
        )

    def _broken(
        self, response: web.StreamResponse, error: BaseException
    ) -> web.StreamResponse:
        """Break off what is being answered, as the server did."""
        if self._exchange is not None:
            self._exchange.broke(error)
        self._count("answer_broken")
        if self._request.transport is not None:
            # Without the end of its body, so that the caller notices.
            self._request.transport.close()
        return response

    def _count(self, result: Result) -> None:
        """How this request has ended; the first counts."""
        if not self._is_counted:
            self._is_counted = True
            self._counts.requests[result] += 1

    def _is_caller_gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def _count_upload(self, size: int) -> None:
        self._counts.request_bytes += size


def passed_on(raw: RawHeaders, drops: frozenset[str]) -> CIMultiDict[str]:
    """
    The headers that belong to the message, as they are spelled.

    Args:
        raw: As received.
        drops: Which do not, in lower case; those that `Connection` names do not either.
    """
    headers = [
        (name.decode("utf-8", _ANY), value.decode("utf-8", _ANY)) for name, value in raw
    ]
    for name, value in headers:
        if name.lower() == "connection":
            drops = drops.union(part.strip() for part in value.lower().split(","))
    return CIMultiDict(pair for pair in headers if pair[0].lower() not in drops)


def target_of(request: web.BaseRequest) -> str:
    """Path and query as they were sent; of an absolute address only these."""
    target = request.raw_path
    if target.startswith("/"):
        return target
    _, _, rest = target.partition("://")
    slash = rest.find("/")
    return "/" if slash < 0 else rest[slash:]


def failure(status: int, error: str, **headers: str) -> web.Response:
    """An answer of the proxy itself, in the form that Ollama's errors have."""
    return web.json_response({"error": error}, status=status, headers=headers)
