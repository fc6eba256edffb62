# SPDX-License-Identifier: MIT
"""Answers, read from their bytes, however these are cut and packed."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import sys
import weakref
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ometrics._lines import count_texts
from ometrics.errors import code_of_status
from ometrics.instrumentation import answers, dialects
from ometrics.instrumentation.answers import AnswerReader
from ometrics.instrumentation.usage import UNKNOWN, Usage
from ometrics.testing import (
    chat_chunk,
    chat_done,
    chat_response,
    embed_response,
    generate_chunk,
    generate_done,
    openai_chunk,
    openai_response,
    openai_usage,
)

NDJSON, SSE, JSON = "application/x-ndjson", "text/event-stream", "application/json"
DONE = b"data: [DONE]\n\n"
USAGE = {"input_tokens": 5, "output_tokens": 6}
TOOL = [{"function": {"name": "f", "arguments": {"content": "x", "done": False}}}]


def compact(payload: Any) -> bytes:
    """JSON as Go writes it."""
    return json.dumps(payload, separators=(",", ":")).encode()


def spaced(payload: Any) -> bytes:
    """JSON as Python writes it."""
    return json.dumps(payload).encode()


def lines(*payloads: Any, dump: Callable[[Any], bytes] = compact) -> bytes:
    """A stream of lines."""
    return b"".join(dump(payload) + b"\n" for payload in payloads)


def events(*payloads: Any, dump: Callable[[Any], bytes] = compact) -> bytes:
    """A stream of server-sent events."""
    return b"".join(
        f"event: {payload.get('type', 'x')}\ndata: ".encode() + dump(payload) + b"\n\n"
        if "type" in payload
        else b"data: " + dump(payload) + b"\n\n"
        for payload in payloads
    )


def reasoned(**delta: Any) -> dict[str, Any]:
    """A chunk of OpenAI's with this delta."""
    chunk = openai_chunk("")
    chunk["choices"][0]["delta"] = delta
    return chunk


def response(kind: str, **fields: Any) -> dict[str, Any]:
    """An event of `/v1/responses`."""
    return {"type": f"response.{kind}"} | fields


