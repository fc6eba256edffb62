# SPDX-License-Identifier: MIT
"""`PeriodicExporter` over TLS: whom it trusts, and how it identifies itself."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")

import otlp_collector as fake
from otlp_collector import (
    ScriptedCollector,
    exporter_to,
    record,
    successes,
)

from ometrics import MetricsCollector


@pytest.fixture
def authority() -> Any:
    """Who signs the certificates of a test."""
    return pytest.importorskip("trustme", reason="no trustme").CA()


@pytest.fixture
def tls_server(authority: Any) -> Iterator[ScriptedCollector]:
    """A collector that shows a certificate, and demands one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with fake.collector(tls=context) as running:
        yield running


@pytest.fixture
def trust(authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Sets variables to the files that they want."""
    own = authority.issue_cert("client.example")
    blobs = {
        "CERTIFICATE": authority.cert_pem,
        "CLIENT_CERTIFICATE": own.cert_chain_pems[0],
        "CLIENT_KEY": own.private_key_pem,
    }

    def set_variables(*names: str) -> None:
        for name in names:
            path = tmp_path / f"{name}.pem"
            blobs[name].write_to_path(path)
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", str(path))

    return set_variables


def test_mutual_tls(
    tls_server: ScriptedCollector, mc: MetricsCollector, trust: Any
) -> None:
    """Certificates come from the environment; a dripping server is cut off as well."""
    trust("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    release = threading.Event()
    tls_server.script = [fake.drip(release)]
    record(mc, 1)
    with exporter_to(tls_server, mc, timeout=1.0) as exporter:
        assert not exporter.flush()
        assert {"timeout": 1} == exporter.health().failures
        assert exporter.flush()
        release.set()
    assert 1 == successes(tls_server)


@pytest.mark.parametrize("names", [(), ("CERTIFICATE",)], ids=["server", "client"])
def test_no_trust(
    names: tuple[str, ...],
    tls_server: ScriptedCollector,
    mc: MetricsCollector,
    trust: Any,
) -> None:
    """Without trust, of us in the server or of it in us, nothing is sent."""
    trust(*names)
    exporter = exporter_to(tls_server, mc, timeout=1.0)

    assert not exporter.flush()
    assert [] == tls_server.times
    (reason,) = exporter.health().failures
    # With TLS 1.3 a server refuses us after the handshake, by hanging up.
    assert reason in (("tls", "connection") if names else ("tls",))
    exporter.close()
