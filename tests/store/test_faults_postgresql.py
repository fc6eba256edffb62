# SPDX-License-Identifier: MIT
"""PostgreSQL under faults, against a real server: kills, cuts, refusals, conflicts."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pytest
from postgres_server import PostgresServer

import ometrics.store
from ometrics import MetricsCollector
from ometrics.store import StoreError, Writer

PASSWORD = "hunter2-s3cret"


def until_written(writer: Writer, seconds: float = 30.0) -> None:
    """Flush until it succeeds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            writer.flush()
        except StoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may kill."""
    pytest.importorskip("psycopg", reason="the extra 'postgresql' is not installed")
    server = PostgresServer()
    yield server
    server.close()


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_a_killed_server_loses_and_doubles_nothing(
    own_server: PostgresServer, kills: int
) -> None:
    """Killed at any instant amid commits and started again: exact sums."""
    rng = random.Random(11)
    mc = MetricsCollector()
    recorded = 0
    writer = Writer(own_server.url("public"), mc)
    until_written(writer)
    failures = 0
    stop = threading.Event()

    def write() -> None:
        nonlocal recorded, failures
        while not stop.is_set():
            mc.record_latency("m", 0.1)
            recorded += 1
            try:
                writer.flush()
            except StoreError:
                failures += 1
                time.sleep(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(kills):
        time.sleep(rng.random() * 0.3)
        own_server.kill()
        own_server.start()
    stop.set()
    thread.join()
    until_written(writer)
    writer.close()
    with ometrics.store.open(own_server.url("public"), create=False) as store:
        whole = store.snapshot()
        windows = list(store.between("1d"))

    assert failures
    assert recorded == whole.total_requests == sum(w.total_requests for w in windows)


class Wire:
    """A port that passes bytes on to a server, until it is cut or goes silent."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.budget = 1 << 60  # bytes from the client until the cut
        self.silent = threading.Event()  # nothing passes, and nobody hangs up
        self._stop = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop:
            readable, _, _ = select.select([self._listener], [], [], 0.05)
            if readable:
                client, _ = self._listener.accept()
                with client, socket.create_connection(("127.0.0.1", self._to)) as there:
                    self._pass_on(client, there)

    def _pass_on(self, client: socket.socket, there: socket.socket) -> None:
        while not self._stop:
            readable, _, _ = select.select([client, there], [], [], 0.05)
            if self.silent.is_set():
                time.sleep(0.01)
                continue
            for end in readable:
                with contextlib.suppress(OSError):
                    data = end.recv(4096)
                    if end is client:
                        data = data[: max(self.budget, 0)]
                        self.budget -= len(data)
                    if not data or self.budget <= 0:
                        return
                    (there if end is client else client).sendall(data)

    def close(self) -> None:
        """Listen no more."""
        self._stop = True
        self._thread.join()
        self._listener.close()


def test_a_cut_network_loses_and_doubles_nothing(
    postgres: PostgresServer, schema: str
) -> None:
    """The connection breaks after any number of bytes; in the end all is there once."""
    wire = Wire(postgres.port)
    rng = random.Random(12)
    mc = MetricsCollector()
    url = postgres.url(schema).replace(f":{postgres.port}/", f":{wire.port}/")
    try:
        writer = Writer(url, mc)
        until_written(writer)
        failures = 0
        for _ in range(20):
            mc.record_latency("m", 0.1)
            wire.budget = rng.randrange(2_500)
            try:
                writer.flush()
            except StoreError:
                failures += 1
        wire.budget = 1 << 60
        until_written(writer)
    finally:
        if writer._store is not None:
            writer._store.close()
        wire.close()
    with ometrics.store.open(postgres.url(schema), create=False) as store:
        assert 20 == store.snapshot().total_requests

    assert failures


