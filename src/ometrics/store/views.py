# SPDX-License-Identifier: MIT
"""The views of a store, for people: names instead of ids, seconds of all times.

`requests`, `calls`, `errors` and `tasks` add up to everything, `requests_5m`,
`requests_hourly` and `requests_daily` (and so on) have the rows of one level.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from ometrics.store.columns import BLOB, Columns
from ometrics.store.schema import (
    CALL,
    CALL_DETAILS,
    MODEL,
    MODEL_DETAILS,
    MOST_SERIES,
    TASKS,
)

# ruff: noqa: S608 - names of our own tables and columns only

# What a view shows of a window, and how each database writes a time for people.
_TIMES: Final = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', {} / 1000000, 'unixepoch')",
    "postgresql": "to_timestamp({} / 1000000.0)",
}
_EACH: Final = {
    "sqlite": "json_each({})",
    "postgresql": "jsonb_each_text({}) AS json_each",
}
# How each finds the rows of a window. SQLite would read all to compare; PostgreSQL
# joins all windows at once by that, and few by the range.
_BELONGS: Final[dict[str, str]] = {
    "sqlite": f"r.id BETWEEN w.id * {MOST_SERIES}"
    f" AND w.id * {MOST_SERIES} + {MOST_SERIES - 1}",
}
_BELONGS["postgresql"] = f"{_BELONGS['sqlite']} AND w.id = r.id / {MOST_SERIES}"
# Which windows each set of views has: those that add up to all, or those of one step.
_VIEWS: Final = ("requests", "calls", "errors", "tasks")
_LEVELS: Final = {
    "": "w.finest",
    "_5m": "w.step = 300",
    "_hourly": "w.step = 3600",
    "_daily": "w.step = 86400",
}

# A view that is missing (dropped with a table that somebody changed) is made anew.
ALL_VIEWS: Final = {
    *(f"{name}{suffix}" for name in _VIEWS for suffix in _LEVELS),
    "resources",
}


def make_views(connection: Connection) -> None:
    """
    Make all views, anew where they are there.

    Args:
        connection: In a transaction that may write.
    """
    kind = connection.dialect.name
    time = _TIMES[kind]
    window = (
        f"{time.format('w.started_us')} AS started_at,"
        f" {time.format('w.ended_us')} AS ended_at, w.step"
    )
    of_window = f"JOIN windows AS w ON {_BELONGS[kind]}"
    of_models = (
        f"model_windows AS r {of_window}"
        f" JOIN models AS n ON n.id = r.id % {MOST_SERIES}"
    )
    of_calls = (
        f"call_windows AS r {of_window}"
        f" JOIN series AS s ON s.id = r.id % {MOST_SERIES}"
        " JOIN models AS n ON n.id = s.model_id"
    )
    views = {}
    for suffix, kept in _LEVELS.items():
        views[f"requests{suffix}"] = (
            f"SELECT {window}, n.name AS model, {_for_people(MODEL, 'r')},"
            f" {_for_people(MODEL_DETAILS, 'd')} FROM {of_models}"
            f" LEFT JOIN model_details AS d ON d.id = r.id WHERE {kept}"
        )
        views[f"calls{suffix}"] = (
            f"SELECT {window}, n.name AS model, s.operation, s.provider,"
            f" {_for_people(CALL, 'r')}, {_for_people(CALL_DETAILS, 'd')}"
            f" FROM {of_calls} LEFT JOIN call_details AS d ON d.id = r.id WHERE {kept}"
        )
        views[f"errors{suffix}"] = (
            f"SELECT {window}, n.name AS model, json_each.key AS code,"
            f" CAST(json_each.value AS bigint) AS count FROM {of_models}"
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
