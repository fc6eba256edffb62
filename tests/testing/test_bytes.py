# SPDX-License-Identifier: MIT
"""`ScriptedOllama` sends exactly the bytes of its script, each when it says."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing

import httpx
import ollama
import pytest
from wire import ASK, Wire

from ometrics.testing import (
    Close,
    Delay,
    Hang,
    Line,
    Raw,
    Reset,
    ScriptedOllama,
    Send,
    Split,
    Status,
    Together,
    chat_chunk,
    chat_done,
    chat_response,
)

CHAT = "/api/chat"


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
