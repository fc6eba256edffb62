# SPDX-License-Identifier: MIT
"""`PeriodicExporter` against a collector that fails in every way that they do."""

from __future__ import annotations

import socket
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")

import otlp_collector as fake
from otlp_collector import (
    NEVER,
    ScriptedCollector,
    answer,
    exporter_to,
    record,
    successes,
)

from ometrics import MetricsCollector
from ometrics.export import otlp
from ometrics.export.otlp import PeriodicExporter


def test_collector_down_loses_nothing(mc: MetricsCollector) -> None:
    """
    Whatever was recorded while nobody listened is in the first export that arrives.

    Exporting differences instead of sums makes this fail.
    """
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    exporter = PeriodicExporter(
        mc, endpoint=f"http://127.0.0.1:{port}", interval=NEVER, timeout=0.2
    )
    for _ in range(3):
        record(mc, 10)

        assert not exporter.flush()
    health = exporter.health()

    assert (0, None, 3, {"connection": 3}) == (
        health.exports,
        health.last_success,
        health.consecutive_failures,
        health.failures,
    )
    assert health.retries > 0
    with fake.collector(port) as server:
        record(mc, 1)

        assert exporter.flush()
        assert 31 == successes(server)
        assert 0 == exporter.health().consecutive_failures
        exporter.close()


