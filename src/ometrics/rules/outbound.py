# SPDX-License-Identifier: MIT
"""One HTTP POST to an address that is known to be allowed, with a deadline.

The name is resolved once and every address is checked; the connection then goes to a
checked address, so a name that changes its mind reaches nothing else. Redirects are not
followed and proxies of the environment are not used, because both would choose another
address.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_PORTS: Final = {"http": 80, "https": 443}
# Addresses of IPv6 that carry one of IPv4 to somewhere else.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockedAddressError(OSError):
    """A name leads to an internal address, and that was not allowed."""


class PostTarget(NamedTuple):
    """
    Where a POST goes; made by `target()`.

    Attributes:
        secure: Whether by TLS.
        host: Name or address, as the URL has it.
        port: Its port.
        path: What to ask for, with the query.
        allow_internal: Whether the address may be one of this machine or network.
    """

    secure: bool
    host: str
    port: int
    path: str
    allow_internal: bool


def target(url: object, *, allow_internal: bool = False) -> PostTarget:
    """
    Read a URL.

    Raises:
        ValueError: It is no URL of http or https with a host, or has a password in it.
    """
    if not isinstance(url, str):
        raise ValueError(f"a URL is text, not {type(url).__name__}")  # noqa: TRY004
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a URL such as 'https://alerts.example/path'") from None
    if parts.scheme not in _PORTS or not host or not url.isprintable() or " " in url:
        raise ValueError("not a URL such as 'https://alerts.example/path'")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL has a user or password in it; leave them out")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return PostTarget(
        parts.scheme == "https",
        host,
        port or _PORTS[parts.scheme],
        path,
        allow_internal,
    )


def is_internal(address: str) -> bool:
    """Whether an address is not one of the public internet."""
    ip: _Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64_LOCAL:
            return True
        carried = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            carried.append(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
        if any(inner is not None and is_internal(str(inner)) for inner in carried):
            return True
        if ip in _NAT64:
            return False
    return not ip.is_global or ip.is_multicast


def post(
    to: PostTarget, body: bytes, headers: Mapping[str, str], *, timeout: float = 10.0
) -> int:
    """
    Send, and give the status of the answer; nothing else of it is read.

    Args:
        to: Where to.
        body: What to send.
        headers: In addition to the usual ones.
        timeout: Seconds until all is over, however slowly the other side answers.

    Raises:
        OSError: It could not be reached, broke off, or took too long.
        BlockedAddressError: Its name leads to an internal address.
    """
    deadline = time.monotonic() + timeout
    sock = _connect(to, timeout)
    cut = threading.Timer(max(deadline - time.monotonic(), 0.0), _cut, [sock])
    cut.daemon = True
    cut.start()
    try:
        if to.secure:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=to.host)
        connection = http.client.HTTPConnection(to.host, to.port)
        connection.sock = sock
        connection.request("POST", to.path, body, dict(headers))
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise ConnectionError(f"no HTTP answer ({type(error).__name__})") from None
    finally:
        cut.cancel()
        sock.close()


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # The plain call: that of a TLS socket would take its state away.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _connect(to: PostTarget, timeout: float) -> socket.socket:
    found = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
    if not to.allow_internal:
        for address in addresses:
            if is_internal(address):
                raise BlockedAddressError(
                    f"{to.host} is the internal address {address}; if it shall be told,"
                    " set allow_internal = true"
                )
    last: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, to.port), timeout)
        except OSError as error:
            last = error
    raise last or OSError(f"{to.host} has no address")
