# SPDX-License-Identifier: MIT
"""Calls by hand over each HTTP client: counted once, and nothing changed for them."""

from __future__ import annotations

import asyncio
import gc
import gzip
import http.client
import itertools
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Final

import aiohttp
import httpx
import pytest
import requests
import urllib3
from healthy_runs import assert_nothing_found
from instrumenting import (
    CANCELLED,
    CHAT,
    FAILED,
    HI,
    MODEL,
    NOTHING,
    PATIENCE,
    SUCCEEDED,
    call_metrics,
    outcomes,
)

import ometrics
from ometrics import MetricsCollector
from ometrics.instrumentation.providers import known_host
from ometrics.testing import (
    Close,
    Delay,
    Hang,
    Raw,
    Reset,
    ScriptedOllama,
    Send,
    Status,
    chat_chunk,
    chat_done,
    chat_response,
)

BODY: Final = {"model": MODEL, "messages": HI}


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    """A scripted server."""
    with ScriptedOllama() as server:
        yield server


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """A collector of all calls; afterwards each client is as it was."""
    before = [dict(vars(owner)) for owner in OWNERS]
    collector = ometrics.instrument(MetricsCollector())
    yield collector
    ometrics.uninstrument(collector)
    assert before == [dict(vars(owner)) for owner in OWNERS]
    assert 0 == collector.snapshot().internal_errors
    assert_nothing_found(collector.snapshot())


OWNERS: Final[tuple[type, ...]] = (
    *(httpx.HTTPTransport, httpx.AsyncHTTPTransport, aiohttp.ClientSession),
    *(aiohttp.BaseConnector, http.client.HTTPConnection),
    urllib3.connection.HTTPConnection,
)


class Answer:
    """What a client got: the status, and the pieces of the body in which it read it."""

    def __init__(self, status: int, pieces: list[bytes]) -> None:
        self.status = status
        self.pieces = pieces

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


# A client posts a body, and reads as many lines as it is told, or all with `None`.
Post = Callable[[str, Any, "int | None"], Answer]


def taken(lines: Any, count: int | None) -> list[bytes]:
    """The first lines; what is then left open is dropped."""
    return list(lines if count is None else itertools.islice(lines, count))


def by_httpx(url: str, body: Any, count: int | None) -> Answer:
    """Httpx, streamed."""
    with (
        httpx.Client(timeout=PATIENCE, verify=False) as client,
        client.stream("POST", url, json=body) as response,
    ):
        return Answer(response.status_code, taken(response.iter_raw(), count))


def by_httpx_whole(url: str, body: Any, count: int | None) -> Answer:
    """Httpx, read before it is returned."""
    with httpx.Client(timeout=PATIENCE, verify=False) as client:
        response = client.post(url, content=json.dumps(body))
        return Answer(response.status_code, [response.content])


def by_httpx_async(url: str, body: Any, count: int | None) -> Answer:
    """Httpx, asynchronous."""

    async def post() -> Answer:
        async with (
            httpx.AsyncClient(timeout=PATIENCE, verify=False) as client,
            client.stream("POST", url, json=body) as response,
        ):
            pieces: list[bytes] = []
            async for piece in response.aiter_raw():
                pieces.append(piece)
                if len(pieces) == count:
                    break
            return Answer(response.status_code, pieces)

    return asyncio.run(post())


def by_aiohttp(read: str) -> Post:
    """The client aiohttp, with one of its ways to read."""

    async def pieces_of(response: Any, count: int | None) -> list[bytes]:
        if read == "read":
            return [await response.read()]
        pieces: list[bytes] = []
        content = response.content
        ways = {
            "lines": content,
            "any": content.iter_any(),
            "chunked": content.iter_chunked(1000),
            "chunks": content.iter_chunks(),
        }
        async for piece in ways[read]:
            pieces.append(piece[0] if read == "chunks" else piece)
            if len(pieces) == count:
                break
        return pieces

    async def post(url: str, body: Any, count: int | None) -> Answer:
        timeout = aiohttp.ClientTimeout(PATIENCE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body) as response,
        ):
            return Answer(response.status, await pieces_of(response, count))

    return lambda *request: asyncio.run(post(*request))


