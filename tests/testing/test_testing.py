"""`ometrics.testing`: what tests of users may rely on, driven by real clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import FrameType
from typing import Any

import httpx
import ollama
import openai
import pytest

from ometrics.testing import (
    OPENAI_DONE,
    Close,
    Delay,
    Event,
    FakeClock,
    Hang,
    Line,
    Raw,
    Request,
    Reset,
    ScriptedOllama,
    Send,
    Split,
    Status,
    Step,
    Together,
    chat_chunk,
    chat_done,
    chat_response,
    created_at,
    embed_response,
    generate_chunk,
    generate_done,
    generate_response,
    openai_chunk,
    openai_response,
    openai_usage,
)

CHAT = "/api/chat"
ASK: dict[str, Any] = {
    "model": "llama3.2",
    "messages": [{"role": "user", "content": "Hi"}],
}


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server that leaves nothing behind."""
    with ScriptedOllama() as server:
        yield server


@pytest.fixture
def client(server: ScriptedOllama) -> Iterator[ollama.Client]:
    """The official client, with the time limit it lacks."""
    with ollama.Client(host=server.url, timeout=5) as client:
        yield client


class Wire:
    """A client that sees every byte the server sends, packet by packet."""

    def __init__(self, server: ScriptedOllama) -> None:
        self.sock = socket.create_connection((server.host, server.port), timeout=5)

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def ask(self, path: str, *, method: str = "POST", **body: Any) -> None:
        """Send a request with a JSON body."""
        data = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}"
        self.sock.sendall(f"{head}\r\n\r\n".encode() + data)

    def packet(self) -> bytes:
        """Return what one read gives."""
        return self.sock.recv(1_000_000)

    def rest(self) -> bytes:
        """Return everything until the server closes."""
        return b"".join(iter(self.packet, b""))


# --- FakeClock ---


def test_the_clock_stands_still_until_it_is_told() -> None:
    """Two readings with nothing between them are equal."""
    clock = FakeClock(monotonic=5.0, time=1_000.0)

    assert (5.0, 1_000.0) == (clock.monotonic(), clock.time())
    assert (5.0, 1_000.0) == (clock.monotonic(), clock.time())


def test_advancing_moves_both_clocks_without_rounding() -> None:
    """Ten tenths are one second, which floats alone would not give."""
    clock = FakeClock(monotonic=0.0, time=1_000.0)
    for _ in range(10):
        clock.advance(0.1)

    assert (1.0, 1_001.0) == (clock.monotonic(), clock.time())


def test_the_wall_clock_can_be_set_back_alone() -> None:
    """A correction of the wall clock leaves intervals as they are."""
    clock = FakeClock(monotonic=7.0, time=1_000.0)
    clock.step_wall(-3_600.0)

    assert (7.0, -2_600.0) == (clock.monotonic(), clock.time())


@pytest.mark.parametrize("seconds", [-0.001, float("nan"), float("inf")])
def test_time_does_not_run_backwards(seconds: float) -> None:
    """A clock that went back would hide mistakes, so it refuses and keeps its time."""
    clock = FakeClock(monotonic=7.0)

    with pytest.raises(ValueError, match="forwards"):
        clock.advance(seconds)
    assert 7.0 == clock.monotonic()


def test_threads_may_advance_one_clock() -> None:
    """
    No step of any thread is lost, though threads change at every bytecode.

    Seen to fail with the lock of `advance` taken out.
    """

    def give_way(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = frame.f_code is FakeClock.advance.__code__
        if event == "opcode":
            time.sleep(0)
        return give_way

    def work() -> None:
        for _ in range(50):
            clock.advance(0.01)

    clock = FakeClock(monotonic=0.0)
    threads = [threading.Thread(target=work) for _ in range(4)]
    threading.settrace(give_way)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.settrace(None)

    assert 2.0 == clock.monotonic()


# --- Payloads ---


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_399_034_426_000_000, "2026-11-23T01:57:14.426Z"),
        (1_795_399_034_426_000_001, "2026-11-23T01:57:14.426000001Z"),
    ],
)
def test_created_at_drops_trailing_zeros(nanoseconds: int, text: str) -> None:
    """Go's RFC 3339 has no fraction, or one without zeros at its end."""
    assert text == created_at(nanoseconds)


def test_the_last_line_looks_like_a_genuine_one() -> None:
    """Names and their order are those of Ollama 0.33; durations are whole numbers."""
    done = chat_done(eval_count=2)
    keys = (
        "model created_at message done done_reason total_duration load_duration "
        "prompt_eval_count prompt_eval_duration eval_count eval_duration"
    )

    assert keys.split() == list(done)
    assert {int} == {type(done[key]) for key in done if key.endswith("_duration")}
    assert 2 == done["eval_count"]


