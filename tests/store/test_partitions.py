# SPDX-License-Identifier: MIT
"""docs/history-at-scale.md: a store whose tables are partitioned is one like any."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from postgres_server import PostgresServer
from sqlalchemy import text
from store_work import NAMES, work

import ometrics.store
from ometrics import MetricsCollector
from ometrics.store import Writer, care

DOCUMENT = Path(__file__).parents[2] / "docs" / "history-at-scale.md"
(STATEMENTS,) = re.findall(
    r"```postgresql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL
)


def test_partitions_lose_nothing(postgres: PostgresServer, schema: str) -> None:
    """Rows of before and after, thinned, with a column that a later version adds."""
    url = postgres.url(schema)
    mc = MetricsCollector()
    rng = random.Random(3)
    with ometrics.store.open(url) as store:
        writer = Writer(store, mc)
        work(mc, rng, NAMES)
        writer.flush()
    postgres.query(schema, STATEMENTS)
    postgres.query(schema, "ALTER TABLE model_windows DROP COLUMN tokens_processed")
    with ometrics.store.open(url) as store:
        writer = Writer(store, mc)
        work(mc, rng, NAMES)
        writer.flush()  # what came before it
        work(mc, rng, NAMES)
        writer.flush()
        store.thin(time.time() + 4_000)

        assert [] == care.check(store)
        total = store.snapshot().total_requests
        with store.database.reading() as connection:
            query = "SELECT SUM(successful_reqs + failed_reqs + cancelled_reqs)"
            for view in ("requests", "requests_hourly"):
                assert total == connection.scalar(text(f"{query} FROM {view}"))
            parts = connection.scalar(text("SELECT COUNT(*) FROM call_windows_0"))
    assert total
    assert parts
