# SPDX-License-Identifier: MIT
"""What is in a store, whether it is sound, and moving it to another database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import Connection, func, insert, select, text

from ometrics.store.errors import StoreError
from ometrics.store.rows import Reader, time_of
from ometrics.store.schema import (
    FORMAT,
    PARTS,
    instances,
    metadata,
    model_windows,
    models,
    series,
    window_of,
    windows,
)

if TYPE_CHECKING:
    from ometrics.store.store import Store

_CHUNK: Final = 500
# In an order in which a copy that breaks off is noticed: the windows come last.
_TABLES: Final = (models, series, *PARTS, instances, windows)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.decode


@dataclass(frozen=True)
class StoreInfo:
    """
    What is in a store.

    Attributes:
        place: File or server.
        database: Which, with its version and how it keeps transactions.
        size: Bytes that it takes.
        start: When the first window began; `None` of an empty store.
        end: When the last one ended.
        windows: Seconds of a level -> its windows; 0 for those as they were written.
        models: Names of models.
        instances: Processes that wrote.
        requests: Requests ever.
    """

    place: str
    database: str
    size: int
    start: datetime | None
    end: datetime | None
    windows: dict[int, int]
    models: int
    instances: int
    requests: int


def info(store: Store) -> StoreInfo:
    """
    Look at a store as a whole.

    Raises:
        StoreError: It cannot be read.
    """
    database = store.database
    with database.reading() as connection:
        span = connection.execute(
            select(func.min(windows.c.started_us), func.max(windows.c.ended_us))
        ).one()
        levels = connection.execute(
            select(windows.c.step, func.count()).group_by(windows.c.step)
        )
        by_level = {
            int(step): int(n) for step, n in sorted(tuple(row) for row in levels)
        }
        counts = [
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (models, instances)
        ]
        query = (
            select(
                func.sum(model_windows.c.successful_reqs + model_windows.c.failed_reqs)
            )
            .join(windows, windows.c.id == window_of(model_windows))
            .where(windows.c.merged_into.is_(None))
        )
        requests = int(connection.scalar(query) or 0)
        if database.path is not None:
            size = database.path.stat().st_size
            journal = "WAL" if database.wal else "rollback journal"
            kind = f"SQLite {sqlite3.sqlite_version}, {journal}"
        else:
            sizes = [
                connection.scalar(
                    text(f"SELECT pg_total_relation_size('{table.name}')")
                )
                for table in metadata.sorted_tables
            ]
            size = sum(int(n) for n in sizes if n)
            kind = f"PostgreSQL {connection.scalar(text('SHOW server_version'))}"
    start, end = (None if us is None else time_of(us) for us in span)
    return StoreInfo(
        place=database.place,
        database=kind,
        size=size,
        start=start,
        end=end,
        windows=by_level,
        models=counts[0],
        instances=counts[1],
        requests=requests,
    )


def check(store: Store) -> list[str]:
    """
    Read everything.

    Returns:
        What is wrong, a line each; empty for a sound store.

    Raises:
        StoreError: It cannot be read at all.
    """
    problems: list[str] = []
    with store.database.reading() as connection:
        if store.database.path is not None:
            found = connection.execute(text("PRAGMA integrity_check")).scalars().all()
            problems += [line for line in found if line != "ok"]
        reader = Reader(connection, store.store_id)
        last = connection.scalar(select(func.max(windows.c.id))) or 0
        for first in range(0, last + 1, _CHUNK):
            reader.read([windows.c.id.between(first, first + _CHUNK - 1)])
        problems += reader.damaged
        for table in PARTS:
            known = select(windows.c.id)
            lost = connection.scalar(
                select(func.count())
                .select_from(table)
                .where(window_of(table).not_in(known))
            )
            if lost:
                problems.append(f"{lost} rows of {table.name} belong to no window")
    return problems


# --- moving


def copy(source: Store, target: Store) -> int:
    """
    Copy a whole store, without loss, into an empty one.

    Returns:
        How many rows were copied.

    Raises:
        StoreError: One of them fails, or the target is not empty; then it stays empty.
    """
    with source.database.reading() as connection:
        return _fill(target, _rows(connection))


def export(store: Store, path: Path) -> int:
    """
    Write a whole store as lines of JSON, each a row.

    Returns:
        How many rows were written.

    Raises:
        OSError: The file cannot be written.
        StoreError: The store cannot be read.
    """
    n = 0
    with store.database.reading() as connection, path.open("xb") as file:
        file.write(_encode({"ometrics_store": FORMAT, "id": store.store_id}) + b"\n")
        for table, rows in _rows(connection):
            for row in rows:
                file.write(_encode([table, row]) + b"\n")
                n += 1
    return n


def load(store: Store, path: Path) -> int:
    """
    Read what `export` wrote into an empty store.

    Returns:
        How many rows were read.

    Raises:
        OSError: The file cannot be read.
        StoreError: It is no export of a store, or the store is not empty.
    """
    with path.open("rb") as file:
        try:
            head = _decode(file.readline())
            known = head["ometrics_store"]
        except (msgspec.DecodeError, LookupError, TypeError):
            known = None
        if known in (1, 2):
            raise StoreError(
                f"{path} was exported by an earlier version of ometrics: import it with"
                " that one, and open the store with this"
            )
        if known != FORMAT:
            raise StoreError(f"{path} is no export of a store that is known here")
        return _fill(store, _lines(file, path))


def _lines(file: Iterable[bytes], path: Path) -> Iterator[tuple[str, list[Any]]]:
    for number, line in enumerate(file, 2):
        try:
            table, row = _decode(line, type=tuple[str, dict[str, Any]])
            for name in ("histograms", "counted"):
                if row.get(name) is not None:
                    row[name] = msgspec.convert(row[name], bytes)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StoreError(f"{path}, line {number}: {error}") from None
        yield table, [row]


def _rows(connection: Connection) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """All rows of all tables, some at a time."""
    for table in _TABLES:
        names = [f"{column.name}" for column in table.columns]
        for some in connection.execute(select(table)).partitions(_CHUNK):
            rows = [dict(zip(names, row, strict=True)) for row in some]
            yield f"{table.name}", [_portable(row) for row in rows]


def _portable(row: dict[str, Any]) -> dict[str, Any]:
    """A row as either database takes it: JSON as text, bytes as bytes."""
    for name, value in row.items():
        if isinstance(value, dict):
            row[name] = _encode(value).decode()
        elif isinstance(value, memoryview):
            row[name] = bytes(value)
    return row


def _fill(target: Store, chunks: Iterable[tuple[str, list[Any]]]) -> int:
    tables = {table.name: table for table in _TABLES}
    n = 0
    with target.database.writing() as connection:
        for table in (windows, instances):
            if connection.execute(select(table.c.id).limit(1)).first() is not None:
                raise StoreError(
                    f"{target.database.place} is not empty: copy into a new store"
                )
        for name, rows in chunks:
            if name not in tables:
                raise StoreError(f"{name!r} is no table of a store")
            connection.execute(insert(tables[name]), rows)
            n += len(rows)
        if connection.dialect.name == "postgresql":
            for table in (windows, instances, models, series):
                sequence = func.pg_get_serial_sequence(f"{table.name}", "id")
                last = connection.scalar(select(func.max(table.c.id))) or 0
                connection.execute(select(func.setval(sequence, last + 1, False)))
    return n
