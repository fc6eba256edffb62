# SPDX-License-Identifier: MIT
"""Who may read which page, asked from outside with curl and bare sockets."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from strategies import sample_snapshot

import ometrics
import ometrics.serve
from ometrics import MetricsCollector, Snapshot
from ometrics.serve.endpoint import Endpoint
from ometrics.serve.guard import Guard, Hosts, accepts_gzip, host_name
from ometrics.serve.pages import Pages
from ometrics.testing import FakeClock

# curl and openssl do not run with a sanitizer loaded before them.
pytestmark = pytest.mark.sanitize_skip

TOKEN = "correct-horse_battery.staple"


class Scripted:
    """
    A source that counts its snapshots, and can be held up or made to fail.

    Attributes:
        taken: How many there were.
        go: Set while snapshots may be taken.
        error: What the next ones raise.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def snapshot(self) -> Snapshot:
        """The sample of all tests."""
        self.taken += 1
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return sample_snapshot()


@pytest.fixture
def source() -> Scripted:
    """A source of its own for each test."""
    return Scripted()


@pytest.fixture
def endpoint(source: Scripted) -> Iterator[Endpoint]:
    """An endpoint with the default guards."""
    with Endpoint.start(source, port=0) as running:
        yield running


@pytest.fixture
def guarded(source: Scripted) -> Iterator[Endpoint]:
    """An endpoint that asks for a token."""
    with Endpoint.start(source, port=0, token=TOKEN) as running:
        yield running


