# SPDX-License-Identifier: MIT
"""Who may pass: which `Host`, which `Origin`, which token.

A page in somebody's browser can send requests to this machine. It cannot choose their
`Host`, so a DNS name rebound to here is refused; nor their `Origin`, so only pages of
this machine and of desktop applications pass, as Ollama itself has it. What has no
`Origin` comes from a program.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from ometrics.instrumentation.providers import is_loopback
from ometrics.serve.guard import Bearer, Hosts

#: Schemes of desktop applications, which no page of the web can have.
APPLICATIONS: Final = frozenset(
    {"app", "file", "tauri", "vscode-file", "vscode-webview"}
)

_GO_ON: Final = "100-continue"
_PREFLIGHT: Final = "Access-Control-Request-Method"

#: Why a request or a connection was not let through.
Reason = Literal["host", "origin", "token", "method", "malformed", "busy", "full"]


class Refusal(NamedTuple):
    """
    The answer to who may not pass.

    Attributes:
        reason: For the counter.
        status: Of HTTP.
        error: For people: what to do.
    """

    reason: Reason
    status: int
    error: str


class CallerGuard:
    """
    Decides by a request's method and headers.

    Args:
        hosts: Allowed `Host` headers.
        origins: Allowed `Origin` headers besides those of this machine, such as
            `https://chat.example.com`; `*` is every one.
        token: Bearer token that every request must have; `None`: none.

    Raises:
        ValueError: The token cannot be sent in a header.

    Thread-safety:
        Any thread.
    """

    def __init__(
        self, hosts: Hosts, *, origins: Collection[str] = (), token: str | None = None
    ) -> None:
        self._hosts = hosts
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self.bearer = None if token is None else Bearer(token)

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """
        Why a request may not pass; `None` if it may.

        Args:
            method: As sent.
            headers: Looked up by any case; each header once.
        """
        if not self._hosts.allow(headers.get("Host")):
            return Refusal("host", 421, "not under this host name: see --allow-host")
        origin = headers.get("Origin")
        if origin is not None and not self._allows(origin):
            return Refusal(
                "origin", 403, "not from a page of this origin: see --allow-origin"
            )
        # A browser asks first whether it may, and never with the token.
        asks = method == "OPTIONS" and origin and _PREFLIGHT in headers
        sent = headers.get("Authorization")
        if self.bearer and not asks and not self.bearer.is_sent_in(sent):
            return Refusal("token", 401, "a bearer token is needed")
        return _unspoken(method, headers)

    def _allows(self, origin: str) -> bool:
        origin = origin.lower()
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            host = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme in ("http", "https"):
            return is_loopback(host)
        return parts.scheme in APPLICATIONS


def _unspoken(method: str, headers: Mapping[str, str]) -> Refusal | None:
    """What of HTTP is not passed on."""
    if method == "CONNECT":
        return Refusal("method", 405, "this is no proxy for CONNECT")
    if headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        return Refusal("malformed", 501, "no transfer encoding but chunked")
    if headers.get("Expect", _GO_ON).lower() != _GO_ON:
        return Refusal("malformed", 417, f"no expectation but {_GO_ON}")
    return None
