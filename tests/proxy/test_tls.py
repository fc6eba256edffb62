# SPDX-License-Identifier: MIT
"""TLS on both sides of a proxy: to callers, and to the server."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from proxying import BODY, PATIENCE, counted
from serving import Certificates

from ometrics import MetricsCollector
from ometrics.proxy import Proxy
from ometrics.testing import ScriptedOllama

pytestmark = pytest.mark.usefixtures("loop")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """An authority and its certificates."""
    return Certificates(tmp_path)


def _chat(proxy: Proxy, certificates: Certificates, client: str | None = None) -> bytes:
    """A call over TLS; what came."""
    context = ssl.create_default_context(cafile=certificates.ca)
    if client is not None:
        context.load_cert_chain(client)
    with closing(
        http.client.HTTPSConnection(
            proxy.host, proxy.port, timeout=PATIENCE, context=context
        )
    ) as connection:
        connection.request("POST", "/api/chat", body=json.dumps(BODY))
        return connection.getresponse().read()


def test_to_callers(
    server: ScriptedOllama, collector: MetricsCollector, certificates: Certificates
) -> None:
    """Callers speak HTTPS, and are measured; who speaks HTTP gets nothing."""
    with Proxy.start(
        collector, upstream=server.url, port=0, tls_cert=certificates.server
    ) as proxy:
        assert proxy.url.startswith("https://")
        assert b'"done":true' in _chat(proxy, certificates)
        with socket.create_connection((proxy.host, proxy.port), PATIENCE) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP" not in _received(plain)

    assert (1, 0, 0) == counted(collector)


def _received(plain: socket.socket) -> bytes:
    """What comes before the connection ends, in whatever way."""
    try:
        return plain.recv(9999)
    except ConnectionError:
        return b""


def test_strangers_stay_out(
    server: ScriptedOllama, collector: MetricsCollector, certificates: Certificates
) -> None:
    """With an authority for callers only its certificates open the door."""
    with Proxy.start(
        collector,
        upstream=server.url,
        port=0,
        tls_cert=certificates.server,
        tls_client_ca=certificates.ca,
    ) as proxy:
        assert b'"done":true' in _chat(proxy, certificates, certificates.client)
        for client in (None, certificates.stranger):
            with pytest.raises(OSError):  # an alert, or a reset
                _chat(proxy, certificates, client)

    assert 1 == len(server.requests)


def test_to_the_server(
    collector: MetricsCollector,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server by HTTPS is checked against this machine's authorities."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificates.server)
    body = b'{"model":"m","message":{"content":"hi"},"done":true}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d"

    def answer() -> None:
        for _ in range(2):
            with listener.accept()[0] as raw:
                try:
                    with server_side.wrap_socket(raw, server_side=True) as connection:
                        connection.recv(1 << 16)
                        connection.sendall(head % len(body) + b"\r\n\r\n" + body)
                except OSError:  # who does not trust it has left
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        for trusted, status in ((False, 502), (True, 200)):
            if trusted:
                context = ssl.create_default_context(cafile=certificates.ca)
                # What aiohttp makes of the environment when it is imported.
                monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)
            with (
                Proxy.start(collector, upstream=url, port=0) as proxy,
                closing(
                    http.client.HTTPConnection(proxy.host, proxy.port, timeout=PATIENCE)
                ) as connection,
            ):
                connection.request("POST", "/api/chat", body=json.dumps(BODY))
                answered = connection.getresponse()
                assert status == answered.status
                if trusted:
                    assert body == answered.read()
        thread.join()
