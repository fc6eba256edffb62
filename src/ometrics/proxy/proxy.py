# SPDX-License-Identifier: MIT
"""A running proxy: where it listens, whom it lets in, and how it ends.

What would let strangers in refuses to start; the error says how to go on.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ometrics.export.names import Family, Labels
from ometrics.proxy.guard import CallerGuard
from ometrics.proxy.upstream import DEFAULT_UPSTREAM, Upstream
from ometrics.serve.credentials import File, read_token, tls_context
from ometrics.serve.guard import Hosts
from ometrics.serve.listener import explain, resolve

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from typing_extensions import Self

    from ometrics.collector import MetricsCollector
    from ometrics.proxy.server import ProxyServer

#: The port after Ollama's own.
DEFAULT_PORT: Final = 11435
MAX_REQUESTS: Final = 1000
#: Seconds that streams under way have to end.
DRAIN_S: Final = 10.0
_BACKLOG: Final = 1024
#: Seconds more for the thread itself.
_GRACE_S: Final = 5.0


class Proxy:
    """
    Passes requests on until `close()`; see `start`.

    Attributes:
        host: Address it listens on.
        port: Port it listens on.
        url: Such as `http://127.0.0.1:11435`.

    Thread-safety:
        Any thread.
    """

    def __init__(
        self,
        listener: socket.socket,
        server: ProxyServer,
        scheme: str,
        upstream: Upstream,
    ) -> None:
        self.host, self.port = listener.getsockname()[:2]
        self.url = f"{scheme}://{_to_connect(self.host)}:{self.port}"
        self.upstream = upstream
        self._listener = listener
        self._server = server
        self._loop = _new_loop()
        self._thread = threading.Thread(
            target=self._run, name="ometrics-proxy", daemon=True
        )
        self._ready: Future[None] = Future()
        self._thread.start()
        self._ready.result()

    @classmethod
    def start(
        cls,
        *collectors: MetricsCollector,
        upstream: str = DEFAULT_UPSTREAM,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        token_file: File | None = None,
        tls_cert: File | None = None,
        tls_key: File | None = None,
        tls_client_ca: File | None = None,
        allowed_hosts: Collection[str] = (),
        allowed_origins: Collection[str] = (),
        allow_public: bool = False,
        max_requests: int = MAX_REQUESTS,
    ) -> Proxy:
        """
        Stand in front of a server.

        Args:
            collectors: Who counts the calls.
            upstream: The server's address.
            host: Address to listen on.
            port: Where to listen; 0 for any free port.
            token: Bearer token that callers must send; it is not passed on.
            token_file: File that holds it, of mode 0600.
            tls_cert: PEM file with the certificate; makes it HTTPS (TLS 1.2 or later).
            tls_key: PEM file with its key; `None`: it is in `tls_cert`.
            tls_client_ca: PEM file with the authorities whose clients may connect.
            allowed_hosts: Host names that callers may use besides `localhost` and the
                address listened on.
            allowed_origins: Origins of web pages that may call, besides those of this
                machine; `*` is every one.
            allow_public: Listen beyond this machine without asking for anything.
            max_requests: Requests under way at once; further ones are answered 503.

        Raises:
            ImportError: aiohttp is missing: `pip install 'ollama-metrics[proxy]'`.
            OSError: The port cannot be had, or a file cannot be read.
            ValueError: Strangers could call, or the arguments contradict each other.
        """
        if token is not None and token_file is not None:
            raise ValueError("token and token_file: give one of them")
        if max_requests < 1:
            raise ValueError(f"max_requests {max_requests}: must be 1 or more")
        if token_file is not None:
            token = read_token(token_file)
        server_at = Upstream.parse(upstream)
        tls = tls_context(tls_cert, tls_key, tls_client_ca)
        family, address = resolve(host, port)
        ip = ipaddress.ip_address(address[0].partition("%")[0])
        asks = token is not None or tls_client_ca is not None
        if not (ip.is_loopback or asks or allow_public):
            raise ValueError(
                f"host={host!r} lets other machines use the server without being asked"
                " for anything: give token= or token_file= (and tls_cert=), or"
                " tls_client_ca=; or allow_public=True if that is meant"
            )
        hosts = Hosts(allowed_hosts, own=(host, str(ip)), any_address=ip.is_unspecified)
        guard = CallerGuard(hosts, origins=allowed_origins, token=token)
        server = _new_server(server_at, collectors, guard, max_requests, tls)
        try:
            listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        except OSError as error:
            raise OSError(error.errno, explain(error, address)) from error
        own = listener.getsockname()[1]
        if server_at.port == own and _is_here(server_at.host, ip):
            listener.close()
            raise ValueError(f"upstream {upstream!r} is this proxy itself")
        return cls(listener, server, "http" if tls is None else "https", server_at)

    def numbers(self) -> Iterator[Family[Labels]]:
        """The proxy's own numbers, for an endpoint."""
        return self._server.counts.families()

    @property
    def under_way(self) -> int:
        """Requests that are being passed on or answered."""
        return self._server.counts.under_way

    def close(self, drain_s: float = DRAIN_S) -> None:
        """
        Take no more connections, let what is under way end, and stop.

        Args:
            drain_s: Seconds after which what is still under way is broken off, and
                counted as cancelled. Again: nothing happens.
        """
        if self._thread.is_alive():
            with suppress(RuntimeError):  # the loop has ended just now
                self._loop.call_soon_threadsafe(self._server.stop, drain_s)
            self._thread.join(drain_s + _GRACE_S)

    def __enter__(self) -> Self:
        """The proxy itself; it passes requests on already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Where it listens, and for whom."""
        return f"<Proxy {self.url} of {self.upstream.base}>"

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(
                self._server.serve(self._listener, lambda: self._ready.set_result(None))
            )
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._listener.close()
            asyncio.set_event_loop(None)
            loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Uvloop's event loop where it is installed."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _new_server(
    upstream: Upstream,
    collectors: tuple[MetricsCollector, ...],
    guard: CallerGuard,
    max_requests: int,
    tls: ssl.SSLContext | None,
) -> ProxyServer:
    try:
        from ometrics.proxy.server import Limits, ProxyServer
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the proxy needs {error.name}: pip install 'ollama-metrics[proxy]'"
        ) from error
    limits = Limits(requests=max_requests, connections=2 * max_requests)
    return ProxyServer(upstream, collectors, guard, limits, tls)


def _is_here(host: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a host is the address that a proxy listens on."""
    from ometrics.instrumentation.providers import is_loopback

    if is_loopback(host):
        return ip.is_loopback or ip.is_unspecified
    return host == str(ip)


def _to_connect(host: str) -> str:
    """An address to reach this one by, as a URL has it."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.is_unspecified:
        host = "127.0.0.1" if ip.version == 4 else "::1"  # noqa: PLR2004
    return f"[{host}]" if ":" in host else host
