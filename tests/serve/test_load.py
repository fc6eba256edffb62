# SPDX-License-Identifier: MIT
"""The endpoint under attack and under load: slow clients, and too many of them."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from prometheus_proto import parse
from serving import (
    Certificates,
    Flood,
    Source,
    closed,
    connect,
    curl,
    threads,
    wait_until,
)
from strategies import sample_snapshot

from ometrics import Snapshot
from ometrics.export.names import Family, Labels
from ometrics.serve import Endpoint, Page, counter, listener

# curl and openssl do not run with a sanitizer loaded before them.
pytestmark = pytest.mark.sanitize_skip

#: Half-open connections of the slowloris attacks.
ATTACKERS = 500


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
        yield Family.of(told, [((("code", "200"),), 7)])

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
