# SPDX-License-Identifier: MIT
"""Looking after a store: what is in it, whether it is sound, moving it without loss."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from store_work import NAMES, work

import ometrics.store
from ometrics import MetricsCollector
from ometrics.store import Store, StoreError, Writer, care


def fill(where: str | Path) -> int:
    """Some of everything, partly thinned; how many requests."""
    mc = MetricsCollector()
    rng = random.Random(1)
    with ometrics.store.open(where) as store:
        writer = Writer(store, mc)
        for _ in range(4):
            work(mc, rng, NAMES)
            writer.flush()
        store.thin(time.time() + 4_000)
        writer.flush()
    return mc.snapshot().total_requests


def test_info_says_what_is_there(place: str) -> None:
    """Size, span, levels, models, processes and requests."""
    requests = fill(place)
    with ometrics.store.open(place, create=False) as store:
        info = care.info(store)

    assert requests == info.requests
    assert (1, 1) == (info.instances, info.windows[300])
    assert info.size > 10_000
    assert info.end > info.start
    assert info.models >= len(NAMES)


def test_info_of_an_empty_store(place: str) -> None:
    """Nothing is None and 0."""
    with ometrics.store.open(place) as store:
        info = care.info(store)

    assert (None, None, {}, 0) == (info.start, info.end, info.windows, info.requests)


def test_a_sound_store_has_no_problems(place: str) -> None:
    """Whatever was written and thinned."""
    fill(place)
    with ometrics.store.open(place, create=False) as store:
        assert [] == care.check(store)


def test_damage_is_named(tmp_path: Path) -> None:
    """A damaged blob, and rows whose window is gone."""
    path = tmp_path / "m.db"
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE call_windows SET histograms = X'01020304050607' WHERE"
            " id = (SELECT MIN(id) FROM call_windows)"
        )
        connection.execute("DELETE FROM windows WHERE id = 2")
        connection.commit()
    with ometrics.store.open(path, create=False) as store:
        problems = care.check(store)

    assert any("in window 1: checksum does not match" in p for p in problems)
    assert any("rows of model_windows belong to no window" in p for p in problems)


@pytest.mark.parametrize("way", ["sqlite", "postgresql", "file"])
def test_moving_loses_nothing(
    place: str, way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """From either database to either, or through a file: every row, and every count."""
    fill(place)
    target = str(tmp_path / "target.db")
    if way == "postgresql":
        server = request.getfixturevalue("postgres")
        server.query("public", f"CREATE SCHEMA moved_{id(place)}")
        target = server.url(f"moved_{id(place)}")
    with ometrics.store.open(place) as source, ometrics.store.open(target) as copy:
        if way == "file":
            assert care.export(source, tmp_path / "e") == care.load(
                copy, tmp_path / "e"
            )
        else:
            care.copy(source, copy)
        assert source.snapshot().models == copy.snapshot().models
        for step in (None, "5m", "1h"):
            one, other = (
                [(w.start_time, w.models) for w in s.between("1d", step=step)]
                for s in (source, copy)
            )
            assert one == other
        writer = Writer(copy, mc := MetricsCollector())
        mc.record_latency("new", 0.1)
        writer.flush()  # under ids of its own
        assert [] == care.check(copy)
        with pytest.raises(StoreError, match="is not empty: copy into a new store"):
            care.copy(source, copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no export of a store"),
        ('{"ometrics_store": 99}\n', "is no export of a store that is known"),
        ('{"ometrics_store": 2}\n', "by an earlier version of ometrics: import it"),
        ('{"ometrics_store": 3}\nnonsense\n', "line 2: "),
        ('{"ometrics_store": 3}\n["sqlite_master", {}]\n', "'sqlite_master' is no"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """The error names file and line, and the store stays empty."""
    path = tmp_path / "e"
    path.write_text(content, encoding="utf-8")
    with Store(tmp_path / "m.db") as store:
        with pytest.raises(StoreError, match=message):
            care.load(store, path)
        assert 0 == care.info(store).requests
