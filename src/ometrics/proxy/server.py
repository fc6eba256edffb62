# SPDX-License-Identifier: MIT
"""`ProxyServer`: the event loop, its limits, and its orderly end.

aiohttp is both server and client: it parses in C (llhttp), refuses what two parsers
could read differently, passes chunks on as they come, and cancels the request of a
caller who is gone. In one run on two busy cores (`benchmarks/proxy.py`, on uvloop,
2026-11-25):

| | first chunk p50, p99 | CPU a chunk |
|---|---|---|
| direct | 0.21 ms, 4.95 ms | |
| this proxy, measuring | 1.09 ms, 6.23 ms | 48 us |
| nginx, unbuffered | 0.40 ms, 2.38 ms | 18 us |

When it was chosen, in another run: direct 0.5 ms, this proxy 2.2 ms and 77 us, uvicorn
(h11) with httpx, measuring nothing, 4.2 ms and 203 us, nginx 0.8 ms and 23 us.

h11 over anyio was left out: it is what the slower pair above consists of.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web

from ometrics.instrumentation.registry import registry
from ometrics.proxy.connection import CallerConnection, Connections, Http
from ometrics.proxy.guard import CallerGuard
from ometrics.proxy.numbers import ProxyCounts
from ometrics.proxy.passage import NOT_SENT, Connector, Passage, failure
from ometrics.proxy.upstream import Upstream

if TYPE_CHECKING:
    from ometrics.collector import MetricsCollector

#: Seconds until a connection without a request under way is closed; so long may one
#: take to send a request's headers.
IDLE_TIMEOUT_S: Final = 75.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
#: Bytes of one header, the first line included, in a request or an answer.
MAX_HEADER_BYTES: Final = 64 << 10
#: Connections that the kernel keeps ready.
BACKLOG: Final = 1024
#: Bytes that are read ahead of whoever is slower.
_READ_AHEAD: Final = 64 << 10
#: Seconds that what is still under way after the drain has to end.
_LAST_S: Final = 0.2
_LAST_TURNS_S: Final = 0.01
_RETRY_AFTER_S: Final = 1

# Anybody can send nonsense; a line for each would be a way to fill the disk, and a
# traceback could quote a body.
_LOG: Final = logging.getLogger("ometrics.proxy.http")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False
# How HTTP is spoken with callers.
_HTTP: Final = {
    "access_log": None,
    "logger": _LOG,
    "auto_decompress": False,
    "keepalive_timeout": IDLE_TIMEOUT_S,
    "lingering_time": 1.0,
    "max_line_size": MAX_HEADER_BYTES,
    "max_field_size": MAX_HEADER_BYTES,
    "read_bufsize": _READ_AHEAD,
}


@dataclass(frozen=True)
class Limits:
    """
    How much a proxy takes on.

    Attributes:
        requests: Under way at once; further ones are answered 503.
        connections: Open at once; for a further one the longest idle is closed.
    """

    requests: int
    connections: int


class ProxyServer:
    """
    Passes requests on from `serve` to `stop`.

    Args:
        upstream: Where to.
        collectors: Who counts the calls.
        guard: Who may pass.
        limits: How many at once.
        tls: How to speak TLS to callers; `None`: not at all.

    Thread-safety:
        All in one event loop's thread; `counts` may be read from any.
    """

    def __init__(
        self,
        upstream: Upstream,
        collectors: tuple[MetricsCollector, ...],
        guard: CallerGuard,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.counts = ProxyCounts()
        self._upstream = upstream
        self._collectors = collectors
        self._guard = guard
        self._limits = limits
        self._tls = tls
        # A token that was for the proxy is not the server's business.
        own = {"authorization"} if guard.bearer is not None else set()
        self._drops = NOT_SENT | own
        self._session: Any = None
        self._idle = asyncio.Event()
        self._stopping = asyncio.Event()
        self._drain_s = 0.0

    async def serve(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """
        Serve until `stop`.

        Args:
            listener: Where.
            ready: Called when it does.
        """
        loop = asyncio.get_running_loop()
        callers = web.Server(self._handle, handler_cancellation=True)
        connections = Connections(self.counts, self._limits.connections)

        def connection() -> CallerConnection:
            return CallerConnection(Http(callers, self.counts, **_HTTP), connections)

        async with self._client() as self._session:
            registry.leave_out(self._session)  # measured here, once
            server = await loop.create_server(
                connection,
                sock=listener,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls else None,
            )
            ready()
            await self._stopping.wait()
            # asyncio loses a connection that it accepts in the turn in which it closes
            # (CPython 3.11): so no more of them first, and then the end.
            loop.remove_reader(listener)
            await asyncio.sleep(_LAST_TURNS_S)
            server.close()
            callers.pre_shutdown()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._drained(), self._drain_s)
            await callers.shutdown(_LAST_S)
            await asyncio.sleep(_LAST_TURNS_S)  # who was just accepted is known then
            await connections.end_all()
        # What was closed last is closed by the event loop, in a turn or two.
        await asyncio.sleep(_LAST_TURNS_S)

    def stop(self, drain_s: float) -> None:
        """
        Take no more connections, and end when what is under way has.

        Args:
            drain_s: Seconds that it has to. Called again with less: that holds.
        """
        self._drain_s = drain_s
        self._stopping.set()

    async def _drained(self) -> None:
        while self.counts.under_way:
            self._idle.clear()
            await self._idle.wait()

    def _client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=Connector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=(
                "Accept",
                "Accept-Encoding",
                "Content-Type",
                "User-Agent",
            ),
            read_bufsize=_READ_AHEAD,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        counts = self.counts
        refusal = self._guard.refusal(request.method, request.headers)
        if refusal is not None:
            counts.turned_away[refusal.reason] += 1
            return failure(refusal.status, refusal.error)
        if counts.under_way >= self._limits.requests:
            counts.turned_away["busy"] += 1
            return failure(
                503,
                f"{self._limits.requests:,} requests are under way: try again, or"
                " raise --max-requests",
                **{"Retry-After": str(_RETRY_AFTER_S)},
            )
        passage = Passage(
            request,
            upstream=self._upstream,
            session=self._session,
            collectors=self._collectors,
            counts=counts,
            drops=self._drops,
        )
        counts.under_way += 1
        connection = request.transport and request.transport.get_protocol()
        if isinstance(connection, CallerConnection):
            connection.begin()
        try:
            return await passage.run()
        finally:
            counts.under_way -= 1
            if isinstance(connection, CallerConnection):
                connection.rest()
            self._idle.set()