def test_zero_and_none_are_not_sent() -> None:
    """As with Go's `omitempty`; only a cached count of 0 says something."""
    done = generate_done(eval_count=0, total_duration=None, prompt_eval_cached_count=0)

    assert 0 == done["prompt_eval_cached_count"]
    assert not {"eval_count", "total_duration"} & done.keys()
    assert "prompt_eval_cached_count" not in generate_done()


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_and_unloading_carry_no_metrics(reason: str) -> None:
    """Such an answer is no inference and has no duration."""
    done = chat_done(done_reason=reason)

    assert ["model", "created_at", "message", "done", "done_reason"] == list(done)


def test_optional_parts_of_a_message() -> None:
    """Thoughts and tool calls appear only when given."""
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    message = chat_chunk("", thinking="hm", tool_calls=[call])["message"]

    assert {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
        "tool_calls": [call],
    } == (message)
    assert {"role", "content"} == chat_chunk("x")["message"].keys()
    assert "hm" == generate_chunk(thinking="hm")["thinking"]


# --- Bytes and their timing ---


def test_a_stream_is_chunked_and_each_step_one_write(server: ScriptedOllama) -> None:
    """The first write has the head, the last the terminator, and none waits."""
    server.script(CHAT, [Send(b"one"), Hang(), Send(b"two"), Hang(), b"3"])
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)
        packets = [wire.packet()]
        for _ in range(2):
            server.wait_for(lambda server: server.hanging == 1)
            server.release()
            packets.append(wire.packet())

    head, first = packets[0].split(b"\r\n\r\n", 1)
    assert b"HTTP/1.1 200 OK" == head.split(b"\r\n")[0]
    assert b"Content-Type: application/x-ndjson" in head
    assert b"Transfer-Encoding: chunked" in head
    assert [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"1\r\n3\r\n0\r\n\r\n"] == [
        first,
        *packets[1:],
    ]


def test_a_whole_body_has_a_length(server: ScriptedOllama) -> None:
    """An answer that is no stream says how long it is, also when it is cut up."""
    body = chat_response("Hé")
    server.script(CHAT, [Split(body, at=[5, -3])])
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    connection.request("POST", CHAT, json.dumps({**ASK, "stream": False}))
    response = connection.getresponse()
    data = response.read()
    connection.close()

    assert str(len(data)) == response.headers["Content-Length"]
    assert "application/json; charset=utf-8" == response.headers["Content-Type"]
    assert body == json.loads(data)


def test_a_line_is_split_where_asked(server: ScriptedOllama) -> None:
    """Each piece is a chunk; a split inside a character is possible."""
    server.script("/api/generate", [Split(Line({"a": "é"}), at=[7])])
    with closing(Wire(server)) as wire:
        wire.ask("/api/generate", model="m", prompt="x")
        received = wire.packet()
        while not received.endswith(b"0\r\n\r\n"):
            received += wire.packet()

    assert (
        b'7\r\n{"a":"\xc3\r\n4\r\n\xa9"}\n\r\n0\r\n\r\n'
        == received.split(b"\r\n\r\n", 1)[1]
    )


@pytest.mark.parametrize("at", [[3, 2], [99], [-99]])
def test_impossible_splits_are_refused(at: list[int]) -> None:
    """Offsets ascend and lie within the bytes."""
    with pytest.raises(ValueError, match="ascending"):
        list(Split(b"12345", at=at).writes("line"))


def test_together_is_one_write_of_many_chunks(server: ScriptedOllama) -> None:
    """A client sees single HTTP chunks, the network one packet."""
    server.script(CHAT, [Together([b"a", b"bc", chat_done()])])
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)
        packet = wire.packet()

    assert packet.split(b"\r\n\r\n", 1)[1].startswith(b"1\r\na\r\n2\r\nbc\r\n")
    assert packet.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("gap", [0.001, 0.05])
def test_a_delay_holds_back_what_follows(
    server: ScriptedOllama, client: ollama.Client, gap: float
) -> None:
    """A chunk does not overtake the delay before it, be it long or short."""
    server.script(CHAT, [chat_chunk("a"), Delay(gap), chat_chunk("b"), chat_done()])
    start = time.monotonic()
    stream = client.chat(**ASK, stream=True)
    said = [next(stream).message.content, next(stream).message.content]

    assert time.monotonic() - start >= gap
    assert ["a", "b"] == said


