# SPDX-License-Identifier: MIT
"""Who may read which page: one function from a request to an answer.

The order is that of cost and of what an answer gives away: the size of the headers, the
`Host` (a page of a rebound DNS name must learn nothing), the method, the path, the
token. `/healthz` needs no token: it says only that something listens, as the open port
does. The query is ignored, and nothing of a request reaches a label, a log or a file.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from typing import Final

from ometrics.serve.pages import Pages, Response, line

#: Most bytes of a request's path and headers.
MAX_HEADER_BYTES: Final = 8 * 1024
#: How far a name may be from its neighbour in a request: `: ` and the line's end.
_HEADER_SEPARATORS_BYTES: Final = 4
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # `b64token` of RFC 6750
_REFUSED_CODING: Final = re.compile(r"q\s*=\s*0(\.0*)?")

Headers = Iterable[tuple[str, str]]


def host_name(value: str) -> str | None:
    """
    The name or address of a `Host` header, canonical and without the port.

    Args:
        value: Such as `localhost:9464` or `[::1]:9464`.

    Returns:
        `localhost`, `::1`; `None` of what is no host.
    """
    match = _HOST.fullmatch(value.strip().lower())
    if match is None:
        return None
    address = _address(match[1] or match[2])
    if address is None:
        return match[2]
    return str(address)


def _configured(name: str) -> str | None:
    """As `host_name`; an IPv6 address may come without a header's brackets."""
    return host_name(name) or host_name(f"[{name}]")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


class Hosts:
    """
    The names under which the pages may be read.

    A browser that a rebound DNS name has led here still sends that name as `Host`.

    Args:
        names: Allowed names and addresses besides the loopback's; a port is ignored.
            `None` allows all: the application checks them itself.
        own: What the server listens on, if that is known.
        any_address: Whether every IP literal is allowed. Rebinding needs a name, so
            this is safe where the own address is not known.

    Raises:
        ValueError: One of them is no host.
    """

    def __init__(
        self,
        names: Collection[str] | None = (),
        *,
        own: Collection[str] = (),
        any_address: bool = False,
    ) -> None:
        if isinstance(names, str):
            raise TypeError(f"allowed_hosts must be a list of names, not {names!r}")
        self._all = names is None
        self._any_address = any_address
        allowed = set(LOOPBACK_NAMES)
        for name in names or ():
            host = _configured(name)
            if host is None:
                raise ValueError(f"allowed_hosts: {name!r} is not a host name")
            allowed.add(host)
        allowed.update(host for name in own if (host := _configured(name)))
        self._allowed = frozenset(allowed)

    def allow(self, header: str | None) -> bool:
        """Whether a request with this `Host` (`None`: without one) may be answered."""
        if self._all:
            return True
        host = None if header is None else host_name(header)
        if host is None:
            return False
        return host in self._allowed or (
            self._any_address and _address(host) is not None
        )


class Bearer:
    """
    A token that readers must send.

    Args:
        token: The token.

    Raises:
        ValueError: It cannot be sent in a header.

    Thread-safety:
        Any thread.
    """

    def __init__(self, token: str) -> None:
        if not _TOKEN.fullmatch(token):
            raise ValueError(
                "token must be letters, digits and ._~+/- only, as RFC 6750 has it:"
                " for example secrets.token_urlsafe()"
            )
        self._token = token.encode()

    def is_sent_in(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header (`None`: there is none) holds it."""
        scheme, _, given = (authorization or "").strip().partition(" ")
        # Compared even where the scheme is wrong: time tells nothing. What is no text
        # in UTF-8 must not fail here: a header may hold any bytes.
        sent = given.strip().encode("utf-8", "surrogateescape")
        same = hmac.compare_digest(sent, self._token)
        return same and scheme.lower() == "bearer"


class Guard:
    """
    Answers requests for the pages.

    Args:
        pages: What there is to read.
        token: Bearer token that all pages but `/healthz` need; `None`: none.
        hosts: Allowed `Host` headers.

    Raises:
        ValueError: The token cannot be sent in a header.

    Thread-safety:
        Any thread.
    """

    def __init__(self, pages: Pages, *, token: str | None, hosts: Hosts) -> None:
        self._pages = pages
        self._bearer = None if token is None else Bearer(token)
        self._hosts = hosts

    def respond(self, method: str, path: str, headers: Headers) -> Response:
        """
        Answer one request; waits for the page to be rendered.

        Args:
            method: As sent.
            path: As sent, not decoded, without the query.
            headers: Names (any case) and values.
        """
        return _sent(method, self._begin(method, path, headers).result())

    async def respond_async(self, method: str, path: str, headers: Headers) -> Response:
        """`respond` for an asyncio event loop, which it does not hold up."""
        page = asyncio.wrap_future(self._begin(method, path, headers))
        return _sent(method, await page)

    def _begin(self, method: str, path: str, headers: Headers) -> Future[Response]:
        fields = [(name.lower(), value) for name, value in headers]
        refusal = self._refusal(method, path, fields)
        if refusal is not None:
            return _done(refusal)
        if path == "/healthz":
            return _done(line(200, "ok"))
        compress = accepts_gzip(_joined(fields, "accept-encoding"))
        return self._pages.get(path, _joined(fields, "accept"), compress=compress)

    def _refusal(
        self, method: str, path: str, fields: list[tuple[str, str]]
    ) -> Response | None:
        """Why this request gets no page; `None` if it does."""
        size = len(path) + sum(
            len(name) + len(value) + _HEADER_SEPARATORS_BYTES for name, value in fields
        )
        if size > MAX_HEADER_BYTES:
            return line(431, f"431 more than {MAX_HEADER_BYTES:,} bytes of headers")
        if not self._hosts.allow(_only(fields, "host")):
            return line(421, "421 not under this host name: see allowed_hosts")
        if method not in {"GET", "HEAD"}:
            return line(405, "405 GET and HEAD only", ("Allow", "GET, HEAD"))
        if path not in (*self._pages.paths, "/healthz"):
            there = ", ".join(self._pages.paths)
            return line(404, f"404 there are {there} and /healthz")
        if path != "/healthz" and not self._knows(_only(fields, "authorization")):
            challenge = ("WWW-Authenticate", 'Bearer realm="ometrics"')
            return line(401, "401 a bearer token is needed", challenge)
        return None

    def _knows(self, authorization: str | None) -> bool:
        return self._bearer is None or self._bearer.is_sent_in(authorization)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header asks for gzip by name."""
    for part in accept_encoding.lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return not _REFUSED_CODING.fullmatch(quality.strip())
    return False


def _only(fields: list[tuple[str, str]], name: str) -> str | None:
    """The value of a header; `None` if it is missing or there more than once."""
    values = [value for key, value in fields if key == name]
    return values[0] if len(values) == 1 else None


def _joined(fields: list[tuple[str, str]], name: str) -> str:
    """All values of a header that is a list."""
    return ", ".join(value for key, value in fields if key == name)


def _done(response: Response) -> Future[Response]:
    future: Future[Response] = Future()
    future.set_result(response)
    return future


def _sent(method: str, response: Response) -> Response:
    """What goes out: the answer to HEAD has headers only."""
    return response._replace(body=b"") if method == "HEAD" else response
