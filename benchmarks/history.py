# SPDX-License-Identifier: MIT
"""What history costs: writing, bytes, and reading a day, a year, two years.

    python benchmarks/history.py               print the rows
    python benchmarks/history.py postgresql://user@host/database    that one's as well

Ten models of instrumented calls, five a window of ten seconds. The two years are
written at the levels that thinning leaves of them. The last rows compare with one row a
request, which is what proxies write, both in SQLite and in this run.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from measures import Row
from sqlalchemy import update

import ometrics.store
from ometrics import MetricsCollector
from ometrics.snapshot import Snapshot
from ometrics.store import Store, Writer, rows
from ometrics.store.rows import Window, microseconds
from ometrics.store.schema import windows
from ometrics.store.when import parse_time

_DAY = 86_400
_US = 1_000_000
_MODELS = 10
_CALLS = 5  # of each model in a window


def history() -> Iterator[Row]:
    """All rows; of PostgreSQL where `OMETRICS_BENCH_POSTGRESQL` names a server."""
    random.seed(1)
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        yield from _writing("SQLite", str(here / "write.db"), 10.0)
        server = os.environ.get("OMETRICS_BENCH_POSTGRESQL")
        if server:
            yield from _writing("PostgreSQL", server, 20.0)
        yield from _day(here / "day.db")
        yield from _years(here / "years.db")
        yield from _against_a_row_a_request(here)


class _Times(NamedTuple):
    """How long a statement took, in milliseconds; its CPU time knows no other load."""

    best: float
    usual: float
    cpu: float


def _best(
    statement: Callable[[], object],
    times: int,
    prepare: Callable[[], object] = lambda: None,
) -> _Times:
    taken, used = [], []
    for _ in range(times):
        prepare()
        begin, cpu = time.perf_counter(), time.process_time()
        statement()
        used.append((time.process_time() - cpu) * 1e3)
        taken.append((time.perf_counter() - begin) * 1e3)
    return _Times(min(taken), median(taken), min(used))


def _at_most(operation: str, took: _Times, limit: float) -> Row:
    return Row(
        operation,
        f"{took.best:.1f} ms (usually {took.usual:.1f} ms; CPU {took.cpu:.1f} ms)",
        f"<= {limit:g} ms",
        took.best <= limit,
    )


def _call(mc: MetricsCollector, model: str) -> float:
    """One finished call as Ollama answers it; its latency in seconds."""
    load, prefill, decode = (random.randrange(10**6, 3 * 10**8) for _ in range(3))
    total = load + prefill + decode + random.randrange(10**6)
    mc.record_response(
        {
            "model": model,
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "total_duration": total,
            "load_duration": load,
            "prompt_eval_count": 100,
            "prompt_eval_duration": prefill,
            "eval_count": 50,
            "eval_duration": decode,
        },
        latency=(latency := total / 1e9 + random.random() / 100),
    )
    return latency


def _counts(models: int, calls: int) -> Snapshot:
    mc = MetricsCollector()
    for m in range(models):
        for _ in range(calls):
            _call(mc, f"model{m}")
    return mc.snapshot()


def _writing(name: str, where: str, limit: float) -> Iterator[Row]:
    """One window of 100 models, after the snapshot; latencies only, and whole calls."""
    with ometrics.store.open(where) as store:
        for what, record in (
            ("100 models", lambda mc, m: mc.record_latency(m, random.random())),
            ("100 models of instrumented calls", _call),
        ):
            mc = MetricsCollector()
            writer = Writer(store, mc)

            def prepare(
                mc: MetricsCollector = mc,
                writer: Writer = writer,
                record: object = record,
            ) -> None:
                for m in range(100):
                    for _ in range(_CALLS):
                        record(mc, f"model{m}")  # type: ignore[operator]
                writer._look()

            took = _best(partial(writer._write, 30.0), 25, prepare)
            yield _at_most(f"history: write {what}, {name}", took, limit)


def _fill(store: Store, many: list[Window], step: int, into: int | None) -> list[int]:
    with store.database.writing() as connection:
        ids = [rows.write(connection, window, step=step) for window in many]
        if into is not None:
            there = windows.c.id.in_(ids)
            connection.execute(update(windows).where(there).values(merged_into=into))
    return ids


def _day(path: Path) -> Iterator[Row]:
    """A day of ten models at ten seconds."""
    pool = [_counts(_MODELS, _CALLS) for _ in range(20)]
    begin = microseconds(parse_time("yesterday"))
    with Store(path) as store:
        for hour in range(24):
            at = begin + hour * 3_600 * _US
            starts = range(at, at + 3_600 * _US, 10 * _US)
            _fill(
                store,
                [Window(t, t + 10 * _US, pool[t // _US // 10 % 20]) for t in starts],
                step=0,
                into=None,
            )
        size = path.stat().st_size / (8_640 * _MODELS)
        yield Row(
            "history: bytes a model and window of instrumented calls, SQLite",
            f"{size:.0f}",
            "<= 400",
            size <= 400,
        )
        store.thin(begin / _US + _DAY + 400)

        def between() -> None:
            steps = list(store.between("yesterday", "today", step="5m"))
            assert len(steps) == 288

        yield _at_most("history: a day at 5 minutes", _best(between, 7), 150)
        yield _at_most("history: snapshot() of a day", _best(store.snapshot, 7), 100)


def _years(path: Path) -> Iterator[Row]:
    """Two years of ten models, a call a minute each, at the levels that are kept."""
    pools = {
        step: [_counts(_MODELS, calls) for _ in range(5)]
        for step, calls in ((_DAY, 1_440), (3_600, 60), (300, 5))
    }
    midnight = microseconds(parse_time("today"))
    with Store(path) as store:
        for day in range(-730, 0):
            at = midnight + day * _DAY * _US

            def of(step: int, start: int) -> Window:
                return Window(start, start + step * _US, pools[step][start // _US % 5])

            (whole,) = _fill(store, [of(_DAY, at)], _DAY, None)
            hours = [at + h * 3_600 * _US for h in range(24)]
            ids = _fill(store, [of(3_600, t) for t in hours], 3_600, whole)
            if day < -31:
                continue
            for hour, start in zip(ids, hours, strict=True):
                minutes = [start + m * 300 * _US for m in range(12)]
                _fill(store, [of(300, t) for t in minutes], 300, hour)
        size = path.stat().st_size / 1e6
        yield Row(
            "history: two years of ten models, thinned, SQLite",
            f"{size:.0f} MB",
            "<= 150 MB",
            size <= 150,
        )

        def year() -> None:
            steps = list(store.between("365d", "today", step="1d"))
            assert 365 <= len(steps) <= 366

        yield _at_most("history: a year at 1 day", _best(year, 5), 1_000)


def _against_a_row_a_request(here: Path) -> Iterator[Row]:
    """An hour of 100 requests a second, and its 99th percentile by five minutes."""
    begin = microseconds(parse_time("yesterday"))
    ours, theirs = here / "ours.db", here / "theirs.db"
    with Store(ours) as store, closing(sqlite3.connect(theirs)) as connection:
        connection.execute(
            "CREATE TABLE requests (id INTEGER PRIMARY KEY, at REAL, model TEXT,"
            " latency REAL, prompt_tokens INTEGER, completion_tokens INTEGER,"
            " load REAL, prefill REAL, decode REAL, done_reason TEXT)"
        )
        connection.execute("CREATE INDEX by_time ON requests (at)")
        for second in range(0, 3_600, 10):
            mc = MetricsCollector()
            at = begin / _US + second
            single = []
            for i in range(1_000):
                model = f"model{i % _MODELS}"
                latency = _call(mc, model)
                single.append(
                    (at + i / 100, model, latency, 100, 50, 0.1, 0.1, 0.1, "stop")
                )
            connection.executemany(
                "INSERT INTO requests (at, model, latency, prompt_tokens,"
                " completion_tokens, load, prefill, decode, done_reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                single,
            )
            start = begin + second * _US
            window = Window(start, start + 10 * _US, mc.snapshot())
            _fill(store, [window], 0, None)
        connection.commit()
        store.thin(begin / _US + 4_000)

        def quantiles() -> None:
            end = f"{parse_time('yesterday'):%Y-%m-%dT01:00}"
            steps = store.between("yesterday", end, step="5m")
            assert len([s.models["model0"].latency_p99 for s in steps]) == 12

        def same() -> None:
            found = connection.execute(
                "SELECT step, model, MAX(latency) FROM (SELECT"
                " CAST(at / 300 AS INTEGER) AS step, model, latency,"
                " NTILE(100) OVER (PARTITION BY"
                " CAST(at / 300 AS INTEGER), model ORDER BY latency) AS tile"
                " FROM requests) WHERE tile <= 99 GROUP BY step, model"
            ).fetchall()
            assert len(found) == 12 * _MODELS

        mine, other = _best(quantiles, 5), _best(same, 3)
        bytes_ratio = theirs.stat().st_size / ours.stat().st_size
    yield Row(
        "history: bytes against one row a request, 100 requests/s",
        f"{bytes_ratio:.1f} x smaller",
        "",
        None,
    )
    yield Row(
        "history: p99 by 5 minutes against one row a request",
        f"{other.cpu / mine.cpu:.0f} x faster, in CPU ({mine.cpu:.1f} ms,"
        f" {other.cpu:.0f} ms)",
        "",
        None,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.environ["OMETRICS_BENCH_POSTGRESQL"] = sys.argv[1]
    for row in history():
        print(f"{row.operation} | {row.measured} | {row.bar} | {row.met}", flush=True)
