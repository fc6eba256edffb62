# SPDX-License-Identifier: MIT
"""What passes a proxy: the same bytes, headers, errors and chunks, in their time."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from typing import Any

import pytest
from proxying import (
    BODY,
    MODEL,
    PATIENCE,
    connect,
    counted,
    exchange,
    number,
    request,
    wait_until,
)

from ometrics import MetricsCollector
from ometrics.proxy import Proxy
from ometrics.testing import (
    Close,
    Delay,
    Hang,
    Raw,
    Reset,
    ScriptedOllama,
    Status,
    chat_chunk,
    chat_done,
    chat_response,
)

SUCCESS, FAILURE, CANCELLED = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def _call(proxy: Proxy, method: str, path: str, **options: Any) -> Any:
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=PATIENCE)
    try:
        connection.request(method, path, **options)
        answer = connection.getresponse()
        answer.whole = answer.read()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"]
)
def test_every_method(server: ScriptedOllama, proxy: Proxy, method: str) -> None:
    """A method, path and query arrive as they were sent, and the answer likewise."""
    server.script("/any//thing%2Fat/../all", [Status(418, b"tea", {"X-One": "1"})])
    body = None if method == "GET" else b"bytes \0\xff"

    answer = _call(proxy, method, "/any//thing%2Fat/../all?q=%20+&q=", body=body)

    (got,) = server.requests
    assert (418, b"tea", "1") == (answer.status, answer.whole, answer.headers["X-One"])
    assert (method, "/any//thing%2Fat/../all", "q=%20+&q=", body or b"") == (
        *(got.method, got.path, got.query, got.body),
    )


def test_headers_of_a_request(server: ScriptedOllama, proxy: Proxy) -> None:
    """All headers but those of the connection arrive, and none is added."""
    sent = request(
        proxy,
        "/api/tags",
        *("X-Mine: a", "Connection: close, X-Mine", "X-Other: b", "TE: trailers"),
        *("Authorization: Bearer key", "Upgrade: h2c"),
        method="GET",
    )

    exchange(proxy, sent)

    (got,) = server.requests
    assert {
        "host": f"{server.host}:{server.port}",
        "x-other": "b",
        "authorization": "Bearer key",
    } == dict(got.headers)


def test_headers_of_an_answer(server: ScriptedOllama, proxy: Proxy) -> None:
    """The answer's headers come with their case and number, and none is added."""
    server.script(
        "/x",
        [
            Raw(
                b"HTTP/1.1 299 Odd Reason\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
                b"Keep-Alive: timeout=9\r\nx-cASE: Kept\r\nContent-Length: 2\r\n\r\nhi"
            )
        ],
    )

    got = exchange(proxy, request(proxy, "/x", "Connection: close", method="GET"))

    assert (
        b"HTTP/1.1 299 Odd Reason\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"x-cASE: Kept\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    ) == got


