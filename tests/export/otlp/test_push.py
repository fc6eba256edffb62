# SPDX-License-Identifier: MIT
"""`PeriodicExporter` where all is well: what arrives, when, and in which form."""

from __future__ import annotations

import random
import threading

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")

import otlp_collector as fake
from otlp_collector import (
    NEVER,
    SUCCESS,
    ScriptedCollector,
    answer,
    exporter_to,
    record,
    successes,
)

from ometrics import MetricsCollector
from ometrics.export import _otlp_env
from ometrics.export.otlp import PeriodicExporter


def test_flush(server: ScriptedCollector, mc: MetricsCollector) -> None:
    """The numbers arrive, with who we are, and `health` says so."""
    record(mc, 3)
    with exporter_to(server, mc, resource={"service.name": "agent"}) as exporter:
        assert exporter.flush()
        assert 3 == successes(server)
        resource = fake.resource_of(server.taken[0])

        assert mc.instance_id == resource["service.instance.id"]
        assert ("agent", "ometrics") == (
            resource["service.name"],
            resource["telemetry.sdk.name"],
        )
        assert "/v1/metrics" == server.paths[0]
        assert "application/x-protobuf" == server.headers[0]["content-type"]
        health = exporter.health()

    assert (True, 1, 0, {}) == (
        health.running,
        health.exports,
        health.consecutive_failures,
        health.failures,
    )
    assert health.last_success is not None
    assert not exporter.health().running


def test_periodic(server: ScriptedCollector, mc: MetricsCollector) -> None:
    """It exports by itself, over one connection, and what is new each time."""
    with exporter_to(server, mc, interval=0.05):
        record(mc, 1)
        server.wait(2)
        record(mc, 1)
        server.wait(len(server.times) + 2)

        assert 2 == successes(server)
    assert 1 == server.connections


def test_close_exports_what_came_last(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """Nothing recorded before `close` is missing; closing again does nothing."""
    exporter = exporter_to(server, mc)
    record(mc, 5)
    exporter.close()
    exporter.close()

    assert 5 == successes(server)
    assert 1 == len(server.times)
    assert not exporter.flush()


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none"])
def test_compression_and_headers(
    compression: str, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """The body is packed as its header says; credentials are sent."""
    record(mc, 2)
    endpoint = server.url.replace("http://", "http://user:pass@")
    with PeriodicExporter(
        mc, endpoint=endpoint, compression=compression, headers={"Api-Key": "k"}
    ) as exporter:
        assert exporter.flush()
    headers = server.headers[0]

    assert 2 == successes(server)
    assert compression == headers.get("content-encoding", "none")
    assert ("k", "Basic dXNlcjpwYXNz") == (headers["api-key"], headers["authorization"])
    assert "pass" not in repr(exporter)


def test_many_requests_of_one_snapshot(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """A large snapshot goes in several requests, which tell of one instant."""
    for i in range(1000):
        mc.record_latency(f"model-{i}", 0.25)
    with exporter_to(server, mc) as exporter:
        assert exporter.flush()
        requests = list(server.taken)
    points = fake.points_of(requests)
    latest = {p.time_unix_nano for series in points.values() for p in series.values()}

    assert len(requests) > 1
    assert 1000 == len(points["ometrics.request.duration"])
    assert 1 == len(latest)
    assert 1 == exporter.health().exports - 1  # close() was the second


def test_through_a_proxy(
    server: ScriptedCollector, mc: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's proxy is used, as by every client of HTTP."""
    monkeypatch.setenv("http_proxy", server.url)
    record(mc, 1)
    with PeriodicExporter(mc, endpoint="http://c.invalid:4318", interval=NEVER) as e:
        assert e.flush()

    assert "http://c.invalid:4318/v1/metrics" == server.paths[0]
    assert "c.invalid:4318" == server.headers[0]["host"]


def test_reset_starts_anew(server: ScriptedCollector, mc: MetricsCollector) -> None:
    """After a reset the count is smaller and its start later: no counter goes back."""
    record(mc, 5)
    with exporter_to(server, mc) as exporter:
        exporter.flush()
        before = server.points()["ometrics.requests"][SUCCESS]
        mc.reset_metrics()
        record(mc, 1)
        exporter.flush()
        after = server.points()["ometrics.requests"][SUCCESS]

    assert (5, 1) == (before.as_int, after.as_int)
    assert before.start_time_unix_nano < after.start_time_unix_nano


def test_counts_never_go_back_under_load(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """While threads record and exports fail at random, each point grows, to all."""
    rng = random.Random(7)
    server.script = [
        rng.choice([answer(), answer(503), answer(400), fake.raw(b"")])
        for _ in range(60)
    ]
    with exporter_to(server, mc, interval=0.005, timeout=1.0) as exporter:
        threads = [threading.Thread(target=record, args=(mc, 20_000)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.wait(61)
        exporter.flush()
    seen = [
        fake.points_of([request]).get("ometrics.requests", {}).get(SUCCESS)
        for request in server.taken
    ]
    counts = [point.as_int for point in seen if point is not None]

    assert sorted(counts) == counts
    assert 80_000 == counts[-1]


def test_target_is_read_once(
    server: ScriptedCollector, mc: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is that of the start; a later change has no effect."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
    exporter = PeriodicExporter(mc, interval=NEVER)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")

    assert exporter.flush()
    assert _otlp_env.DEFAULT_TIMEOUT == exporter._plan.target.timeout
    exporter.close()