def test_a_status_without_body_goes_out_before_a_delay(server: ScriptedOllama) -> None:
    """Headers can come long before the first chunk."""
    server.script(CHAT, [Status(200, headers={"X-Id": "7"}), Hang(), chat_done()])
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)
        head = wire.packet()
        server.wait_for(lambda server: server.hanging == 1)
        server.release()
        body = wire.packet()

    assert head.endswith(b"\r\n\r\n")
    assert b"X-Id: 7\r\n" in head
    assert b'"done":true' in body


def test_raw_bytes_are_sent_without_framing(server: ScriptedOllama) -> None:
    """Whatever HTTP forbids can be sent, also inside a chunk header."""
    server.script(CHAT, [Raw(b"HTTP/1.1 2"), Delay(0.01), Raw(b"00 OK\r\n\r\nhello")])
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)

        assert b"HTTP/1.1 200 OK\r\n\r\nhello" == wire.rest()


def test_a_false_length_is_sent_as_given(server: ScriptedOllama) -> None:
    """A body shorter than it claims ends with the connection."""
    server.script(CHAT, [Status(200, headers={"Content-Length": "99"}), b"short"])
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(server.url + CHAT, json=ASK)


def test_a_script_without_bytes_is_an_empty_answer(server: ScriptedOllama) -> None:
    """Nothing to say is still an answer, with a stream's terminator or length 0."""
    server.script(CHAT, [])
    server.script("/x", [Split(b"", at=[])])
    for path, stream in ((CHAT, True), ("/x", True), (CHAT, False), ("/x", False)):
        response = httpx.post(server.url + path, json={"stream": stream})

        assert (200, b"") == (response.status_code, response.content)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (Status(503, {"error": "server busy"}), b'{"error":"server busy"}'),
        (Status(404, "404 page not found"), b"404 page not found"),
        (Status(599, b"\x00"), b"\x00"),
        (Status(204), b""),
    ],
)
def test_any_status_can_be_sent_and_the_connection_lives_on(
    server: ScriptedOllama, status: Status, content: bytes
) -> None:
    """An error is a whole answer, for streams too, and needs no new connection."""
    server.queue(CHAT, [status], [status])
    with httpx.Client() as http_client:
        answers = [http_client.post(server.url + CHAT, json=ASK) for _ in range(2)]

    assert [(status.code, content)] * 2 == [(a.status_code, a.content) for a in answers]
    assert [0, 0] == [request.connection for request in server.requests]


def test_head_requests_get_no_body(server: ScriptedOllama) -> None:
    """The head tells the length and nothing follows, so the connection stays usable."""
    with httpx.Client(base_url=server.url) as http_client:
        for path in ("/", "/api/tags", "/nowhere"):
            assert b"" == http_client.head(path).content
        assert "Ollama is running" == http_client.get("/").text


def test_a_reset_breaks_the_connection(server: ScriptedOllama) -> None:
    """The client reads what came before, then ECONNRESET."""
    server.script(CHAT, [chat_chunk("a"), Hang(), Reset()])
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)

        assert b'"content":"a"' in wire.packet()
        server.wait_for(lambda server: server.hanging == 1)
        server.release()
        with pytest.raises(ConnectionResetError):
            wire.packet()
    assert "cut" == server.requests[0].outcome


def test_an_early_close_leaves_the_stream_unfinished(server: ScriptedOllama) -> None:
    """The connection ends in good order, but the terminator is missing."""
    server.script(CHAT, [chat_chunk("a"), Close()])
    with closing(Wire(server)) as wire:
        wire.ask(CHAT, **ASK)

        assert not wire.rest().endswith(b"0\r\n\r\n")
    assert "cut" == server.requests[0].outcome


def test_requests_may_come_in_pieces_chunked_or_together(
    server: ScriptedOllama,
) -> None:
    """A head cut anywhere, a chunked body and a pipelined request are understood."""
    with closing(Wire(server)) as wire:
        for piece in (
            b"POST /api/ch",
            b"at?a=1 HTTP/1.1\r\nTransfer-Encoding: chunked",
        ):
            wire.sock.sendall(piece)
            time.sleep(0.01)
        wire.sock.sendall(b'\r\n\r\n3\r\n{"s\r\n9\r\ntream":0}\r\n0\r\n\r\n')
        wire.sock.sendall(b"GET /api/version HTTP/1.1\r\nConnection: close\r\n\r\n")
        wire.rest()
    first, second = server.requests

    assert (CHAT, "a=1", {"stream": 0}) == (first.path, first.query, first.json)
    assert ("GET", "/api/version", None) == (second.method, second.path, second.json)


