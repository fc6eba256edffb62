"""`PeriodicExporter` against a collector that fails in every way that they do."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("urllib3", reason="the extra otlp is not installed")

import otlp_collector as fake
from otlp_collector import ScriptedCollector, answer, key

from ometrics import MetricsCollector
from ometrics.export import _otlp_env, otlp
from ometrics.export.otlp import PeriodicExporter

SUCCESS = key(("gen_ai.request.model", "m"), ("outcome", "success"))
NEVER = 3_600.0  # an interval that no test waits for


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's, and no second between two attempts."""
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(otlp, "FIRST_BACKOFF_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[ScriptedCollector]:
    """A collector that takes everything until told otherwise."""
    with fake.collector() as running:
        yield running


@pytest.fixture
def mc() -> Iterator[MetricsCollector]:
    """What is exported."""
    with MetricsCollector() as collector:
        yield collector


def exporter_to(
    server: ScriptedCollector, mc: MetricsCollector, **options: Any
) -> PeriodicExporter:
    """One that exports when told to, not by itself."""
    return PeriodicExporter(mc, endpoint=server.url, **{"interval": NEVER, **options})


def successes(server: ScriptedCollector) -> int:
    """What the collector knows of model `m`; 0 if it heard of it never."""
    points = server.points().get("ometrics.requests", {})
    point = points.get(SUCCESS)
    return 0 if point is None else point.as_int


def record(mc: MetricsCollector, times: int) -> None:
    """So many successes of model `m`."""
    for _ in range(times):
        mc.record_latency("m", 0.25)


# --- when all is well ---


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


# --- when it is not ---


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


# --- TLS ---


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


# --- processes ---


PREAMBLE = """
import os, signal, sys, threading, time, warnings
from ometrics import MetricsCollector
from ometrics.export.otlp import PeriodicExporter
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forks beside threads
mc = MetricsCollector()
def record(times):
    for _ in range(times):
        mc.record_latency("m", 0.25)
def export(interval=3600.0):
    return PeriodicExporter(mc, endpoint=sys.argv[1], interval=interval)
"""


def run(
    code: str, url: str, timeout: float = 60.0, while_running: Any = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that has `record` and `export`; its input ends when told so."""
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), url]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if while_running is not None:
                while_running()
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def by_instance(server: ScriptedCollector) -> dict[str, int]:
    """Successes of model `m` by the instance that told them."""
    found: dict[str, int] = {}
    for request in server.taken:
        instance = fake.resource_of(request)["service.instance.id"]
        point = fake.points_of([request]).get("ometrics.requests", {}).get(SUCCESS)
        found[instance] = 0 if point is None else point.as_int
    return found


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(3)", "raise KeyError", "del mc, exporter"]
)
def test_exit_exports(ending: str, server: ScriptedCollector) -> None:
    """A program that ends without `close` loses nothing, however it ends."""
    done = run("exporter = export()\nrecord(1000)\n" + ending, server.url)

    assert [1000] == list(by_instance(server).values()), done.stderr


def test_exit_with_a_collector_that_hangs(server: ScriptedCollector) -> None:
    """The end of a program takes a bounded time; here far less than the attempts."""
    server.otherwise = fake.hang(threading.Event())
    run("exporter = export()\nrecord(1)", server.url, timeout=30.0)

    assert 1 == len(server.times)


def test_exit_without_a_collector() -> None:
    """
    Where nobody listens a program ends at once, silently: one attempt, no retry.

    With the last export tried again like others, there are some.
    """
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    done = run(
        """
        import atexit
        atexit.register(lambda: print(exporter.health()))  # runs after the exporter's
        exporter = export()
        record(1)
        """,
        f"http://127.0.0.1:{port}",
        timeout=30.0,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "failures={'connection': 1}, retries=0" in done.stdout


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no signals here")
@pytest.mark.skipif(sys.platform == "win32", reason="its SIGTERM asks nobody")
def test_sigterm_is_the_programs(server: ScriptedCollector) -> None:
    """We install no handler: by default SIGTERM ends without an export, as written."""
    done = run(
        "exporter = export()\nrecord(1)\nos.kill(os.getpid(), signal.SIGTERM)",
        server.url,
    )

    assert (-signal.SIGTERM, {}) == (done.returncode, by_instance(server))


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_exports_for_itself(server: ScriptedCollector) -> None:
    """
    Parent and child tell their own counts under their own ids; the sum is exact.

    With the parent's worker kept in the child, its 10 are missing.
    """
    done = run(
        """
        exporter = export()
        record(100)
        assert exporter.flush()
        child = os.fork()
        if child == 0:
            record(10)
            assert exporter.health().exports == 0
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        record(1)
        assert exporter.flush()
        assert exporter.health().exports == 2, exporter.health()
        exporter.close()
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert [10, 101] == sorted(by_instance(server).values())
    # The parent's connection was not touched by the child, which made its own.
    assert 2 == server.connections


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_child_that_only_records(server: ScriptedCollector) -> None:
    """
    A worker that records and never mentions its exporter is exported all the same.

    Without the fork hook, which starts its thread, this fails.
    """

    def told() -> None:
        for attempts in range(1, 200):  # some ten seconds
            server.wait(attempts)
            if 10 in by_instance(server).values():
                return
        pytest.fail("the child was not exported")

    done = run(
        """
        exporter = export(interval=0.05)
        child = os.fork()
        if child == 0:
            record(10)
            sys.stdin.readline()
            os._exit(0)
        os.waitpid(child, 0)
        """,
        server.url,
        while_running=told,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_while_exporting(server: ScriptedCollector) -> None:
    """Forks at any moment of an export: no hang, no count is lost or doubled."""
    children = 20
    done = run(
        f"""
        exporter = export(interval=0.001)
        for _ in range({children}):
            record(1)
            child = os.fork()
            if child == 0:
                record(100)
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert [children, *[100] * children] == sorted(by_instance(server).values())


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_while_the_exporters_lock_is_held(server: ScriptedCollector) -> None:
    """
    A lock that a thread of the parent held is not one of the child's.

    With the parent's condition kept in the child's worker, the child hangs.
    """
    done = run(
        """
        exporter = export()
        with exporter._worker._changed:
            child = os.fork()
            if child == 0:
                # Another thread, since the one that forked may enter it again.
                thread = threading.Thread(target=exporter.flush, daemon=True)
                thread.start()
                thread.join(10)
                os._exit(thread.is_alive())
        assert os.waitpid(child, 0)[1] == 0
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.sanitize_skip
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_bounded(server: ScriptedCollector) -> None:
    """
    A collector that takes nothing for hours costs no memory: nothing is queued.

    Measured: the proportional set size after 20 and after 120 failed exports of 1,000
    models. Keeping each failed request in a list makes it grow by 50 MB.
    """
    server.otherwise = answer(400)
    done = run(
        """
        exporter = export()
        for i in range(1000):
            mc.record_latency(f"model-{i}", 0.25)

        def pss():
            with open("/proc/self/smaps_rollup") as lines:
                return next(int(x.split()[1]) for x in lines if x.startswith("Pss:"))

        def fail(times):
            for _ in range(times):
                assert not exporter.flush(60)
            return pss()

        idle = pss()
        before = fail(20)
        print(idle, before, fail(100))
        """,
        server.url,
    )

    assert (0, "") == (done.returncode, done.stderr)
    idle, before, after = map(int, done.stdout.split())

    assert after - before < 4_000, f"{before} -> {after} kB"
    assert after - idle < 40_000, f"{idle} -> {after} kB"


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
