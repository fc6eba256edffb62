# SPDX-License-Identifier: MIT
"""
Damaged documents: refused with a `ValueError`, or true to every promise.

A mutant of one token or one byte that is still accepted must be a snapshot without
contradictions. Seen to fail before: 113 of 8,523 accepted mutants contradicted
themselves, and others raised `OverflowError` or `RecursionError`.
"""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest
from strategies import sample_snapshot

from ometrics import _histogram
from ometrics.histogram import (
    TOKEN_SECONDS,
    UINT64_MAX,
    TokenHistogram,
    layout_of,
)
from ometrics.snapshot import CallMetrics, PerformanceMetrics, Snapshot

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|null')
OTHERS = (
    *(
        b"0",
        b"1",
        b"2",
        b"7",
        b"-1",
        b"0.0",
        b"1.5",
        b"1e9",
        b"1e-9",
        b"-0.0",
        b"1e400",
    ),
    *(b"18446744073709551615", b"18446744073709551616", b"9223372036854775808"),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"x"', b'"chat"', b'"150ms"', b"[1]"),
    *(b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59.999999-23:59"'),
    *(b'"2026-01-02T03:04:05Z"', b"NaN", b"Infinity", b"1e400", b'"\\ud800"'),
)


def small_snapshot() -> Snapshot:
    """Two models, one with calls: a mutant of it hits something that matters."""
    snapshot = sample_snapshot()
    kept = {name: snapshot.models[name] for name in ("qwen2.5:0.5b", "llama3.2")}
    return msgspec.structs.replace(snapshot, models=kept)


def by_token(document: bytes, pick: random.Random) -> bytes:
    """One token, and sometimes a second one, is another."""
    for _ in range(pick.choice((1, 1, 1, 2))):
        tokens = list(TOKEN.finditer(document))
        token = pick.choice(tokens)
        new = pick.choice((*OTHERS, pick.choice(tokens)[0], near(token[0], pick)))
        document = document[: token.start()] + new + document[token.end() :]
    return document


def near(token: bytes, pick: random.Random) -> bytes:
    """A number next to this one."""
    if not token.isdigit():
        return token
    return b"%d" % max(int(token) + pick.choice((-1, 1, 10)), 0)


def by_byte(document: bytes, pick: random.Random) -> bytes:
    """One byte is another, is gone, or is new."""
    place = pick.randrange(len(document))
    new = pick.choice((b"", pick.randbytes(1), b"%d" % pick.randrange(10)))
    return document[:place] + new + document[place + pick.randrange(2) :]


# --- The promises, in plain Python


def check_histogram(hist: Any) -> None:
    """Extremes, sum and every view agree with the cells."""
    is_tokens = isinstance(hist, TokenHistogram)
    total, per = (hist.total, 1.0) if is_tokens else (hist.sum_ns, 1e9)
    seconds = TOKEN_SECONDS if is_tokens else 1.0  # of a value of 1, among the cells
    layout = layout_of(hist.bucket_bounds)
    offset, counts, underflow, overflow = hist.exponential()
    lowest = -192 if is_tokens else -640
    count = hist.count

    assert count <= UINT64_MAX
    assert count == underflow + sum(counts) + overflow
    assert is_tokens or count == sum(hist.buckets.values())
    assert count == _histogram.total(hist.cells)
    assert not counts or lowest <= offset <= lowest + 1024 - len(counts)
    assert 0 <= total <= UINT64_MAX
    assert bool(count) == bool(hist.cells)
    assert count or (hist.min, hist.max, total) == (None, None, 0)
    if hist.min is not None:
        assert layout.cell(hist.min * seconds) == hist.first_cell
        assert total >= count * int(hist.min * per) or total == UINT64_MAX
    if hist.max is not None:
        last = hist.first_cell + len(hist.cells) // 8 - 1
        assert layout.cell(hist.max * seconds) == last
        assert total <= count * int(hist.max * per + 1)
    if hist.min is not None and hist.max is not None:
        assert hist.min <= hist.max


def check_counts(owner: Any) -> None:
    """No count is negative or beyond 64 bits."""
    for name in owner.__struct_fields__:
        value = getattr(owner, name)
        counts = value.values() if isinstance(value, dict) else [value]
        for count in counts:
            assert not isinstance(count, int) or 0 <= count <= UINT64_MAX


def check_call(name: str, call: CallMetrics) -> None:
    """A call is under its operation and provider; age and errors fit its counts."""
    check_counts(call)
    for field in call.__struct_fields__:
        if hasattr(getattr(call, field), "cells"):
            check_histogram(getattr(call, field))

    suffix = "" if call.provider == "ollama" else f"@{call.provider}"
    assert name == call.operation + suffix
    assert (call.in_flight > 0) == (call.oldest_in_flight_seconds is not None)
    assert call.failed_reqs == min(sum(call.errors.values()), UINT64_MAX)
    assert call.latency.count <= call.successful_reqs


def check_model(name: str, model: PerformanceMetrics) -> None:
    """A model is under its name, and its requests, errors and latencies add up."""
    check_counts(model)
    check_histogram(model.latency_hist)
    for operation, call in model.calls.items():
        check_call(operation, call)

    assert name == model.model
    assert model.failed_reqs == min(sum(model.errors.values()), UINT64_MAX)
    assert model.successful_reqs == min(
        model.latency_hist.count + model.latency_unknown, UINT64_MAX
    )


def check(snapshot: Snapshot) -> None:
    """Every promise of a snapshot; and it is written and read back."""
    check_counts(snapshot)
    for name, model in snapshot.models.items():
        check_model(name, model)
    tasks = snapshot.task_statistics
    known = tasks.total_tasks - tasks.duration_unknown
    low, high = tasks.min_completion_ms, tasks.max_completion_ms

    check_counts(tasks)
    assert known >= 0
    assert known or (low, high, tasks.sum_ns) == (None, None, 0)
    assert low is None or high is None or low <= high
    assert high is None or tasks.sum_ns <= known * (high * 1e6 + 1)
    assert snapshot == Snapshot.from_json(snapshot.to_json())


def survivors(mutate: Any, times: int, seed: int) -> int:
    """How many mutants are accepted; each of them keeps every promise."""
    pick = random.Random(seed)
    document = small_snapshot().to_json()
    accepted = 0
    for _ in range(times):
        mutant = mutate(document, pick)
        try:
            snapshot = Snapshot.from_json(mutant)
        except ValueError:
            continue
        accepted += 1
        try:
            check(snapshot)
        except AssertionError as error:
            lines = zip(document.split(b"\n"), mutant.split(b"\n"), strict=False)
            changed = next((old, new) for old, new in lines if old != new)
            raise AssertionError(f"{changed}: {error}") from error
    return accepted


@pytest.mark.parametrize("mutate", [by_token, by_byte])
def test_a_few_mutants(mutate: Any) -> None:
    """Some of them are accepted, so the promises are looked at."""
    assert survivors(mutate, 1000, 1) > 20


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [by_token, by_byte])
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_mutants(mutate: Any, seed: int) -> None:
    """200,000 in all."""
    assert survivors(mutate, 25_000, seed) > 300


