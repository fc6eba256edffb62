# SPDX-License-Identifier: MIT
"""Another process' endpoint as a source: its `/metrics.json`, over HTTP."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from ometrics.documents import in_pieces, parse

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot

PAGE: Final = "/metrics.json"

# What to do about an answer that is no success.
_ADVICE: Final = {
    401: "it needs its token: read(url, token=...), or OMETRICS_TOKEN for the command",
    403: "it allows no such host name: use its address, or add the name to its"
    " allowed_hosts",
    404: f"no such page; an endpoint of ometrics has its numbers at {PAGE}",
    503: "it has too many readers at this moment: try again",
}


class Remote:
    """
    An endpoint as a source; made by `ometrics.read(url)`.

    Args:
        url: `http` or `https`; without a path, `/metrics.json` is meant.
        token: Bearer token; `None` for none.
        timeout: Seconds until the whole answer must be there.

    Thread-safety:
        Any thread; each `snapshot()` has a connection of its own.
    """

    def __init__(self, url: str, *, token: str | None, timeout: float) -> None:
        self.url = _checked(url)
        self._token = token
        self._timeout = timeout

    def snapshot(self) -> Snapshot:
        """
        What the endpoint says now.

        Raises:
            ValueError: It answered with something that is not an export.
            OSError: It did not answer with success, or not in time.
        """
        headers = {"Accept": "application/json", "User-Agent": "ometrics"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310
        deadline = time.monotonic() + self._timeout
        try:
            with self._opener().open(request, timeout=self._timeout) as answer:
                return parse(_read(answer, deadline), self.url)
        except urllib.error.HTTPError as error:
            with error:
                advice = _ADVICE.get(error.code, "see the log of that process")
                raise OSError(
                    f"{self.url} answered {error.code} {error.reason}: {advice}"
                ) from None
        except urllib.error.URLError as error:
            raise OSError(f"{self.url}: {_reason(error.reason)}") from None
        except (HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            raise OSError(f"{self.url}: {_reason(error)}") from None

    def _opener(self) -> urllib.request.OpenerDirector:
        handlers: list[urllib.request.BaseHandler] = [_SameHost()]
        if _is_loopback(urlsplit(self.url).hostname or ""):
            # No proxy of the environment knows what listens on this machine.
            handlers.append(urllib.request.ProxyHandler({}))
        return urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"<Remote {self.url}>"


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects on the same host and port only, as the token would go along."""

    def redirect_request(  # noqa: PLR0917 - as in the standard library
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            raise urllib.error.URLError(
                f"it redirects to {after.scheme}://{after.netloc}, another place; if"
                " that is where the numbers are, read it instead"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checked(url: str) -> str:
    """
    A URL with the page that is meant.

    Raises:
        ValueError: It is none of HTTP, or has no host, or has a password in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if "@" in parts.netloc:
        raise ValueError(
            "a URL with a user or password in it ends up in logs and histories; give"
            " the endpoint's token instead"
        )
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"{url!r} is no http:// or https:// URL and no file")
    if not url.isprintable() or " " in url or not parts.hostname:
        raise ValueError(f"{url!r} names no host; write it like http://127.0.0.1:9464")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    path = parts.path if parts.path.strip("/") else PAGE
    return urlunsplit(SplitResult(parts.scheme, parts.netloc, path, parts.query, ""))


def _read(answer: HTTPResponse, deadline: float) -> bytes:
    """
    A body, which may be neither endless nor endlessly slow.

    Raises:
        TimeoutError: It was not complete in time.
    """

    def read(size: int) -> bytes:
        if time.monotonic() > deadline:
            raise TimeoutError
        return answer.read1(size)

    return in_pieces(read)


def _reason(error: object) -> str:
    """Why there was no answer, and what to do."""
    if isinstance(error, TimeoutError):
        return "no complete answer in time; is the process busy, or the timeout short?"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is the process running, and is this its port?"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