def test_hanging_collector_blocks_nobody(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """
    Records and snapshots go on while a request gets no answer; then it is given up.

    With the request sent while a lock of the collector is held, this hangs.
    """
    release = threading.Event()
    server.script = [fake.hang(release)] * 100
    record(mc, 1)
    with exporter_to(server, mc, interval=0.01, timeout=1.0) as exporter:
        server.wait(1)
        before = exporter.health()
        record(mc, 10_000)

        # All of this happened within the one attempt.
        assert 10_001 == mc.snapshot().models["m"].successful_reqs
        assert 1 == len(server.times)
        assert ({}, True) == (before.failures, before.running)
        server.wait(2)

        assert exporter.health().failures.keys() == {"timeout"}
        server.script = []
        release.set()

        assert exporter.flush()
        assert 10_001 == successes(server)


@pytest.mark.parametrize("fault", [fake.hang, fake.drip])
def test_deadline_of_the_whole_attempt(
    fault: Any, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """
    No server holds the thread, not even one that sends a byte now and then.

    Without `_cut_after`, the dripping one fails this.
    """
    release = threading.Event()
    server.script = [fault(release)]
    exporter = exporter_to(server, mc, timeout=0.3)

    assert not exporter.flush()
    assert {"timeout": 1} == exporter.health().failures
    assert exporter.flush()
    release.set()
    exporter.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retried_status(
    status: int, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """These pass: the same export tries again and succeeds."""
    server.script = [answer(status), answer(status)]
    record(mc, 1)
    with exporter_to(server, mc) as exporter:
        assert exporter.flush()
        assert (2, {}, 1) == (
            exporter.health().retries,
            exporter.health().failures,
            successes(server),
        )


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500, 501])
def test_final_status(
    status: int, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """These do not: one attempt, counted by its status, and the next export anew."""
    server.script = [answer(status, location=server.url + "/elsewhere")]
    record(mc, 1)
    with exporter_to(server, mc) as exporter:
        assert not exporter.flush()
        assert (0, {f"status_{status}": 1}) == (
            exporter.health().retries,
            exporter.health().failures,
        )
        assert 1 == len(server.times)
        assert exporter.flush()
        assert 1 == successes(server)


def test_one_refused_request_does_not_cost_the_others(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """A collector that refuses a part for good still gets the rest."""
    for i in range(1000):
        mc.record_latency(f"model-{i}", 0.25)
    server.script = [answer(413)]
    with exporter_to(server, mc) as exporter:
        assert not exporter.flush()
        assert {"status_413": 1} == exporter.health().failures
        assert len(server.taken) == len(server.times) - 1 > 0


def test_backoff_grows_and_ends(
    server: ScriptedCollector, mc: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts get rarer, each pause twice the last within 20 %, up to the deadline."""
    monkeypatch.setattr(otlp, "FIRST_BACKOFF_SECONDS", 0.1)
    server.otherwise = answer(503)
    exporter = exporter_to(server, mc, timeout=2.0)

    assert not exporter.flush()
    # 0.1, 0.2, 0.4, 0.8 s, and no room for 1.6 s.
    assert (4, {"status_503": 1}) == (
        exporter.health().retries,
        exporter.health().failures,
    )
    pauses = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    for pause, nominal in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert pause >= 0.8 * nominal
    server.otherwise = answer()
    exporter.close()


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after(
    server: ScriptedCollector, mc: MetricsCollector, *, as_date: bool
) -> None:
    """
    No attempt comes before the time that the server asked for, in seconds or a date.

    Without reading the header, the second comes after 10 ms.
    """
    # A date has whole seconds, so two of them are at least one.
    value = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    server.script = [answer(429, retry_after=value)]
    record(mc, 1)
    with exporter_to(server, mc, timeout=10.0) as exporter:
        assert exporter.flush()
        assert 1 == successes(server)
    first, second = server.times[:2]

    assert second - first >= 0.9


def test_retry_after_past_the_deadline(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """
    An export gives up, and the next waits for the time that the server named.

    Without `_not_before`, the next comes after 10 ms.
    """
    server.script = [answer(503, retry_after="1")]
    record(mc, 1)
    with exporter_to(server, mc, interval=0.01, timeout=0.2) as exporter:
        server.wait(2)
        first, second = server.times[:2]

        assert second - first >= 0.9
        assert exporter.flush()
        assert 1 == successes(server)
        assert {"status_503": 1} == exporter.health().failures


@pytest.mark.parametrize("value", ["soon", "-5", "1e400", "Thu, 99 Foo 2020", "", "٣"])
def test_senseless_retry_after(
    value: str, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """What is neither seconds nor a date is as if it were not there."""
    raw = b"HTTP/1.1 503 x\r\nContent-Length: 0\r\nRetry-After: %b\r\n\r\n"
    server.script = [fake.raw(raw % value.encode())]
    with exporter_to(server, mc) as exporter:
        assert exporter.flush()
        assert 1 == exporter.health().retries


def test_partial_success(server: ScriptedCollector, mc: MetricsCollector) -> None:
    """Rejected points are counted, and not sent again before the next export."""
    server.script = [fake.partial(7), fake.partial(0)]
    with exporter_to(server, mc) as exporter:
        assert exporter.flush()
        assert exporter.flush()
        health = exporter.health()

    assert (2, 2, 7, {}) == (
        health.exports,
        health.partial_successes,
        health.rejected_points,
        health.failures,
    )


@pytest.mark.parametrize(
    "reply",
    [
        answer(body=b"<html>log in</html>", content_type="text/html"),
        answer(body=b"\xff\xff\xff"),
        answer(body=b"{", content_type="application/json"),
        answer(body=b"\xff", content_type="application/json"),
        answer(body=b"x" * 1_000_000),
    ],
    ids=["page", "no-protobuf", "no-json", "no-text", "huge"],
)
def test_wrong_content(
    reply: Any, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """An answer that no collector gives is no success: health says `content`."""
    server.script = [reply]
    with exporter_to(server, mc) as exporter:
        assert not exporter.flush()
        assert ({"content": 1}, 0) == (
            exporter.health().failures,
            exporter.health().exports,
        )
        assert exporter.flush()


@pytest.mark.parametrize(
    "body", [b"{}", b'{"partialSuccess": {"rejectedDataPoints": "3", "new": 1}}']
)
def test_json_answer(
    body: bytes, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """Collectors that answer in OTLP's other encoding are understood as well."""
    server.script = [answer(body=body, content_type="application/json; charset=utf-8")]
    with exporter_to(server, mc) as exporter:
        assert exporter.flush()
        assert 3 * (len(body) > 2) == exporter.health().rejected_points


@pytest.mark.parametrize(
    "data",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"],
    ids=["nothing", "other-protocol", "cut-short"],
)
def test_broken_answer(
    data: bytes, server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """A connection that breaks is tried again."""
    server.script = [fake.raw(data)]
    with exporter_to(server, mc) as exporter:
        assert exporter.flush()
        assert 1 == exporter.health().retries


def test_kept_connection_that_was_closed(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """A server that closes idle connections costs no export."""
    server.script = [fake.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")] * 3
    with exporter_to(server, mc) as exporter:
        assert all(exporter.flush() for _ in range(3))
        assert {} == exporter.health().failures


def test_our_own_fault_stays_inside(server: ScriptedCollector) -> None:
    """A source that raises is counted; the thread and the program go on."""
    mc = MetricsCollector()

    class Fragile:
        broken = True

        def snapshot(self) -> Any:
            if self.broken:
                raise MemoryError
            return mc.snapshot()

    source = Fragile()
    with PeriodicExporter(source, endpoint=server.url, interval=NEVER) as exporter:
        assert not exporter.flush()
        assert {"internal": 1} == exporter.health().failures
        source.broken = False

        assert exporter.flush()


def test_close_of_a_hanging_export(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """`close` returns after its time, whatever the collector does."""
    release = threading.Event()
    server.otherwise = fake.hang(release)
    exporter = exporter_to(server, mc, timeout=60.0)
    threading.Thread(target=exporter.flush, args=(60.0,), daemon=True).start()
    server.wait(1)
    exporter.close(timeout=0.1)

    assert exporter.health().running  # the thread is left behind, as a daemon
    release.set()


def test_close_ends_a_wait_for_a_retry(
    server: ScriptedCollector, mc: MetricsCollector
) -> None:
    """The last export does not wait for a pause of the one before."""
    server.script = [answer(503, retry_after="30")]
    exporter = exporter_to(server, mc, timeout=60.0)
    threading.Thread(target=exporter.flush, args=(60.0,), daemon=True).start()
    server.wait(1)
    record(mc, 4)
    exporter.close(timeout=20.0)

    assert 4 == successes(server)
