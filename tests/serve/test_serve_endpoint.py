# SPDX-License-Identifier: MIT
"""The running endpoint under attack, with TLS, over forks and at the end."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from prometheus_proto import parse
from strategies import sample_snapshot

from ometrics import Snapshot
from ometrics.export.names import Family, Labels
from ometrics.serve import Endpoint, Page, counter, listener

#: Half-open connections of the slowloris attacks.
ATTACKERS = 500
THREADS = Path("/proc/self/task")


# curl and openssl do not run with a sanitizer loaded before them.
pytestmark = pytest.mark.sanitize_skip


class Source:
    """A source without end: the same snapshot again and again."""

    def snapshot(self) -> Snapshot:
        """The sample of all tests."""
        return sample_snapshot()


class Flood(Source):
    """A source whose page is far larger than what a kernel buffers (20 MB)."""

    def snapshot(self) -> Snapshot:
        """The sample, with names of models that fill the page."""
        sample = sample_snapshot()
        errors = {f"{number:0100000}": 1 for number in range(200)}
        return Snapshot(
            instance_id=sample.instance_id,
            start_time=sample.start_time,
            collection_time=sample.collection_time,
            uptime_seconds=1.0,
            invalid_values=errors,
        )


class Certificates:
    """An authority, its certificate for 127.0.0.1 and one for a client."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        self.server = self._write(authority.issue_cert("127.0.0.1"), folder / "s.pem")
        self.client = self._write(authority.issue_cert("client"), folder / "c.pem")
        stranger = trustme.CA().issue_cert("client")
        self.stranger = self._write(stranger, folder / "x.pem")

    @staticmethod
    def _write(certificate: trustme.LeafCert, path: Path) -> str:
        certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint with the default guards."""
    with Endpoint.start(Source(), port=0) as running:
        yield running


def connect(endpoint: Endpoint) -> socket.socket:
    """A connection that says nothing yet."""
    return socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)


def threads() -> int:
    """Threads of this process, also those that Python does not know."""
    if THREADS.exists():
        return len([*THREADS.iterdir()])
    return threading.active_count()


def wait_until(condition: Callable[[], bool]) -> None:
    """Until that holds; 10 s at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def run(script: str, *arguments: str, timeout: float = 20) -> str:
    """What a fresh interpreter prints for this script; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

    assert "" == done.stderr
    assert 0 == done.returncode
    return done.stdout


FORK = """
import os, socket, sys, time
from ometrics import MetricsCollector
from ometrics.serve import Endpoint

def ask(port, timeout=5.0):
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        return sock.recv(65536).split()[1].decode()

mc = MetricsCollector()
endpoint = Endpoint.start(mc, port=0)
"""


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
    with pytest.raises(OSError, match=rf"port {endpoint.port} .* in use: .*port=0"):
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


def curl(endpoint: Endpoint, *options: str) -> tuple[int, str]:
    """The exit code of curl and what it got from `/healthz`."""
    done = subprocess.run(
        ["curl", "-sS", "-m", "10", *options, f"{endpoint.url}/healthz"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


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


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_slowloris(certificates: Certificates, tls: bool) -> None:
    """
    500 connections that never finish a request leave the endpoint serving.

    A scrape among them takes less than a second, there are no threads more than 16, and
    no more than 64 connections stay open. Without `Listener._make_room` 500 do.
    """
    before = threads()
    half = b"" if tls else b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    cert = certificates.server if tls else None
    with ExitStack() as stack:
        running = stack.enter_context(Endpoint.start(Source(), port=0, tls_cert=cert))
        attackers = [stack.enter_context(connect(running)) for _ in range(ATTACKERS)]
        for sock in attackers:
            with suppress(OSError):  # it may be closed already
                sock.sendall(half)
        begin = time.perf_counter()
        options = ["--cacert", certificates.ca] if tls else []

        assert (0, "ok\n") == curl(running, *options)
        assert time.perf_counter() - begin < 1.0
        assert threads() - before <= 16
        assert ATTACKERS - 64 <= sum(closed(sock) for sock in attackers)
        assert running.turned_away >= ATTACKERS - 64


def closed(sock: socket.socket) -> bool:
    """Whether the other side has ended this connection."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_request_has_a_deadline(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
) -> None:
    """
    A byte now and then does not keep a connection open, nor does a silent handshake.

    The time is cut from 5 s. Without `call_later` in `accept` it stays open.
    """
    assert 5.0 == listener.HEADER_TIMEOUT_S

    monkeypatch.setattr(listener, "HEADER_TIMEOUT_S", 0.3)
    cert = certificates.server if tls else None
    with (
        Endpoint.start(Source(), port=0, tls_cert=cert) as running,
        connect(running) as sock,
    ):
        begin = time.monotonic()
        if not tls:
            sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        while not closed(sock):
            assert time.monotonic() - begin < 5
            time.sleep(0.02)
            with suppress(OSError):
                sock.sendall(b"" if tls else b"X")

        assert time.monotonic() - begin > 0.25
        assert 1 == running.turned_away