def curl(*arguments: str) -> tuple[int, str]:
    """The status and body that curl gets; (0, its complaint) if it gets none."""
    done = subprocess.run(
        ["curl", "-sS", "-m", "10", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body or done.stderr


def ask(port: int, request: bytes) -> bytes:
    """All that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(request)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_until(condition: Callable[[], bool]) -> None:
    """Until that holds; 10 s at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_json_page_is_the_snapshot() -> None:
    """What was recorded comes back from `/metrics.json`, as `Snapshot` reads it."""
    mc = MetricsCollector()
    mc.record_latency("m", 0.25)
    with Endpoint.start(mc, port=0) as running:
        status, body = curl(f"{running.url}/metrics.json")

    assert 200 == status
    assert 1 == Snapshot.from_json(body).models["m"].total_requests


@pytest.mark.parametrize(
    ("merged", "expected"), [(False, [1, 2, 1]), (True, [1, 2, 3])]
)
def test_json_pages_of_the_last_minutes(merged: bool, expected: list[int]) -> None:
    """A collector's window goes by its clock, another source's by the system's."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    source = ometrics.merge(mc) if merged else mc
    pages = Pages(source)
    found = []
    for seconds in (0.0, 200.0, 200.0):
        clock.advance(seconds)
        mc.record_latency("m", 0.25)
        answer = pages.get("/metrics/5m.json", "", compress=False).result(10)
        found.append(Snapshot.from_json(answer.body))

    assert expected == [one.models["m"].total_requests for one in found]
    assert {"/metrics/1m.json", "/metrics/15m.json"} <= set(pages.paths)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        (
            (
                "application/vnd.google.protobuf;"
                "proto=io.prometheus.client.MetricFamily;encoding=delimited"
            ),
            "application/vnd.google.protobuf",
        ),
    ],
)
def test_metrics_page_follows_accept(
    endpoint: Endpoint, accept: str, content_type: str
) -> None:
    """`/metrics` has the format that the scraper prefers."""
    page = httpx.get(f"{endpoint.url}/metrics", headers={"Accept": accept})

    assert 200 == page.status_code
    assert page.headers["content-type"].startswith(content_type)


def test_healthz_takes_no_snapshot(endpoint: Endpoint, source: Scripted) -> None:
    """A probe costs nothing."""
    assert (200, "ok\n") == curl(f"{endpoint.url}/healthz")
    assert 0 == source.taken


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["/metrics"], 200),
        (["/metrics?name[]=x&y=%00"], 200),
        (["/metrics/"], 404),
        (["//metrics"], 404),
        (["/"], 404),
        (["/METRICS"], 404),
        (["/%6Detrics"], 404),
        (["/metrics%2ejson"], 404),
        (["/metrics%00"], 404),
        (["--path-as-is", "/x/../metrics"], 404),
        (["--path-as-is", "/../../etc/passwd"], 404),
        (["-X", "POST", "/metrics"], 405),
        (["-X", "PUT", "-d", "x=1", "/metrics"], 405),
        (["-X", "DELETE", "/metrics"], 405),
        (["-X", "OPTIONS", "/metrics"], 405),
        (["-X", "TRACE", "/metrics"], 405),
        (["-X", "get", "/metrics"], 405),
        (["-H", "Host: evil.example", "/metrics"], 421),
        (["-H", "Host: evil.example", "/healthz"], 421),
        (["-H", "Host: localhost.evil.example", "/metrics"], 421),
        (["-H", "Host: 10.0.0.1", "/metrics"], 421),
        (["-H", "Host: 2130706433", "/metrics"], 421),
        (["-H", "Host: localhost@evil.example", "/metrics"], 421),
        (["-H", "Host: LOCALHOST:1", "/metrics"], 200),
        (["-H", "Host: [::1]:9464", "/metrics"], 200),
        (["-H", "Host: [0:0:0:0:0:0:0:1]", "/metrics"], 200),
        (["-H", "X-Long: " + "x" * 9000, "/metrics"], 431),
    ],
)
def test_curl_matrix(endpoint: Endpoint, arguments: list[str], status: int) -> None:
    """
    Exact paths, two methods, known hosts, small headers; all else is refused.

    Each row fails without the check that its status names in `Guard._refusal`.
    """
    *options, path = arguments

    assert status == curl("-g", *options, endpoint.url + path)[0]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"421"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", b"400"),
        (b"GET http://evil/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
)
def test_odd_requests(endpoint: Endpoint, request_bytes: bytes, status: bytes) -> None:
    """No host, two hosts, a proxy's form of request, and TLS to a plain port."""
    assert status == ask(endpoint.port, request_bytes).split()[1]


def test_405_names_the_methods(endpoint: Endpoint) -> None:
    """A refused method comes with those that there are."""
    assert "GET, HEAD" == httpx.post(f"{endpoint.url}/metrics").headers["allow"]


def test_head_has_the_headers_only(endpoint: Endpoint) -> None:
    """HEAD tells the length of what GET would send, and sends nothing."""
    length = len(httpx.get(f"{endpoint.url}/metrics.json").content)
    head = b"HEAD /metrics.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    headers, _, body = ask(endpoint.port, head).partition(b"\r\n\r\n")

    assert f"content-length: {length}".encode() in headers.lower()
    assert b"" == body


def test_every_answer_has_the_security_headers(endpoint: Endpoint) -> None:
    """Pages and refusals alike may not be sniffed, cached, framed or scripted."""
    for path in ("/metrics", "/metrics.json", "/healthz", "/nothing"):
        headers = httpx.get(endpoint.url + path).headers

        assert "nosniff" == headers["x-content-type-options"]
        assert "no-store" == headers["cache-control"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Authorization: Bearer {TOKEN}", 200),
        (f"Authorization: bearer  {TOKEN} ", 200),
        (f"Authorization: Bearer {TOKEN}x", 401),
        (f"Authorization: Bearer {TOKEN[:-1]}", 401),
        ("Authorization: Bearer ", 401),
        ("Authorization: Bearer \xe9", 401),
        (f"Authorization: Basic {TOKEN}", 401),
        (f"Authorization: {TOKEN}", 401),
        (f"X-Authorization: Bearer {TOKEN}", 401),
    ],
)
def test_token(guarded: Endpoint, header: str, status: int) -> None:
    """Only the bearer token itself opens a page; `Guard._knows` answers all else."""
    for path in ("/metrics", "/metrics.json"):
        assert status == curl("-H", header, guarded.url + path)[0]


def test_token_twice_is_no_token(guarded: Endpoint) -> None:
    """Two `Authorization` headers are not guessed about."""
    header = f"Authorization: Bearer {TOKEN}"

    assert 401 == curl("-H", header, "-H", header, f"{guarded.url}/metrics")[0]


def test_401_says_how(guarded: Endpoint) -> None:
    """The refusal names the scheme; `/healthz` asks for nothing."""
    refusal = httpx.get(f"{guarded.url}/metrics")

    assert 401 == refusal.status_code
    assert 'Bearer realm="ometrics"' == refusal.headers["www-authenticate"]
    assert 200 == httpx.get(f"{guarded.url}/healthz").status_code


def test_token_is_compared_in_constant_time(
    guarded: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right or wrong, the comparison is `hmac.compare_digest`; fails with `==`."""
    compared = []
    compare = hmac.compare_digest

    def spy(given: bytes, kept: bytes) -> bool:
        compared.append(given)
        return compare(given, kept)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    curl("-H", "Authorization: Bearer wrong", f"{guarded.url}/metrics")

    assert [b"wrong"] == compared


@pytest.mark.parametrize("token", ["", "two words", "tab\t", "ümlaut", "a\r\nX: y"])
def test_unsendable_token_is_refused(source: Scripted, token: str) -> None:
    """A token that no header can carry is an error at the start, not a 401 for ever."""
    with pytest.raises(ValueError, match="token_urlsafe"):
        Endpoint.start(source, port=0, token=token)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("localhost", "localhost"),
        ("Metrics.Example:9464", "metrics.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::FFFF:127.0.0.1]:80", "127.0.0.1"),
        ("[0::0:1]:", "::1"),
        ("::1", None),
        ("[::1", None),
        ("[::1%25lo]", None),
        ("a b", None),
        ("a,b", None),
        ("", None),
        (":80", None),
        ("localhost:80:80", None),
        ("localhost/", None),
    ],
)
def test_host_name(value: str, name: str | None) -> None:
    """A `Host` is a name or an address, its port apart; all else is nothing."""
    assert name == host_name(value)


def test_allowed_hosts(source: Scripted) -> None:
    """The user's names and addresses count as well, in any usual form."""
    allowed = ["Metrics.Example:443", "fd00::1", "[fd00::2]"]
    with Endpoint.start(source, port=0, allowed_hosts=allowed) as running:
        statuses = [
            curl("-H", f"Host: {host}", f"{running.url}/healthz")[0]
            for host in ("metrics.example", "[fd00::1]:1", "[fd00::2]", "example")
        ]

    assert [200, 200, 200, 421] == statuses


def test_hosts_of_an_unknown_address() -> None:
    """Listening everywhere, any address is right, and still no foreign name."""
    hosts = Hosts(any_address=True)

    assert hosts.allow("10.1.2.3:9464")
    assert hosts.allow("[fd00::1]")
    assert not hosts.allow("evil.example")
    assert not hosts.allow(None)


def test_bad_allowed_hosts(source: Scripted) -> None:
    """A name that no request could have is an error, and so is a bare string."""
    with pytest.raises(ValueError, match="not a host name"):
        Endpoint.start(source, port=0, allowed_hosts=["http://x/"])
    with pytest.raises(TypeError, match="list of names"):
        Endpoint.start(source, port=0, allowed_hosts="x")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("br, GZIP ;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*", False),
        ("xgzip", False),
        ("", False),
    ],
)
def test_accepts_gzip(header: str, wanted: bool) -> None:
    """Compressed only for those who say gzip and mean it."""
    assert wanted is accepts_gzip(header)


