# SPDX-License-Identifier: MIT
"""The pages, each rendered once for all who ask for it at the same time.

Thread safety: `_flights` maps a page to the rendering under way. `dict.setdefault` is
the only arbiter of who renders, so there is no lock to inherit over a fork; the process
id in the key keeps a child from waiting for a rendering of its parent's threads.
"""

from __future__ import annotations

import gzip
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from ometrics.export import prometheus
from ometrics.snapshot import Snapshot
from ometrics.sources import Source

#: Largest page in bytes, before compression; Prometheus itself has no limit by default.
MAX_BYTES: Final = 64 * 2**20
#: Shorter pages are sent as they are: the whole answer fits into one packet anyway.
_GZIP_FROM_BYTES: Final = 1024
#: Fastest: repetitive text shrinks tenfold even so, and a scrape should cost little.
_GZIP_LEVEL: Final = 1

_SECURITY: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)
_LOG: Final = logging.getLogger("ometrics.serve")


class Response(NamedTuple):
    """
    A whole answer, ready to send.

    Attributes:
        status: HTTP status code.
        headers: Names and values; `Content-Length` is the page's, also for HEAD.
        body: What to send.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def answer(
    status: int, content_type: str, body: bytes, *more: tuple[str, str]
) -> Response:
    """A response with the headers that every one of ours has, and `more`."""
    basic = (("Content-Type", content_type), ("Content-Length", str(len(body))))
    return Response(status, (*basic, *_SECURITY, *more), body)


def line(status: int, text: str, *more: tuple[str, str]) -> Response:
    """A response that is one line of plain text."""
    body = f"{text}\n".encode()
    return answer(status, "text/plain; charset=utf-8", body, *more)


class Pages:
    """
    Renders a source's state as Prometheus or JSON pages.

    Args:
        source: Whose state.
        max_bytes: Largest page before compression; a larger one becomes a 503.

    Thread-safety:
        Any thread. Each rendering has a daemon thread of its own, so it neither holds
        up an event loop nor keeps a process alive.
    """

    def __init__(self, source: Source, *, max_bytes: int = MAX_BYTES) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._flights: dict[tuple[object, ...], Future[Response]] = {}

    def metrics(self, accept: str, *, compress: bool) -> Future[Response]:
        """The Prometheus page in the format that an `Accept` header prefers."""
        chosen = prometheus.negotiate(accept)

        def render(snapshot: Snapshot) -> bytes:
            return prometheus.render(snapshot, chosen)

        return self._share(chosen, chosen.content_type, render, compress)

    def json(self, *, compress: bool) -> Future[Response]:
        """The snapshot in our JSON format."""
        return self._share("json", "application/json", Snapshot.to_json, compress)

    def _share(
        self,
        page: object,
        content_type: str,
        render: Callable[[Snapshot], bytes],
        compress: bool,
    ) -> Future[Response]:
        """Join the rendering of this page that is under way, or begin one."""
        mine: Future[Response] = Future()
        # From here on nobody can cancel it: a client that leaves takes no one's page.
        mine.set_running_or_notify_cancel()
        key = (os.getpid(), page, compress)
        flight = self._flights.setdefault(key, mine)
        if flight is mine:
            work = (key, mine, content_type, render, compress)
            thread = threading.Thread(
                target=self._fly, args=work, name="ometrics-render", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread left, or the interpreter is going down
                self._fly(*work)
        return flight

    def _fly(
        self, key: tuple[object, ...], flight: Future[Response], *how: Any
    ) -> None:
        try:
            response = self._render(*how)
        except Exception as error:  # noqa: BLE001 - whoever waits must get an answer
            # The class only: a message may quote what a page must not show.
            name = type(error).__name__
            _LOG.error("a page could not be rendered: %s", name)
            _LOG.debug("a page could not be rendered", exc_info=error)
            response = line(500, f"500 the page could not be rendered: {name}")
        # First out of the map: who comes from now on wants a newer page.
        self._flights.pop(key, None)
        flight.set_result(response)

    def _render(
        self, content_type: str, render: Callable[[Snapshot], bytes], compress: bool
    ) -> Response:
        body = render(self._source.snapshot())
        if len(body) > self._max_bytes:
            return line(
                503,
                f"503 the page has {len(body):,} bytes, the limit is"
                f" {self._max_bytes:,}: record fewer models (max_models) or raise"
                " max_bytes",
            )
        more = [("Vary", "Accept, Accept-Encoding")]
        if compress and len(body) >= _GZIP_FROM_BYTES:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            more.append(("Content-Encoding", "gzip"))
        return answer(200, content_type, body, *more)
