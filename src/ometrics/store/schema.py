# SPDX-License-Identifier: MIT
"""The tables and views of a store, and how an older database gets what it lacks.

    instances      a process that counted: when it began, what it wrote last, and, of
                   one whose records outlive it, all that it had counted by then
    windows        a stretch of time that was counted, and what is not of one model
    model_windows  what one model counted in a window
    call_windows   what its instrumented calls told, by operation and provider
    models         names of models
    views          `requests`, `calls`, `errors`, `tasks`, `resources`: for people

A window has a `step`: 0 as it was written, else the seconds of the thinner level that
it was merged into. Each count is in one window of every level that is still kept, so
levels are never added: `finest` marks the rows that add up to everything.

Columns follow from the declared fields (`columns.py`), so a schema step is to add the
columns that are missing; there is nothing to write by hand, which is why this takes no
migration framework. `FORMAT` changes only when rows change their meaning.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import CreateColumn

from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    Snapshot,
    TaskStatistics,
)
from ometrics.store.columns import BLOB, Columns
from ometrics.store.errors import StoreError

# 2: histograms are written bit by bit (`_cells.pyx`); those of 1 are still read.
FORMAT: Final = 2
# Any number, as long as all of us take the same.
_SCHEMA_LOCK: Final = 0x0_0E71C4

MODEL: Final = Columns(PerformanceMetrics)
CALL: Final = Columns(CallMetrics)
TASKS: Final = Columns(TaskStatistics, prefix="task_")
REST: Final = Columns(Snapshot)

# Integers of SQLite are row ids only under this very name.
_ID: Final = BigInteger().with_variant(Integer(), "sqlite")

metadata: Final = MetaData()

settings: Final = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

instances: Final = Table(
    "instances",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("instance", String(64), nullable=False, unique=True),
    Column("started_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("host", Text),
    Column("process_id", BigInteger),
    Column("counted", LargeBinary),
)

windows: Final = Table(
    "windows",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Column("finest", Boolean, nullable=False),
    Column("merged_into", BigInteger),
    Column("instance_id", BigInteger),
    Column("bucket_bounds", Text),
    *TASKS.columns(),
    *REST.columns(),
    Column("memory_usage_mb", Float),
    Column("cpu_usage_percent", Float),
    Column("goroutine_count", BigInteger),
)
Index("windows_by_time", windows.c.step, text("(started_us + ended_us)"))
Index(
    "windows_to_merge",
    windows.c.step,
    sqlite_where=windows.c.merged_into.is_(None),
    postgresql_where=windows.c.merged_into.is_(None),
)
Index(
    "windows_merged",
    windows.c.merged_into,
    sqlite_where=windows.c.merged_into.is_not(None),
    postgresql_where=windows.c.merged_into.is_not(None),
)

models: Final = Table(
    "models",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

model_windows: Final = Table(
    "model_windows",
    metadata,
    Column("window_id", BigInteger, primary_key=True),
    Column("model_id", BigInteger, primary_key=True),
    *MODEL.columns(),
    sqlite_with_rowid=False,
)

call_windows: Final = Table(
    "call_windows",
    metadata,
    Column("window_id", BigInteger, primary_key=True),
    Column("model_id", BigInteger, primary_key=True),
    Column("operation", String(32), primary_key=True),
    Column("provider", String(64), primary_key=True),
    *CALL.columns(),
    sqlite_with_rowid=False,
)

# What a view shows of a window, and how each database writes a time for people.
_TIMES: Final = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', {} / 1000000, 'unixepoch')",
    "postgresql": "to_timestamp({} / 1000000.0)",
}
_EACH: Final = {
    "sqlite": "json_each({})",
    "postgresql": "jsonb_each_text({}) AS json_each",
}
# Which windows each set of views has: those that add up to all, or those of one step.
_VIEWS: Final = ("requests", "calls", "errors", "tasks")
_LEVELS: Final = {
    "": "w.finest",
    "_5m": "w.step = 300",
    "_hourly": "w.step = 3600",
    "_daily": "w.step = 86400",
}


# A view that is missing (dropped with a table that somebody changed) is made anew.
_ALL_VIEWS: Final = {
    *(f"{name}{suffix}" for name in _VIEWS for suffix in _LEVELS),
    "resources",
}


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
    metadata.create_all(connection)
    changed = bool(_ALL_VIEWS - set(inspector.get_view_names()))
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
        _make_views(connection)
    connection.execute(
        settings.update().where(settings.c.name == "format").values(value=str(FORMAT))
    )
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


def is_complete(connection: Connection, place: str) -> str | None:
    """
    The name of a store that lacks nothing; `None` where `prepare` has work.

    Raises:
        StoreError: As `prepare`.
    """
    inspector = inspect(connection)
    if _ALL_VIEWS - set(inspector.get_view_names()):
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
    return str(
        connection.scalar(select(settings.c.value).where(settings.c.name == "store_id"))
    )


def _require_known(connection: Connection, inspector: Any, place: str) -> None:
    """Refuse what a later version wrote: to merge its rows would lose its columns."""
    newer = _format_of(connection) > FORMAT
    for table in metadata.sorted_tables:
        if newer or not inspector.has_table(table.name):
            continue
        present = {column["name"] for column in inspector.get_columns(table.name)}
        newer = bool(present - set(table.columns.keys()))
    if newer:
        raise StoreError(
            f"{place} was written by a later version of ometrics; nothing was changed."
            " Upgrade: pip install --upgrade ollama-metrics"
        )


def _format_of(connection: Connection) -> int:
    """The version that the rows have; 0 of a store that is being made."""
    query = select(settings.c.value).where(settings.c.name == "format")
    return int(connection.scalar(query) or 0)


# ruff: noqa: S608 - names of our own tables and columns only


def _make_views(connection: Connection) -> None:
    kind = connection.dialect.name
    time = _TIMES[kind]
    window = (
        f"{time.format('w.started_us')} AS started_at,"
        f" {time.format('w.ended_us')} AS ended_at, w.step"
    )
    named = "JOIN models AS n ON n.id = r.model_id"
    views = {}
    for suffix, kept in _LEVELS.items():
        views[f"requests{suffix}"] = (
            f"SELECT {window}, n.name AS model, {_for_people(MODEL, 'r')}"
            f" FROM model_windows AS r JOIN windows AS w ON w.id = r.window_id {named}"
            f" WHERE {kept}"
        )
        views[f"calls{suffix}"] = (
            f"SELECT {window}, n.name AS model, r.operation, r.provider,"
            f" {_for_people(CALL, 'r')}"
            f" FROM call_windows AS r JOIN windows AS w ON w.id = r.window_id {named}"
            f" WHERE {kept}"
        )
        views[f"errors{suffix}"] = (
            f"SELECT {window}, n.name AS model, json_each.key AS code,"
            " CAST(json_each.value AS bigint) AS count FROM model_windows AS r"
            f" JOIN windows AS w ON w.id = r.window_id {named}"
            f" CROSS JOIN {_EACH[kind].format('r.errors')} WHERE {kept}"
        )
        views[f"tasks{suffix}"] = (
            f"SELECT {window}, {_for_people(TASKS, 'w')} FROM windows AS w WHERE {kept}"
        )
    views["resources"] = (
        f"SELECT {window}, i.instance, i.host, i.process_id, w.memory_usage_mb,"
        " w.cpu_usage_percent, w.goroutine_count FROM windows AS w"
        " JOIN instances AS i ON i.id = w.instance_id"
        " WHERE w.memory_usage_mb IS NOT NULL"
    )
    for name, query in views.items():
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))
        connection.execute(text(f"CREATE VIEW {name} AS {query}"))


def _for_people(columns: Columns, table: str) -> str:
    """Columns of a view: times in seconds, counts as they are, no blob."""
    shown = []
    for name in columns.names:
        if name == BLOB:
            continue
        for ending, per_second in (("_ns", "1e9"), ("_us", "1e6")):
            if name.endswith(ending):
                seconds = f"{name.removesuffix(ending)}_seconds"
                shown.append(
                    f"{table}.{name} / CAST({per_second} AS double precision)"
                    f" AS {seconds}"
                )
                break
        else:
            shown.append(f"{table}.{name}")
    return ", ".join(shown)
