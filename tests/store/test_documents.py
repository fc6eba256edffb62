# SPDX-License-Identifier: MIT
"""docs/history.md: every query runs as it is printed, in both databases."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from store_work import work

import ometrics.store
from ometrics import MetricsCollector
from ometrics.store import Writer

DOCUMENT = Path(__file__).parents[2] / "docs" / "history.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)


def fill(where: str) -> None:
    """Some of everything, at every level."""
    mc = MetricsCollector()
    with ometrics.store.open(where) as store:
        writer = Writer(store, mc)
        for _ in range(4):
            work(mc, random.Random(1), ["llama3.2", "qwen2.5"])
            mc.record_error("llama3.2", TimeoutError())
            mc.update_resource_metrics(100.0, 20.0, 5)
            writer.flush()
        store.thin(time.time() + 1.5 * 86_400)


def test_there_are_ten() -> None:
    """As many as the document promises."""
    assert 10 == len(QUERIES)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no command sqlite3")
def test_the_queries_run_in_sqlite3(tmp_path: Path) -> None:
    """Each gives rows in the command that people have."""
    path = tmp_path / "metrics.db"
    fill(str(path))
    for query in QUERIES:
        done = subprocess.run(
            ["sqlite3", "-bail", str(path), query],
            check=False,
            capture_output=True,
            text=True,
        )
        if "resources" in query:  # are of windows as written, thinned by now
            assert 0 == done.returncode
            continue
        assert ("", 0) == (done.stderr, done.returncode)
        assert done.stdout.strip(), query


@pytest.mark.skipif(shutil.which("psql") is None, reason="no command psql")
def test_the_queries_run_in_psql(postgres: PostgresServer, schema: str) -> None:
    """The same in PostgreSQL."""
    url = postgres.url(schema)
    fill(url)
    for query in QUERIES:
        done = subprocess.run(
            ["psql", "-At", "-v", "ON_ERROR_STOP=1", url, "-c", query],
            check=False,
            capture_output=True,
            text=True,
        )
        assert ("", 0) == (done.stderr, done.returncode)
        assert done.stdout.strip() or "resources" in query, query
