# SPDX-License-Identifier: MIT
"""Who may pass a proxy, and what those hear who may not."""

from __future__ import annotations

import socket

import pytest
from proxying import connect, exchange, number, read_all, request, wait_until

from ometrics import MetricsCollector
from ometrics.proxy import Proxy, Upstream
from ometrics.testing import Hang, ScriptedOllama, Status

CLOSE = "Connection: close"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Host: localhost:1", b"200"),
        ("Host: 127.0.0.1", b"200"),
        ("Host: evil.example.com", b"421"),
        ("Origin: http://localhost:3000", b"200"),
        ("Origin: app://obsidian.md", b"200"),
        ("Origin: https://evil.example.com", b"403"),
        ("Origin: https://localhost.evil.example.com", b"403"),
        ("Origin: null", b"403"),
    ],
)
def test_hosts_and_origins(
    server: ScriptedOllama, proxy: Proxy, header: str, status: bytes
) -> None:
    """A page of another origin, or under a rebound name, never reaches the server."""
    got = exchange(proxy, request(proxy, "/api/tags", CLOSE, header, method="GET"))

    assert status == got.split()[1]
    assert (status == b"200") == bool(server.requests)
    if status != b"200":
        assert got.endswith(b'"}')
        reason = "host" if status == b"421" else "origin"
        assert 1 == number(proxy, "ometrics.proxy.turned_away", reason=reason)


def test_allowed_by_name(server: ScriptedOllama, collector: MetricsCollector) -> None:
    """Hosts and origins that are given are let in."""
    with Proxy.start(
        collector,
        upstream=server.url,
        port=0,
        allowed_hosts=["gpu.lan"],
        allowed_origins=["https://chat.example.com"],
    ) as proxy:
        headers = ("Host: gpu.lan:80", "Origin: https://chat.example.com", CLOSE)
        got = exchange(proxy, request(proxy, "/api/tags", *headers, method="GET"))

    assert b"200" == got.split()[1]
    assert "https://chat.example.com" == server.requests[0].headers["origin"]


def test_the_token(server: ScriptedOllama, collector: MetricsCollector) -> None:
    """With a token only who sends it passes; it stays with the proxy."""
    with Proxy.start(collector, upstream=server.url, port=0, token="secret") as proxy:
        for sent, status in (
            (("Authorization: Bearer secret",), b"200"),
            (("Authorization: Bearer wrong",), b"401"),
            ((), b"401"),
        ):
            got = exchange(
                proxy, request(proxy, "/api/tags", CLOSE, *sent, method="GET")
            )
            assert status == got.split()[1]
        assert 2 == number(proxy, "ometrics.proxy.turned_away", reason="token")

    (got_by_server,) = server.requests
    assert "authorization" not in got_by_server.headers


def test_a_browser_asks_first(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """Without the token, as browsers do: of an origin that may call, and no more."""
    server.script("/api/chat", [Status(204)])
    asks = "Access-Control-Request-Method: POST"
    mine, other = "Origin: http://localhost:3000", "Origin: https://evil.example.com"
    with Proxy.start(collector, upstream=server.url, port=0, token="secret") as proxy:
        statuses = [
            exchange(
                proxy, request(proxy, "/api/chat", CLOSE, *headers, method=method)
            ).split()[1]
            for method, headers in (
                ("OPTIONS", (mine, asks)),
                ("OPTIONS", (other, asks)),
                ("OPTIONS", (mine,)),
                ("OPTIONS", (asks,)),
                ("POST", (mine, asks)),
            )
        ]

    assert [b"204", b"403", b"401", b"401", b"401"] == statuses


@pytest.mark.parametrize(
    "smuggled",
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: +3",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "X: a\r\n folded",
    ],
)
def test_smuggling(server: ScriptedOllama, proxy: Proxy, smuggled: str) -> None:
    """A request of whose length two servers could disagree is refused."""
    got = exchange(proxy, request(proxy, "/api/tags", smuggled) + b"0\r\n\r\n")

    assert b"400" == got.split()[1]
    assert b'{"error": "' in got
    assert not server.requests
    assert 1 == number(proxy, "ometrics.proxy.turned_away", reason="malformed")


