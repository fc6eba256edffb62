# SPDX-License-Identifier: MIT
"""Real clients through a proxy: answered as by the server, and each call counted."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from proxying import BODY, MODEL, PATIENCE, counted, exchange, number, request

import ometrics
from ometrics import MetricsCollector
from ometrics.proxy import Proxy
from ometrics.testing import ScriptedOllama, Status, chat_chunk

CLOSE = "Connection: close"
HI: Any = BODY["messages"]
UPLOAD = 200 << 20
STREAMS = 50
# Reads a stream of Ollama's as an agent in JavaScript does.
NODE = """
const answer = await fetch(process.argv[1] + "/api/chat",
    {method: "POST", body: process.argv[2]});
let said = "";
for await (const data of answer.body) said += new TextDecoder().decode(data);
const lines = said.trim().split("\\n").map(JSON.parse);
console.log(lines.map(line => line.message.content).join(""));
"""


def test_ollama_for_python(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """Plain, streamed, embeddings, lists, and an error with its own status."""
    with ollama.Client(host=proxy.url) as client:
        said = client.chat(model=MODEL, messages=HI).message.content
        streamed = client.chat(model=MODEL, messages=HI, stream=True)
        assert said == "".join(part.message.content or "" for part in streamed)
        assert client.embed(model=MODEL, input="hi").embeddings
        assert client.list().models
        server.script("/api/chat", [Status(404, {"error": "no such model"})])
        with pytest.raises(ollama.ResponseError, match="no such model") as raised:
            client.chat(model="other", messages=HI)

    assert 404 == raised.value.status_code
    assert (3, 0, 0) == counted(collector)
    assert (0, 1, 0) == counted(collector, "other")


def test_openai_for_python(proxy: Proxy, collector: MetricsCollector) -> None:
    """Plain and streamed, as `OPENAI_BASE_URL` makes them."""
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="x") as client:
        plain = client.chat.completions.create(model=MODEL, messages=HI)
        streamed = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        parts = [part.choices[0].delta.content for part in streamed if part.choices]

    assert plain.choices[0].message.content == "".join(filter(None, parts))
    assert (2, 0, 0) == counted(collector)


def test_curl(proxy: Proxy, collector: MetricsCollector) -> None:
    """A shell script."""
    curl = shutil.which("curl") or pytest.skip("curl is not installed")
    done = subprocess.run(
        (curl, "-sN", f"{proxy.url}/api/chat", "-d", json.dumps(BODY)),
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )

    assert json.loads(done.stdout.splitlines()[-1])["done"]
    assert (1, 0, 0) == counted(collector)


def test_node(proxy: Proxy, collector: MetricsCollector) -> None:
    """An agent in JavaScript."""
    node = shutil.which("node") or pytest.skip("node is not installed")
    done = subprocess.run(
        (node, "--input-type=module", "-e", NODE, proxy.url, json.dumps(BODY)),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert "Hello, world!\n" == done.stdout
    assert (1, 0, 0) == counted(collector)


def test_in_an_instrumented_process(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """What passes a proxy is counted there, and not as this process's own too."""
    inside = ometrics.instrument(MetricsCollector())
    try:
        got = exchange(proxy, request(proxy, "/api/chat", CLOSE, body=BODY))
    finally:
        ometrics.uninstrument(inside)

    assert got.startswith(b"HTTP/1.1 200")
    assert (1, 0, 0) == counted(collector)
    assert {} == dict(inside.snapshot().models)


def test_a_large_upload(proxy: Proxy) -> None:
    """A blob of many MiB passes whole, in much less memory than it has."""
    _upload(proxy, UPLOAD)


@pytest.mark.slow
def test_a_very_large_upload(proxy: Proxy) -> None:
    """The same with 4 GiB."""
    _upload(proxy, 4 << 30)


def _upload(proxy: Proxy, size: int) -> None:
    """Upload a blob to a server that only counts."""

    async def swallow(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        while got < size:
            got += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_server(swallow, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with Proxy.start(MetricsCollector(), upstream=url, port=0) as other:
            reader, writer = await asyncio.open_connection(other.host, other.port)
            head = f"POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: {other.host}\r\n"
            writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
            piece = bytes(1 << 20)
            for _ in range(size // len(piece)):
                writer.write(piece)
                await writer.drain()
            line = await reader.readline()
            writer.close()
            sent = number(other, "ometrics.proxy.body.size", direction="request")
        server.close()
        assert size == sent
        return line

    got = 0
    before = _peak_kib()
    line = asyncio.run(main())

    assert b"HTTP/1.1 201 Created\r\n" == line
    assert size == got
    assert _peak_kib() - before < 32 << 10


def _peak_kib() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc to know the memory in use")
    (line,) = (one for one in status.read_text().splitlines() if "VmHWM" in one)
    return int(line.split()[1])


def test_many_streams(
    server: ScriptedOllama, proxy: Proxy, collector: MetricsCollector
) -> None:
    """Every chunk of many streams at once is delivered, and every call counted."""

    def parts(_: object) -> Iterator[dict[str, Any]]:
        yield from (chat_chunk(f"{at} ") for at in range(20))
        yield {**chat_chunk(""), "done": True, "done_reason": "stop"}

    server.script("/api/chat", parts)

    async def one(client: ollama.AsyncClient) -> str:
        said = ""
        async for part in await client.chat(model=MODEL, messages=HI, stream=True):
            said += part.message.content or ""
        return said

    async def main() -> list[str]:
        async with ollama.AsyncClient(host=proxy.url, timeout=60) as client:
            return await asyncio.gather(*(one(client) for _ in range(STREAMS)))

    expected = "".join(f"{at} " for at in range(20))
    assert {expected} == {*asyncio.run(main())}
    assert (STREAMS, 0, 0) == counted(collector)
