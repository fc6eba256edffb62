# SPDX-License-Identifier: MIT
"""A store gives back what was counted, when, in SQLite and in PostgreSQL alike."""

from __future__ import annotations

import random
import zlib
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from store_work import NAMES, work
from strategies import sample_snapshot

import ometrics.store
from ometrics import MetricsCollector
from ometrics._cells import pack, unpack
from ometrics.fields import Counter, Counts, Distribution, fields_of
from ometrics.histogram import DEFAULT_BUCKETS, LatencyHistogram, TokenHistogram
from ometrics.snapshot import CallMetrics, PerformanceMetrics, Snapshot
from ometrics.store import Retention, Store, StoreError, Writer, care
from ometrics.store.columns import Columns
from ometrics.store.rows import Window, microseconds
from ometrics.store.schema import metadata
from ometrics.store.views import ALL_VIEWS
from ometrics.testing import FakeClock


def counted(snapshot: Snapshot) -> dict[str, Any]:
    """All that adds up, and to the nanosecond what does not."""
    result: dict[str, Any] = {}
    for name, model in snapshot.models.items():
        for owner in (model, *model.calls.values()):
            key = name, getattr(owner, "operation", "")
            for field in fields_of(type(owner)):
                if field.name not in owner.__struct_fields__:
                    continue
                if isinstance(field, Counter | Counts):
                    result[(*key, field.name)] = field.of(owner)
                elif isinstance(field, Distribution):
                    h = field.of(owner)
                    result[(*key, field.name)] = (
                        *(h.first_cell, h.cells, getattr(h, "sum_ns", h.total)),
                        *(None if v is None else round(v, 9) for v in (h.min, h.max)),
                    )
    tasks = msgspec.structs.asdict(snapshot.task_statistics)
    for name in ("last_updated", "min_completion_ms", "max_completion_ms"):
        del tasks[name]  # of a window they are known only where they are new
    return result | {
        "tasks": tasks,
        "invalid": snapshot.invalid_values,
        "truncated": snapshot.truncated_names,
    }


def test_snapshot_is_what_the_collector_counted(place: str) -> None:
    """Everything ever equals the live snapshot, field by field, whatever the names."""
    mc = MetricsCollector()
    rng = random.Random(1)
    with ometrics.store.open(place) as store:
        writer = Writer(store, mc)
        for _ in range(5):
            work(mc, rng, NAMES)
            mc.record_latency("odd", float("nan"))
            mc.update_resource_metrics(12.5, 50.0, 3)
            writer.flush()

        assert counted(mc.snapshot()) == counted(store.snapshot())
        assert 12.5 == store.snapshot().resource_metrics.memory_usage_mb
        assert not store.damaged


def test_a_new_reader_sees_the_same(place: str) -> None:
    """What was written by one process is read by another, without making anything."""
    mc = MetricsCollector()
    work(mc, random.Random(2), NAMES)
    with ometrics.store.open(place) as store:
        Writer(store, mc).flush()
    with ometrics.store.open(place, create=False) as store:
        assert counted(mc.snapshot()) == counted(store.snapshot())


def test_resets_and_restarts_add_up(place: str) -> None:
    """Two collectors, one reset in between: everything is counted once."""
    first, second = MetricsCollector(), MetricsCollector()
    with ometrics.store.open(place) as store:
        for mc in (first, second):
            writer = Writer(store, mc)
            for _ in range(3):
                mc.record_latency("m", 0.1)
                writer.flush()
                mc.record_latency("m", 0.1)
                writer.cleared(mc.reset_metrics())
            writer.flush()

        assert 12 == store.snapshot().total_requests


def test_a_repeated_write_counts_once(place: str) -> None:
    """The same sequence number of the same instance is written once."""
    window = _window(0, 10, {"m": 3})
    with ometrics.store.open(place) as store:
        assert store.write("i", 1, window)
        assert not store.write("i", 1, window)
        assert store.write("j", 1, window)
        assert 6 == store.snapshot().total_requests
        assert (1, None) == store.last_of("i")
        assert (0, None) == store.last_of("k")


