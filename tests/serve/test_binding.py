# SPDX-License-Identifier: MIT
"""Where the endpoint listens, who may connect, and what must be readable for it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import (
    Certificates,
    Source,
    connect,
    curl,
)

from ometrics.serve import Endpoint

# curl and openssl do not run with a sanitizer loaded before them.
pytestmark = pytest.mark.sanitize_skip


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint with the default guards."""
    with Endpoint.start(Source(), port=0) as running:
        yield running


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "0.0.0.0", "tls_cert": "SERVER"},
    ],
)
def test_public_bind_refuses_to_start(
    certificates: Certificates, options: dict[str, Any]
) -> None:
    """
    Strangers can read nothing unless that is said, and the error says how.

    Encryption alone keeps nobody out. Without the check in `start` it listens.
    """
    if "tls_cert" in options:
        options = options | {"tls_cert": certificates.server}
    with pytest.raises(ValueError, match=r"token=.*allow_public=True"):
        Endpoint.start(Source(), port=0, **options)


@pytest.mark.parametrize("options", [{"token": "t"}, {"allow_public": True}])
def test_public_bind_on_demand(options: dict[str, Any]) -> None:
    """With a token, or when it is meant, it listens everywhere."""
    with Endpoint.start(Source(), port=0, host="0.0.0.0", **options) as running:
        status = httpx.get(f"{running.url}/healthz").status_code

        assert 200 == status
        assert f"http://127.0.0.1:{running.port}" == running.url


def test_public_bind_with_client_certificates(certificates: Certificates) -> None:
    """Mutual TLS asks who reads, so it may listen everywhere."""
    with Endpoint.start(
        Source(),
        port=0,
        host="0.0.0.0",
        tls_cert=certificates.server,
        tls_client_ca=certificates.ca,
    ) as running:
        assert "0.0.0.0" == running.host


def test_loopback_by_default(endpoint: Endpoint) -> None:
    """It listens on 127.0.0.1 only, not on all of the loopback network even."""
    assert "127.0.0.1" == endpoint.host
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", endpoint.port), timeout=5).close()


def test_ipv6_loopback() -> None:
    """`::1` is as private as 127.0.0.1."""
    try:
        running = Endpoint.start(Source(), port=0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with running:
        assert f"http://[::1]:{running.port}" == running.url
        assert 200 == httpx.get(f"{running.url}/metrics").status_code


def test_port_in_use(endpoint: Endpoint) -> None:
    """The error names the port and what to do."""
    with pytest.raises(
        OSError, match=rf"port {endpoint.port} .* in use by .*, or 0 for any"
    ):
        Endpoint.start(Source(), port=endpoint.port)


def test_unknown_host() -> None:
    """The error names the host."""
    with pytest.raises(OSError, match=r"host 'nowhere\.invalid'"):
        Endpoint.start(Source(), port=0, host="nowhere.invalid")


def test_token_file(tmp_path: Path) -> None:
    """A private file's token opens the pages, its line's end apart."""
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    file.chmod(0o600)
    with Endpoint.start(Source(), port=0, token_file=file) as running:
        url = f"{running.url}/metrics"
        known = httpx.get(url, headers={"Authorization": "Bearer from-a-file"})

        assert 200 == known.status_code
        assert 401 == httpx.get(url).status_code


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_token_file_for_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A token that others can read is none. Without the check it starts."""
    file = tmp_path / "token"
    file.write_text("t")
    file.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 600"):
        Endpoint.start(Source(), port=0, token_file=file)


def test_token_file_mistakes(tmp_path: Path) -> None:
    """Empty, a folder, or a token besides: each is an error at the start."""
    file = tmp_path / "token"
    file.write_text(" \n")
    file.chmod(0o600)
    with pytest.raises(ValueError, match="is empty"):
        Endpoint.start(Source(), port=0, token_file=file)
    with pytest.raises(OSError, match="directory"):
        Endpoint.start(Source(), port=0, token_file=tmp_path)
    with pytest.raises(ValueError, match="give one of them"):
        Endpoint.start(Source(), port=0, token_file=file, token="t")


def test_tls(certificates: Certificates) -> None:
    """HTTPS with the certificate that was given; plain HTTP gets nothing."""
    with Endpoint.start(Source(), port=0, tls_cert=certificates.server) as running:
        assert running.url.startswith("https://")
        assert (0, "ok\n") == curl(running, "--cacert", certificates.ca)
        assert 60 == curl(running)[0]
        with connect(running) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"HTTP" not in sock.recv(65536)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)],
)
def test_tls_versions(
    certificates: Certificates,
    version: str,
    spoken: bool,
) -> None:
    """TLS 1.2 and 1.3 only, as `openssl s_client` sees it."""
    with Endpoint.start(Source(), port=0, tls_cert=certificates.server) as running:
        where = f"127.0.0.1:{running.port}"
        cipher = "DEFAULT:@SECLEVEL=0"  # else the client refuses old versions itself
        done = subprocess.run(
            ["openssl", "s_client", version, "-cipher", cipher, "-connect", where],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )

    assert spoken is (b"BEGIN CERTIFICATE" in done.stdout)


def test_mutual_tls(certificates: Certificates) -> None:
    """
    Only clients with a certificate of that authority get an answer.

    With `verify_mode` left alone, all three do.
    """
    with Endpoint.start(
        Source(), port=0, tls_cert=certificates.server, tls_client_ca=certificates.ca
    ) as running:
        ours = ["--cacert", certificates.ca]

        assert (0, "ok\n") == curl(running, *ours, "--cert", certificates.client)
        assert "" == curl(running, *ours)[1]
        assert "" == curl(running, *ours, "--cert", certificates.stranger)[1]


def test_tls_mistakes(certificates: Certificates, tmp_path: Path) -> None:
    """A key alone, a key with a password, and a file that is none."""
    with pytest.raises(ValueError, match="need tls_cert"):
        Endpoint.start(Source(), port=0, tls_client_ca=certificates.ca)
    secret = tmp_path / "secret.pem"
    command = ["openssl", "pkcs8", "-topk8", "-passout", "pass:long enough"]
    command += ["-in", certificates.server, "-out", str(secret)]
    subprocess.run(command, capture_output=True, check=True)
    with pytest.raises(ValueError, match="has a password"):
        Endpoint.start(Source(), port=0, tls_cert=certificates.server, tls_key=secret)
    with pytest.raises(ssl.SSLError):
        Endpoint.start(Source(), port=0, tls_cert=Path(__file__))
    with pytest.raises(FileNotFoundError):
        Endpoint.start(Source(), port=0, tls_cert=tmp_path / "missing.pem")
