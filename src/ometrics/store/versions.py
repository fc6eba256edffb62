# SPDX-License-Identifier: MIT
"""How a database becomes a store, and an older one gets what it lacks.

A schema step is to add the columns that are missing, as they follow from the declared
fields; there is nothing to write by hand, which is why this takes no migration
framework. `FORMAT` changes only when rows change their meaning, and `_upgrade` says
what that takes.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from sqlalchemy import Connection, Table, inspect, select, text
from sqlalchemy.schema import CreateColumn

from ometrics.store.errors import StoreError
from ometrics.store.schema import (
    FORMAT,
    MOST_SERIES,
    PARTS,
    call_details,
    call_windows,
    metadata,
    model_details,
    model_windows,
    settings,
)
from ometrics.store.views import ALL_VIEWS, make_views

# Any number, as long as all of us take the same.
_SCHEMA_LOCK: Final = 0x0_0E71C4

# The last format whose rows had the keys of window and model, and all histograms.
_BY_WINDOW: Final = 2
_KEYS: Final = ("window_id", "model_id", "operation", "provider")
_OLD: Final = {"model_windows": "model_windows_2", "call_windows": "call_windows_2"}


def prepare(connection: Connection, place: str) -> str:
    """
    Make the tables, or add to older ones what they lack.

    Args:
        connection: In a transaction that may write.
        place: The file or server, for errors.

    Returns:
        The name that the store was given when it was made.

    Raises:
        StoreError: The database was written by a later version, or by something else.
    """
    if connection.dialect.name == "postgresql":  # one at a time
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    if settings.name in present:
        _require_known(connection, inspector, place)
    elif present & set(metadata.tables):
        raise StoreError(
            f"{place} has tables of another program, such as"
            f" {min(present & set(metadata.tables))!r}: name another database"
        )
    _make_tables(connection, present)
    store_id = connection.scalar(
        select(settings.c.value).where(settings.c.name == "store_id")
    )
    if store_id is None:
        store_id = uuid.uuid4().hex
        connection.execute(
            settings.insert(),
            [
                {"name": "store_id", "value": store_id},
                {"name": "format", "value": str(FORMAT)},
            ],
        )
    return str(store_id)


def _make_tables(connection: Connection, present: set[str]) -> None:
    """Make what is missing of tables, columns and views; `present` are tables."""
    outdated = settings.name in present and _format_of(connection) <= _BY_WINDOW
    if outdated:
        _set_aside(connection)
        present = present - set(_OLD)
    metadata.create_all(connection)
    if outdated:
        _upgrade(connection)
    inspector = inspect(connection)
    changed = bool(ALL_VIEWS - set(inspector.get_view_names()))
    for table in metadata.sorted_tables:
        if table.name not in present:
            continue
        known = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                clause = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(
                    text(f"ALTER TABLE {table.name} ADD COLUMN {clause}")
                )
                changed = True
    if changed:
        make_views(connection)
    connection.execute(
        settings.update().where(settings.c.name == "format").values(value=str(FORMAT))
    )


def is_complete(connection: Connection, place: str) -> str | None:
    """
    The name of a store that lacks nothing; `None` where `prepare` has work.

    Raises:
        StoreError: As `prepare`.
    """
    inspector = inspect(connection)
    if ALL_VIEWS - set(inspector.get_view_names()):
        return None
    for table in metadata.sorted_tables:
        if not inspector.has_table(table.name):
            return None
        present = {column["name"] for column in inspector.get_columns(table.name)}
        if set(table.columns.keys()) - present:
            return None
    store_id = check_readable(connection, place)
    return store_id if _format_of(connection) == FORMAT else None


def check_readable(connection: Connection, place: str) -> str:
    """
    Make sure that a database is a store whose rows are known, without writing.

    Raises:
        StoreError: It is not.
    """
    inspector = inspect(connection)
    if settings.name not in inspector.get_table_names():
        raise StoreError(
            f"{place} is no store of ometrics; a collector with"
            f" MetricsCollector(store=...) makes one"
        )
    _require_known(connection, inspector, place)
    if _format_of(connection) <= _BY_WINDOW:
        raise StoreError(
            f"{place} was written by an earlier version of ometrics: bring it up to"
            " date first, which any writer does, and `ometrics store thin`"
        )
    return str(
        connection.scalar(select(settings.c.value).where(settings.c.name == "store_id"))
    )


def _require_known(connection: Connection, inspector: Any, place: str) -> None:
    """Refuse what a later version wrote: to merge its rows would lose its columns."""
    found = _format_of(connection)
    newer = found > FORMAT
    for table in metadata.sorted_tables:
        if newer or not inspector.has_table(table.name):
            continue
        present = {column["name"] for column in inspector.get_columns(table.name)}
        known = set(table.columns.keys())
        if found <= _BY_WINDOW:
            known.update(_KEYS, *(part.columns.keys() for part in PARTS))
        newer = bool(present - known)
    if newer:
        raise StoreError(
            f"{place} was written by a later version of ometrics; nothing was changed."
            " Upgrade: pip install --upgrade ollama-metrics"
        )


def _format_of(connection: Connection) -> int:
    """The version that the rows have; 0 of a store that is being made."""
    query = select(settings.c.value).where(settings.c.name == "format")
    return int(connection.scalar(query) or 0)


# --- from format 2 to 3


def _set_aside(connection: Connection) -> None:
    """Make room for the tables of format 3."""
    for view in ALL_VIEWS & set(inspect(connection).get_view_names()):
        connection.execute(text(f"DROP VIEW {view}"))
    for name, old in _OLD.items():
        connection.execute(text(f"ALTER TABLE {name} RENAME TO {old}"))


def _upgrade(connection: Connection) -> None:
    """
    Copy the rows that were set aside.

    A row and its details both get the whole blob: each reads the histograms that it has
    columns for.
    """
    connection.execute(
        text(
            "INSERT INTO series (model_id, operation, provider)"
            " SELECT DISTINCT model_id, operation, provider FROM call_windows_2"
        )
    )
    its_series = (
        " JOIN series AS s ON s.model_id = o.model_id"
        " AND s.operation = o.operation AND s.provider = o.provider"
    )
    for table, details, series_id, join in (
        (model_windows, model_details, "o.model_id", ""),
        (call_windows, call_details, "s.id", its_series),
    ):
        old = _OLD[table.name]
        key = f"o.window_id * {MOST_SERIES} + {series_id}"
        source = f"FROM {old} AS o{join}"
        there = {column["name"] for column in inspect(connection).get_columns(old)}
        counts = [n for n in details.columns.keys() if n.endswith("_count")]  # noqa: SIM118
        any_ = " OR ".join(f"o.{n} IS NOT NULL" for n in counts if n in there)
        _copy(connection, table, there, key, source)
        _copy(connection, details, there, key, f"{source} WHERE {any_ or 'false'}")
        connection.execute(text(f"DROP TABLE {old}"))


def _copy(
    connection: Connection, table: Table, there: set[str], key: str, source: str
) -> None:
    """Insert rows with the columns that `there` are; key and source as SQL has them."""
    names = [name for name in table.columns.keys() if name in there]  # noqa: SIM118
    values = [key, *(f"o.{name}" for name in names)]
    connection.execute(
        text(
            f"INSERT INTO {table.name} ({', '.join(['id', *names])})"
            f" SELECT {', '.join(values)} {source} ORDER BY 1"
        )
    )
