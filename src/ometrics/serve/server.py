# SPDX-License-Identifier: MIT
"""uvicorn in a daemon thread, with the limits that it does not have itself.

Why uvicorn, held against what the endpoint has to withstand:

- cheroot has TLS with client certificates, but it makes the handshake in its accepting
  thread, so one client that stays silent keeps all others out; and a thread reads each
  connection, so as many silent ones as there are threads do the same.
- waitress has no TLS; werkzeug's server is for development, as its manual says.
- granian has a header timeout, but runs an event loop of its own in Rust: its embedded
  form is experimental, and threads that Python does not know do not survive a fork.
- hypercorn brings HTTP/2 and WebSockets (four packages more) and has, like uvicorn,
  neither a header timeout nor a limit of connections.
- uvicorn is one thread, pure Python on asyncio and h11, takes any listening socket and
  any protocol class, and leaves signals alone outside the main thread. What it lacks is
  a matter of whom to let in: `ometrics.serve.listener` sees to that below TLS.

No connection is kept alive: one request each makes every limit exact, leaves nothing to
smuggle, and costs a scraper one connection in 15 s.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from contextlib import suppress
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ometrics.serve.guard import MAX_HEADER_BYTES
from ometrics.serve.listener import ACCEPTED_AT_ONCE, MAX_ANSWERS, Listener
from ometrics.serve.mount import AsgiApp, Receive, Scope, Send, send_response
from ometrics.serve.pages import line

#: Seconds that answers under way have to end after `stop`.
_GRACE_S: Final = 1
#: Seconds until uvicorn stops to wait for an answer that is still being made.
_GIVE_UP_S: Final = 2
#: Seconds between two looks at the clock for the `Date` header.
_TICK_S: Final = 1.0
#: When those who were refused may come again: by then a slow reader gives way.
_RETRY_AFTER_S: Final = 5
_BUSY: Final = line(
    503,
    f"503 {MAX_ANSWERS} requests are being answered: again in {_RETRY_AFTER_S} s",
    ("Retry-After", str(_RETRY_AFTER_S)),
)
#: uvicorn's name for its general log; a server of the application writes there as well.
_UVICORN_LOG: Final = logging.getLogger("uvicorn.error")
_LOG: Final = logging.getLogger("ometrics.serve.http")
# Anybody can send nonsense; a line for each would be a way to fill the disk.
if _LOG.level == logging.NOTSET:
    _LOG.setLevel(logging.ERROR)


class _Protocol(H11Protocol):
    """HTTP/1.1 without a word about requests in any log."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _LOG
        self.access_log = False


class _Quiet(uvicorn.Server):
    """One that wakes up once a second, for the `Date` header, instead of ten times."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    async def main_loop(self) -> None:
        """Until `ended` is set; were this not called any more, `should_exit` works."""
        while not await self.on_tick(0):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _TICK_S)


class Server:
    """
    Serves an application on a listener, from `start` to `stop`.

    Args:
        app: What to serve.
        listener: Where; the server closes it.
        tls: How to speak TLS; `None`: not at all.

    Thread-safety:
        Any thread.
    """

    def __init__(
        self, app: AsgiApp, listener: Listener, tls: ssl.SSLContext | None
    ) -> None:
        async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
            if listener.admit(scope["client"], scope["server"]):
                await app(scope, receive, send)
            else:
                await send_response(_BUSY, send)

        config = uvicorn.Config(
            admitted,
            http=_Protocol,
            backlog=ACCEPTED_AT_ONCE,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,  # logging is the application's
            proxy_headers=False,  # who is let in depends on the real addresses
            server_header=False,
            headers=[("Connection", "close")],
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=_GIVE_UP_S,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
        config.load()
        self._listener = listener
        self._server = _Quiet(config)
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(
            target=self._run, name="ometrics-serve", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """
        End all that waits, give answers under way a moment, and stop.

        Args:
            timeout: Seconds to wait for the end.
        """
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(timeout)

    def _end(self) -> None:
        self._server.should_exit = True
        self._server.ended.set()
        self._listener.end_waiting()
        self._loop.call_later(_GRACE_S, self._listener.end_all)

    def _run(self) -> None:
        me = threading.get_ident()

        def not_ours(record: logging.LogRecord) -> bool:
            return record.thread != me or record.levelno > logging.INFO

        # "Started server process" would puzzle who runs uvicorn for something else.
        _UVICORN_LOG.addFilter(not_ours)
        try:
            self._loop.run_until_complete(self._server.serve([self._listener]))
        finally:
            _UVICORN_LOG.removeFilter(not_ours)
            self._listener.close()
            self._loop.close()
