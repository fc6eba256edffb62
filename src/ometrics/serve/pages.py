# SPDX-License-Identifier: MIT
"""The pages, each rendered once for all who ask for it at the same time.

Thread safety: `_renderings` maps a page to the rendering that runs. `dict.setdefault`
alone decides who renders, so there is no lock to inherit over a fork; the process id in
the key keeps a child from waiting for a rendering of its parent's threads.
"""

from __future__ import annotations

import gzip
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from ometrics.export import prometheus
from ometrics.export.names import Shown
from ometrics.serve.numbers import Numbers
from ometrics.snapshot import Snapshot
from ometrics.sources import Source, parts_of
from ometrics.windows import STANDARD, Windows

#: Largest page in bytes, before compression; Prometheus itself has no limit by default.
MAX_BYTES: Final = 64 * 2**20
#: Shorter pages are sent as they are: the whole answer fits into one packet anyway.
_GZIP_FROM_BYTES: Final = 1024
#: Fastest: repetitive text shrinks tenfold even so, and a scrape should cost little.
_GZIP_LEVEL: Final = 1

#: Seconds that a rendering may hold the GIL, and for how long it then sleeps. A page of
#: a thousand models takes some 5 ms longer so, and a record waits 1 ms less.
_HOLD_S: Final = 0.0003
_PAUSE_S: Final = 0.0001
#: A page loads nothing, runs nothing and is shown in no frame.
POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
_SECURITY: Final = (
    ("Cache-Control", "no-store"),
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


class Pace:
    """
    Gives the GIL up for a moment whenever a rendering has held it for a while.

    A thread that waits for the GIL asks for it after 5 ms, and only between two lines
    of Python. To release the GIL is not enough: who waits takes longer to wake up than
    a rendering takes to want it back. So this sleeps.
    """

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self) -> None:
        """Sleep, if it is time to."""
        if time.monotonic() - self._since >= _HOLD_S:
            time.sleep(_PAUSE_S)
            self._since = time.monotonic()


class Page(NamedTuple):
    """
    A page made of one snapshot.

    Attributes:
        content_type: Its media type.
        render: Its bytes; called in a thread of its own, for all who ask at once.
        policy: Its `Content-Security-Policy`.
        window: Of what was counted within so long, such as `5m`; all if it is empty.
    """

    content_type: str
    render: Callable[[Snapshot], bytes]
    policy: str = POLICY
    window: str = ""


class _Metrics(NamedTuple):
    """The page for Prometheus, which shows the parts of a source that has some."""

    content_type: str
    render: Callable[[Shown], bytes]
    policy: str


def answer(
    status: int,
    content_type: str,
    body: bytes,
    *more: tuple[str, str],
    policy: str = POLICY,
) -> Response:
    """A response with the headers that every one of ours has, and `more`."""
    basic = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", policy),
    )
    return Response(status, (*basic, *_SECURITY, *more), body)


def line(status: int, text: str, *more: tuple[str, str]) -> Response:
    """A response that is one line of plain text."""
    body = f"{text}\n".encode()
    return answer(status, "text/plain; charset=utf-8", body, *more)


class Pages:
    """
    Renders a source's state: `/metrics`, `/metrics.json` and what is added.

    `/metrics/1m.json`, `5m.json` and `15m.json` are the same of the last minutes.

    Args:
        source: Whose state.
        max_bytes: Largest page before compression; a larger one becomes a 503.
        pages: Further pages by path.
        numbers: Numbers of this process, for `/metrics`.

    Raises:
        ValueError: A path of `pages` is taken or no path.

    Thread-safety:
        Any thread. Each rendering has a daemon thread of its own, so it neither holds
        up an event loop nor keeps a process alive.
    """

    def __init__(
        self,
        source: Source,
        *,
        max_bytes: int = MAX_BYTES,
        pages: Mapping[str, Page] | None = None,
        numbers: Iterable[Numbers] = (),
    ) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._numbers = tuple(numbers)
        self._windows = Windows(source)
        json = Page("application/json", Snapshot.to_json)
        self._pages = {"/metrics.json": json}
        for length in STANDARD:
            self._pages[f"/metrics/{length}.json"] = json._replace(window=length)
        for path, page in (pages or {}).items():
            if path in {"/metrics", "/healthz", *self._pages} or path[:1] != "/":
                raise ValueError(f"pages: {path!r} is taken, or does not begin with /")
            self._pages[path] = page
        self._renderings: dict[tuple[object, ...], Future[Response]] = {}

    @property
    def paths(self) -> tuple[str, ...]:
        """Where there is a page."""
        return ("/metrics", *self._pages)

    def get(self, path: str, accept: str, *, compress: bool) -> Future[Response]:
        """
        A page, rendered from now on or already being rendered for somebody else.

        Args:
            path: One of `paths`.
            accept: The `Accept` header; `/metrics` comes in the format it prefers.
            compress: Whether to use gzip, where that helps.
        """
        if path != "/metrics":
            return self._share(path, self._pages[path], compress)
        chosen = prometheus.negotiate(accept)

        def render(snapshot: Shown) -> bytes:
            own = [family for numbers in self._numbers for family in numbers()]
            return prometheus.render(snapshot, chosen, own, pace=Pace())

        page = _Metrics(chosen.content_type, render, POLICY)
        return self._share(chosen, page, compress)

    def _share(
        self, name: object, page: Page | _Metrics, compress: bool
    ) -> Future[Response]:
        """Join the rendering of this page that runs, or begin one."""
        mine: Future[Response] = Future()
        # From here on it cannot be cancelled: others may wait for it as well.
        mine.set_running_or_notify_cancel()
        key = (os.getpid(), name, compress)
        rendering = self._renderings.setdefault(key, mine)
        if rendering is mine:
            work = (key, mine, page, compress)
            thread = threading.Thread(
                target=self._run, args=work, name="ometrics-render", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread left, or the interpreter is going down
                self._run(*work)
        return rendering

    def _run(
        self,
        key: tuple[object, ...],
        rendering: Future[Response],
        page: Page | _Metrics,
        compress: bool,
    ) -> None:
        try:
            response = self._render(page, compress)
        except Exception as error:  # noqa: BLE001 - whoever waits must get an answer
            # The class only: a message may quote what a page must not show.
            name = type(error).__name__
            _LOG.error("a page could not be rendered: %s", name)
            _LOG.debug("a page could not be rendered", exc_info=error)
            response = line(500, f"500 the page could not be rendered: {name}")
        # First out of the map: who comes from now on wants a newer page.
        self._renderings.pop(key, None)
        rendering.set_result(response)

    def _state(self, page: Page | _Metrics) -> Any:
        """What the page takes."""
        if isinstance(page, _Metrics):
            return parts_of(self._source)
        if not page.window:
            return self._source.snapshot()
        # A collector has samples of every second, any other source those of each look.
        windows: Any = (
            self._source if hasattr(self._source, "window") else self._windows
        )
        return windows.window(page.window)

    def _render(self, page: Page | _Metrics, compress: bool) -> Response:
        shown = self._state(page)
        _make_models(shown)
        body = page.render(shown)
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
        return answer(200, page.content_type, body, *more, policy=page.policy)


def _make_models(shown: Shown) -> None:
    """Make what is packed so far: a large piece of work, done at a pace."""
    pace = Pace()
    for snapshot in [shown] if isinstance(shown, Snapshot) else shown.values():
        make = getattr(snapshot.models, "make", None)
        if make is not None:
            make(pace)