def _window(start: float, end: float, latencies: dict[str, int]) -> Window:
    """A window of so many latencies of 0.1 s of each model; times after BEGIN."""
    mc = MetricsCollector()
    for name, n in latencies.items():
        for _ in range(n):
            mc.record_latency(name, 0.1)
    at = [microseconds(BEGIN + timedelta(seconds=s)) for s in (start, end)]
    return Window(at[0], at[1], mc.snapshot())


BEGIN = datetime(2026, 11, 24, 9, tzinfo=timezone.utc)


def test_between_gives_steps_without_gaps_as_zeros(place: str) -> None:
    """A window is in the step of its middle; a step in which nobody counted is not."""
    with ometrics.store.open(place) as store:
        store.write("i", 1, _window(0, 10, {"a": 1, "b": 2}))
        store.write("i", 2, _window(290, 304, {"a": 10}))  # middle before 300
        store.write("i", 3, _window(304, 314, {"a": 100}))
        store.write("i", 4, _window(900, 910, {"a": 1_000}))
        end = BEGIN + timedelta(hours=1)

        steps = list(store.between("2026-11-24T09:00", end, step="5m"))
        assert [13, 100, 1_000] == [s.total_requests for s in steps]
        only_b = list(store.between(BEGIN, end, step="5m", model="b"))
        assert [2, 0, 0] == [s.total_requests for s in only_b]
        assert [1] == [len(s.models) for s in only_b[:1]]
        exact = list(store.between(BEGIN, BEGIN + timedelta(seconds=300)))
        assert [3, 10] == [s.total_requests for s in exact]
        assert [BEGIN, BEGIN + timedelta(seconds=290)] == [s.start_time for s in exact]
        assert [10.0, 14.0] == [s.uptime_seconds for s in exact]


def test_at_is_everything_until_then(place: str) -> None:
    """A cut anywhere in the past gives what had been counted by then."""
    with ometrics.store.open(place) as store:
        for day in range(3):
            store.write(
                "i", day + 1, _window(86_400 * day, 86_400 * day + 10, {"a": 1})
            )
        store.thin(microseconds(BEGIN + timedelta(days=4)) / 1e6)

        for hours, count in [(-1, 0), (1, 1), (25, 2), (47, 2), (49, 3)]:
            assert count == store.at(BEGIN + timedelta(hours=hours)).total_requests


@pytest.mark.parametrize("value", [2**53 + 1, 2**63 - 2])
def test_integers_are_exact(place: str, value: int) -> None:
    """To 2^63 - 1, which floats do not hold."""
    counts = _with_tokens(value)
    with ometrics.store.open(place) as store:
        store.write("i", 1, Window(0, 10, counts))

        assert value == store.snapshot().models["m"].tokens_processed
        assert 0 == store.snapshot().saturated


def test_beyond_the_database_is_said(place: str) -> None:
    """A number above 2^63 - 1 stops there, and the snapshot says that one did."""
    with ometrics.store.open(place) as store:
        store.write("i", 1, Window(0, 10, _with_tokens(2**64 - 1)))

        assert 2**63 - 1 == store.snapshot().models["m"].tokens_processed
        assert 1 == store.snapshot().saturated


def _with_tokens(value: int) -> Snapshot:
    return Snapshot(
        instance_id="i",
        start_time=BEGIN,
        collection_time=BEGIN,
        uptime_seconds=0.0,
        models={"m": PerformanceMetrics(model="m", tokens_processed=value)},
    )


def test_providers_are_kept_apart(place: str) -> None:
    """Calls of one operation at two providers are two rows, and come back as such."""
    calls = {
        "chat": CallMetrics(operation="chat", successful_reqs=1),
        "chat@openai": CallMetrics(
            operation="chat", provider="openai", successful_reqs=2
        ),
    }
    counts = msgspec.structs.replace(
        _with_tokens(1), models={"m": PerformanceMetrics(model="m", calls=calls)}
    )
    counts = counts.merge(_with_tokens(1))
    with ometrics.store.open(place) as store:
        store.write("i", 1, Window(0, 10, counts))
        store.thin(86_400 * 2)

        assert calls == store.snapshot().models["m"].calls


