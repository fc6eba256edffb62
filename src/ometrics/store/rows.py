# SPDX-License-Identifier: MIT
"""Windows as rows, and rows as windows: what was counted from one time to another."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Table,
    insert,
    select,
)

from ometrics.histogram import DEFAULT_BUCKETS, layout_of
from ometrics.models import OLLAMA
from ometrics.snapshot import (
    CallMetrics,
    PerformanceMetrics,
    ResourceMetrics,
    Snapshot,
    TaskStatistics,
)
from ometrics.store.columns import INT64_MAX, Columns, DamagedRowError, clean_text
from ometrics.store.schema import (
    CALL,
    MODEL,
    REST,
    TASKS,
    call_windows,
    model_windows,
    models,
    windows,
)

_LOG: Final = logging.getLogger("ometrics.store")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
# How many of them can be named in one statement of either database.
_MOST_PARAMETERS: Final = 500

MIDDLE: Final[ColumnElement[int]] = windows.c.started_us + windows.c.ended_us


def microseconds(time: datetime) -> int:
    """Since 1970, exactly."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(us: int) -> datetime:
    """
    The reverse.

    Raises:
        ValueError: No calendar has it.
    """
    try:
        return _EPOCH + us * _MICROSECOND
    except (TypeError, OverflowError):
        raise ValueError(f"{us!r} is no time") from None


def _time_or_none(us: int) -> datetime | None:
    with contextlib.suppress(ValueError):
        return time_of(us)
    return None


class Window(NamedTuple):
    """
    What was counted from one time to another.

    Attributes:
        started_us: Microseconds since 1970.
        ended_us: Likewise.
        counts: What was counted.
    """

    started_us: int
    ended_us: int
    counts: Snapshot

    @property
    def middle_us(self) -> int:
        """Which stretch of a coarser level it belongs to: that of its middle."""
        return (self.started_us + self.ended_us) // 2


# --- writing


def write(
    connection: Connection,
    window: Window,
    *,
    step: int,
    instance_id: int | None = None,
) -> int:
    """
    Write a window.

    Args:
        connection: In a transaction.
        window: What to write.
        step: Seconds of its level; 0 for as it was counted.
        instance_id: The process that counted it, if it is of one.

    Returns:
        The id of the window.
    """
    counts = window.counts
    resources = counts.resource_metrics
    row: dict[str, Any] = {
        "step": step,
        "started_us": window.started_us,
        "ended_us": window.ended_us,
        "finest": step == 0,
        "instance_id": instance_id,
        "bucket_bounds": _bounds_text(counts),
        "saturated": 0,
        **_named(TASKS, counts.task_statistics),
        **_named(REST, counts),
    }
    if resources is not None:
        row["memory_usage_mb"] = resources.memory_usage_mb
        row["cpu_usage_percent"] = resources.cpu_usage_percent
        row["goroutine_count"] = resources.goroutine_count
    model_ids = _model_ids(connection, counts.models)
    of_models: list[list[Any]] = []
    of_calls: list[list[Any]] = []
    for name, model in counts.models.items():
        model_id = model_ids[clean_text(name)]
        values = MODEL.write(model)
        if values is not None:
            of_models.append([model_id, *values])
        for call in model.calls.values():
            values = CALL.write(call)
            if values is not None:
                of_calls.append([model_id, call.operation, call.provider, *values])
    stopped = sum(values.count(INT64_MAX) for values in (*of_models, *of_calls))
    if stopped:
        row["saturated"] = (row["saturated"] or 0) + stopped
    inserted = connection.execute(insert(windows), row).inserted_primary_key
    window_id: int = inserted[0]  # type: ignore[index]
    _insert_all(connection, model_windows, window_id, of_models)
    _insert_all(connection, call_windows, window_id, of_calls)
    return window_id


def _named(columns: Columns, owner: Any) -> dict[str, Any]:
    values = columns.write(owner)
    return {} if values is None else dict(zip(columns.names, values, strict=True))


def _insert_all(
    connection: Connection, table: Table, window_id: int, rows: list[list[Any]]
) -> None:
    """
    Insert complete rows of a window.

    Past SQLAlchemy's handling of each row's parameters, which is half of the time.
    """
    if rows:
        statement = _insert_of(table, connection.dialect)
        many = [(window_id, *values) for values in rows]
        connection.exec_driver_sql(statement, many)