# --- Everything is a ValueError


@pytest.mark.parametrize(
    "bad",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"schema_version": 1, "later": ' + b"[" * 200_000,
        b'{"schema_version": 99999999999999999999999999}',
        b"\xff\xfe",
        b"",
    ],
)
def test_no_other_exception(bad: bytes) -> None:
    """Too deep, too large, no text: all are said to be no document."""
    with pytest.raises(ValueError, match=r"not a|schema_version"):
        Snapshot.from_json(bad)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            b'"2026-01-02T03:04:05.678901Z"',
            b'"0001-01-01T00:00:00+23:59"',
            "start_time",
        ),
        (b'"uptime_seconds": 120.0', b'"uptime_seconds": 1e400', "$.uptime_seconds"),
        (b'"model": "llama3.2"', b'"model": "llama"', "['llama3.2'].model: "),
        (b'"operation": "chat"', b'"operation": "c"', "['chat'].operation: "),
        (b'"in_flight": 2', b'"in_flight": 0', "['chat'].oldest_in_flight_seconds: "),
        (
            b'"oldest_in_flight_seconds": 3.25',
            b'"oldest_in_flight_seconds": null',
            "['chat'].oldest_in_flight_seconds: ",
        ),
        (
            b'"min_completion_ms": 50.0',
            b'"min_completion_ms": 401.0',
            "task_statistics.min_completion_ms: ",
        ),
        (b'"sum_ns": 1350000000', b'"sum_ns": 9350000000', "task_statistics.sum_ns: "),
        (b'"TIMEOUT": 1', b'"TIMEOUT": 3', ".errors: add up to"),
        (
            b'"latency_unknown": 1',
            b'"latency_unknown": 2',
            ".successful_reqs: 8, but 9",
        ),
        (b'"p50": ', b'"p50": 1', "percentiles_seconds.p50: "),
        (b'"throughput": 0', b'"throughput": 1', ".throughput: "),
        (b'"avg_latency": "', b'"avg_latency": "1h', ".avg_latency: "),
        (b'"5s": 0', b'"5s": 1', ".buckets['5s']: "),
    ],
)
def test_contradiction_names_the_field(old: bytes, new: bytes, named: str) -> None:
    """Each names the key that does not go with the rest."""
    document = sample_snapshot().to_json()
    assert old in document
    with pytest.raises(ValueError, match=re.escape(named)):
        Snapshot.from_json(document.replace(old, new, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_not_written(value: float) -> None:
    """A number that nobody could read back is refused with its path."""
    snapshot = msgspec.structs.replace(sample_snapshot(), uptime_seconds=value)
    with pytest.raises(ValueError, match=r"\$\.uptime_seconds: -?(nan|inf)"):
        snapshot.to_json()


def test_count_beyond_64_bits_is_not_written() -> None:
    """Nor a count that would be refused when read."""
    model = PerformanceMetrics(model="m", tokens_processed=2**64)
    snapshot = msgspec.structs.replace(sample_snapshot(), models={"m": model})
    with pytest.raises(ValueError, match=r"\$\.model_metrics\['m'\]\.tokens_processed"):
        snapshot.to_json()


def test_other_formatting_is_read() -> None:
    """Without white space, with other digits and another order of keys."""
    snapshot = sample_snapshot()
    document = msgspec.json.decode(snapshot.to_json())
    compact = msgspec.json.encode(document)

    assert snapshot == Snapshot.from_json(compact)
    assert snapshot == Snapshot.from_json(compact.decode())
    backwards = dict(reversed(document.items()))
    assert snapshot == Snapshot.from_json(msgspec.json.encode(backwards))
    rate = document["overall_error_rate"]
    document["overall_error_rate"] = float(f"{rate:.12g}")
    assert document["overall_error_rate"] != rate
    assert snapshot == Snapshot.from_json(msgspec.json.encode(document))