def test_other_buckets_are_kept(place: str) -> None:
    """A collector with latency buckets of its own gets them back."""
    mc = MetricsCollector(buckets=(0.5, 1.5, 2.5))
    mc.record_latency("m", 0.7)
    with ometrics.store.open(place) as store:
        Writer(store, mc).flush()

        hist = store.snapshot().models["m"].latency_hist
        assert mc.snapshot().models["m"].latency_hist.buckets == hist.buckets


def test_no_secret_is_in_the_database(tmp_path: Any) -> None:
    """No answer and no exception message is in any byte of the file (law 10)."""
    path = tmp_path / "metrics.db"
    mc = MetricsCollector()
    work(mc, random.Random(3), NAMES * 5)
    with ometrics.store.open(path) as store:
        Writer(store, mc).flush()

    assert b"llama3.2" in path.read_bytes()
    assert b"canary" not in path.read_bytes()


def test_forget_deletes_a_model(place: str) -> None:
    """A deleted model is gone everywhere, its name too, and can be recorded anew."""
    with ometrics.store.open(place) as store:
        store.write("i", 1, _window(0, 10, {"a": 1, "b": 2}))
        assert 1 == store.forget(model="a")
        assert ["b"] == list(store.snapshot().models)
        with store.database.reading() as connection:
            names = list(connection.scalars(text("SELECT name FROM models")))
        assert ["b"] == names
        store.write("i", 2, _window(10, 20, {"a": 5}))
        assert 5 == store.snapshot().models["a"].total_requests


def test_forget_deletes_what_is_old(place: str) -> None:
    """Windows that ended before a time are deleted, later ones are not."""
    with ometrics.store.open(place) as store:
        store.write("i", 1, _window(0, 10, {"a": 1}))
        store.write("i", 2, _window(10, 20, {"a": 2}))
        store.forget(before=BEGIN + timedelta(seconds=11))

        assert 2 == store.snapshot().total_requests
        with pytest.raises(ValueError, match="a model or a time"):
            store.forget()


def test_an_added_field_becomes_a_column(place: str) -> None:
    """An older database gets the columns it lacks; its rows stay as they are."""
    with ometrics.store.open(place) as store:
        store.write("i", 1, _window(0, 10, {"a": 1}))
        with store.database.writing() as connection:
            for view in (
                "requests",
                "requests_5m",
                "requests_hourly",
                "requests_daily",
            ):
                connection.execute(text(f"DROP VIEW {view}"))
            connection.execute(
                text("ALTER TABLE model_windows DROP COLUMN tokens_processed")
            )
    with ometrics.store.open(place) as store:
        assert 1 == store.snapshot().models["a"].total_requests
        assert 0 == store.snapshot().models["a"].tokens_processed
        store.write("i", 2, _window(10, 20, {"a": 1}))
        with store.database.reading() as connection:
            assert 2 == len(connection.execute(text("SELECT * FROM requests")).all())


def test_rare_histograms_come_back_and_are_in_the_views(place: str) -> None:
    """Kept apart, they are read with the rest, by us and by people."""
    sample = sample_snapshot()
    plain = {name: m for name, m in sample.models.items() if "\0" not in name}
    sample = msgspec.structs.replace(sample, models=plain)
    with ometrics.store.open(place) as store:
        store.write("i", 1, Window(0, 10**7, sample))

        assert counted(sample) == counted(store.snapshot())
        for name, model in plain.items():  # and where only one is asked for
            (window,) = store.between("1970-01-01", "1970-01-02", model=name)
            assert [name] == list(window.models)
            assert model.calls.keys() == window.models[name].calls.keys()
        with store.database.reading() as connection:
            query = "SELECT time_to_first_chunk_count, connect_count, load_count"
            rows = connection.execute(
                text(f"{query} FROM calls WHERE model = 'qwen2.5:0.5b' ORDER BY 1")
            ).all()
            failed = connection.scalar(
                text("SELECT SUM(failed_latency_count) FROM requests")
            )
    chat = plain["qwen2.5:0.5b"].calls["chat"]
    expected = (chat.time_to_first_chunk.count, chat.connect.count, chat.load.count)
    assert expected in [tuple(row) for row in rows]
    assert sum(m.failed_latency_hist.count for m in plain.values()) == failed