def blocks(dump: Callable[[Any], bytes]) -> bytes:
    """A stream of `/v1/messages`."""

    def delta(**fields: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": fields}

    start = {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1}
    return events(
        {"type": "message_start", "message": {"usage": start, "stop_reason": None}},
        {"type": "content_block_start", "content_block": {"type": "thinking"}},
        delta(type="thinking_delta", thinking="hm"),
        delta(type="signature_delta", signature="x"),
        delta(type="text_delta", text="a"),
        delta(type="input_json_delta", partial_json="{"),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
        dump=dump,
    )


TIMES = {"total_duration": 38_967, "load_duration": 9_751}
OLLAMA = Usage(38_967, 9_751, 13_700, 11_100, 16, None, 8, "stop")
STREAMS: dict[str, tuple[str, str, Callable[..., bytes], list[bool], Usage]] = {
    "chat": (
        "ollama",
        NDJSON,
        lambda dump: lines(
            chat_chunk(thinking="hm"),
            chat_chunk(""),
            chat_chunk('a"done":true,"error":'),
            chat_chunk(tool_calls=TOOL),
            chat_done("z"),
            dump=dump,
        ),
        [False, True, True, True],
        OLLAMA,
    ),
    "generate": (
        "ollama",
        NDJSON,
        lambda dump: lines(
            generate_chunk("", thinking="x"),
            generate_chunk("a"),
            generate_done(prompt_eval_cached_count=0),
            dump=dump,
        ),
        [False, True],
        OLLAMA._replace(cached_tokens=0),
    ),
    "openai": (
        "chat",
        SSE,
        lambda dump: (
            events(
                openai_chunk(""),
                reasoned(reasoning="hm"),
                reasoned(content="a"),
                reasoned(tool_calls=[{"index": 0}]),
                openai_chunk("b", finish_reason="stop"),
                openai_usage(9, 4, cached_tokens=0),
                dump=dump,
            )
            + DONE
        ),
        [False, True, True, True],
        Usage(None, None, None, None, 9, 0, 4, "stop"),
    ),
    "openai without usage": (
        "chat",
        SSE,
        lambda dump: (
            events(openai_chunk("b", finish_reason="length"), dump=dump) + DONE
        ),
        [True],
        Usage(done_reason="length"),
    ),
    "openai text": (
        "completions",
        SSE,
        lambda dump: (
            events(
                {"choices": [{"text": "a", "finish_reason": None}]},
                {"choices": [{"text": "", "finish_reason": "stop"}], "usage": None},
                dump=dump,
            )
            + DONE
        ),
        [True],
        Usage(done_reason="stop"),
    ),
    "responses": (
        "responses",
        SSE,
        lambda dump: events(
            response("created", response={"status": "in_progress", "usage": None}),
            response("reasoning_text.delta", delta="hm"),
            response("output_text.delta", delta="a"),
            response("completed", response={"status": "completed", "usage": USAGE}),
            dump=dump,
        ),
        [False, True],
        Usage(prompt_tokens=5, completion_tokens=6),
    ),
    "messages": (
        "messages",
        SSE,
        blocks,
        [False, True, True],
        Usage(None, None, None, None, 8, 3, 9, "end_turn"),
    ),
}


def read(
    dialect: Any, body: Sequence[bytes], kind: str = JSON, **more: Any
) -> tuple[list[bool], AnswerReader]:
    """Feed an answer piece by piece."""
    seen: list[bool] = []
    reader = AnswerReader(dialect, seen.append, content_type=kind, **more)
    for data in body:
        reader.feed(data)
    reader.finish()
    return seen, reader


def cut(body: bytes, at: list[int]) -> list[bytes]:
    """A body in pieces."""
    places = [0, *sorted({place % (len(body) + 1) for place in at}), len(body)]
    return [body[i:j] for i, j in itertools.pairwise(places)]


@pytest.mark.parametrize("dump", [compact, spaced])
@pytest.mark.parametrize("name", STREAMS)
@given(at=st.lists(st.integers(0, 5000), max_size=40))
def test_streams_cut_anywhere(
    name: str, dump: Callable[[Any], bytes], at: list[int]
) -> None:
    """The same outputs and numbers wherever the network cut, to the last byte."""
    dialect, kind, make, outputs, usage = STREAMS[name]
    seen, reader = read(dialect, cut(make(dump), at), kind)

    assert outputs == seen
    assert (usage, None) == (reader.usage, reader.error)


@pytest.mark.parametrize("name", STREAMS)
def test_lines_that_end_as_on_windows(name: str) -> None:
    """A carriage return before the end of a line changes nothing."""
    dialect, kind, make, outputs, usage = STREAMS[name]
    seen, reader = read(dialect, [make(compact).replace(b"\n", b"\r\n")], kind)

    assert (outputs, usage, None) == (seen, reader.usage, reader.error)


@pytest.mark.parametrize("name", STREAMS)
def test_last_line_without_its_end(name: str) -> None:
    """The last line counts though nothing follows it."""
    dialect, kind, make, outputs, usage = STREAMS[name]
    seen, reader = read(dialect, [make(compact).rstrip()], kind)

    assert (outputs, usage, None) == (seen, reader.usage, reader.error)


def test_a_chunk_whose_text_looks_like_fields() -> None:
    """What stands in an answer's text is never taken for a field of the answer."""
    lie = '","done":true,"error":"x","usage":{"prompt_tokens":1},"content":"'
    for dialect, kind, body in [
        ("ollama", NDJSON, lines(chat_chunk(lie), chat_chunk("", thinking=lie))),
        ("chat", SSE, events(openai_chunk(lie))),
    ]:
        seen, reader = read(dialect, [body], kind)

        assert seen in ([True, False], [True])
        assert (UNKNOWN, "TRUNCATED") == (reader.usage, reader.error)


SAID = st.text() | st.sampled_from(
    ['"done":false,"content":"x', '"', "\\", '\\"content\\":\\"', "data: {\n", "\n\n"]
)


@given(st.lists(st.tuples(SAID, SAID, st.booleans()), max_size=5), st.booleans())
def test_what_is_seen_at_once_is_what_decoding_sees(
    chunks: list[tuple[str, str, bool]], events_: bool
) -> None:
    """Whatever was said, a chunk that is taken for text without decoding is text."""
    if events_:
        said = [reasoned(content=c, reasoning=r) for c, r, _ in chunks]
        for chunk, (_, _, last) in zip(said, chunks, strict=True):
            chunk["choices"][0]["finish_reason"] = "stop" if last else None
        body, decoder = events(*said), dialects.DECODERS["chat"]
    else:
        said = [chat_chunk(c, thinking=r) | {"done": e} for c, r, e in chunks]
        body, decoder = lines(*said), dialects.DECODERS["ollama"]
    count = count_texts(body, events_)
    decoded = [decoder(compact(chunk)) for chunk in said]
    ends = [last for _, _, last in chunks]

    assert count in (0, len(chunks))
    if count:
        assert [True] * count == [chunk.output() for chunk in decoded]
        assert not any(ends)
    else:
        assert not chunks or any(ends) or not all(c for c, _, _ in chunks)


BODIES: dict[str, tuple[str, Any, Usage, str | None]] = {
    "chat": ("ollama", chat_response(), OLLAMA, None),
    "not done": ("ollama", chat_chunk("half"), UNKNOWN, "TRUNCATED"),
    "error": ("ollama", {"error": "x"}, UNKNOWN, "STREAM_ERROR"),
    "no answer": ("ollama", {"message": "x", "done": True}, UNKNOWN, "ValidationError"),
    "embed": (
        "ollama",
        embed_response(3, prompt_eval_count=9),
        Usage(38_967, 9_751, prompt_tokens=9),
        None,
    ),
    "old embeddings": ("ollama", {"embedding": [0.5]}, UNKNOWN, None),
    "openai": (
        "chat",
        openai_response(prompt_tokens=7, cached_tokens=3),
        Usage(None, None, None, None, 7, 3, 8, "stop"),
        None,
    ),
    "responses": (
        "responses",
        {"status": "completed", "usage": USAGE},
        Usage(prompt_tokens=5, completion_tokens=6),
        None,
    ),
    "failed response": (
        "responses",
        {"status": "failed", "usage": None},
        UNKNOWN,
        "STREAM_ERROR",
    ),
    "messages": (
        "messages",
        {"type": "message", "stop_reason": "end_turn", "usage": USAGE},
        Usage(prompt_tokens=5, completion_tokens=6, done_reason="end_turn"),
        None,
    ),
    "openai embeddings": (
        "other",
        {"data": [], "usage": {"prompt_tokens": 4}},
        Usage(prompt_tokens=4),
        None,
    ),
}


@pytest.mark.parametrize("name", BODIES)
@given(at=st.lists(st.integers(0, 1000), max_size=10))
def test_bodies(name: str, at: list[int]) -> None:
    """An answer in one piece has its numbers, and no chunk."""
    dialect, payload, usage, error = BODIES[name]
    seen, reader = read(dialect, cut(compact(payload), at))

    assert [] == seen
    assert (usage, error) == (reader.usage, reader.error)


def long_body(dialect: str) -> Any:
    """An answer of which only the end is kept."""
    text = 'x ,"total_duration": 1, {"prompt_tokens": 1} ' * 60_000
    if dialect == "ollama":
        return chat_response(text)
    if dialect == "chat":
        return openai_response(text, prompt_tokens=7, cached_tokens=3)
    return {"data": [0.25] * 600_000, "usage": {"prompt_tokens": 4}}


@pytest.mark.parametrize("dialect", ["ollama", "chat", "other"])
def test_long_bodies(dialect: str) -> None:
    """Of an answer of megabytes the numbers are known, and little is ever kept."""
    body = compact(long_body(dialect))
    reader = AnswerReader(dialect, bool, content_type=JSON)  # type: ignore[arg-type]
    most = 0
    for start in range(0, len(body), 65_536):
        reader.feed(body[start : start + 65_536])
        most = max(most, sys.getsizeof(reader._pending))
    reader.finish()
    short = read(dialect, [compact(BODIES["chat"][1])])[1]

    assert len(body) > 2 * answers.MAX_DOCUMENT > most
    assert reader.error is None
    if dialect == "ollama":
        assert short.usage == reader.usage
    elif dialect == "chat":
        assert (7, 3, "stop") == (
            reader.usage.prompt_tokens,
            reader.usage.cached_tokens,
            reader.usage.done_reason,
        )
    else:
        assert Usage(prompt_tokens=4) == reader.usage


def test_a_long_line_in_a_stream() -> None:
    """A picture is output, and what follows it is read as ever."""
    picture = {"image": "x" * (2 * answers.MAX_DOCUMENT), "done": False}
    seen, reader = read(
        "ollama", cut(lines(picture, generate_done()), [5, 1_500_000]), NDJSON
    )

    assert [True] == seen
    assert (OLLAMA, None) == (reader.usage, reader.error)


@pytest.mark.parametrize(
    ("dialect", "kind", "body", "error"),
    [
        ("ollama", NDJSON, lines(chat_chunk("a")), "TRUNCATED"),
        ("ollama", NDJSON, b"", "TRUNCATED"),
        ("ollama", NDJSON, lines(chat_chunk("a"), {"error": "x"}), "STREAM_ERROR"),
        ("ollama", NDJSON, b"<html>\n", "JSONDecodeError"),
        ("chat", SSE, events(openai_chunk("a")), "TRUNCATED"),
        ("chat", SSE, events({"error": {"message": "x"}}), "STREAM_ERROR"),
        ("chat", SSE, DONE, "TRUNCATED"),
        ("responses", SSE, events(response("failed", response={})), "STREAM_ERROR"),
        ("messages", SSE, events({"type": "error", "error": {}}), "STREAM_ERROR"),
        ("ollama", JSON, b"<html>", "JSONDecodeError"),
        ("ollama", JSON, b"", "TRUNCATED"),
    ],
)
def test_failures(dialect: str, kind: str, body: bytes, error: str) -> None:
    """What is cut short, broken or says so is a failure."""
    assert error == read(dialect, [body], kind)[1].error


def test_what_follows_the_end_changes_nothing() -> None:
    """The answer is over at its last line."""
    reader = read("ollama", [lines(chat_done(), {"error": "x"})], NDJSON)[1]

    assert (OLLAMA, None) == (reader.usage, reader.error)


def test_leaving_after_all_the_output() -> None:
    """A stream whose reason has come has all its output, though no usage yet."""
    reader = AnswerReader("chat", bool, content_type=SSE)
    reader.feed(events(openai_chunk("a")))
    before = reader.has_all_output
    reader.feed(events(openai_chunk("b", finish_reason="stop")))

    assert [False, True] == [before, reader.has_all_output]
    assert not reader.is_over


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, b'{"error":"not found"}', "INVALID_MODEL"),
        (500, b'{"error":"model failed to load"}', "MODEL_NOT_LOADED"),
        (500, b"x" * 100_000 + b"failed to load", "HTTP_500"),
        (503, b"", "RESOURCE_EXHAUSTED"),
    ],
)
def test_statuses(status: int, body: bytes, code: str) -> None:
    """A status is a code; of its body little is looked at, and nothing kept."""
    reader = read("ollama", cut(body, [10, 50_000]), status=status)[1]

    assert code == reader.error
    assert b"" == reader._pending