def test_slow_readers_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    16 clients that do not read their page lose their places to newcomers in time.

    A newcomer before that gets a 503: nothing under way is cut short for it. Without
    the end of the slowest in `_make_place` newcomers get it until 30 s are over.
    """
    monkeypatch.setattr(listener, "HEADER_TIMEOUT_S", 1.0)
    with ExitStack() as stack:
        running = stack.enter_context(Endpoint.start(Flood(), port=0))
        for _ in range(16):
            sock = stack.enter_context(connect(running))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: running._listener.answering == 16)

        assert "503" in curl(running)[1]

        wait_until(lambda: curl(running) == (0, "ok\n"))


class Held(Source):
    """A source whose snapshot takes until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def snapshot(self) -> Snapshot:
        """The sample, later."""
        assert self.go.wait(20)
        return sample_snapshot()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_request_too_many_is_told_when_to_come_again(
    certificates: Certificates, tls: bool
) -> None:
    """
    Of 40 requests at once 16 have their page and 24 a 503 with `Retry-After`.

    The next page says how many they were. Seen to fail when `admit` answers always, and
    when the places are limited where connections are accepted: those were cut off.
    """
    cert = certificates.server if tls else None
    verify = ssl.create_default_context(cafile=certificates.ca)
    source = Held()
    answers: list[httpx.Response] = []
    with Endpoint.start(source, port=0, tls_cert=cert) as running:

        def scrape() -> None:
            url = f"{running.url}/metrics"
            answers.append(httpx.get(url, timeout=20, verify=verify))

        scrapers = [threading.Thread(target=scrape) for _ in range(40)]
        for scraper in scrapers:
            scraper.start()
        wait_until(lambda: len(answers) == 24)
        refused = [*answers]
        source.go.set()
        for scraper in scrapers:
            scraper.join()
        page = httpx.get(f"{running.url}/metrics", verify=verify).text

    assert [503] * 24 == [answer.status_code for answer in refused]
    assert {"5"} == {answer.headers["Retry-After"] for answer in refused}
    assert [200] * 16 == [answer.status_code for answer in answers[24:]]
    assert 'ometrics_endpoint_turned_away_total{reason="busy"} 24\n' in page
    assert 'ometrics_endpoint_turned_away_total{reason="slow"} 0\n' in page
    assert 24 == running.turned_away


def test_further_pages_and_numbers() -> None:
    """
    A sidecar or a proxy adds pages, and numbers of its own in every format.

    They are guarded as ours are; their paths and names must be free.
    """
    told = counter("ometrics.proxy.requests", "{request}", "Through it.", ("code",))

    def numbers() -> Iterator[Family[Labels]]:
        yield Family(told, [((("code", "200"),), 7)])

    live = Page("text/plain", lambda snapshot: snapshot.instance_id.encode())
    with Endpoint.start(
        Source(), port=0, token="t", pages={"/live": live}, numbers=[numbers]
    ) as running:

        def get(path: str, accept: str = "") -> httpx.Response:
            headers = {"Authorization": "Bearer t", "Accept": accept}
            return httpx.get(running.url + path, headers=headers)

        assert sample_snapshot().instance_id == get("/live").text
        assert 401 == httpx.get(f"{running.url}/live").status_code
        assert "/live" in get("/nowhere").text
        line = 'ometrics_proxy_requests_total{code="200"} 7\n'
        for accept in ("text/plain", "application/openmetrics-text"):
            assert line in get("/metrics", accept).text
        binary = parse(get("/metrics", "application/vnd.google.protobuf").content)
        assert 7 == binary["ometrics_proxy_requests_total"].metric[0].counter.value
    for path in ("/metrics", "/metrics.json", "/healthz", "live", ""):
        with pytest.raises(ValueError, match="pages: "):
            Endpoint.start(Source(), port=0, pages={path: live})