@pytest.mark.parametrize(
    ("line", "header", "reason"),
    [
        ("CONNECT localhost:1", "X: y", "method"),
        ("POST /x", "Transfer-Encoding: gzip, chunked", "malformed"),
        ("POST /x", "Expect: 200-maybe", "malformed"),
    ],
)
def test_what_is_not_spoken_here(
    server: ScriptedOllama, proxy: Proxy, line: str, header: str, reason: str
) -> None:
    """What the proxy cannot pass on unchanged is refused, and counted."""
    method, target = line.split()
    got = exchange(proxy, request(proxy, target, CLOSE, header, method=method))

    assert got.split()[1] in {b"405", b"417", b"501"}
    assert b'{"error": "' in got
    assert not server.requests
    assert 1 == number(proxy, "ometrics.proxy.turned_away", reason=reason)


def test_too_many_requests(server: ScriptedOllama, collector: MetricsCollector) -> None:
    """Above the limit the answer is 503 with the time to come again."""
    server.script("/wait", [Hang()])
    with (
        Proxy.start(collector, upstream=server.url, port=0, max_requests=1) as proxy,
        connect(proxy) as caller,
    ):
        caller.sendall(request(proxy, "/wait", CLOSE))
        wait_until(lambda: server.hanging)

        got = exchange(proxy, request(proxy, "/api/tags", CLOSE, method="GET"))
        server.release()
        read_all(caller)

    assert b"503" == got.split()[1]
    assert b"Retry-After: 1" in got
    assert 1 == number(proxy, "ometrics.proxy.turned_away", reason="busy")


def test_silent_connections_make_room(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """Connections that say nothing never keep a caller out."""
    with Proxy.start(collector, upstream=server.url, port=0, max_requests=2) as proxy:
        silent: list[socket.socket] = [connect(proxy) for _ in range(9)]
        try:
            got = exchange(proxy, request(proxy, "/api/tags", CLOSE, method="GET"))
        finally:
            for one in silent:
                one.close()

    assert b"200" == got.split()[1]
    assert 6 == number(proxy, "ometrics.proxy.turned_away", reason="full")


def test_the_longest_idle_makes_room(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """Not who came first, but who has been idle longest is closed."""
    with (
        Proxy.start(collector, upstream=server.url, port=0, max_requests=1) as proxy,
        connect(proxy) as first,
        connect(proxy) as second,
    ):
        first.sendall(request(proxy, "/api/version", method="GET"))
        assert first.recv(9999)
        wait_until(lambda: not proxy.under_way)
        with connect(proxy) as third:
            third.sendall(request(proxy, "/api/version", method="GET"))
            assert third.recv(9999)
        assert not second.recv(1)
        first.sendall(request(proxy, "/api/version", method="GET"))
        assert first.recv(9999)


def test_strangers_are_asked(collector: MetricsCollector) -> None:
    """To listen beyond this machine needs a token, certificates, or saying so."""
    with pytest.raises(ValueError, match="allow_public"):
        Proxy.start(collector, host="0.0.0.0", port=0)


def test_a_port_that_is_taken(proxy: Proxy, collector: MetricsCollector) -> None:
    """The error names the port, and the program where that can be known."""
    with pytest.raises(OSError, match=rf"port {proxy.port} .* in use by .*\(pid \d+\)"):
        Proxy.start(collector, port=proxy.port)


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://x", "http://", "http://x:99999", "http://a:b@x"]
)
def test_upstreams_that_are_none(url: str) -> None:
    """What is no address of a server is refused."""
    with pytest.raises(ValueError, match="upstream"):
        Upstream.parse(url)