def by_requests(url: str, body: Any, count: int | None) -> Answer:
    """The client requests."""
    with requests.post(url, json=body, stream=True, timeout=PATIENCE) as response:
        return Answer(response.status_code, taken(response.iter_content(None), count))


def by_requests_whole(url: str, body: Any, count: int | None) -> Answer:
    """The client requests, read before it is returned."""
    response = requests.post(url, json=body, timeout=PATIENCE)
    return Answer(response.status_code, [response.content])


def by_urllib3(url: str, body: Any, count: int | None) -> Answer:
    """The client urllib3."""
    with urllib3.PoolManager(retries=False, timeout=PATIENCE) as pool:
        response = pool.request("POST", url, json=body, preload_content=False)
        pieces = taken(response.stream(), count)
        response.close()
        return Answer(response.status, pieces)


def by_urllib(url: str, body: Any, count: int | None) -> Answer:
    """Python's urllib."""
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return Answer(response.status, taken(response, count))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, [error.read()])


def by_http_client(url: str, body: Any, count: int | None) -> Answer:
    """Python's http.client, into a buffer."""
    _, _, host, path = url.split("/", 3)
    pieces: list[bytes] = []
    buffer = bytearray(64)
    with closing(http.client.HTTPConnection(host, timeout=PATIENCE)) as connection:
        connection.request("POST", f"/{path}", json.dumps(body))
        with closing(connection.getresponse()) as response:
            while len(pieces) != count and (size := response.readinto(buffer)):
                pieces.append(bytes(buffer[:size]))
    return Answer(response.status, pieces)


WHOLE: Final[dict[str, Post]] = {
    "httpx, whole": by_httpx_whole,
    "aiohttp, whole": by_aiohttp("read"),
    "requests, whole": by_requests_whole,
}
STREAMED: Final[dict[str, Post]] = {
    "httpx": by_httpx,
    "httpx, async": by_httpx_async,
    "aiohttp, lines": by_aiohttp("lines"),
    "aiohttp, any": by_aiohttp("any"),
    "aiohttp, chunked": by_aiohttp("chunked"),
    "aiohttp, chunks": by_aiohttp("chunks"),
    "requests": by_requests,
    "urllib3": by_urllib3,
    "urllib": by_urllib,
    "http.client": by_http_client,
}
CLIENTS: Final = WHOLE | STREAMED

post_by_all: Final = pytest.mark.parametrize("name", CLIENTS)
post_by_streams: Final = pytest.mark.parametrize("name", STREAMED)


