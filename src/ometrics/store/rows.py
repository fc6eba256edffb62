# SPDX-License-Identifier: MIT
"""Windows as rows, and rows as windows: what was counted from one time to another."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ometrics.store.names import (
    known_models,
    known_series,
    marks,
    model_ids,
    series_ids,
)
from ometrics.store.schema import (
    CALL,
    CALL_DETAILS,
    MODEL,
    MODEL_DETAILS,
    MOST_SERIES,
    REST,
    TASKS,
    belongs,
    call_details,
    call_windows,
    model_details,
    model_windows,
    models,
    series_of,
    windows,
    within,
)

_LOG: Final = logging.getLogger("ometrics.store")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)

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


class _Kind(NamedTuple):
    """Rows of windows, and the details that some of them have."""

    table: Table
    columns: Columns
    details_table: Table
    details: Columns

    def rows(self, owners: Iterable[tuple[int, Any]]) -> dict[Table, list[list[Any]]]:
        """What there is to say of each owner, by its id in ascending order."""
        rows: list[list[Any]] = []
        details: list[list[Any]] = []
        for id_, owner in sorted(owners, key=itemgetter(0)):
            rare = self.details.write(owner)
            values = self.columns.write(owner, always=rare is not None)
            if values is not None:
                rows.append([id_, *values])
            if rare is not None:
                details.append([id_, *rare])
        return {self.table: rows, self.details_table: details}

    def read(
        self,
        row: tuple[Any, ...],
        rare: tuple[Any, ...] | None,
        bounds: tuple[float, ...],
    ) -> dict[str, Any]:
        """
        The fields of a row and its details, if it has any; both begin with their id.

        Raises:
            DamagedRowError: One of them cannot be read.
        """
        values = self.columns.read(row, 1, bounds)
        if rare is None:
            return values | self.details.empty(bounds)
        return values | self.details.read(rare, 1, bounds)


_MODELS: Final = _Kind(model_windows, MODEL, model_details, MODEL_DETAILS)
_CALLS: Final = _Kind(call_windows, CALL, call_details, CALL_DETAILS)


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
    parts = _parts(connection, counts)
    stopped = sum(values.count(INT64_MAX) for part in parts.values() for values in part)
    if stopped:
        row["saturated"] = (row["saturated"] or 0) + stopped
    inserted = connection.execute(insert(windows), row).inserted_primary_key
    window_id: int = inserted[0]  # type: ignore[index]
    for table, values in parts.items():
        _insert_all(connection, table, window_id, values)
    return window_id


def _parts(connection: Connection, counts: Snapshot) -> dict[Table, list[list[Any]]]:
    """The rows of each table that belong to a window, by model or series."""
    ids = model_ids(connection, counts.models)
    by_model = [(ids[clean_text(name)], m) for name, m in counts.models.items()]
    calls = [
        ((model_id, call.operation, call.provider), call)
        for model_id, model in by_model
        for call in model.calls.values()
    ]
    ids_of_calls = series_ids(connection, [key for key, _ in calls])
    by_series = [(ids_of_calls[key], call) for key, call in calls]
    return {**_MODELS.rows(by_model), **_CALLS.rows(by_series)}


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
        many = [(within(window_id, id_), *values) for id_, *values in rows]
        connection.exec_driver_sql(statement, many)


@lru_cache(maxsize=16)
def _insert_of(table: Table, dialect: Dialect) -> str:
    """With a place for each column, in the table's order."""
    names = table.columns.keys()
    places = marks(dialect, len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({places})"  # noqa: S608


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
        of_models = self._models(names)
        of_calls = known_series(self._connection, list(of_models))
        names_of_calls = {id_: of_models[key[0]] for id_, key in of_calls.items()}
        for id_, of, values in self._values(
            _CALLS, where, names_of_calls, names is None, bounds
        ):
            model_id, operation, provider = of_calls[of]
            call = CallMetrics(operation=operation, provider=provider, **values)
            key = operation if provider == OLLAMA else f"{operation}@{provider}"
            calls.setdefault((id_, model_id), {})[key] = call
        for id_, of, values in self._values(
            _MODELS, where, of_models, names is None, bounds
        ):
            name = of_models[of]
            members[id_][name] = PerformanceMetrics(
                model=name,
                calls=calls.get((id_, of), {}),
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

    def _values(
        self,
        kind: _Kind,
        where: Sequence[ColumnElement[bool]],
        names: Mapping[int, str],
        all_: bool,
        bounds: Mapping[int, tuple[float, ...] | None],
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """
        The fields that the rows of windows have, damaged ones left out and counted.

        Args:
            kind: Which rows.
            where: Conditions on the table of windows.
            names: The models of the models or series that are wanted, by their ids.
            all_: Whether all are.
            bounds: Latency buckets of the windows.

        Yields:
            `(id of the window, id of the model or series, fields)`.
        """
        wanted = None if all_ else list(names)
        of_details = self._of_windows(kind.details_table, kind.details, where, wanted)
        details = {row[0]: row for row in of_details}
        for row in self._of_windows(kind.table, kind.columns, where, wanted):
            window_id, id_ = divmod(row[0], MOST_SERIES)
            name, buckets = names.get(id_), bounds.get(window_id)
            if name is None:
                problem = "it has no name"
            elif buckets is None:
                problem = "its window is damaged"
            else:
                try:
                    values = kind.read(row, details.get(row[0]), buckets)
                except DamagedRowError as error:
                    problem = str(error)
                else:
                    yield window_id, id_, values
                    continue
            self.damaged[f"model {name!r} in window {window_id}: {problem}"] += 1

    def _of_windows(
        self,
        table: Table,
        columns: Columns,
        where: Sequence[ColumnElement[bool]],
        wanted: Sequence[int] | None,
    ) -> list[tuple[Any, ...]]:
        needed = [table.c[name] for name in columns.needed]
        query = select(table.c.id, *needed).join_from(windows, table, belongs(table))
        if wanted is not None:
            query = query.where(series_of(table).in_(wanted))
        return self._rows(query.where(*where))

    def _models(self, names: Sequence[str] | None) -> dict[int, str]:
        """Models by their ids."""
        if names is None:
            return dict(self._rows(select(models)))
        ids = known_models(self._connection, list(map(clean_text, names)))
        return {id_: name for name, id_ in ids.items()}

    def _rows(self, query: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._connection.execute(query).fetchall()]

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