@lru_cache(maxsize=16)
def _insert_of(table: Table, dialect: Dialect) -> str:
    """With a place for each column, in the table's order."""
    names = table.columns.keys()
    marks = _marks(dialect, len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608


def _marks(dialect: Dialect, n: int) -> str:
    """Places of parameters, as the database's driver has them."""
    return ", ".join(["?" if dialect.paramstyle == "qmark" else "%s"] * n)


def _model_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """
    The ids of models; new ones get theirs.

    Looked up each time: another process may have deleted a model.
    """
    wanted = sorted(set(map(clean_text, names)))  # so that two writers do not deadlock
    ids = _known_ids(connection, wanted)
    new = [name for name in wanted if name not in ids]
    if new:
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as upsert
        else:
            from sqlalchemy.dialects.sqlite import insert as upsert  # type: ignore[assignment]
        statement = upsert(models).on_conflict_do_nothing()
        connection.execute(statement, [{"name": name} for name in new])
        ids |= _known_ids(connection, new)
    return ids


def _known_ids(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i in range(0, len(names), _MOST_PARAMETERS):
        some = tuple(names[i : i + _MOST_PARAMETERS])
        there = _marks(connection.dialect, len(some))
        query = f"SELECT name, id FROM models WHERE name IN ({there})"  # noqa: S608
        ids.update((name, id_) for name, id_ in connection.exec_driver_sql(query, some))
    return ids


def _bounds_text(counts: Snapshot) -> str | None:
    bounds = bounds_of(counts)
    return None if bounds == DEFAULT_BUCKETS else json.dumps(bounds)


def _bounds_of_text(text: str | None) -> tuple[float, ...] | None:
    """The reverse; `None` of damaged text."""
    if text is None:
        return DEFAULT_BUCKETS
    try:
        bounds = tuple(map(float, json.loads(text)))
        layout_of(bounds)
    except (TypeError, ValueError):
        return None
    return bounds


def bounds_of(counts: Snapshot) -> tuple[float, ...]:
    """The buckets of a snapshot's histograms; those of nothing are the default ones."""
    for model in counts.models.values():
        return model.latency_hist.bucket_bounds
    return DEFAULT_BUCKETS


# --- reading

_MODEL_COLUMNS: Final = [
    model_windows.c.window_id,
    model_windows.c.model_id,
    *(model_windows.c[name] for name in MODEL.needed),
]
_CALL_COLUMNS: Final = [
    call_windows.c.window_id,
    call_windows.c.model_id,
    call_windows.c.operation,
    call_windows.c.provider,
    *(call_windows.c[name] for name in CALL.needed),
]
_WINDOW_COLUMNS: Final = [
    windows.c[name]
    for name in (
        *("id", "started_us", "ended_us", "bucket_bounds", "memory_usage_mb"),
        *("cpu_usage_percent", "goroutine_count", *TASKS.needed, *REST.needed),
    )
]
_TASKS_AT: Final = 7
_REST_AT: Final = _TASKS_AT + len(TASKS.needed)


class Reader:
    """
    Reads windows.

    Args:
        connection: In a transaction.
        instance_id: What the snapshots say that they are of.

    Attributes:
        damaged: Why rows could not be read -> how many were left out.
    """

    def __init__(self, connection: Connection, instance_id: str) -> None:
        self._connection = connection
        self._instance_id = instance_id
        self._names: dict[int, str] = {}
        self.damaged: Counter[str] = Counter()

    def read(
        self, where: Sequence[ColumnElement[bool]], names: Sequence[str] | None = None
    ) -> list[tuple[int, Window]]:
        """
        The windows that meet all conditions, by the time of their middle.

        Args:
            where: Conditions on the table of windows.
            names: Only these models; `None` for all.

        Returns:
            `(id, window)` each.
        """
        query = select(*_WINDOW_COLUMNS).where(*where).order_by(MIDDLE, windows.c.id)
        rows = self._rows(query)
        bounds = {row[0]: _bounds_of_text(row[3]) for row in rows}
        ended = {row[0]: _time_or_none(row[2]) for row in rows}
        members: dict[int, dict[str, PerformanceMetrics]] = {id_: {} for id_ in bounds}
        calls: dict[tuple[int, int], dict[str, CallMetrics]] = {}
        self._names = self._models(names)
        for row in self._of_windows(call_windows, _CALL_COLUMNS, where, names):
            id_, model_id, operation, provider = row[:4]
            values = self._values(CALL, row, 4, bounds.get(id_))
            if values is not None:
                call = CallMetrics(operation=operation, provider=provider, **values)
                key = operation if provider == OLLAMA else f"{operation}@{provider}"
                calls.setdefault((id_, model_id), {})[key] = call
        for row in self._of_windows(model_windows, _MODEL_COLUMNS, where, names):
            id_, model_id = row[:2]
            values = self._values(MODEL, row, 2, bounds.get(id_))
            if values is not None:
                name = self._names[model_id]
                members[id_][name] = PerformanceMetrics(
                    model=name,
                    calls=calls.get((id_, model_id), {}),
                    last_updated=ended[id_],
                    **values,
                )
        found = []
        for row in rows:
            try:
                found.append((row[0], self._window(row, members[row[0]])))
            except (TypeError, ValueError) as error:
                self.damaged[f"window {row[0]}: {error}"] += 1
        return found

    def _of_windows(
        self,
        table: Table,
        columns: Sequence[ColumnElement[Any]],
        where: Sequence[ColumnElement[bool]],
        names: Sequence[str] | None,
    ) -> list[tuple[Any, ...]]:
        # Not joined: SQLite would read the whole table and look each window up.
        there = table.c.window_id.in_(select(windows.c.id).where(*where))
        query = select(*columns).where(there)
        if names is not None:
            query = query.where(table.c.model_id.in_(self._names))
        return self._rows(query)

    def _models(self, names: Sequence[str] | None) -> dict[int, str]:
        """Models by their ids."""
        if names is None:
            return dict(self._rows(select(models)))
        ids = _known_ids(self._connection, list(map(clean_text, names)))
        return {id_: name for name, id_ in ids.items()}

    def _rows(self, query: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._connection.execute(query).fetchall()]

    def _values(
        self,
        columns: Columns,
        row: tuple[Any, ...],
        at: int,
        bounds: tuple[float, ...] | None,
    ) -> dict[str, Any] | None:
        """A row's fields from `at` on; `None`, counted, for a damaged row."""
        name = self._names.get(row[1])
        if name is None:
            problem = "it has no name"
        elif bounds is None:
            problem = "its window is damaged"
        else:
            try:
                return columns.read(row, at, bounds)
            except DamagedRowError as error:
                problem = str(error)
        self.damaged[f"model {name!r} in window {row[0]}: {problem}"] += 1
        return None

    def _window(
        self, row: tuple[Any, ...], members: dict[str, PerformanceMetrics]
    ) -> Window:
        _, started, ended, _, memory, cpu, threads = row[:_TASKS_AT]
        resources = None
        if memory is not None:
            resources = ResourceMetrics(
                memory_usage_mb=memory,
                cpu_usage_percent=cpu,
                goroutine_count=threads,
                timestamp=time_of(ended),
            )
        tasks = TASKS.read(row, _TASKS_AT, DEFAULT_BUCKETS)
        snapshot = Snapshot(
            instance_id=self._instance_id,
            start_time=time_of(started),
            collection_time=time_of(ended),
            uptime_seconds=(ended - started) / 1e6,
            models=members,
            task_statistics=TaskStatistics(**tasks),
            resource_metrics=resources,
            **REST.read(row, _REST_AT, DEFAULT_BUCKETS),
        )
        return Window(started, ended, snapshot)


# --- algebra


def add(parts: Sequence[Window]) -> Window:
    """
    Several windows as one, from the first start to the last end.

    Merged pairwise, as a tournament, so that no count is copied more than a few times.

    Raises:
        ValueError: Their latency buckets differ.
    """
    level = [part.counts for part in parts]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        rest = level[-1:] if len(level) % 2 else []
        level = [one.merge(other) for one, other in pairs] + rest
    started = min(part.started_us for part in parts)
    ended = max(part.ended_us for part in parts)
    return Window(started, ended, dated(level[0], started, ended))


def dated(counts: Snapshot, started_us: int, ended_us: int) -> Snapshot:
    """`counts` as those of a stretch of time."""
    seconds = (ended_us - started_us) / 1e6
    return replace(
        counts,
        start_time=time_of(started_us),
        collection_time=time_of(ended_us),
        uptime_seconds=seconds,
        models={
            name: replace(model, uptime_seconds=seconds)
            for name, model in counts.models.items()
        },
    )