def as_format_2(store: Store) -> None:
    """The tables that versions had in which a row was of a window, a model, ..."""
    with store.database.writing() as connection:
        for view in ALL_VIEWS:
            connection.execute(text(f"DROP VIEW {view}"))
        for table, details, ids, join in (
            ("model_windows", "model_details", "r.id % 16777216 AS model_id", ""),
            (
                *("call_windows", "call_details"),
                "s.model_id, s.operation, s.provider",
                " JOIN series AS s ON s.id = r.id % 16777216",
            ),
        ):
            of = {
                name: [c for c in metadata.tables[name].columns.keys() if c != "id"]  # noqa: SIM118
                for name in (table, details)
            }
            of[details].remove("histograms")
            columns = [f"r.{c}" for c in of[table]] + [f"d.{c}" for c in of[details]]
            connection.execute(
                text(
                    f"CREATE TABLE {table}_old AS SELECT r.id AS together,"
                    f" r.id / 16777216 AS window_id, {ids}, {', '.join(columns)}"
                    f" FROM {table} AS r LEFT JOIN {details} AS d ON d.id = r.id{join}"
                )
            )
            for id_, blob in connection.execute(
                text(f"SELECT id, histograms FROM {details}")
            ).all():
                query = f"SELECT histograms FROM {table} WHERE id = {id_}"
                other = connection.scalar(text(query))
                both = [part for b in (other, blob) if b for part in unpack(bytes(b))]
                connection.execute(
                    text(f"UPDATE {table}_old SET histograms = :b WHERE together = :i"),
                    {"b": pack(both), "i": id_},
                )
            for statement in (
                f"ALTER TABLE {table}_old DROP COLUMN together",
                f"DROP TABLE {table}",
                f"DROP TABLE {details}",
                f"ALTER TABLE {table}_old RENAME TO {table}",
            ):
                connection.execute(text(statement))
        connection.execute(text("DROP TABLE series"))
        connection.execute(
            text("UPDATE settings SET value = '2' WHERE name = 'format'")
        )


def test_a_store_of_format_2_becomes_one_of_format_3(place: str) -> None:
    """Whoever opens it to write moves its rows, all of them; a reader says so."""
    mc = MetricsCollector()
    with ometrics.store.open(place) as store:
        writer = Writer(store, mc)
        for seed in range(3):
            work(mc, random.Random(seed), NAMES)
            writer.flush()
        store.write("other", 1, Window(0, 10**7, sample_snapshot()))
        before = store.snapshot()
        details = "SELECT COUNT(*) FROM call_details"
        with store.database.reading() as connection:
            rare = connection.scalar(text(details))
        as_format_2(store)

    with pytest.raises(StoreError, match=r"by an earlier version.* store thin"):
        ometrics.store.open(place, create=False)
    for _ in range(2):
        with (
            ometrics.store.open(place) as store,
            store.database.reading() as connection,
        ):
            assert counted(before) == counted(store.snapshot())
            assert before.total_requests == connection.scalar(
                text("SELECT SUM(successful_reqs + failed_reqs) FROM requests")
            )
            assert rare == connection.scalar(text(details))
            assert [] == care.check(store)
    assert rare


