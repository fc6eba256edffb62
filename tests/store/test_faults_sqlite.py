# SPDX-License-Identifier: MIT
"""SQLite under faults, against the real thing: locks, kills, full disks, damage."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import IO

import pytest

import ometrics.store
from ometrics import MetricsCollector, _cells
from ometrics.store import Store, StoreBusyError, StoreError, Writer
from ometrics.store.database import Database, file_system_of, wal_is_safe

HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""

WRITE = """
import sys
from ometrics import MetricsCollector
from ometrics.store import Writer
mc = MetricsCollector()
writer = Writer(sys.argv[1], mc)
while True:
    for _ in range(7):
        mc.record_latency("m", 0.1)
    writer.flush()
    print(mc.instance_id, writer._sequence, flush=True)
"""


def start(
    program: str, *arguments: str, stdout: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A process whose output can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def filled(path: Path, windows: int = 3) -> int:
    """A store with some windows; how many requests are in it."""
    mc = MetricsCollector()
    with ometrics.store.open(path) as store:
        writer = Writer(store, mc)
        for _ in range(windows):
            for i in range(20):
                mc.record_latency(f"model{i % 4}", 0.01 * i)
            writer.flush()
    return mc.snapshot().total_requests


# --- locks


@pytest.mark.parametrize("seconds", [0.5, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_locked_file_is_waited_for(tmp_path: Path, seconds: float) -> None:
    """The writer waits until the other process is done; the agent goes on recording."""
    path = tmp_path / "m.db"
    mc = MetricsCollector()
    writer = Writer(path, mc)
    writer.flush()
    holder = start(HOLD, str(path), str(seconds))
    assert "held\n" == holder.stdout.readline()
    thread = threading.Thread(target=writer.flush)
    recorded = 0
    thread.start()
    while thread.is_alive():
        mc.record_latency("m", 0.1)
        recorded += 1
        time.sleep(0.01)
    thread.join()
    assert recorded > seconds * 20
    writer.flush()
    holder.communicate()

    assert writer.error is None
    assert recorded == Store(path).snapshot().total_requests


def test_a_lock_that_stays_is_said_with_its_holder(tmp_path: Path) -> None:
    """The error names the file and the process; what was counted is kept."""
    path = tmp_path / "m.db"
    mc = MetricsCollector()
    writer = Writer(path, mc)
    writer.flush()
    mc.record_latency("m", 0.1)
    holder = start(HOLD, str(path), "60")
    assert "held\n" == holder.stdout.readline()
    with pytest.raises(StoreBusyError, match=r"m\.db: database is locked") as caught:
        writer.flush(timeout=0.2)
    if Path("/proc/locks").exists():
        assert f"(held by process {holder.pid})" in str(caught.value)
    end(holder)
    writer.flush()

    assert 1 == Store(path).snapshot().total_requests


def test_a_write_asks_for_its_lock_at_once(tmp_path: Path) -> None:
    """Two that read before they write do not refuse each other: one waits."""
    path = tmp_path / "m.db"
    filled(path)
    store = Store(path)
    failures: list[Exception] = []

    def read_then_write(instance: str) -> None:
        writer = Writer(store, MetricsCollector())
        try:
            for _ in range(10):
                writer.flush()
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [
        threading.Thread(target=read_then_write, args=(str(i),)) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures


@pytest.mark.parametrize(
    ("processes", "kills", "seconds"),
    [(2, 2, 0.1), pytest.param(8, 60, 1.0, marks=pytest.mark.slow)],
)
def test_killed_writers_leave_exact_sums(
    tmp_path: Path, processes: int, kills: int, seconds: float
) -> None:
    """Several processes write one file, one after another is killed: exact sums."""
    path = tmp_path / "m.db"
    Store(path).close()
    acks: list[Path] = []

    def write() -> subprocess.Popen[str]:
        acks.append(tmp_path / f"acks{len(acks)}")
        with acks[-1].open("w") as file:
            return start(WRITE, str(path), stdout=file)

    running = [write() for _ in range(processes)]
    for n in range(kills):
        deadline = time.monotonic() + 60
        while not all(ack.stat().st_size for ack in acks):
            assert time.monotonic() < deadline, "a process does not write"
            time.sleep(0.02)
        time.sleep(seconds * (1 + n % 3) / 2)
        end(running.pop(0))
        running.append(write())
    for process in running:
        end(process)
    output = "".join(ack.read_text(encoding="utf-8") for ack in acks)
    acknowledged: dict[str, int] = {}
    for line in output.splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[1].isdecimal():
            acknowledged[parts[0]] = int(parts[1])
    assert acknowledged
    with closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        written = dict(
            connection.execute("SELECT instance, last_sequence FROM instances")
        )
        sums = dict(
            connection.execute(
                "SELECT instance, SUM(successful_reqs) FROM instances AS i"
                " JOIN windows AS w ON w.instance_id = i.id"
                " JOIN model_windows AS m ON m.id >> 24 = w.id GROUP BY instance"
            )
        )
    for instance, sequence in acknowledged.items():
        assert sequence <= written[instance] <= sequence + 1
    assert {i: 7 * n for i, n in written.items()} == sums
    assert sum(sums.values()) == Store(path).snapshot().total_requests


# --- the write-ahead log


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 6, 23), True),
        ((3, 7, 0), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 0), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_versions_with_the_wal_bug_are_known(
    version: tuple[int, ...], safe: bool
) -> None:
    """3.7.0 to 3.51.2 are affected, but for the two branches that got the fix."""
    assert safe is wal_is_safe(version)


def test_an_affected_version_gets_the_rollback_journal(tmp_path: Path) -> None:
    """This SQLite's journal is the safe one; a WAL file of before is changed."""
    path = tmp_path / "m.db"
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        assert ("wal",) == connection.execute("PRAGMA journal_mode = wal").fetchone()
    requests = filled(path)
    with closing(sqlite3.connect(path)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()

    safe = wal_is_safe(sqlite3.sqlite_version_info)
    assert ("wal" if safe else "delete") == mode
    assert 2 * requests == Store(path).snapshot().total_requests


@pytest.mark.skipif(
    wal_is_safe(sqlite3.sqlite_version_info), reason="this SQLite has no WAL bug"
)
def test_an_affected_version_is_said_once(tmp_path: Path) -> None:
    """However many stores a process opens."""
    program = """
import logging, sys
from ometrics.store import Store
logging.basicConfig(level=logging.INFO, format="%(message)s")
for name in "aab":
    Store(f"{sys.argv[1]}/{name}.db").close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert 1 == done.stderr.count("the rollback journal")


@pytest.mark.skipif(
    wal_is_safe(sqlite3.sqlite_version_info), reason="this SQLite has no WAL bug"
)
def test_an_affected_version_leaves_a_wal_in_use_alone(tmp_path: Path) -> None:
    """Where another process has a file open in WAL mode, the error says what to do."""
    path = tmp_path / "m.db"
    filled(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = wal")
        other.execute("SELECT * FROM windows").fetchone()
        with pytest.raises(StoreError, match=r"m\.db.*(WAL mode|locked)"):
            ometrics.store.open(path)


# --- places where a file cannot be


def mounted(directory: Path, options: str) -> bool:
    """Mount a small file system, where that is allowed."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)],
        check=False,
        capture_output=True,
    )
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if not mounted(directory, "size=512k"):
        pytest.skip("mounting is not allowed: no disk that could be full")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_costs_durability_only(small_disk: Path) -> None:
    """One error with path and free bytes; with room again nothing is missing."""
    path = small_disk / "m.db"
    mc = MetricsCollector()
    writer = Writer(path, mc)
    writer.flush()
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for i in range(300):
        mc.record_latency(f"model{i}", 0.1)
    with pytest.raises(StoreError, match=r"m\.db.*full.*bytes free.*make room"):
        writer.flush()
    mc.record_latency("m", 0.1)
    ballast.unlink()
    writer.flush()

    assert 301 == Store(path).snapshot().total_requests


