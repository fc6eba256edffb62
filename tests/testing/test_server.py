# SPDX-License-Identifier: MIT
"""`ScriptedOllama`: which script answers, what it remembers, how it waits and ends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import ollama
import pytest
from wire import ASK, Wire

from ometrics.testing import (
    Delay,
    Hang,
    Request,
    ScriptedOllama,
    Status,
    Step,
    chat_chunk,
    chat_done,
    generate_response,
)

CHAT = "/api/chat"


def test_a_queue_comes_before_the_script_and_the_script_before_the_default(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Queued scripts serve one request each, in order."""
    said = []
    for number in range(4):
        if number == 0:
            server.queue("/api/generate", *([generate_response(x)] for x in "ab"))
        if number == 2:
            server.script("/api/generate", [generate_response("c")])
        said.append(client.generate("m", "x").response)

    assert ["a", "b", "c", "c"] == said


def test_a_callable_sees_the_request_and_may_yield(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """A script can depend on what was asked and can be endless."""

    def echo(request: Request) -> Iterator[dict[str, Any]]:
        for word in request.json["messages"][0]["content"].split():
            yield chat_chunk(word)
        yield chat_done()

    server.script(CHAT, echo)
    messages = [{"role": "user", "content": "b c d"}]
    stream = client.chat("m", messages, stream=True)

    assert ["b", "c", "d", ""] == [chunk.message.content for chunk in stream]


def test_mistakes_in_a_fixed_script_are_raised_where_it_is_written(
    server: ScriptedOllama,
) -> None:
    """A test sees its mistake, not a strange answer."""
    with pytest.raises(TypeError, match="str"):
        server.script(CHAT, ["text"])
    with pytest.raises(TypeError, match="int"):
        server.queue(CHAT, b"bytes alone")


def test_a_failing_script_is_a_500_and_fails_the_test(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Its exception is kept and raised again at the end of the `with` block."""

    def broken(request: Request) -> list[Any]:
        raise KeyError(request.path)

    def scenario() -> None:
        with ScriptedOllama() as server:
            server.script(CHAT, broken)
            response = httpx.post(server.url + CHAT, json=ASK)

            assert 500 == response.status_code
            assert "KeyError" in response.json()["error"]

    with pytest.raises(RuntimeError, match="script") as caught:
        scenario()
    assert isinstance(caught.value.__cause__, KeyError)
    assert [] == list(recwarn)


def test_a_script_that_fails_late_breaks_the_connection() -> None:
    """A status cannot be sent twice, so the client sees an unfinished stream."""
    server = ScriptedOllama()
    server.script(CHAT, [chat_chunk("a"), Status(500)])
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(server.url + CHAT, json=ASK)
    server.close()

    assert [ValueError] == [type(error) for error in server.errors]


def test_a_hung_answer_goes_on_when_released(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """All the answers that hang now are let go."""
    server.script("/api/generate", [Hang(), generate_response("at last")])
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.generate, "m", "x") for _ in range(3)]
        server.wait_for(lambda server: server.hanging == 3)
        server.release()

        assert ["at last"] * 3 == [answer.result().response for answer in answers]
    assert 0 == server.hanging


@pytest.mark.parametrize("wait", [Hang(), Delay(60)], ids=["hang", "delay"])
def test_a_client_that_leaves_is_seen_while_the_server_waits(
    server: ScriptedOllama, client: ollama.Client, wait: Step
) -> None:
    """A caller that breaks out of a stream is told apart from one that reads on."""
    server.script(CHAT, [chat_chunk("a"), wait, chat_done()])
    stream = client.chat(**ASK, stream=True)
    next(stream)
    stream.close()
    request = server.wait_for_disconnect()

    assert request is server.requests[0]
    assert "disconnected" == request.outcome


def test_a_client_that_leaves_is_seen_while_the_server_writes(
    server: ScriptedOllama,
) -> None:
    """An endless stream ends with its reader."""

    def endless(request: Request) -> Iterator[bytes]:
        while True:
            yield b"x" * 10_000

    server.script(CHAT, endless)
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)
        wire.packet()

    assert server.wait_for_disconnect().disconnected


def test_a_timeout_of_the_client_is_seen(server: ScriptedOllama) -> None:
    """The hung request of a client that gives up is over."""
    server.script(CHAT, [Hang()])
    with pytest.raises(httpx.ReadTimeout):
        ollama.Client(host=server.url, timeout=0.05).chat(**ASK)

    assert server.wait_for_disconnect().disconnected


def test_waiting_in_vain_raises() -> None:
    """The message tells what became of the requests so far."""
    with ScriptedOllama() as server:
        httpx.post(server.url + CHAT, json=ASK)
        server.wait_until_idle()
        with pytest.raises(TimeoutError, match=r"0.01 s; requests: \['complete'\]"):
            server.wait_for_disconnect(timeout=0.01)


def test_close_is_prompt_and_leaves_no_thread(recwarn: pytest.WarningsRecorder) -> None:
    """Hung, delayed, idle and blocked connections are cut, well before any time limit.

    (Without `Connection.shutdown` this waits two seconds and finds the threads.)
    """
    before = set(threading.enumerate())
    server = ScriptedOllama()
    server.script("/hang", [Hang()])
    server.script("/delay", [Delay(60)])
    server.script("/full", [b"x" * 50_000_000])
    paths = ["/hang", "/delay", "/full", "/api/version"]
    wires = [Wire(server) for _ in paths]
    for wire, path in zip(wires, paths, strict=True):
        wire.ask(path)
    server.wait_for_requests(4)
    wires[-1].packet()
    server.wait_for(lambda s: [r.outcome for r in s.requests].count("complete") == 1)
    start = time.monotonic()
    server.close()
    took = time.monotonic() - start
    server.close()
    for wire in wires:
        wire.close()

    assert took < 2.0
    assert set() == set(threading.enumerate()) - before
    assert 0 == server.connections
    assert ["cut", "cut", "cut", "complete"] == sorted(
        (request.outcome for request in server.requests), reverse=True
    )
    with pytest.raises(ConnectionRefusedError):
        Wire(server)
    assert [] == list(recwarn)


def test_a_process_ends_although_nobody_closed_the_server() -> None:
    """Its threads are daemons and write nothing at the end."""
    code = (
        "import socket; from ometrics.testing import *; s = ScriptedOllama();"
        "s.script('/x', [Hang()]); c = socket.create_connection((s.host, s.port));"
        "c.sendall(b'GET /x HTTP/1.1\\r\\n\\r\\n');"
        "s.wait_for(lambda s: s.hanging); print('end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (0, "end\n", "") == (done.returncode, done.stdout, done.stderr)


def test_the_log_tells_what_was_asked(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Method, path, headers, body, default of `stream` and the connection used."""
    client.chat(**ASK)
    list(client.generate("m", "x", stream=True))
    client.list()
    httpx.post(server.url + CHAT, json=ASK)
    server.wait_until_idle()
    first, second, third, fourth = server.requests

    assert ("POST", CHAT, False) == (first.method, first.path, first.stream)
    assert ASK["messages"] == first.json["messages"]
    assert "application/json" == first.headers["content-type"]
    assert (True, "x") == (second.stream, second.json["prompt"])
    assert ("GET", None, False) == (third.method, third.json, third.stream)
    assert fourth.stream
    assert [0, 0, 0, 1] == [request.connection for request in server.requests]
    assert {"complete"} == {request.outcome for request in server.requests}


def test_the_log_is_bounded() -> None:
    """Benchmarks make many requests; the log keeps the last ones."""
    with ScriptedOllama(history=2) as server, httpx.Client(base_url=server.url) as http:
        for number in range(4):
            http.get(f"/{number}")

        assert ["/2", "/3"] == [request.path for request in server.requests]
