# SPDX-License-Identifier: MIT
"""Older windows are merged into longer ones, and the short ones deleted after a while.

    as written (10 s)   kept for a day
    5 minutes           kept for a month
    1 hour              kept for two years
    1 day               kept for as long as the store

A stretch that is over is merged into the next level soon, and stays on its own for as
long as its level is kept: a day at 5-minute steps is 288 windows, not 8,640. Merging
adds counts and cells, so counts stay exact and quantiles within 1.1 % at every age, and
the sum of everything never goes back. A window that is committed late makes one more
window of its stretch; readers add the two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    or_,
    select,
    text,
    update,
)

from ometrics.durations import parse_length
from ometrics.store import rows
from ometrics.store.columns import clean_text
from ometrics.store.rows import MIDDLE, Reader, Window, bounds_of
from ometrics.store.schema import (
    PARTS,
    call_windows,
    instances,
    model_details,
    model_windows,
    models,
    series,
    series_of,
    window_of,
    windows,
    within,
)

if TYPE_CHECKING:
    from ometrics.store.store import Store

_US: Final = 1_000_000

# Seconds of each level, finest first; each is a multiple of the one before.
LEVELS: Final = (0, 300, 3_600, 86_400)

# A stretch is merged when it has been over for this long: most windows that belong to
# it have been committed by then.
_GRACE_US: Final = 30 * _US
# Of stretches in one transaction, so that other writers get their turn.
_MOST_STRETCHES: Final = 12
_MOST_IDS: Final = 500
# Any number, as long as all of us take the same.
_ADVISORY_LOCK: Final = 0x0_0E71C5


@dataclass(frozen=True)
class Retention:
    """
    How long the windows of each level are kept; those of a day are kept for ever.

    Attributes:
        written: Windows as they were written.
        minutes: Windows of 5 minutes.
        hours: Windows of an hour.

    Raises:
        ValueError: A length cannot be read.
    """

    written: str | float | timedelta = "1d"
    minutes: str | float | timedelta = "31d"
    hours: str | float | timedelta = "730d"

    def __post_init__(self) -> None:
        self.seconds  # noqa: B018 - reads all three

    @property
    def seconds(self) -> dict[int, float]:
        """Level -> how long it is kept."""
        kept = (self.written, self.minutes, self.hours)
        return dict(zip(LEVELS, map(parse_length, kept), strict=False))


def level_rows(level: int) -> ColumnElement[bool]:
    """
    The windows that hold everything once, as near to a level as they are kept.

    That is a window of the level; or a shorter one that is in none of it yet; or a
    longer one, where the shorter ones are deleted.
    """
    return or_(
        windows.c.step == level,
        and_(windows.c.step < level, windows.c.merged_into.is_(None)),
        and_(windows.c.step > level, windows.c.finest),
    )


EVERYTHING: Final = windows.c.merged_into.is_(None)


def thin(store: Store, now: float | None = None) -> int:
    """
    Merge what is over and delete what has been kept for long enough.

    Args:
        store: Whose windows.
        now: Seconds since 1970, for tests.

    Returns:
        How many windows were merged or deleted.

    Raises:
        StoreError: The database cannot be written.
    """
    now_us = round((time.time() if now is None else now) * _US)
    changed = 0
    for level, into in pairwise(LEVELS):
        while merged := _merge_some(store, level, into, now_us):
            changed += merged
    for level, kept in store.retention.seconds.items():
        while deleted := _delete_some(store, level, now_us - round(kept * _US)):
            changed += deleted
    _forget_instances(store, now_us - round(store.retention.seconds[LEVELS[-2]] * _US))
    return changed


def _merge_some(store: Store, level: int, into: int, now_us: int) -> int:
    """Merge the oldest stretches that are over; how many windows there were."""
    into_us = into * _US
    over = (now_us - _GRACE_US) // into_us * into_us
    waiting = [
        windows.c.step == level,
        windows.c.merged_into.is_(None),
        over * 2 > MIDDLE,
    ]
    with store.database.reading() as connection:
        if (
            connection.execute(select(windows.c.id).where(*waiting).limit(1)).first()
            is None
        ):
            return 0
    with store.database.writing() as connection:
        if not _alone(connection):
            return 0
        first = connection.execute(
            select(MIDDLE).where(*waiting).order_by(MIDDLE).limit(1)
        ).scalar()
        if first is None:
            return 0
        end = (first // 2 // into_us + _MOST_STRETCHES) * into_us
        reader = Reader(connection, store.store_id)
        found = reader.read([*waiting, end * 2 > MIDDLE])
        for _, group in groupby(found, key=lambda row: row[1].middle_us // into_us):
            _merge(connection, list(group), into)
    store.damaged.update(reader.damaged)
    return len(found)


def _merge(
    connection: Connection,
    group: list[tuple[int, Window]],
    into: int,
) -> None:
    """One stretch: one window for each set of latency buckets, which do not add."""
    by_bounds: dict[tuple[float, ...], list[tuple[int, Window]]] = {}
    for id_, window in group:
        by_bounds.setdefault(bounds_of(window.counts), []).append((id_, window))
    for parts in by_bounds.values():
        whole = rows.add([window for _, window in parts])
        new = rows.write(connection, whole, step=into)
        for ids in _chunks([id_ for id_, _ in parts]):
            connection.execute(
                update(windows).where(windows.c.id.in_(ids)).values(merged_into=new)
            )


def _delete_some(store: Store, level: int, before_us: int) -> int:
    """
    Delete the parts of some windows that ended before; how many parts there were.

    Only parts that have no parts themselves: whatever the retention, what is `finest`
    adds up to everything.
    """
    coarser = LEVELS[LEVELS.index(level) + 1]
    part = windows.alias()
    has_parts_itself = exists().where(
        part.c.merged_into == windows.c.id, part.c.finest.is_(False)
    )
    wholes = (
        select(windows.c.id)
        .where(
            windows.c.step == coarser,
            windows.c.finest.is_(False),
            before_us * 2 > MIDDLE,
            ~has_parts_itself,
        )
        .order_by(MIDDLE)
        .limit(_MOST_IDS)
    )
    with store.database.reading() as connection:
        if connection.execute(wholes.limit(1)).first() is None:
            return 0
    with store.database.writing() as connection:
        if not _alone(connection):
            return 0
        ids = list(connection.scalars(wholes))
        parts = list(
            connection.scalars(
                select(windows.c.id).where(windows.c.merged_into.in_(ids))
            )
        )
        delete_windows(connection, parts)
        connection.execute(
            update(windows).where(windows.c.id.in_(ids)).values(finest=True)
        )
    return len(parts) or len(ids)


def delete_windows(connection: Connection, ids: list[int]) -> None:
    """Delete windows and all that belongs to them."""
    ranges = [{"first": within(id_, 0), "last": within(id_ + 1, 0) - 1} for id_ in ids]
    if ranges:
        for table in PARTS:
            its = table.c.id.between(bindparam("first"), bindparam("last"))
            connection.execute(delete(table).where(its), ranges)
    for some in _chunks(ids):
        connection.execute(delete(windows).where(windows.c.id.in_(some)))


def forget(connection: Connection, model: str | None, until_us: int | None) -> int:
    """Delete a model's rows, or windows that ended before a time; how many rows."""
    old = [] if until_us is None else [windows.c.ended_us < until_us]
    if model is None:
        ids = list(connection.scalars(select(windows.c.id).where(*old)))
        delete_windows(connection, ids)
        return len(ids)
    model_id = connection.scalar(
        select(models.c.id).where(models.c.name == clean_text(model))
    )
    its_series = select(series.c.id).where(series.c.model_id == model_id)
    deleted = 0
    for table in PARTS:
        of_models = table in (model_windows, model_details)
        ids_ = [model_id] if of_models else its_series
        query = delete(table).where(series_of(table).in_(ids_))
        if old:
            query = query.where(window_of(table).in_(select(windows.c.id).where(*old)))
        rows_ = connection.execute(query).rowcount
        if table in (model_windows, call_windows):
            deleted += rows_
    if not old:
        connection.execute(delete(series).where(series.c.model_id == model_id))
        connection.execute(delete(models).where(models.c.id == model_id))
    return deleted


def _forget_instances(store: Store, before_us: int) -> None:
    """Forget processes that ended before the oldest hour that is kept."""
    old = instances.c.ended_us < before_us
    with store.database.reading() as connection:
        if (
            connection.execute(select(instances.c.id).where(old).limit(1)).first()
            is None
        ):
            return
    with store.database.writing() as connection:
        connection.execute(delete(instances).where(old))


def _alone(connection: Connection) -> bool:
    """Whether no other process merges now; SQLite lets only one write anyway."""
    if connection.dialect.name != "postgresql":
        return True
    query = text(f"SELECT pg_try_advisory_xact_lock({_ADVISORY_LOCK})")
    return bool(connection.scalar(query))


def _chunks(ids: list[int]) -> Iterable[list[int]]:
    return (ids[i : i + _MOST_IDS] for i in range(0, len(ids), _MOST_IDS))