def test_a_read_only_directory_is_said(small_disk: Path) -> None:
    """A file that cannot be made, and one that cannot be written: one clear error."""
    path = small_disk / "m.db"
    requests = filled(path)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"new\.db cannot be made \(Read-only file"):
        ometrics.store.open(small_disk / "new.db")
    mc = MetricsCollector()
    with pytest.raises(StoreError, match=r"m\.db: .*readonly.*permissions"):
        Writer(path, mc).flush()

    assert requests == ometrics.store.open(path, create=False).snapshot().total_requests


def test_a_deleted_file_is_said(tmp_path: Path) -> None:
    """No new file appears in its place, and with it back the rest is written."""
    path = tmp_path / "m.db"
    mc = MetricsCollector()
    writer = Writer(path, mc)
    mc.record_latency("m", 0.1)
    writer.flush()
    path.rename(tmp_path / "elsewhere")
    mc.record_latency("m", 0.1)
    with pytest.raises(StoreError, match=r"m\.db: gone: it was deleted or moved"):
        writer.flush()
    assert not path.exists()
    (tmp_path / "elsewhere").rename(path)
    writer.flush()

    assert 2 == Store(path).snapshot().total_requests


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite", b"\0" * 5000])
def test_what_is_no_database_is_not_touched(tmp_path: Path, content: bytes) -> None:
    """The error says so, and the file stays as it is."""
    path = tmp_path / "m.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"m\.db: file is not a database"):
        ometrics.store.open(path)

    assert content == path.read_bytes()


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    """Tables of the same name that are not ours are refused."""
    path = tmp_path / "m.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE models (weights)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="'models'"):
        ometrics.store.open(path)

    assert before == path.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE settings SET value = '99' WHERE name = 'format'",
        "ALTER TABLE model_windows ADD COLUMN from_the_future INTEGER",
    ],
)
def test_a_newer_schema_is_refused(tmp_path: Path, change: str) -> None:
    """Neither read nor written: what is not understood would be lost in merging."""
    path = tmp_path / "m.db"
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(StoreError, match=r"later version of ometrics.*pip install"):
            ometrics.store.open(path, create=create)

    assert before == path.read_bytes()


