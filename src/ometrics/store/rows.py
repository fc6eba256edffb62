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
from operator import itemgetter
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
        **(TASKS.write(counts.task_statistics) or {}),
        **(REST.write(counts) or {}),
    }
    if resources is not None:
        row["memory_usage_mb"] = resources.memory_usage_mb
        row["cpu_usage_percent"] = resources.cpu_usage_percent
        row["goroutine_count"] = resources.goroutine_count
    model_ids = _model_ids(connection, counts.models)
    of_models, of_calls = [], []
    for name, model in counts.models.items():
        key: dict[str, Any] = {"model_id": model_ids[clean_text(name)]}
        columns = MODEL.write(model)
        if columns is not None:
            of_models.append(key | columns)
        for call in model.calls.values():
            columns = CALL.write(call)
            if columns is not None:
                kind = {"operation": call.operation, "provider": call.provider}
                of_calls.append(key | kind | columns)
    stopped = sum(list(r.values()).count(INT64_MAX) for r in (*of_models, *of_calls))
    if stopped:
        row["saturated"] = (row["saturated"] or 0) + stopped
    inserted = connection.execute(insert(windows), row).inserted_primary_key
    window_id: int = inserted[0]  # type: ignore[index]
    for of_window in (*of_models, *of_calls):
        of_window["window_id"] = window_id
    _insert_all(connection, model_windows, of_models)
    _insert_all(connection, call_windows, of_calls)
    return window_id


def _insert_all(
    connection: Connection, table: Table, rows: list[dict[str, Any]]
) -> None:
    """
    Insert complete rows.

    Past SQLAlchemy's handling of each row's parameters, which is half of the time.
    """
    if not rows:
        return
    compiled = _insert_of(table, connection.dialect)
    if compiled.positional:
        in_order = itemgetter(*(compiled.positiontup or ()))
        connection.exec_driver_sql(str(compiled), [in_order(row) for row in rows])
    else:
        connection.exec_driver_sql(str(compiled), rows)


@lru_cache(maxsize=16)
def _insert_of(table: Table, dialect: Dialect) -> Any:
    return insert(table).compile(dialect=dialect)


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
        some = models.c.name.in_(names[i : i + _MOST_PARAMETERS])
        found = connection.execute(select(models).where(some))
        ids.update((name, id_) for id_, name in found)
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
    models.c.name.label("model"),
    *(model_windows.c[name] for name in MODEL.needed),
]
_CALL_COLUMNS: Final = [
    call_windows.c.window_id,
    models.c.name.label("model"),
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
        bounds: dict[int, tuple[float, ...] | None] = {}
        ended: dict[int, datetime | None] = {}
        for row in rows:
            ended[row["id"]] = _time_or_none(row["ended_us"])
            bounds[row["id"]] = _bounds_of_text(row["bucket_bounds"])
        members: dict[int, dict[str, PerformanceMetrics]] = {id_: {} for id_ in bounds}
        calls: dict[tuple[int, str], dict[str, CallMetrics]] = {}
        for row in self._of_windows(call_windows, _CALL_COLUMNS, where, names):
            key = row["window_id"], row["model"]
            values = self._values(CALL, row, bounds.get(key[0]))
            if values is not None:
                operation, provider = row["operation"], row["provider"]
                call = CallMetrics(operation=operation, provider=provider, **values)
                name = operation if provider == OLLAMA else f"{operation}@{provider}"
                calls.setdefault(key, {})[name] = call
        for row in self._of_windows(model_windows, _MODEL_COLUMNS, where, names):
            id_, name = row["window_id"], row["model"]
            values = self._values(MODEL, row, bounds.get(id_))
            if values is not None:
                members[id_][name] = PerformanceMetrics(
                    model=name,
                    calls=calls.get((id_, name), {}),
                    last_updated=ended[id_],
                    **values,
                )
        found = []
        for row in rows:
            try:
                found.append((row["id"], self._window(row, members[row["id"]])))
            except (TypeError, ValueError) as error:
                self.damaged[f"window {row['id']}: {error}"] += 1
        return found

    def _of_windows(
        self,
        table: Table,
        columns: Sequence[ColumnElement[Any]],
        where: Sequence[ColumnElement[bool]],
        names: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        query = (
            select(*columns)
            .select_from(
                windows.join(table, table.c.window_id == windows.c.id).join(
                    models, models.c.id == table.c.model_id
                )
            )
            .where(*where)
        )
        if names is not None:
            query = query.where(models.c.name.in_(list(map(clean_text, names))))
        return self._rows(query)

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        found = self._connection.execute(query)
        names = list(found.keys())  # plain dictionaries: read ten times as fast
        return [dict(zip(names, row, strict=True)) for row in found]

    def _values(
        self, columns: Columns, row: dict[str, Any], bounds: tuple[float, ...] | None
    ) -> dict[str, Any] | None:
        """A row's fields; `None`, counted, for a damaged row."""
        if bounds is None:
            problem = "its window is damaged"
        else:
            try:
                return columns.read(row, bounds)
            except DamagedRowError as error:
                problem = str(error)
        self.damaged[
            f"model {row['model']!r} in window {row['window_id']}: {problem}"
        ] += 1
        return None

    def _window(
        self, row: dict[str, Any], members: dict[str, PerformanceMetrics]
    ) -> Window:
        started, ended = row["started_us"], row["ended_us"]
        resources = None
        if row["memory_usage_mb"] is not None:
            resources = ResourceMetrics(
                memory_usage_mb=row["memory_usage_mb"],
                cpu_usage_percent=row["cpu_usage_percent"],
                goroutine_count=row["goroutine_count"],
                timestamp=time_of(ended),
            )
        snapshot = Snapshot(
            instance_id=self._instance_id,
            start_time=time_of(started),
            collection_time=time_of(ended),
            uptime_seconds=(ended - started) / 1e6,
            models=members,
            task_statistics=TaskStatistics(**TASKS.read(row, DEFAULT_BUCKETS)),
            resource_metrics=resources,
            **REST.read(row, DEFAULT_BUCKETS),
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
