# SPDX-License-Identifier: MIT
"""`Upstream`: the server that a proxy stands in front of."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_UPSTREAM = "http://127.0.0.1:11434"


class Upstream(NamedTuple):
    """
    Where requests go.

    Attributes:
        base: Scheme, host, port and path before that of each request.
        host: Name or address.
        port: `None` for the scheme's own.
    """

    base: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, url: str) -> Upstream:
        """
        The server at an address.

        Args:
            url: `http://host:port`, `https://host`, perhaps with a path.

        Raises:
            ValueError: It is no such address.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"upstream {url!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError(
                f"upstream {url!r} is no address of a server: give one such as"
                f" {DEFAULT_UPSTREAM}"
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "upstream: give scheme, host, port and path only; the callers' own"
                " credentials are passed on"
            )
        return cls(
            f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"), host, port
        )