def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its type is read from the system's table of mounts."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:9 / {tmp_path} rw,relatime shared:1 - nfs4 server:/home rw\n"
        f"3 1 0:9 / {tmp_path}/local rw - tmpfs tmpfs rw\n",
        encoding="utf-8",
    )
    assert "nfs4" == file_system_of(tmp_path / "deep", str(table))
    assert "tmpfs" == file_system_of(tmp_path / "local", str(table))
    assert "ext4" == file_system_of(Path("/"), str(table))
    monkeypatch.setattr("ometrics.store.database.file_system_of", lambda _: "nfs4")
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*PostgreSQL"):
        ometrics.store.open(tmp_path / "m.db")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere/m.db", "nowhere does not exist: make it first"),
        (".", "is a directory: name a file in it"),
        ("mysql://user:secret@host/db", "'mysql' is no database that a store knows"),
        ("postgresql://user:sec@ret:x/db", "cannot be read"),
        (":memory:", "would be lost"),
    ],
)
def test_a_wrong_place_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, message: str
) -> None:
    """One clear error, which shows no password."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=message) as caught:
        ometrics.store.open(where)

    assert "sec" not in str(caught.value)


def test_an_agent_goes_on_without_its_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector whose store cannot be opened records, says so once, and closes."""
    with MetricsCollector(store=tmp_path / "nowhere" / "m.db") as mc:
        mc.record_latency("m", 0.1)
        assert 1 == mc.snapshot().total_requests

    assert "does not exist: make it first" in caplog.text
    assert "1 requests are lost" in caplog.text


# --- forks