def test_gzip_is_the_same_page(endpoint: Endpoint) -> None:
    """Compressed and plain pages agree; a short answer is not compressed."""
    url = f"{endpoint.url}/metrics.json"
    plain = httpx.get(url, headers={"Accept-Encoding": "identity"})
    with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as page:
        packed = b"".join(page.iter_raw())
    short = httpx.get(f"{endpoint.url}/healthz", headers={"Accept-Encoding": "gzip"})

    assert "content-encoding" not in plain.headers
    assert "gzip" == page.headers["content-encoding"]
    assert "Accept, Accept-Encoding" == page.headers["vary"]
    assert plain.content == gzip.decompress(packed)
    assert len(plain.content) > 3 * len(packed)
    assert "content-encoding" not in short.headers


def test_too_large_a_page_is_a_clear_503(source: Scripted) -> None:
    """
    A flood of models cannot make the endpoint send without end.

    Without the comparison in `Pages._render` this is a 200.
    """
    with Endpoint.start(source, port=0, max_bytes=1000) as running:
        status, body = curl(f"{running.url}/metrics.json")

    assert 503 == status
    assert "the limit is 1,000" in body
    assert "max_models" in body


def test_concurrent_scrapes_share_one_rendering(
    endpoint: Endpoint, source: Scripted
) -> None:
    """
    Twelve scrapes at once take one snapshot; the next takes one of its own.

    With a `_share` that always begins a rendering there are twelve.
    """
    source.go.clear()
    statuses: list[int] = []

    def scrape() -> None:
        page = httpx.get(f"{endpoint.url}/metrics", timeout=10)
        statuses.append(page.status_code)

    scrapers = [threading.Thread(target=scrape) for _ in range(12)]
    for scraper in scrapers:
        scraper.start()
    listener = endpoint._listener
    wait_until(lambda: listener.answering == 12)
    source.go.set()
    for scraper in scrapers:
        scraper.join()

    assert [200] * 12 == statuses
    assert 1 == source.taken

    httpx.get(f"{endpoint.url}/metrics")

    assert 2 == source.taken