def test_head(server: ScriptedOllama, proxy: Proxy) -> None:
    """HEAD is answered with the length of what it does not send."""
    server.script("/blob", [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")])

    answer = _call(proxy, "HEAD", "/blob")

    assert (200, "99", b"") == (
        *(answer.status, answer.headers["Content-Length"], answer.whole),
    )


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(
    server: ScriptedOllama, proxy: Proxy, status: int
) -> None:
    """An answer that has no body by its status ends at its headers."""
    server.script("/x", [Raw(b"HTTP/1.1 %d X\r\nETag: e\r\n\r\n" % status)])

    answer = _call(proxy, "GET", "/x")

    assert (status, "e", b"") == (
        *(answer.status, answer.headers["ETag"], answer.whole),
    )


def test_redirects_are_the_callers(server: ScriptedOllama, proxy: Proxy) -> None:
    """A redirect is passed on, not followed."""
    server.script("/x", [Status(302, b"", {"Location": "/y"})])

    answer = _call(proxy, "GET", "/x")

    assert (302, "/y") == (answer.status, answer.headers["Location"])
    assert 1 == len(server.requests)


def test_nothing_is_unpacked(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """Packed bodies pass as they are, and a packed answer is measured all the same."""
    packed = gzip.compress(json.dumps(chat_response("hi", eval_count=7)).encode())
    server.script("/api/chat", [Status(200, packed, {"Content-Encoding": "gzip"})])
    server.script("/other", [{}])
    upload = gzip.compress(b"upload")

    answer = _call(
        proxy, "POST", "/api/chat", body=json.dumps(BODY | {"stream": False})
    )
    _call(proxy, "POST", "/other", body=upload, headers={"Content-Encoding": "gzip"})

    assert packed == answer.whole
    assert upload == server.requests[1].body
    assert SUCCESS == counted(collector)
    assert 7 == collector.snapshot().models[MODEL].calls["chat"].completion_tokens


@pytest.mark.parametrize("size", [0, 1 << 10, 1 << 20])
def test_a_body_in_chunks(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector, size: int
) -> None:
    """A call whose length nobody says arrives whole, and once."""
    body = json.dumps(BODY | {"options": {"stop": "x" * size}}).encode()
    pieces = (body[at : at + 9000] for at in range(0, len(body), 9000))

    answer = _call(proxy, "POST", "/api/chat", body=pieces)

    assert 200 == answer.status
    assert [body] == [got.body for got in server.requests]
    assert SUCCESS == counted(collector)
    assert len(body) == number(proxy, "ometrics.proxy.body.size", direction="request")


def test_each_chunk_when_it_comes(server: ScriptedOllama, proxy: Proxy) -> None:
    """Headers and each chunk are passed on before the server goes on."""
    server.script("/api/chat", [Status(200), Hang(), chat_chunk("a"), Hang(), b"rest"])

    with connect(proxy) as caller:
        caller.sendall(request(proxy, "/api/chat", body=BODY))
        server.wait_for(lambda s: s.hanging)
        assert caller.recv(9999).startswith(b"HTTP/1.1 200")
        server.release()
        assert b'"a"' in caller.recv(9999)
        server.wait_for(lambda s: s.hanging)
        server.release()
        assert b"rest" in caller.recv(9999)


def test_bytes_split_anywhere(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """A stream cut at every byte is the same stream, and the same call."""
    lines = [chat_chunk("Grüße"), chat_chunk("!"), chat_done(eval_count=2)]
    whole = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    server.script("/api/chat", [whole[at : at + 1] for at in range(len(whole))])

    answer = _call(proxy, "POST", "/api/chat", body=json.dumps(BODY))

    assert whole == answer.whole
    assert SUCCESS == counted(collector)
    assert 2 == collector.snapshot().models[MODEL].calls["chat"].completion_tokens


def test_connections_are_kept(server: ScriptedOllama, proxy: Proxy) -> None:
    """Requests of one connection go on over one connection."""
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=PATIENCE)
    for _ in range(3):
        connection.request("GET", "/api/tags")
        answer = connection.getresponse()
        assert (200, True) == (answer.status, bool(answer.read()))
    connection.close()

    assert 1 == len({got.connection for got in server.requests})


@pytest.mark.parametrize("streamed", [False, True])
def test_the_caller_gone(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector, streamed: bool
) -> None:
    """Who leaves, before the answer or in it, is followed by the proxy at once."""
    server.script("/api/chat", [chat_chunk("a"), Hang()] if streamed else [Hang()])
    caller = connect(proxy)
    caller.sendall(request(proxy, "/api/chat", body=BODY))
    server.wait_for(lambda s: s.hanging)
    if streamed:
        caller.recv(1)

    left = time.monotonic()
    caller.close()
    server.wait_for_disconnect()

    assert time.monotonic() - left < 1.0  # some ms; the machine may be busy
    wait_until(lambda: counted(collector) == CANCELLED)
    wait_until(lambda: not proxy.under_way)
    assert 1 == number(proxy, "ometrics.proxy.requests", result="caller_gone")


def test_the_caller_gone_in_an_upload(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """A call whose request never came whole is none, and no failure of the server."""
    caller = connect(proxy)
    caller.sendall(request(proxy, "/api/chat", body=BODY)[:-5])
    wait_until(lambda: proxy.under_way)
    caller.close()
    wait_until(lambda: not proxy.under_way)

    assert (0, 0, 0) == counted(collector)
    assert not server.requests


def test_the_server_gone(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """502 with an error in Ollama's form, counted; then the server is back."""
    server.close()

    answer = _call(proxy, "POST", "/api/chat", body=json.dumps(BODY))

    assert (502, "application/json") == (
        *(answer.status, answer.headers.get_content_type()),
    )
    assert server.url in json.loads(answer.whole)["error"]
    assert FAILURE == counted(collector)
    assert 0 == number(proxy, "ometrics.proxy.upstream.up")
    assert 1 == number(proxy, "ometrics.proxy.requests", result="upstream_unreachable")


def test_the_server_restarted(collector: MetricsCollector) -> None:
    """A server that was away is used again, connections of before or not."""
    ports = []
    for _ in range(2):
        listener = socket.create_server(("127.0.0.1", ports[0] if ports else 0))
        ports.append(listener.getsockname()[1])
        if len(ports) == 1:
            proxy = Proxy.start(
                collector, upstream=f"http://127.0.0.1:{ports[0]}", port=0
            )
        thread = threading.Thread(target=_answer_once, args=(listener,))
        thread.start()
        assert 200 == _call(proxy, "POST", "/api/chat", body=b"{}").status
        thread.join()
        assert 502 == _call(proxy, "POST", "/api/chat", body=b"{}").status
    proxy.close()


def _answer_once(listener: socket.socket) -> None:
    """Answer one request, then be gone."""
    connection, _ = listener.accept()
    with listener, connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("end", [Reset(), Close()])
def test_an_answer_broken_off(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector, end: Any
) -> None:
    """An answer that breaks off at the server breaks off for the caller, and fails."""
    server.script("/api/chat", [chat_chunk("a"), Delay(0.01), end])

    got = exchange(proxy, request(proxy, "/api/chat", body=BODY))

    assert b'"a"' in got
    assert not got.endswith(b"0\r\n\r\n")
    assert FAILURE == counted(collector)
    assert 1 == number(proxy, "ometrics.proxy.requests", result="answer_broken")


def test_errors_of_the_server(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """An error passes as it is and counts under its code."""
    server.script("/api/chat", [Status(404, {"error": "model 'x' not found"})])

    got = exchange(proxy, request(proxy, "/api/chat", "Connection: close", body=BODY))

    assert got.startswith(b"HTTP/1.1 404 ")
    assert got.endswith(b'{"error":"model \'x\' not found"}')
    assert FAILURE == counted(collector)


def test_expect_continue(server: ScriptedOllama, proxy: Proxy) -> None:
    """Who asks before a large upload is told to go on."""
    with connect(proxy) as caller:
        head = request(proxy, "/x", "Expect: 100-continue", "Content-Length: 2")
        caller.sendall(head)
        assert caller.recv(999).startswith(b"HTTP/1.1 100 ")
        caller.sendall(b"hi")
        assert b" 404 " in caller.recv(9999)
    assert b"hi" == server.requests[0].body


def test_an_old_client(server: ScriptedOllama, proxy: Proxy) -> None:
    """HTTP/1.0 gets a stream that ends with the connection."""
    sent = request(proxy, "/api/chat", body=BODY).replace(b"HTTP/1.1", b"HTTP/1.0")

    got = exchange(proxy, sent)

    head, body = got.split(b"\r\n\r\n", 1)
    assert b"chunked" not in head.lower()
    assert body.startswith(b"{")
    assert body.endswith(b"}\n")


def test_large_calls(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """A call of many MiB counts wherever it names its model, or as of `unknown`."""
    image = "A" * (6 << 20)
    first = {"model": "first", "images": [image], "stream": False}
    last = {"images": [image], "stream": False, "model": "last"}
    none = {"images": [image, image], "model": "hidden", "more": image}
    server.script("/api/generate", [{"response": "x", "done": True}])

    for body in (first, last, none):
        assert (
            200 == _call(proxy, "POST", "/api/generate", body=json.dumps(body)).status
        )

    assert SUCCESS == counted(collector, "first")
    assert SUCCESS == counted(collector, "last")
    assert SUCCESS == counted(collector, "unknown")
    assert {"first", "last", "unknown"} == {*collector.snapshot().models}
    assert 0 == number(proxy, "ometrics.proxy.unmeasured")
    assert json.loads(server.requests[1].body) == last


def test_other_requests_are_no_calls(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """Lists, pulls and unknown paths pass unmeasured; a body with no model as well."""
    for path in ("/api/tags", "/api/pull", "/nothing", "/api/chat"):
        _call(proxy, "POST", path, body=json.dumps({"name": "x"}))

    assert {} == dict(collector.snapshot().models)
    assert 1 == number(proxy, "ometrics.proxy.unmeasured")
    wait_until(lambda: number(proxy, "ometrics.proxy.requests", result="answered") == 4)


@pytest.mark.parametrize("target", ["/a%0Ab", "*", "//other.example.com/x"])
def test_odd_targets(server: ScriptedOllama, proxy: Proxy, target: str) -> None:
    """What a router would not find passes too; the server decides."""
    server.script("/", [Status(200)])

    exchange(proxy, request(proxy, target, "Connection: close", method="OPTIONS"))

    (got,) = server.requests
    assert ("OPTIONS", target.replace("*", "/")) == (got.method, got.path)


def test_a_body_nested_deeper_than_is_read(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """It passes, and counts as of the model that it names at an end."""
    body = b'{"model":"deep","messages":' + b"[" * 5000 + b"]" * 5000 + b"}"
    server.script("/api/chat", [chat_done()])

    answer = _call(proxy, "POST", "/api/chat", body=body)

    assert (200, body) == (answer.status, server.requests[0].body)
    assert SUCCESS == counted(collector, "deep")


def test_our_own_failure_is_not_the_callers(
    server: ScriptedOllama,
    proxy: Proxy,
    collector: MetricsCollector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that cannot be measured passes all the same; the failure is counted."""

    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ometrics.proxy.passage.asked_by", fail)

    assert 200 == _call(proxy, "POST", "/api/chat", body=json.dumps(BODY)).status
    assert 1 == collector.snapshot().internal_errors
    assert 1 == number(proxy, "ometrics.proxy.unmeasured")


def test_the_last_stream_is_let_end(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """`close` takes no newcomer, and waits for what is under way."""
    server.script("/api/chat", [chat_chunk("a"), Hang(), chat_done()])
    with connect(proxy) as caller:
        caller.sendall(request(proxy, "/api/chat", body=BODY))
        server.wait_for(lambda s: s.hanging)
        closing = threading.Thread(target=proxy.close)
        closing.start()
        wait_until(lambda: not _listens(proxy))
        server.release()
        got = b""
        while piece := caller.recv(9999):
            got += piece
        closing.join()

    assert got.endswith(b"0\r\n\r\n")
    assert SUCCESS == counted(collector)


def test_the_end_is_bounded(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """What does not end in time is broken off, and counts as cancelled."""
    server.script("/api/chat", [chat_chunk("a"), Hang()])
    with connect(proxy) as caller:
        caller.sendall(request(proxy, "/api/chat", body=BODY))
        server.wait_for(lambda s: s.hanging)
        proxy.close(drain_s=0.05)

        assert not caller.recv(9999).endswith(b"0\r\n\r\n")
    assert CANCELLED == counted(collector)
    server.wait_for_disconnect()


def _listens(proxy: Proxy) -> bool:
    try:
        connect(proxy).close()
    except OSError:
        return False
    return True