def test_nonsense_is_answered_with_400(server: ScriptedOllama) -> None:
    """What is no HTTP does not kill the server's thread silently."""
    with closing(Wire(server)) as wire:
        wire.sock.sendall(b"nonsense\r\n\r\n")

        assert wire.rest().startswith(b"HTTP/1.1 400 ")


# --- Scripts ---


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


# --- Hanging, leaving, closing ---


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


# --- The log ---


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


# --- The official clients and the defaults ---


def test_chat_answers_by_default(server: ScriptedOllama, client: ollama.Client) -> None:
    """Whole or streamed, with a model name, tokens and durations."""
    whole = client.chat(**ASK)
    chunks = list(client.chat(**ASK, stream=True))
    last = chunks[-1]
    split = (last.load_duration, last.prompt_eval_duration, last.eval_duration)

    assert "Hello, world!" == whole.message.content
    assert "Hello, world!" == "".join(chunk.message.content for chunk in chunks)
    assert ("llama3.2", True, "stop", 4) == (
        last.model,
        last.done,
        last.done_reason,
        last.eval_count,
    )
    assert 0 < sum(split) < last.total_duration


def test_generate_answers_by_default(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Whole or streamed."""
    chunks = client.generate("m", "Hi", stream=True)

    assert "Hello, world!" == client.generate("m", "Hi").response
    assert "Hello, world!" == "".join(chunk.response for chunk in chunks)


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
def test_an_empty_prompt_loads_or_unloads(
    server: ScriptedOllama, client: ollama.Client, keep_alive: int | None, reason: str
) -> None:
    """As the genuine server says it, with no metrics."""
    answers = [
        client.chat("m", keep_alive=keep_alive),
        client.generate("m", keep_alive=keep_alive),
    ]

    assert [(reason, None)] * 2 == [(a.done_reason, a.total_duration) for a in answers]


def test_embeddings_answer_by_default(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """The new endpoint has a vector an input and metrics, the old one neither."""
    new = client.embed("m", ["a", "b"])
    old = client.embeddings("m", "a")

    assert (2, None) == (len(new.embeddings), new.eval_count)
    assert new.total_duration > 0
    assert list(new.embeddings[0]) == list(old.embedding)
    assert 3 == len(embed_response(3)["embeddings"])


def test_the_lists_answer_by_default(
    client: ollama.Client, server: ScriptedOllama
) -> None:
    """Models on disk, in memory, and the version."""
    assert ["llama3.2:latest"] == [model.model for model in client.list().models]
    assert [0] == [model.size_vram for model in client.ps().models]
    assert "version" in httpx.get(server.url + "/api/version").json()
    assert 404 == httpx.get(server.url + "/metrics").status_code


def test_only_the_models_named_are_known() -> None:
    """A model the server does not have is a 404, with or without its tag."""
    with (
        ScriptedOllama(models=["a", "b:1b"]) as server,
        ollama.Client(host=server.url) as client,
    ):
        for known in ("a", "a:latest", "b:1b"):
            client.generate(known, "x")
        with pytest.raises(ollama.ResponseError, match="model 'b' not found") as caught:
            client.generate("b", "x")
        with (
            openai.OpenAI(base_url=server.openai_url, api_key="-") as other,
            pytest.raises(openai.NotFoundError, match="model 'c' not found"),
        ):
            other.embeddings.create(model="c", input="x")

        assert 404 == caught.value.status_code
        assert ["a:latest", "b:1b"] == [model.model for model in client.list().models]


def test_the_official_client_survives_a_split_final_line(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """A line cut anywhere is put together by the client."""
    size = len(json.dumps(chat_done(), separators=(",", ":")))
    server.script(CHAT, [chat_chunk("a"), Split(chat_done(), at=range(1, size))])
    chunks = list(client.chat(**ASK, stream=True))

    assert (2, True, 8) == (len(chunks), chunks[-1].done, chunks[-1].eval_count)


def test_the_official_client_sees_errors_in_a_stream(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """An error after 200 has no status; a reset is a transport error."""
    server.queue(
        CHAT,
        [chat_chunk("a"), {"error": "llama-server process has terminated"}],
        [chat_chunk("a"), Delay(0.02), Reset()],
    )
    with pytest.raises(ollama.ResponseError, match="terminated") as caught:
        list(client.chat(**ASK, stream=True))
    with pytest.raises(httpx.ReadError):
        list(client.chat(**ASK, stream=True))

    assert -1 == caught.value.status_code


def test_the_asynchronous_client(server: ScriptedOllama) -> None:
    """Streams, leaves one early, and is cancelled while another hangs."""

    async def scenario() -> str:
        async with ollama.AsyncClient(host=server.url, timeout=5) as client:
            parts = [part async for part in await client.chat(**ASK, stream=True)]
            server.script(CHAT, [chat_chunk("a"), Hang()])
            stream = await client.chat(**ASK, stream=True)
            await anext(stream)
            await stream.aclose()
            await asyncio.to_thread(server.wait_for_disconnect)
            task = asyncio.create_task(client.generate("m", "x"))
            server.script("/api/generate", [Hang()])
            await asyncio.to_thread(server.wait_for_requests, 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return "".join(part.message.content for part in parts)

    assert "Hello, world!" == asyncio.run(scenario())
    server.wait_for(lambda s: [r.disconnected for r in s.requests][1:] == [True, True])


def test_the_openai_client(server: ScriptedOllama) -> None:
    """Streams events, with usage only when asked for, and understands errors."""
    with openai.OpenAI(
        base_url=server.openai_url, api_key="-", max_retries=0, timeout=5
    ) as client:
        create = client.chat.completions.create
        whole = create(**ASK)
        plain = list(create(**ASK, stream=True))
        options = {"include_usage": True}
        counted = list(create(**ASK, stream=True, stream_options=options))
        vectors = client.embeddings.create(model="m", input=["a", "b"])
        busy = Status(429, {"error": {"message": "busy"}})
        server.script("/v1/chat/completions", [busy])
        with pytest.raises(openai.RateLimitError):
            create(**ASK)

    assert "Hello, world!" == whole.choices[0].message.content
    assert 4 == whole.usage.completion_tokens
    assert "Hello, world!" == "".join(c.choices[0].delta.content for c in plain)
    assert ["stop", None] == [plain[-1].choices[0].finish_reason, plain[-1].usage]
    assert ([], 4) == (counted[-1].choices, counted[-1].usage.completion_tokens)
    assert 2 == len(vectors.data)


def test_a_script_of_openai_events(server: ScriptedOllama) -> None:
    """A `dict` is an event under `/v1/`; usage may tell cached tokens."""
    server.script(
        "/v1/chat/completions",
        [
            openai_chunk("a"),
            Split(openai_chunk("b", finish_reason="stop"), at=[10, 60]),
            Event(openai_usage(5, 2, cached_tokens=0)),
            OPENAI_DONE,
        ],
    )
    with openai.OpenAI(base_url=server.openai_url, api_key="-") as client:
        chunks = list(client.chat.completions.create(**ASK, stream=True))

    assert ["a", "b"] == [chunk.choices[0].delta.content for chunk in chunks[:2]]
    assert (7, 0) == (
        chunks[2].usage.total_tokens,
        chunks[2].usage.prompt_tokens_details.cached_tokens,
    )
    assert "prompt_tokens_details" not in openai_response()["usage"]


# --- Many clients ---


def test_eight_threads_share_a_server(
    server: ScriptedOllama, client: ollama.Client
) -> None:
    """Every call gets its own answer and every request is in the log."""
    server.script(CHAT, lambda request: [chat_response(request.json["model"])])

    def call(number: int) -> str:
        return client.chat(f"m{number}", ASK["messages"]).message.content

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(80)))

    assert [f"m{number}" for number in range(80)] == answers
    assert 80 == len(server.requests)


def test_fifty_tasks_stream_at_once(server: ScriptedOllama) -> None:
    """All of them hang in the middle of their stream at the same time."""
    server.script(CHAT, [chat_chunk("a"), Hang(), chat_chunk("b"), chat_done()])

    async def call(client: ollama.AsyncClient) -> int:
        return len([part async for part in await client.chat(**ASK, stream=True)])

    async def scenario() -> list[int]:
        async with ollama.AsyncClient(host=server.url, timeout=10) as client:
            tasks = [asyncio.create_task(call(client)) for _ in range(50)]
            await asyncio.to_thread(server.wait_for, lambda s: s.hanging == 50, 10.0)
            server.release()
            return await asyncio.gather(*tasks)

    assert [3] * 50 == asyncio.run(scenario())


def test_a_long_answer_arrives_whole() -> None:
    """A thousand chunks in one write are a thousand chunks to the client."""
    with (
        ScriptedOllama(answer=["tok "] * 1_000) as server,
        ollama.Client(host=server.url) as client,
    ):
        chunks = list(client.chat(**ASK, stream=True))

        assert (1_001, 1_000) == (len(chunks), chunks[-1].eval_count)