@post_by_all
def test_answers(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """A stream and an answer in one piece, each counted once with all its numbers."""
    post = CLIENTS[name]
    streamed = post(server.url + CHAT, BODY, None)
    whole = post(server.url + CHAT, BODY | {"stream": False}, None)
    call = call_metrics(collector)

    assert (5, True) == (streamed.body.count(b"\n"), json.loads(whole.body)["done"])
    assert (2, 0, 0, 0) == outcomes(collector)
    assert len(server.requests) == collector.snapshot().total_requests
    assert (32, 8) == (call.prompt_tokens, call.completion_tokens)
    assert [1, 3] == [call.time_to_first_chunk.count, call.time_per_output_chunk.count]
    assert {"stop": 2} == call.done_reasons
    assert 2 == call.connect.count
    assert "ollama" == call.provider


@post_by_all
def test_openai_interface(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """So in OpenAI's form."""
    CLIENTS[name](server.openai_url + "/chat/completions", BODY, None)
    CLIENTS[name](
        server.openai_url + "/chat/completions", BODY | {"stream": True}, None
    )
    call = call_metrics(collector)

    assert (2, 0, 0, 0) == outcomes(collector)
    assert (16, 1) == (call.prompt_tokens, call.time_to_first_chunk.count)
    assert "openai" == call.provider


@post_by_all
def test_the_same_pieces(server: ScriptedOllama, name: str) -> None:
    """The caller reads the same bytes, in the same pieces, as without us."""
    steps = [chat_chunk("a"), chat_chunk("b" * 3000), Send(b'{"done":'), b"false}\n"]
    script = [step for piece in steps for step in (piece, Delay(0.02))]
    server.script(CHAT, [*script, chat_done()])
    bare = CLIENTS[name](server.url + CHAT, BODY, None)
    collector = ometrics.instrument(MetricsCollector())
    measured = CLIENTS[name](server.url + CHAT, BODY, None)
    ometrics.uninstrument()

    assert (bare.status, bare.pieces) == (measured.status, measured.pieces)
    assert SUCCEEDED == outcomes(collector)


@post_by_streams
def test_nothing_is_read_ahead(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """The first piece is here before the server has made the second one."""
    server.script(CHAT, [chat_chunk("a" * 2000), Hang()])
    started = time.monotonic()
    answer = STREAMED[name](server.url + CHAT, BODY, 1)

    assert b"a" in answer.body
    assert time.monotonic() - started < PATIENCE / 2
    assert CANCELLED == outcomes(collector)


@post_by_all
@pytest.mark.parametrize(
    ("status", "code"), [(404, "INVALID_MODEL"), (500, "MODEL_NOT_LOADED")]
)
def test_statuses(
    server: ScriptedOllama,
    collector: MetricsCollector,
    name: str,
    status: int,
    code: str,
) -> None:
    """A failure counts under its code; the body is still there to be read."""
    body = {"error": "model failed to load"}
    server.script(CHAT, [Status(status, body)])
    answer = CLIENTS[name](server.url + CHAT, BODY, None)

    assert (status, body) == (answer.status, json.loads(answer.body))
    assert FAILED == outcomes(collector)
    assert {code: 1} == call_metrics(collector).errors


def raised(post: Post, url: str) -> tuple[type, str]:
    """What a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT012
        post(url, BODY, None)
        raise AssertionError("nothing was raised")
    return type(caught.value), type(caught.value.__cause__).__name__


@post_by_all
def test_refused_connection(server: ScriptedOllama, name: str) -> None:
    """Nobody listens: the client's own exception, counted as a failed connection."""
    server.close()
    bare = raised(CLIENTS[name], server.url + CHAT)
    collector = ometrics.instrument(MetricsCollector())
    measured = raised(CLIENTS[name], server.url + CHAT)
    ometrics.uninstrument()

    assert bare == measured
    assert {"CONNECTION_FAILED": 1} == call_metrics(collector).errors


@post_by_all
@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "closed early"])
def test_broken_connection(server: ScriptedOllama, name: str, end: Any) -> None:
    """A connection that breaks under a stream is a failure, and raises what it did."""
    server.script(CHAT, [chat_chunk("a"), Delay(0.05), end])

    def outcome() -> Any:
        try:
            return CLIENTS[name](server.url + CHAT, BODY, None).pieces
        except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
            return type(error)

    bare = outcome()
    collector = ometrics.instrument(MetricsCollector())
    measured = outcome()
    ometrics.uninstrument()

    assert bare == measured
    assert FAILED == outcomes(collector)
    assert {"CONNECTION_FAILED": 1} == call_metrics(collector).errors


@pytest.mark.parametrize(
    "name", ["httpx", "httpx, async", "requests", "aiohttp, any", "urllib3"]
)
def test_packed_answers(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """A compressed stream is understood, whoever unpacks it."""
    lines = b"".join(
        json.dumps(p).encode() + b"\n" for p in (chat_chunk("a"), chat_done())
    )
    packed = gzip.compress(lines)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-ndjson"}
    server.script(CHAT, [Status(200, None, headers), packed[:30], packed[30:]])
    answer = CLIENTS[name](server.url + CHAT, BODY, None)

    assert answer.body in (lines, packed)
    assert SUCCEEDED == outcomes(collector)
    assert 8 == call_metrics(collector).completion_tokens


@pytest.mark.parametrize("name", ["httpx", "requests", "urllib", "http.client"])
def test_an_answer_that_ends_with_its_connection(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """A body without a length ends where the connection does."""
    headers = {"Connection": "close", "Content-Type": "application/x-ndjson"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    from ometrics.testing import Raw

    line = json.dumps(chat_done()).encode() + b"\n"
    server.script(CHAT, [Raw(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + line)])
    answer = CLIENTS[name](server.url + CHAT, BODY, None)

    assert line == answer.body
    assert SUCCEEDED == outcomes(collector)


@pytest.mark.parametrize("name", ["httpx", "requests", "aiohttp, any"])
def test_redirects(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """The request that is answered is the call."""
    place = Status(307, "", {"Location": server.url + CHAT})
    server.script("/old/api/chat", [place])
    if name == "httpx":
        with httpx.Client(follow_redirects=True) as client:
            client.post(server.url + "/old/api/chat", json=BODY)
    else:
        CLIENTS[name](server.url + "/old/api/chat", BODY, None)

    assert 2 == len(server.requests)
    assert SUCCEEDED == outcomes(collector)


@post_by_all
def test_other_requests_are_not_touched(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """Neither what is no call, nor a call that names no model."""
    server.script("/api/tags", [Status(200, {"models": []})])
    server.script("/elsewhere", [Status(200, {"models": []})])
    for path in ("/api/tags", "/elsewhere"):
        with suppress(Exception):
            CLIENTS[name](server.url + path, BODY, None)
    with suppress(Exception):
        CLIENTS[name](server.url + CHAT, {"messages": HI}, None)

    assert 3 == len(server.requests)
    assert NOTHING == outcomes(collector)
    assert {} == dict(collector.snapshot().models)


def test_details_of_a_model_that_is_not_there(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """It fails before its inference could, and counts as a failed request."""
    server.script("/api/show", [Status(404, {"error": "not found"})])
    by_httpx_whole(server.url + "/api/show", {"model": "made-up"}, None)

    assert FAILED == outcomes(collector, model="made-up")
    assert {"INVALID_MODEL": 1} == collector.snapshot().models["made-up"].errors


def pieces() -> Iterator[bytes]:
    """A request's body that can be read once."""
    yield from (piece.encode() for piece in json.dumps(BODY))


async def apieces() -> AsyncIterator[bytes]:
    """The same, asynchronous."""
    for piece in pieces():
        yield piece


async def by_httpx_with_pieces(url: str) -> int:
    """Httpx, the body in pieces."""
    async with httpx.AsyncClient(timeout=PATIENCE, verify=False) as client:
        return (await client.post(url, content=apieces())).status_code


async def by_aiohttp_with_pieces(url: str) -> int:
    """The client aiohttp, the body in pieces."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=apieces()) as response,
    ):
        await response.read()
        return response.status


@pytest.mark.parametrize(
    "post",
    [
        lambda url: httpx.post(url, content=pieces()).status_code,
        lambda url: asyncio.run(by_httpx_with_pieces(url)),
        lambda url: asyncio.run(by_aiohttp_with_pieces(url)),
        lambda url: requests.post(url, data=pieces(), timeout=PATIENCE).status_code,
        lambda url: urllib3.request("POST", url, body=pieces(), retries=False).status,
    ],
)
def test_a_body_in_pieces(
    server: ScriptedOllama, collector: MetricsCollector, post: Callable[[str], int]
) -> None:
    """It arrives as it was, and the call counts as of a model that is not known."""
    assert 200 == post(server.url + CHAT)

    assert BODY == server.requests[0].json
    assert SUCCEEDED == outcomes(collector, model="unknown")


def test_hosts() -> None:
    """This machine's, `OLLAMA_HOST`'s and those that were given; no other."""

    def answer(*_: Any) -> httpx.Response:
        body = json.dumps(chat_response()).encode()
        return httpx.Response(200, stream=httpx.ByteStream(body))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", answer)
        collector = ometrics.instrument(MetricsCollector(), hosts=["gpu-box", "a:8080"])
        patch.setenv("OLLAMA_HOST", "http://ollama.example:1234/x")
        for host in (
            *("localhost:1", "127.8.8.8", "[::1]:3", "ollama.example:1234"),
            *("gpu-box:99", "a:8080", "a:8081", "example.com"),
        ):
            by_httpx_whole(f"http://{host}{CHAT}", BODY, None)
        ometrics.uninstrument()

    assert (6, 0, 0, 0) == outcomes(collector)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("GPU-Box", "gpu-box"),
        ("gpu-box:11434", "gpu-box:11434"),
        ("http://GPU-Box:11434/v1", "gpu-box:11434"),
        ("https://gpu-box", "gpu-box"),
        ("FD00::1", "fd00::1"),
        ("[fd00::1]:11434", "fd00::1:11434"),
        ("*", "*"),
    ],
)
def test_hosts_as_people_write_them(given: str, expected: str) -> None:
    """An address is understood, and capitals are none."""
    assert expected == known_host(given)


@pytest.mark.parametrize("given", ["", "http://", "gpu-box:ollama", "http://["])
def test_hosts_that_are_none(given: str) -> None:
    """What would never match is refused at once."""
    with pytest.raises(ValueError, match="give one as 'gpu-box'"):
        ometrics.instrument(hosts=["localhost", given])


@pytest.mark.parametrize("host", ["GPU-Box", "far.example"])
@pytest.mark.parametrize("name", ["requests", "urllib3", "urllib", "tunnel"])
def test_through_a_forward_proxy(server: ScriptedOllama, name: str, host: str) -> None:
    """Whether a call is measured goes by the server asked for, not by the proxy."""
    collector = ometrics.instrument(MetricsCollector(), hosts=["gpu-box:11434"])
    url, data = f"http://{host}:11434{CHAT}", json.dumps(BODY)
    if name == "requests":
        requests.post(url, data, proxies={"http": server.url}, timeout=PATIENCE)
    elif name == "urllib3":
        with urllib3.ProxyManager(server.url) as pool:
            pool.request("POST", url, body=data)
    elif name == "urllib":
        handler = urllib.request.ProxyHandler({"http": server.url})
        opener = urllib.request.build_opener(handler)
        with pytest.raises(urllib.error.HTTPError):  # it passes nothing on
            opener.open(urllib.request.Request(url, data.encode()))
    else:
        server.script(f"{host}:11434", [Raw(b"HTTP/1.1 200 OK\r\n\r\n")])
        connection = http.client.HTTPConnection(server.host, server.port)
        connection.set_tunnel(host, 11434)
        with suppress(http.client.HTTPException, OSError):
            connection.request("POST", CHAT, data)
            connection.getresponse()
        connection.close()
        del connection
    ometrics.uninstrument()

    expected = {MODEL} if host == "GPU-Box" else set()
    assert expected == {*collector.snapshot().models}


@post_by_all
def test_an_empty_answer(
    server: ScriptedOllama, collector: MetricsCollector, name: str
) -> None:
    """It says nothing of being done: a failure, and nobody went away."""
    server.script(CHAT, [Status(200, b"")])
    with suppress(Exception):
        CLIENTS[name](server.url + CHAT, BODY, None)

    assert FAILED == outcomes(collector)
    assert {"TRUNCATED": 1} == collector.snapshot().models[MODEL].errors


def test_hosts_as_a_lone_string() -> None:
    """Its characters are surely not meant."""
    with pytest.raises(TypeError, match=r"\['gpu-box'\]"):
        ometrics.instrument(hosts="gpu-box")


@post_by_streams
def test_dropped_answers(server: ScriptedOllama, name: str) -> None:
    """A call is cancelled by the time that the client has let go of its answer."""
    collector = ometrics.instrument(MetricsCollector())
    server.script(CHAT, [*[chat_chunk("x" * 1000)] * 4, Hang()])
    STREAMED[name](server.url + CHAT, BODY, 1)
    gc.collect()
    ometrics.uninstrument()

    assert CANCELLED == outcomes(collector)
    assert server.wait_for_disconnect().disconnected


def test_a_cancelled_task_over_aiohttp(
    server: ScriptedOllama, collector: MetricsCollector
) -> None:
    """Before the answer and within it."""
    server.queue(CHAT, [Hang()], [chat_chunk("a"), Hang()])

    async def leave() -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(read(session), 0.1)

    async def read(session: aiohttp.ClientSession) -> None:
        async with session.post(server.url + CHAT, json=BODY) as response:
            await response.read()

    asyncio.run(leave())

    assert (0, 0, 2, 0) == outcomes(collector)


def test_a_client_that_is_imported_later(server: ScriptedOllama) -> None:
    """In a process of its own, as its clients are all imported here."""
    import subprocess
    import sys

    program = f"""
import sys, ometrics
mc = ometrics.instrument()
assert not {{"httpx", "aiohttp", "urllib3", "requests"}} & sys.modules.keys()
import requests, httpx
body = {BODY!r}
requests.post({server.url + CHAT!r}, json=body)
httpx.post({server.url + CHAT!r}, json=body)
ometrics.uninstrument()
import aiohttp
patched = hasattr(aiohttp.ClientSession._request, "__wrapped__")
print(mc.snapshot().total_requests, patched)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ("2 False\n", "") == (done.stdout, done.stderr)