def test_wall_clock_steps_make_no_window_negative_or_overlapping(place: str) -> None:
    """Whatever the wall clock does, windows follow each other."""
    clock = FakeClock()
    mc = MetricsCollector(clock=clock)
    retention = Retention(written="100000d")
    with ometrics.store.open(place, retention=retention) as store:
        writer = Writer(store, mc, clock=clock)
        for step in (0, 3_600, -7_200, 1, -1e6, 0):
            mc.record_latency("m", 0.1)
            clock.advance(10.0)
            clock.step_wall(step)
            writer.flush()
        windows = list(store.between("2020-01-01", "2030-01-01"))

    assert 6 == len(windows)
    assert [10.0] * 6 == [w.uptime_seconds for w in windows]
    for one, other in pairwise(windows):
        assert one.collection_time <= other.start_time


@settings(max_examples=40)  # each fills thirty histograms
@given(data=st.data())
def test_columns_hold_every_declared_number(data: st.DataObject) -> None:
    """Any values of all declared counters and histograms survive a row."""
    from ometrics.store.schema import CALL, CALL_DETAILS, MODEL, MODEL_DETAILS

    for both, owner in (
        ((MODEL, MODEL_DETAILS), PerformanceMetrics(model="m")),
        ((CALL, CALL_DETAILS), CallMetrics(operation="chat")),
    ):
        changes: dict[str, Any] = {}
        for field in fields_of(type(owner)):
            if field.name not in owner.__struct_fields__:
                continue
            if type(field) is Counter:
                changes[field.name] = data.draw(st.integers(0, 2**63 - 1))
            elif type(field) is Counts:
                counts = st.dictionaries(st.text(max_size=5), st.integers(1, 9))
                drawn = data.draw(counts)
                changes[field.name] = {k.replace("\0", ""): n for k, n in drawn.items()}
            elif type(field) is Distribution:
                if isinstance(field.of(owner), LatencyHistogram):
                    values = data.draw(st.lists(st.floats(0, 5_000), max_size=20))
                    made = LatencyHistogram.of([round(v, 6) for v in values])
                else:
                    tokens = data.draw(st.lists(st.integers(0, 10**7), max_size=20))
                    made = TokenHistogram.of(tokens)
                changes[field.name] = made
        filled = msgspec.structs.replace(owner, **changes)
        if (read := through_rows(*both, filled)) is not None:
            assert filled == msgspec.structs.replace(owner, **read)


def through_rows(
    common: Columns, details: Columns, owner: Any
) -> dict[str, Any] | None:
    """The fields that the rows of an owner have; `None` where it has no row."""
    rare = details.write(owner)
    row = common.write(owner, always=rare is not None)
    read: dict[str, Any] = {}
    for columns, values in ((common, row), (details, rare)):
        if values is not None:
            named = dict(zip(columns.names, values, strict=True))
            needed = (7, *(named[name] for name in columns.needed))
            read |= columns.read(needed, 1, DEFAULT_BUCKETS)
    return None if row is None else read


def test_each_field_has_its_column_once() -> None:
    """The rarer ones are declared, are histograms, and are in the details only."""
    from ometrics.store import schema

    for common, details, rare in (
        (schema.MODEL, schema.MODEL_DETAILS, schema.RARE_OF_MODEL),
        (schema.CALL, schema.CALL_DETAILS, schema.RARE_OF_CALL),
    ):
        declared = {f.name for f in fields_of(common.owner) if type(f) is Distribution}

        assert set(rare) <= declared
        assert ["histograms"] == [n for n in common.names if n in details.names]


def test_every_histogram_has_a_tag_of_its_own() -> None:
    """One byte of its name's checksum is enough; a name that collides needs another."""
    for owner in (PerformanceMetrics, CallMetrics):
        names = [f.name for f in fields_of(owner) if type(f) is Distribution]
        tags = {zlib.crc32(name.encode()) & 0xFF for name in names}

        assert len(names) == len(tags)


@pytest.mark.parametrize("time", ["yesterdays", "24", "2026-13-01", ""])
def test_a_wrong_time_is_refused(tmp_path: Any, time: str) -> None:
    """The error quotes it and shows what would do."""
    store = Store(tmp_path / "m.db")
    with pytest.raises(ValueError, match=f"{time!r} is no time"):
        store.between(time)
    with pytest.raises(ValueError, match="is before"):
        store.between("now", "1h")