def deflated(body: bytes) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", deflated),
    "none": ("identity", bytes),
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("name", ["chat", "openai"])
@given(at=st.lists(st.integers(0, 2000), max_size=10))
def test_packed_answers(name: str, packed: str, at: list[int]) -> None:
    """A compressed answer is read in passing too."""
    dialect, kind, make, outputs, usage = STREAMS[name]
    encoding, pack = PACKERS[packed]
    body = cut(pack(make(compact)), at)
    seen, reader = read(dialect, body, kind, content_encoding=encoding.upper())

    assert (outputs, usage, None) == (seen, reader.usage, reader.error)


@pytest.mark.parametrize(("encoding", "package"), [("br", "brotli"), ("zstd", "")])
def test_encodings_of_other_packages(encoding: str, package: str) -> None:
    """Brotli and Zstandard are undone where a package for them is there."""
    body = STREAMS["chat"][2](compact)
    if encoding == "br":
        packed = pytest.importorskip(package).compress(body)
    else:
        packed = pytest.importorskip("zstandard").ZstdCompressor().compress(body)
    seen, reader = read("ollama", cut(packed, [7]), NDJSON, content_encoding=encoding)

    assert (STREAMS["chat"][3], OLLAMA) == (seen, reader.usage)


@given(at=st.lists(st.integers(0, 2000), max_size=10))
def test_packed_in_several_parts(at: list[int]) -> None:
    """Gzip may be one member after another, as who compresses each chunk has it."""
    dialect, kind, make, outputs, usage = STREAMS["chat"]
    body = make(compact)
    packed = b"".join(gzip.compress(body[i : i + 40]) for i in range(0, len(body), 40))
    seen, reader = read(dialect, cut(packed, at), kind, content_encoding="gzip")

    assert (outputs, usage, None) == (seen, reader.usage, reader.error)