def test_a_network_that_swallows_everything_holds_up_nobody(
    postgres: PostgresServer, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither recording nor the end of the program waits for an answer."""
    wire = Wire(postgres.port)
    mc = MetricsCollector()
    url = postgres.url(schema).replace(f":{postgres.port}/", f":{wire.port}/")
    try:
        writer = Writer(url, mc)
        until_written(writer)
        wire.silent.set()
        mc.record_latency("m", 0.1)
        stuck = threading.Thread(target=_ignored, args=(writer.flush,))
        stuck.start()
        while not writer._lock.locked():
            time.sleep(0.001)
        for _ in range(100):
            mc.record_latency("m", 0.1)
        with pytest.raises(StoreError, match="no answer to the write"):
            writer.flush(timeout=0.05)
        writer.close(timeout=0.05)
        assert stuck.is_alive()
    finally:
        wire.close()
    stuck.join()
    assert "no answer to the write that is under way" in caplog.text


def _ignored(step: Callable[[], object]) -> None:
    with contextlib.suppress(StoreError):
        step()


def test_a_statement_timeout_is_said(postgres: PostgresServer, schema: str) -> None:
    """The error names it; with time enough, what was counted is written."""
    mc = MetricsCollector()
    for i in range(300):
        mc.record_latency(f"model{i}", 0.1)
    with ometrics.store.open(postgres.url(schema)) as store:
        writer = Writer(store, mc)
        lock = f"LOCK TABLE {schema}.windows IN ACCESS EXCLUSIVE MODE"
        import psycopg

        limited = postgres.url(schema).replace(
            "options=", "options=-cstatement_timeout%3D300%20"
        )
        with ometrics.store.open(limited) as impatient:
            writer = Writer(impatient, mc)
            with psycopg.connect(postgres.url(schema)) as other:
                other.execute(lock)
                with pytest.raises(StoreError, match="statement_timeout"):
                    writer.flush()
            writer.flush()
        assert 300 == store.snapshot().total_requests


def test_serialization_failures_are_tried_again(
    postgres: PostgresServer, schema: str
) -> None:
    """Four writers under SERIALIZABLE, which refuses some: exact sums."""
    url = postgres.url(schema).replace(
        "options=", "options=-cdefault_transaction_isolation%3Dserializable%20"
    )
    ometrics.store.open(url).close()
    failures: list[StoreError] = []

    def write() -> None:
        mc = MetricsCollector()
        writer = Writer(url, mc)
        for i in range(12):
            mc.record_latency(f"model{i}", 0.1)
            try:
                writer.flush()
            except StoreError as error:
                failures.append(error)
        until_written(writer)
        writer.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ometrics.store.open(url) as store:
        assert 48 == store.snapshot().total_requests
    assert all("tried again" in str(failure) for failure in failures)


def test_writers_and_thinning_do_not_wait_crosswise(
    postgres: PostgresServer, schema: str
) -> None:
    """Processes that thin while others write: no deadlock, nothing lost."""
    url = postgres.url(schema)
    errors: list[StoreError] = []

    def work(thins: bool) -> None:
        mc = MetricsCollector()
        with ometrics.store.open(url) as store:
            writer = Writer(store, mc)
            for i in range(6):
                for name in random.sample(range(30), 10):
                    mc.record_latency(f"model{name}", 0.1)
                try:
                    writer.flush()
                    if thins:
                        store.thin(time.time() + 400 * i)
                except StoreError as error:
                    errors.append(error)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ometrics.store.open(url) as store:
        assert 240 == store.snapshot().total_requests
    assert not errors


def test_a_server_that_is_away_does_not_stop_the_agent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A collector starts without its server, and says at its end what is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:{port}/metrics"
    with MetricsCollector(store=url) as mc:
        mc.record_latency("m", 0.1)
    assert "is the server running and reachable?" in caplog.text
    assert "1 requests are lost" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("tls", [False, True])
def test_no_password_is_ever_shown(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    """Wrong credentials, and no TLS where it is asked for: clear, without a secret."""
    caplog.set_level(logging.DEBUG)
    user = f"someone_{tls}".lower()
    postgres.query("public", f"CREATE ROLE {user} LOGIN PASSWORD 'another'")
    postgres.require_password(user)
    url = postgres.url("public", f"{user}:{PASSWORD}")
    if tls:
        url += "&sslmode=require"
    with pytest.raises(StoreError) as caught:
        ometrics.store.open(url)
    shown = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    expected = "asks for TLS" if tls else "check the user and the password"
    assert expected in str(caught.value)
    writer = Writer(url, MetricsCollector())
    with pytest.raises(StoreError):
        writer.flush()
    writer.close()
    for text in (
        shown,
        caplog.text,
        repr(writer),
        str(caught.value),
        repr(caught.value),
    ):
        assert PASSWORD not in text


@pytest.mark.fork
def test_a_childs_end_is_not_the_end_of_the_parents_session(
    postgres: PostgresServer, schema: str
) -> None:
    """Children that exit, and those that write, leave the parent's connection alone."""
    with MetricsCollector() as mc:
        writer = Writer(postgres.url(schema), mc)
        writer.flush()
        for n in range(6):
            mc.record_latency("m", 0.1)
            child = os.fork()
            if not child:
                if n % 2:
                    mc.record_latency("m", 0.1)
                    writer.close()
                os._exit(0)
            assert 0 == os.waitpid(child, 0)[1]
            writer.flush()
        writer.close()
    with ometrics.store.open(postgres.url(schema)) as store:
        assert 9 == store.snapshot().total_requests
