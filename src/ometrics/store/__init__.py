# SPDX-License-Identifier: MIT
"""History: what was counted when, in SQLite by default or PostgreSQL (extra `store`).

    store = ometrics.store.open("metrics.db")
    for window in store.between("24h", "now", step="5m", model="llama3.2"):
        print(window.collection_time, window.models["llama3.2"].latency_p99)

A collector writes one by itself: `MetricsCollector(store="metrics.db")`.
"""

from __future__ import annotations

import os

from ometrics.store.errors import StoreBusyError, StoreError

try:
    from ometrics.store.store import Store
    from ometrics.store.thinning import Retention
    from ometrics.store.writer import Writer
except ImportError as error:
    if (error.name or "").partition(".")[0] != "sqlalchemy":
        raise
    raise ImportError(
        "a store needs SQLAlchemy: pip install 'ollama-metrics[store]'"
    ) from None

__all__ = ["Retention", "Store", "StoreBusyError", "StoreError", "Writer", "open"]


def open(  # noqa: A001 - it opens a store as `open` opens a file
    where: str | os.PathLike[str],
    *,
    create: bool = True,
    retention: Retention | None = None,
) -> Store:
    """
    Open a store, and make it if there is none.

    Args:
        where: A path, or an SQLAlchemy URL of `sqlite` or `postgresql`.
        create: Whether a missing file or table is made.
        retention: How long windows of each length are kept.

    Raises:
        ImportError: SQLAlchemy or psycopg is not installed: the message names the
            extra.
        StoreError: It cannot be used; the message says why and what to do.
    """
    return Store(where, create=create, retention=retention)