@pytest.mark.parametrize(("status", "code"), [(200, "DecodingError"), (503, None)])
def test_what_is_not_packed_as_it_says(status: int, code: str | None) -> None:
    """Nobody can read it: a failure, under the status' code where that is one."""
    reader = read("ollama", [b"plain"], status=status, content_encoding="gzip")[1]

    assert (code or code_of_status(status)) == reader.error


@pytest.mark.parametrize("kind", ["", "text/plain", JSON])
@pytest.mark.parametrize("name", ["chat", "openai"])
def test_a_stream_that_is_not_called_one(name: str, kind: str) -> None:
    """Clients read it as asked for, so its numbers count; its chunks have no times."""
    dialect, _, make, _, usage = STREAMS[name]
    seen, reader = read(dialect, cut(make(compact), [7, 90]), kind)

    assert ([], usage, None) == (seen, reader.usage, reader.error)


@pytest.mark.parametrize("name", ["chat", "openai"])
def test_half_an_emoji(name: str) -> None:
    """Clients take an escape that is half a pair, as JavaScript cuts strings."""
    dialect, kind, make, outputs, usage = STREAMS[name]
    body = make(compact).replace(b'"content":"', b'"content":"\\ud83d')
    seen, reader = read(dialect, [body], kind)

    assert (usage, None) == (reader.usage, reader.error)
    assert len(outputs) <= len(seen)