def test_a_client_that_leaves_takes_no_page_away(source: Scripted) -> None:
    """Of two who wait for a page one is cancelled; the other gets it."""
    guard = Guard(Pages(source), token=None, hosts=Hosts())
    request = ("GET", "/metrics.json", [("host", "localhost")])

    async def both() -> int:
        source.go.clear()
        leaves = asyncio.create_task(guard.respond_async(*request))
        stays = asyncio.create_task(guard.respond_async(*request))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        source.go.set()
        return (await stays).status

    assert 200 == asyncio.run(both())
    assert 1 == source.taken


def test_a_failed_rendering_tells_its_class_only(
    endpoint: Endpoint, source: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """Our own failure is a 500 without the message, and the next scrape works."""
    source.error = ValueError("a secret prompt")
    status, body = curl(f"{endpoint.url}/metrics")

    assert (500, "500 the page could not be rendered: ValueError\n") == (status, body)
    assert "secret" not in caplog.text
    assert "ValueError" in caplog.text

    source.error = None

    assert 200 == curl(f"{endpoint.url}/metrics")[0]


def test_nothing_of_a_request_is_kept(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A canary in query, path, header and method reaches no log and no page.

    With uvicorn's own protocol class the access log has it.
    """
    caplog.set_level(logging.DEBUG)
    logging.getLogger("ometrics.serve.http").setLevel(logging.DEBUG)
    try:
        pages = [
            curl(f"{endpoint.url}/metrics?canary=canary")[1],
            curl(f"{endpoint.url}/canary")[1],
            curl("-H", "Host: canary", f"{endpoint.url}/metrics")[1],
            curl("-H", "Canary: canary", f"{endpoint.url}/metrics.json")[1],
            curl("-X", "CANARY", f"{endpoint.url}/metrics")[1],
            ask(endpoint.port, b"canary canary\r\n\r\n").decode(),
        ]
    finally:
        logging.getLogger("ometrics.serve.http").setLevel(logging.ERROR)
    written = [r.getMessage() for r in caplog.records if r.name[:5] != "httpx"]

    assert [] == [text for text in [*pages, *written] if "canary" in text.lower()]


def test_uvicorn_says_nothing_of_our_server(
    source: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """Who runs uvicorn for an application sees no second server start or stop."""
    caplog.set_level(logging.INFO)
    with Endpoint.start(source, port=0) as running:
        curl(f"{running.url}/healthz")
    logging.getLogger("uvicorn.error").info("of the application")

    assert ["of the application"] == [r.getMessage() for r in caplog.records]


def call_asgi(app: Any, path: str, **options: Any) -> httpx.Response:
    """One request to an ASGI application, without a server."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, **options)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost"
        ) as client:
            return await client.get(path)

    return asyncio.run(call())


def test_asgi_mounted(source: Scripted) -> None:
    """In an application the pages are below the mount, under the same guards."""
    app = ometrics.serve.asgi(source)
    page = call_asgi(app, "/inside/metrics.json?x=1", root_path="/inside")

    assert 200 == page.status_code
    assert "model_metrics" in json.loads(page.content)
    assert 404 == call_asgi(app, "/inside/metrics.json").status_code
    assert 404 == call_asgi(app, "/%6Detrics").status_code
    assert 421 == call_asgi(app, "http://evil.example/metrics").status_code
    assert 200 == call_asgi(app, "http://10.0.0.1/healthz").status_code


def test_asgi_token_and_hosts(source: Scripted) -> None:
    """The options of `asgi` are the guards'; `None` leaves hosts to the application."""
    app = ometrics.serve.asgi(source, token=TOKEN, allowed_hosts=None, max_bytes=10)

    assert 401 == call_asgi(app, "http://any.example/metrics").status_code


def test_asgi_lifespan_and_websocket(source: Scripted) -> None:
    """A server may start, stop and try a WebSocket; the last is closed."""
    app = ometrics.serve.asgi(source)
    heard = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    said = []

    async def receive() -> Any:
        return next(heard)

    async def send(message: Any) -> None:
        said.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))
    asyncio.run(app({"type": "websocket"}, receive, send))
    lifespan = ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    assert [*lifespan, "websocket.close"] == said


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"PATH_INFO": "/metrics"}, "200 OK"),
        ({"PATH_INFO": "/metrics.json"}, "200 OK"),
        ({"PATH_INFO": "/metrics", "REQUEST_METHOD": "HEAD"}, "200 OK"),
        ({"PATH_INFO": "/metrics", "REQUEST_METHOD": "POST"}, "405 Method Not Allowed"),
        ({"PATH_INFO": "/other"}, "404 Not Found"),
        ({"PATH_INFO": "/metrics", "HTTP_HOST": "evil"}, "421 Misdirected Request"),
        ({"PATH_INFO": "/metrics", "HTTP_AUTHORIZATION": ""}, "401 Unauthorized"),
    ],
)
def test_wsgi(source: Scripted, changes: dict[str, str], status: str) -> None:
    """The WSGI application keeps to PEP 3333 and to the guards."""
    app = validator(ometrics.serve.wsgi(source, token=TOKEN))
    environ: dict[str, Any] = {
        "HTTP_HOST": "localhost:8000",
        "HTTP_AUTHORIZATION": f"Bearer {TOKEN}",
        "SCRIPT_NAME": "/inside",
        "QUERY_STRING": "x=1",
    } | changes
    setup_testing_defaults(environ)
    started: list[str] = []

    def start_response(line: str, headers: Any, exc_info: Any = None) -> Any:
        started.append(line)
        return started.append

    body = app(environ, start_response)
    content = b"".join(body)
    body.close()  # type: ignore[attr-defined]

    assert [status] == started
    assert bool(content) is (environ["REQUEST_METHOD"] != "HEAD")
