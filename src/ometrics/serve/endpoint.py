# SPDX-License-Identifier: MIT
"""A running endpoint: where it listens, what it asks for, and how it ends.

What would let strangers read refuses to start; the error says how to go on. A forked
child gives up its copies of the sockets, so only the parent serves.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from ometrics.export.names import Family, Labels
from ometrics.serve.credentials import File, read_token, tls_context
from ometrics.serve.guard import Guard, Hosts
from ometrics.serve.listener import Listener, resolve
from ometrics.serve.mount import guarded
from ometrics.serve.numbers import Numbers, turned_away
from ometrics.serve.pages import MAX_BYTES, Page, Pages
from ometrics.sources import Source

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ometrics.serve.server import Server

#: The port that OpenTelemetry's Prometheus exporters listen on.
DEFAULT_PORT: Final = 9464
#: Seconds that `close` waits for the server's thread.
_CLOSE_TIMEOUT_S: Final = 3.0


class Endpoint:
    """
    Serves `/metrics`, `/metrics.json` and `/healthz` until `close()`; see `start`.

    The process ends although it serves. A forked child does not serve; it may start an
    endpoint of its own.

    Attributes:
        host: Address it listens on.
        port: Port it listens on.
        url: Such as `http://127.0.0.1:9464`.

    Thread-safety:
        Any thread.
    """

    def __init__(self, listener: Listener, server: Server, scheme: str) -> None:
        self.host, self.port = listener.getsockname()[:2]
        self.url = f"{scheme}://{_to_connect(self.host)}:{self.port}"
        self._listener = listener
        self._server = server
        self._pid = os.getpid()

    @classmethod
    def start(
        cls,
        source: Source,
        *,
        port: int = DEFAULT_PORT,
        host: str = "127.0.0.1",
        token: str | None = None,
        token_file: File | None = None,
        tls_cert: File | None = None,
        tls_key: File | None = None,
        tls_client_ca: File | None = None,
        allowed_hosts: Collection[str] = (),
        allow_public: bool = False,
        max_bytes: int = MAX_BYTES,
        pages: Mapping[str, Page] | None = None,
        numbers: Iterable[Numbers] = (),
    ) -> Endpoint:
        """
        Serve the metrics of a source.

        Args:
            source: Whose metrics: a collector, several, a file, ...
            port: Where to listen; 0 for any free port.
            host: Address to listen on.
            token: Bearer token that readers must send; `/healthz` needs none.
            token_file: File that holds it, of mode 0600.
            tls_cert: PEM file with the certificate; makes it HTTPS (TLS 1.2 or later).
            tls_key: PEM file with its key; `None`: it is in `tls_cert`.
            tls_client_ca: PEM file with the authorities whose clients may connect.
            allowed_hosts: Host names that readers may use besides `localhost` and the
                address listened on.
            allow_public: Listen beyond this machine without asking for anything.
            max_bytes: Largest page before compression; a larger one is a 503.
            pages: Further pages by path, such as `{"/live": Page(...)}`.
            numbers: Numbers of this process itself, for `/metrics`.

        Raises:
            ImportError: uvicorn is missing: `pip install 'ollama-metrics[serve]'`.
            OSError: The port cannot be had, or a file cannot be read.
            ValueError: Strangers could read, or the arguments contradict each other.
        """
        if token is not None and token_file is not None:
            raise ValueError("token and token_file: give one of them")
        if token_file is not None:
            token = read_token(token_file)
        tls = tls_context(tls_cert, tls_key, tls_client_ca)
        family, address = resolve(host, port)
        ip = ipaddress.ip_address(address[0].partition("%")[0])
        asks = token is not None or tls_client_ca is not None
        if not (ip.is_loopback or asks or allow_public):
            raise ValueError(
                f"host={host!r} lets other machines read without being asked for"
                " anything: give token= or token_file= (and tls_cert=), or"
                " tls_client_ca=; or allow_public=True if that is meant"
            )
        hosts = Hosts(allowed_hosts, own=(host, str(ip)), any_address=ip.is_unspecified)
        server_type = _server_type()
        listener = Listener.bind_to(family, address)

        def own() -> Iterator[Family[Labels]]:
            yield turned_away(listener.turned_away)

        try:
            all_pages = Pages(
                source, max_bytes=max_bytes, pages=pages, numbers=(own, *numbers)
            )
            guard = Guard(all_pages, token=token, hosts=hosts)
            server = server_type(guarded(guard), listener, tls)
        except BaseException:
            listener.close()
            raise
        server.start()
        return cls(listener, server, "http" if tls is None else "https")

    @property
    def turned_away(self) -> int:
        """Connections that had no page, for whatever reason."""
        return sum(self._listener.turned_away.values())

    def close(self) -> None:
        """Stop; answers under way have a second to end. Again: nothing happens."""
        if os.getpid() == self._pid:
            self._server.stop(_CLOSE_TIMEOUT_S)
        else:
            self._listener.abandon()

    def __enter__(self) -> Self:
        """The endpoint itself; it serves already."""
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
        """Where it serves."""
        return f"<Endpoint {self.url}>"


def _server_type() -> type[Server]:
    try:
        from ometrics.serve.server import Server
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the endpoint needs {error.name}: pip install 'ollama-metrics[serve]'"
        ) from error
    return Server


def _to_connect(host: str) -> str:
    """An address to reach this one by, as a URL has it."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.is_unspecified:
        host = "127.0.0.1" if ip.version == 4 else "::1"  # noqa: PLR2004
    return f"[{host}]" if ":" in host else host
