# SPDX-License-Identifier: MIT
"""The pages as an ASGI or WSGI application, to mount where a server runs already.

Timeouts, TLS and limits of connections are that server's; the rest of the guards
(`ometrics.serve.guard`) holds here as well.
"""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from http import HTTPStatus
from typing import Any

from ometrics.serve.guard import Guard, Hosts
from ometrics.serve.numbers import Numbers
from ometrics.serve.pages import MAX_BYTES, Page, Pages, Response
from ometrics.sources import Source

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]


def asgi(
    source: Source,
    *,
    token: str | None = None,
    allowed_hosts: Collection[str] | None = (),
    max_bytes: int = MAX_BYTES,
    pages: Mapping[str, Page] | None = None,
    numbers: Iterable[Numbers] = (),
) -> AsgiApp:
    """
    The pages as an ASGI application (asyncio).

    Args:
        source: Whose metrics.
        token: Bearer token to ask for; `None`: none.
        allowed_hosts: Host names to answer to besides loopback names and IP
            addresses; `None` if the application around it checks them.
        max_bytes: Largest page; a larger one is a 503.
        pages: Further pages by path, such as `{"/live": Page(...)}`.
        numbers: Numbers of this process itself, for `/metrics`.

    Example:
        app.mount("/internal", ometrics.serve.asgi(mc))  # /internal/metrics
    """
    hosts = Hosts(allowed_hosts, any_address=True)
    all_pages = Pages(source, max_bytes=max_bytes, pages=pages, numbers=numbers)
    return guarded(Guard(all_pages, token=token, hosts=hosts))


def guarded(guard: Guard) -> AsgiApp:
    """A guard as an ASGI application."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close"})
        else:
            response = await guard.respond_async(
                scope["method"], _path(scope), _texts(scope["headers"])
            )
            await send_response(response, send)

    return app


async def send_response(response: Response, send: Send) -> None:
    """A whole answer, as ASGI has it."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers
    ]
    start = {"type": "http.response.start", "status": response.status}
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _path(scope: Scope) -> str:
    """The path below the mount, not decoded where the server gives it so."""
    raw: bytes | None = scope.get("raw_path")
    path: str = scope["path"] if raw is None else raw.decode("latin-1")
    return path.partition("?")[0].removeprefix(scope.get("root_path", ""))


def _texts(headers: Any) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield name.decode("latin-1"), value.decode("latin-1")


async def _live(receive: Receive, send: Send) -> None:
    """Agree to start and to stop: there is nothing to do for either."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


def wsgi(
    source: Source,
    *,
    token: str | None = None,
    allowed_hosts: Collection[str] | None = (),
    max_bytes: int = MAX_BYTES,
    pages: Mapping[str, Page] | None = None,
    numbers: Iterable[Numbers] = (),
) -> WsgiApp:
    """
    The pages as a WSGI application; the arguments are those of `asgi`.

    Example:
        DispatcherMiddleware(app, {"/internal": ometrics.serve.wsgi(mc)})
    """
    hosts = Hosts(allowed_hosts, any_address=True)
    all_pages = Pages(source, max_bytes=max_bytes, pages=pages, numbers=numbers)
    guard = Guard(all_pages, token=token, hosts=hosts)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        headers = [
            (key.removeprefix("HTTP_").replace("_", "-"), value)
            for key, value in environ.items()
            if key.startswith("HTTP_")
        ]
        response = guard.respond(
            environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers
        )
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        start_response(status, list(response.headers))
        return [response.body]

    return app