@pytest.mark.fork
@pytest.mark.parametrize("forks", [20, pytest.param(1_000, marks=pytest.mark.slow)])
def test_children_leave_the_parents_connection_alone(
    tmp_path: Path, forks: int
) -> None:
    """Forked in the midst of writes: the file stays sound, and every count is there."""
    path = tmp_path / "m.db"
    with MetricsCollector() as mc:
        writer = Writer(path, mc, interval=0.001).start()
        for n in range(forks):
            mc.record_latency("m", 0.1)
            child = os.fork()
            if not child:
                code = 1
                try:
                    if n % 4 == 0:
                        mc.record_latency("m", 0.1)
                        writer.close()
                    code = 0
                finally:
                    os._exit(code)
            assert 0 == os.waitpid(child, 0)[1]
        writer.close()
    with closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()

    assert forks + -(-forks // 4) == Store(path).snapshot().total_requests


@pytest.mark.fork
def test_a_connection_that_is_open_at_the_fork_is_never_closed(tmp_path: Path) -> None:
    """In the child neither a rollback nor a close of it happens."""
    database = Database(tmp_path / "m.db")
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        child = os.fork()
        if not child:
            database.close()
            del database, connection
            os._exit(0)
        assert 0 == os.waitpid(child, 0)[1]
    with database.reading() as connection:
        assert [(1,)] == connection.exec_driver_sql("SELECT a FROM t").all()


# --- damage


def test_no_mutation_of_a_blob_is_taken_for_another() -> None:
    """100,000 flipped or cut blobs: each is refused by its checksum."""
    rng = random.Random(7)
    mc = MetricsCollector()
    for _ in range(200):
        mc.record_latency("m", rng.lognormvariate(0, 1))
    hist = mc.snapshot().models["m"].latency_hist
    blob = _cells.pack([(1, hist.first_cell, hist.cells), (2, 5, hist.cells)])
    for _ in range(100_000):
        mutated = bytearray(blob)
        mutated[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del mutated[rng.randrange(len(blob)) :]
        with pytest.raises(ValueError, match=r"cut|checksum|version"):
            _cells.unpack(bytes(mutated))


def test_what_passes_the_checksum_is_still_not_trusted() -> None:
    """100,000 mutated bodies with a right checksum: refused, or cells of a layout."""
    import zlib

    rng = random.Random(8)
    body = _cells.pack([(1, 100, bytes([1, 0, 0, 0, 0, 0, 0, 0] * 30))])[:-4]
    for _ in range(100_000):
        mutated = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            mutated[rng.randrange(len(body))] = rng.randrange(256)
        data = bytes(mutated[: rng.randrange(1, len(body) + 1)])
        data += zlib.crc32(data).to_bytes(4, "little")
        try:
            found = _cells.unpack(data)
        except ValueError:
            continue
        for tag, first, cells in found:
            assert 0 <= tag < 2**8
            assert 0 < len(cells) // 8 <= 2048 - first


def test_a_damaged_row_is_left_out_and_counted(tmp_path: Path) -> None:
    """Flipped bits in some blobs: those rows are named, all others are served."""
    path = tmp_path / "m.db"
    requests = filled(path, windows=5)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT id, successful_reqs, histograms FROM model_windows"
            " ORDER BY id LIMIT 3"
        ).fetchall()
        for id_, _, blob in rows:
            connection.execute(
                "UPDATE model_windows SET histograms = ? WHERE id = ?",
                (bytes([*blob[:-6], blob[-6] ^ 4, *blob[-5:]]), id_),
            )
        connection.commit()
    store = Store(path)

    assert requests - sum(r[1] for r in rows) == store.snapshot().total_requests
    assert 3 == store.damaged.total()
    assert "model 'model0' in window 1: checksum does not match" in store.damaged


@pytest.mark.parametrize("n", [150, pytest.param(3_000, marks=pytest.mark.slow)])
def test_a_damaged_file_never_crashes(tmp_path: Path, n: int) -> None:
    """Flipped bytes and lost pages anywhere: an answer or one clear error."""
    whole = tmp_path / "whole.db"
    requests = filled(whole)
    content = whole.read_bytes()
    rng = random.Random(9)
    path = tmp_path / "m.db"
    refused = 0
    for _ in range(n):
        mutated = bytearray(content)
        for _ in range(rng.randrange(1, 9)):
            mutated[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            del mutated[rng.randrange(len(content) // 4096) * 4096 + 100 :]
        path.write_bytes(mutated)
        try:
            with ometrics.store.open(path, create=False) as store:
                assert 0 <= store.snapshot().total_requests
        except StoreError:
            refused += 1

    assert refused
    assert requests == Store(whole).snapshot().total_requests


def test_windows_of_one_instance_do_not_overlap(tmp_path: Path) -> None:
    """In real time, written as fast as possible."""
    mc = MetricsCollector()
    with ometrics.store.open(tmp_path / "m.db") as store:
        writer = Writer(store, mc)
        for _ in range(30):
            mc.record_latency("m", 0.1)
            writer.flush()
        windows = list(store.between("1h"))

    assert 30 == len(windows)
    for one, other in pairwise(windows):
        assert one.collection_time <= other.start_time
