# SPDX-License-Identifier: MIT
"""`Store`: what was counted when, and everything ever, merged."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from ometrics.durations import parse_length
from ometrics.snapshot import Snapshot
from ometrics.store import rows, thinning, versions
from ometrics.store.database import BUSY_TIMEOUT, Database
from ometrics.store.rows import MIDDLE, Reader, Window, microseconds, time_of
from ometrics.store.schema import instances
from ometrics.store.thinning import EVERYTHING, LEVELS, Retention, level_rows
from ometrics.store.when import parse_time
from ometrics.windows import pack, unpack

if TYPE_CHECKING:
    from typing_extensions import Self

_US: Final = 1_000_000


class Store:
    """
    A history of metrics in SQLite or PostgreSQL; made by `ometrics.store.open`.

    A store is a `Source`: `snapshot()` is everything ever. Times are UTC.

    Args:
        where: A path, or an SQLAlchemy URL of `sqlite` or `postgresql`.
        create: Whether a missing SQLite file is made, and older tables are brought up
            to date; without it nothing is changed.
        retention: How long each level is kept.

    Attributes:
        damaged: Rows that could not be read and were left out -> how often.

    Raises:
        ImportError: SQLAlchemy or psycopg is not installed.
        StoreError: It cannot be used; the message says why and what to do.

    Thread-safety:
        Every method, from any thread. A forked child uses connections of its own.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        create: bool = True,
        retention: Retention | None = None,
    ) -> None:
        self.database = Database(where, create=create)
        self.retention = retention or Retention()
        self.damaged: Counter[str] = Counter()
        try:
            self.store_id = self._prepared(create)
        except BaseException:
            self.database.close()
            raise

    def _prepared(self, create: bool) -> str:
        """The name of the store, whose tables are known and up to date then."""
        place = self.database.place
        with self.database.reading() as connection:
            if not create:
                return versions.check_readable(connection, place)
            known = versions.is_complete(connection, place)
        if known is None:
            with self.database.writing() as connection:
                known = versions.prepare(connection, place)
        return known

    # --- writing

    def write(
        self,
        instance: str,
        sequence: int,
        window: Window,
        *,
        counted: Snapshot | None = None,
        timeout: float = BUSY_TIMEOUT,
    ) -> bool:
        """
        Write what an instance counted; once, however often it is tried.

        Args:
            instance: Who counted it.
            sequence: Its number among the windows of this instance, from 1.
            window: What it counted since its last window.
            counted: All that it had counted by then, for whoever writes on in its
                place.
            timeout: Seconds to wait for another process's transaction.

        Returns:
            Whether it was written now; `False` if it had been before.

        Raises:
            StoreError: It was not written, or that is unknown: try the same again.
        """
        with self.database.writing(timeout) as connection:
            instance_id = _claim(connection, instance, sequence, window, counted)
            if instance_id is None:
                return False
            rows.write(connection, window, step=0, instance_id=instance_id)
        return True

    def last_of(self, instance: str) -> tuple[int, Snapshot | None]:
        """
        The number of the last window of an instance, and all counted until then.

        Returns:
            0 of an instance that wrote nothing; `None` where it is not known.

        Raises:
            StoreError: The database cannot be read.
        """
        with self.database.reading() as connection:
            query = select(instances.c.last_sequence, instances.c.counted)
            row = connection.execute(query.where(instances.c.instance == instance))
            sequence, counted = row.first() or (0, None)
        try:
            return sequence, None if counted is None else unpack(counted)
        except ValueError:  # damaged
            return sequence, None

    # --- reading

    def between(
        self,
        start: str | datetime,
        end: str | datetime = "now",
        *,
        step: str | float | timedelta | None = None,
        model: str | Sequence[str] | None = None,
    ) -> Iterator[Snapshot]:
        """
        What was counted from one time to another, in steps.

        A window belongs to the step that its middle is in. Steps in which no process
        was counting are left out: a gap is not a zero. Where data is older than it is
        kept at such a step, its windows are as long as what is kept.

        Args:
            start: Such as `"2026-11-24T09:00"`, `"24h"` (ago), or a `datetime`.
            end: Likewise.
            step: Such as `"5m"`, aligned to the epoch; `None` for windows as they were
                written.
            model: Only this model, or these.

        Yields:
            Snapshots in order of time, each of one step.

        Raises:
            StoreError: The database cannot be read.
            ValueError: A time or the step cannot be read, or `end` is before `start`.
        """
        begin, until = microseconds(parse_time(start)), microseconds(parse_time(end))
        if until < begin:
            raise ValueError(f"end {end!r} is before start {start!r}")
        step_us = 0 if step is None else round(parse_length(step) * _US)
        if step_us:  # whole steps only
            begin = begin // step_us * step_us
            until = -(-until // step_us) * step_us
        names = [model] if isinstance(model, str) else model
        level = max(s for s in LEVELS if not s or step_us % (s * _US) == 0 < step_us)
        inside = and_(begin * 2 <= MIDDLE, until * 2 > MIDDLE)
        return self._steps([level_rows(level), inside], step_us, names)

    def _steps(
        self,
        where: Sequence[ColumnElement[bool]],
        step_us: int,
        names: Sequence[str] | None,
    ) -> Iterator[Snapshot]:
        found = [window for _, window in self._read(where, names)]
        if not step_us:
            yield from (window.counts for window in found)
            return
        for _, group in groupby(found, key=lambda w: w.middle_us // step_us):
            yield rows.add(list(group)).counts

    def starts(
        self, start: str | datetime, end: str | datetime = "now"
    ) -> list[datetime]:
        """
        When processes began to count, within a time, in order.

        Raises:
            StoreError: The database cannot be read.
            ValueError: A time cannot be read.
        """
        begin, until = microseconds(parse_time(start)), microseconds(parse_time(end))
        query = (
            select(instances.c.started_us)
            .where(instances.c.started_us.between(begin, until))
            .order_by(instances.c.started_us)
        )
        with self.database.reading() as connection:
            return [time_of(us) for us in connection.scalars(query)]

    def snapshot(self) -> Snapshot:
        """
        Everything ever, merged.

        Raises:
            StoreError: The database cannot be read.
            ValueError: Windows with different latency buckets cannot be merged.
        """
        return self._sum([EVERYTHING])

    def at(self, time: str | datetime) -> Snapshot:
        """
        Everything that had been counted at a time, as `snapshot()` would have said.

        Exact to the finest windows that are still kept of that time.

        Raises:
            StoreError: The database cannot be read.
            ValueError: `time` cannot be read, or as for `snapshot`.
        """
        until = microseconds(parse_time(time))
        day_us = LEVELS[-1] * _US
        midnight = until // day_us * day_us
        earlier = and_(level_rows(LEVELS[-1]), midnight * 2 > MIDDLE)
        that_day = and_(level_rows(0), midnight * 2 <= MIDDLE, until * 2 > MIDDLE)
        return self._sum([or_(earlier, that_day)])

    def _sum(self, where: Sequence[ColumnElement[bool]]) -> Snapshot:
        parts = [window for _, window in self._read(where, None)]
        if not parts:
            now = parse_time("now")
            return Snapshot(
                instance_id=self.store_id,
                start_time=now,
                collection_time=now,
                uptime_seconds=0.0,
            )
        return rows.add(parts).counts

    def _read(
        self, where: Sequence[ColumnElement[bool]], names: Sequence[str] | None
    ) -> list[tuple[int, Window]]:
        with self.database.reading() as connection:
            reader = Reader(connection, self.store_id)
            found = reader.read(where, names)
        self.damaged.update(reader.damaged)
        return found

    # --- care

    def thin(self, now: float | None = None) -> int:
        """
        Merge windows whose stretch is over, and delete those kept for long enough.

        A writer does so from time to time.

        Args:
            now: Seconds since 1970, for tests.

        Returns:
            How many windows were merged or deleted.

        Raises:
            StoreError: The database cannot be written.
        """
        return thinning.thin(self, now)

    def forget(
        self,
        *,
        model: str | None = None,
        before: str | datetime | None = None,
    ) -> int:
        """
        Delete for good: a model, what is older than a time, or both together.

        Args:
            model: All rows of this model; `None` for all models.
            before: Only windows that ended before this time.

        Returns:
            How many rows were deleted.

        Raises:
            StoreError: The database cannot be written.
            ValueError: Neither is given, or the time cannot be read.
        """
        if model is None and before is None:
            raise ValueError("forget() needs a model or a time: it deletes for good")
        until = None if before is None else microseconds(parse_time(before))
        with self.database.writing() as connection:
            return thinning.forget(connection, model, until)

    def close(self) -> None:
        """Close connections. Idempotent; what is used later opens new ones."""
        self.database.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.database.place}>"


def _claim(
    connection: Connection,
    instance: str,
    sequence: int,
    window: Window,
    counted: Snapshot | None,
) -> int | None:
    """The id of the instance, its sequence moved on; `None` if it was before."""
    packed = None
    if counted is not None:
        packed = pack(replace(counted, models=dict(counted.models)))
    row = connection.execute(
        select(instances.c.id, instances.c.last_sequence)
        .where(instances.c.instance == instance)
        .with_for_update()
    ).first()
    if row is None:
        inserted = connection.execute(
            insert(instances),
            {
                "instance": instance,
                "started_us": window.started_us,
                "ended_us": window.ended_us,
                "last_sequence": sequence,
                "host": socket.gethostname(),
                "process_id": os.getpid(),
                "counted": packed,
            },
        )
        return int(inserted.inserted_primary_key[0])  # type: ignore[index]
    if row.last_sequence >= sequence:
        return None
    connection.execute(
        update(instances)
        .where(instances.c.id == row.id)
        .values(last_sequence=sequence, ended_us=window.ended_us, counted=packed)
    )
    return int(row.id)