def test_an_answer_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not read for 30 s (cut here) is sent away although there is room."""
    assert 30.0 == listener.ANSWER_TIMEOUT_S

    monkeypatch.setattr(listener, "ANSWER_TIMEOUT_S", 0.3)
    with Endpoint.start(Flood(), port=0) as running, connect(running) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: running.turned_away == 1)
        received = 0
        with suppress(ConnectionResetError):
            while part := sock.recv(2**20):
                received += len(part)

        assert received < 20_000_000


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_close_is_prompt_and_frees_the_port(
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    tls: bool,
) -> None:
    """
    Half-open connections do not delay `close`; the port is free; again is fine.

    Without `end_waiting` asyncio complains of a handshake that never ended.
    """
    cert = certificates.server if tls else None
    running = Endpoint.start(Source(), port=0, tls_cert=cert)
    with connect(running) as sock:
        wait_until(lambda: bool(running._listener._open))
        begin = time.perf_counter()
        running.close()

        assert time.perf_counter() - begin < 1.0
        assert closed(sock)
    with Endpoint.start(Source(), port=running.port) as another:
        assert (0, "ok\n") == curl(another)
    running.close()
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]

    assert "ometrics-serve" not in names
    assert [] == caplog.records


def test_close_during_answers(caplog: pytest.LogCaptureFixture) -> None:
    """A reader who does not read delays `close` by the second it has, silently."""
    running = Endpoint.start(Flood(), port=0)
    with connect(running) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listener = running._listener
        wait_until(lambda: listener.answering == 1)
        begin = time.perf_counter()
        running.close()

        assert time.perf_counter() - begin < 2.0
        assert [] == caplog.records


def test_close_during_a_rendering_that_hangs() -> None:
    """It ends nevertheless, and leaves nothing that the interpreter warns of."""
    out = run(
        """
        import logging, socket, threading, time
        from ometrics.serve import Endpoint

        class Hangs:
            def snapshot(self):
                started.set()
                time.sleep(60)

        for name in ("uvicorn.error", "ometrics.serve.http"):
            logging.getLogger(name).disabled = True  # they say that it hung
        started = threading.Event()
        endpoint = Endpoint.start(Hangs(), port=0)
        sock = socket.create_connection(("127.0.0.1", endpoint.port))
        sock.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        started.wait()
        endpoint.close()
        print([t.name for t in threading.enumerate()])
        sock.close()
        """
    )

    assert "['MainThread', 'ometrics-render']\n" == out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_serves_although_nobody_keeps_it() -> None:
    """The endpoint goes on if what `start` returned is thrown away, also in forks."""
    out = run(
        FORK
        + """
import gc, warnings
port = endpoint.port
fd = endpoint._listener.fileno()
del endpoint
gc.collect()
print(ask(port))
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+: fork with threads
child = os.fork()
if child == 0:
    try:
        os.fstat(fd)
    except OSError:
        print("given up", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    )

    assert ["200", "given up"] == out.splitlines()


def test_process_ends_although_it_serves() -> None:
    """No thread keeps the interpreter: not the server, not a rendering that hangs."""
    out = run(
        """
        import socket, threading, time
        from ometrics.serve import Endpoint

        class Hangs:
            def snapshot(self):
                started.set()
                time.sleep(60)

        started = threading.Event()
        endpoint = Endpoint.start(Hangs(), port=0)
        sock = socket.create_connection(("127.0.0.1", endpoint.port))
        sock.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        started.wait()
        print("end")
        sock.detach()
        """,
        timeout=10,
    )

    assert "end\n" == out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_serve() -> None:
    """
    A child has no copy of the socket, may serve on its own, and disturbs nothing.

    Without the hook the child's copy of the socket is open, and the port stays taken
    when the parent ends.
    """
    out = run(
        FORK
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+: fork with threads
child = os.fork()
if child == 0:
    print("child's copy open:", endpoint._listener.fileno() >= 0)
    endpoint.close()
    own = Endpoint.start(mc, port=0)
    print("of its own:", ask(own.port))
    own.close()
    print("of the parent:", ask(endpoint.port))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print("after:", ask(endpoint.port), flush=True)
endpoint.close()
"""
    )

    assert [
        "child's copy open: False",
        "of its own: 200",
        "of the parent: 200",
        "after: 200",
    ] == out.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_of_a_fork_without_hooks_does_not_hold_the_port() -> None:
    """
    The parent closes, and the port is free although a child of C's `fork` has a copy.

    Such a fork runs no hooks. The child's own `close` gives up the copy only. Without
    the `shutdown` in `Listener.close` the port stays taken; without the process id in
    `Endpoint.close` the child waits for a thread that it does not have.
    """
    out = run(
        FORK
        + """
import ctypes
child = ctypes.PyDLL(None).fork()
if child == 0:
    begin = time.monotonic()
    endpoint.close()
    os._exit(time.monotonic() - begin > 1.0)
print("child:", os.waitpid(child, 0)[1])
print("before:", ask(endpoint.port))
second = ctypes.PyDLL(None).fork()
if second == 0:
    time.sleep(60)
    os._exit(0)
endpoint.close()
try:
    print(ask(endpoint.port, 1.0))
except ConnectionRefusedError:
    print("closed")
with Endpoint.start(mc, port=endpoint.port) as another:
    print("again:", ask(another.port))
os.kill(second, 9)
os.waitpid(second, 0)
"""
    )

    assert ["child: 0", "before: 200", "closed", "again: 200"] == out.splitlines()