def test_an_encoding_that_cannot_be_undone() -> None:
    """It counts by its status, with nothing known."""
    seen, reader = read("ollama", [b"\x00\x01"], NDJSON, content_encoding="x-own")

    assert ([], UNKNOWN, None) == (seen, reader.usage, reader.error)


def test_little_that_unpacks_to_very_much() -> None:
    """A megabyte that unpacks to a gigabyte is unpacked a piece at a time."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    piece = packer.compress(b" " * (64 << 20)) + packer.flush()
    reader = AnswerReader("ollama", bool, content_type=JSON, content_encoding="gzip")
    sizes: list[int] = []
    unpack = reader._unpack
    assert unpack is not None

    def watch(data: bytes) -> Any:
        for unpacked in unpack(data):
            sizes.append(len(unpacked))
            yield unpacked

    reader._unpack = watch
    reader.feed(piece)

    assert 64 << 20 == sum(sizes)
    assert max(sizes) <= 65_536
    assert len(reader._pending) <= answers.MAX_DOCUMENT


def test_memory_of_a_long_stream() -> None:
    """Between two lines nothing of the first is left."""
    reader = AnswerReader("ollama", bool, content_type=NDJSON)
    for line in [lines(chat_chunk("x" * n)) for n in range(100)]:
        reader.feed(line)

        assert b"" == reader._pending


def test_a_reader_goes_with_its_last_reference() -> None:
    """It holds no reference to itself, so it keeps nobody waiting for the collector."""

    class Observer:
        def __call__(self, answer: bool) -> None:
            """Take it."""

    observer = Observer()
    gone = weakref.ref(observer)
    gc.disable()
    try:
        reader = AnswerReader("chat", observer, content_type=SSE)
        reader.feed(events(openai_chunk("a")))
        del reader, observer

        assert gone() is None
    finally:
        gc.enable()
