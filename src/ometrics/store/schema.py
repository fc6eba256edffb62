# SPDX-License-Identifier: MIT
"""The tables of a store.

    instances      a process that counted: when it began, what it wrote last, and, of
                   one whose records outlive it, all that it had counted by then
    windows        a stretch of time that was counted, and what is not of one model
    model_windows  what one model counted in a window
    call_windows   what its instrumented calls told, by operation and provider
    model_details, call_details
                   of those rows that have any of them, the rarer histograms
    models         names of models
    series         model, operation and provider of calls
    views          `requests`, `calls`, `errors`, `tasks`, `resources`: `views.py`

A window has a `step`: 0 as it was written, else the seconds of the thinner level that
it was merged into. Each count is in one window of every level that is still kept, so
levels are never added: `finest` marks the rows that add up to everything.

What belongs to a window has one number for a key, the window's and the model's or the
series' in one (`within`): SQLite keeps such rows in order, packed, and with no index
beside them. NULL and 0 take a byte there all the same, hence the details: together 100
bytes of 500 a model and window (measured by `benchmarks/history.py`).

Columns follow from the declared fields (`columns.py`); `versions.py` brings an older
database up to date.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    Snapshot,
    TaskStatistics,
)
from ometrics.store.columns import Columns

# 2: histograms are written bit by bit (`_cells.pyx`); those of 1 are still read.
# 3: rows of a window have one number for a key, and the rarer histograms apart.
FORMAT: Final = 3
# Models and series that there can be. It leaves 2^39 numbers for windows: those of a
# thousand writers for a hundred years.
MOST_SERIES: Final = 2**24

# Histograms that most rows do not have: failures, new connections, streams.
RARE_OF_MODEL: Final = ("failed_latency_hist",)
RARE_OF_CALL: Final = (
    *("failed_latency", "cancelled_latency", "connect"),
    *("time_to_first_chunk", "time_per_output_chunk", "time_to_first_answer"),
)

MODEL: Final = Columns(PerformanceMetrics, without=RARE_OF_MODEL)
MODEL_DETAILS: Final = Columns(PerformanceMetrics, only=RARE_OF_MODEL)
CALL: Final = Columns(CallMetrics, without=RARE_OF_CALL)
CALL_DETAILS: Final = Columns(CallMetrics, only=RARE_OF_CALL)
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
    CheckConstraint(f"id < {MOST_SERIES}"),
)

series: Final = Table(
    "series",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("model_id", BigInteger, nullable=False),
    Column("operation", String(32), nullable=False),
    Column("provider", String(64), nullable=False),
    UniqueConstraint("model_id", "operation", "provider"),
    CheckConstraint(f"id < {MOST_SERIES}"),
)


def _of_windows(name: str, columns: Columns) -> Table:
    """A table of rows that belong to windows."""
    return Table(
        name,
        metadata,
        Column("id", _ID, nullable=False, autoincrement=False),
        *columns.columns(),
        PrimaryKeyConstraint("id", name=f"{name}_id"),
    )


model_windows: Final = _of_windows("model_windows", MODEL)
model_details: Final = _of_windows("model_details", MODEL_DETAILS)
call_windows: Final = _of_windows("call_windows", CALL)
call_details: Final = _of_windows("call_details", CALL_DETAILS)

# All whose rows belong to windows.
PARTS: Final = (model_windows, model_details, call_windows, call_details)


def within(window_id: int, series_id: int) -> int:
    """The key of the row of a window that is of this model or series."""
    return window_id * MOST_SERIES + series_id


def belongs(table: Table) -> ColumnElement[bool]:
    """Whether a row of one of `PARTS` is of a row of `windows`; a range of its keys."""
    first = windows.c.id * MOST_SERIES
    return table.c.id.between(first, first + (MOST_SERIES - 1))


def window_of(table: Table) -> ColumnElement[int]:
    """The window that a row of one of `PARTS` belongs to."""
    return table.c.id // MOST_SERIES


def series_of(table: Table) -> ColumnElement[int]:
    """The model or series that a row of one of `PARTS` is of."""
    return table.c.id % MOST_SERIES
