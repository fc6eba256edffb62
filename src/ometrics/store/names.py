# SPDX-License-Identifier: MIT
"""The ids that a store has for models, and for the series of their calls."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Dialect, Table

from ometrics.store.columns import clean_text
from ometrics.store.schema import models, series

# How many of them can be named in one statement of either database.
_MOST_PARAMETERS: Final = 500

# The id of the model, the operation, the provider.
Series: TypeAlias = tuple[int, str, str]


def marks(dialect: Dialect, n: int) -> str:
    """Places of parameters, as the database's driver has them."""
    return ", ".join(["?" if dialect.paramstyle == "qmark" else "%s"] * n)


def model_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """
    The ids of models; new ones get theirs.

    Looked up each time: another process may have deleted a model.
    """
    wanted = sorted(set(map(clean_text, names)))  # so that two writers do not deadlock
    ids = known_models(connection, wanted)
    new = [name for name in wanted if name not in ids]
    if new:
        _insert_missing(connection, models, [{"name": name} for name in new])
        ids |= known_models(connection, new)
    return ids


def _insert_missing(
    connection: Connection, table: Table, rows: list[dict[str, Any]]
) -> None:
    """Insert rows but those that another writer has inserted."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as upsert
    else:
        from sqlalchemy.dialects.sqlite import insert as upsert  # type: ignore[assignment]
    connection.execute(upsert(table).on_conflict_do_nothing(), rows)


def series_ids(connection: Connection, wanted: Collection[Series]) -> dict[Series, int]:
    """The ids of series, as those of models."""
    of_models = sorted({model_id for model_id, _, _ in wanted})
    ids = {key: id_ for id_, key in known_series(connection, of_models).items()}
    new = sorted(set(wanted) - set(ids))
    if new:
        names = ("model_id", "operation", "provider")
        rows = [dict(zip(names, key, strict=True)) for key in new]
        _insert_missing(connection, series, rows)
        known = known_series(connection, of_models)
        ids = {key: id_ for id_, key in known.items()}
    return ids


def known_series(connection: Connection, of_models: Sequence[int]) -> dict[int, Series]:
    """The series of some models, by their ids."""
    known: dict[int, Series] = {}
    for i in range(0, len(of_models), _MOST_PARAMETERS):
        some = tuple(of_models[i : i + _MOST_PARAMETERS])
        there = marks(connection.dialect, len(some))
        query = (
            "SELECT id, model_id, operation, provider FROM series"  # noqa: S608
            f" WHERE model_id IN ({there})"
        )
        found = connection.exec_driver_sql(query, some)
        known.update((id_, (model, op, at)) for id_, model, op, at in found)
    return known


def known_models(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """The ids of those models that there are."""
    ids: dict[str, int] = {}
    for i in range(0, len(names), _MOST_PARAMETERS):
        some = tuple(names[i : i + _MOST_PARAMETERS])
        there = marks(connection.dialect, len(some))
        query = f"SELECT name, id FROM models WHERE name IN ({there})"  # noqa: S608
        ids.update((name, id_) for name, id_ in connection.exec_driver_sql(query, some))
    return ids
