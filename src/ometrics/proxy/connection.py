# SPDX-License-Identifier: MIT
"""`CallerConnection`: a caller's connection, known so that its number is bounded.

The server library has no limit of connections. This stands between a socket and its
protocol, `Http`, and does nothing but to note who is there and has a request under way.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from ometrics.proxy.numbers import ProxyCounts
from ometrics.proxy.passage import failure

_BAD_REQUEST: Final = 400


class Connections:
    """
    Those that are open, in the order in which they came or ended a request.

    Args:
        counts: The proxy's own numbers.
        limit: How many may be.
    """

    def __init__(self, counts: ProxyCounts, limit: int) -> None:
        self._counts = counts
        self._limit = limit
        self._open: dict[CallerConnection, None] = {}

    def add(self, connection: CallerConnection) -> bool:
        """Whether there is room for it, at the cost of an idle one if need be."""
        if len(self._open) >= self._limit:
            self._counts.turned_away["full"] += 1
            idle = next((one for one in self._open if one.is_idle), None)
            if idle is None:
                return False
            idle.end()
        self._open[connection] = None
        self._counts.connections = len(self._open)
        return True

    def rested(self, connection: CallerConnection) -> None:
        """It has ended a request: of those that are idle it is the last to go now."""
        if connection in self._open:
            self._open[connection] = self._open.pop(connection)

    async def end_all(self) -> None:
        """Close all that are left, whatever they do."""
        for connection in [*self._open]:
            connection.end()
        await asyncio.sleep(0)  # until the event loop has done so

    def remove(self, connection: CallerConnection) -> None:
        """It is closed."""
        self._open.pop(connection, None)
        self._counts.connections = len(self._open)


class CallerConnection(asyncio.Protocol):
    """
    One of them.

    Args:
        inner: The protocol that speaks HTTP.
        connections: Where it is noted.

    Attributes:
        is_idle: Whether it has no request under way.
    """

    def __init__(self, inner: Any, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: Any = None
        self.is_idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or close it."""
        self._transport = transport
        if self._connections.add(self):
            self._inner.connection_made(transport)
        else:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._connections.remove(self)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        is_kept: bool | None = self._inner.eof_received()
        return is_kept

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()

    def begin(self) -> None:
        """A request is under way."""
        self.is_idle = False

    def rest(self) -> None:
        """It has ended."""
        self.is_idle = True
        self._connections.rested(self)

    def end(self) -> None:
        """Close it now."""
        self._connections.remove(self)
        self._transport.abort()


class Http(web.RequestHandler):
    """
    HTTP as a caller speaks it; what is none is answered in the form of Ollama's errors.

    Args:
        manager: Of all connections.
        counts: The proxy's own numbers.
        options: Of the server library.
    """

    def __init__(
        self, manager: web.Server, counts: ProxyCounts, **options: Any
    ) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)
        self._counts = counts

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be read, or in which the proxy failed."""
        del exc, message  # which may quote the request
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        error = "the proxy failed"
        if status == _BAD_REQUEST:
            self._counts.turned_away["malformed"] += 1
            error = "the request is no valid HTTP/1.1, or its headers are too many"
        answer = failure(status, f"ometrics proxy: {error}")
        answer.force_close()
        return answer
