# SPDX-License-Identifier: MIT
"""Reading a directory of segments: all processes of it, living and dead, as one source.

A process that is read notices nothing: no lock of its own is taken, and nothing that it
maps is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from ometrics._mirror import BadSegment
from ometrics._segment import HAS_SEGMENTS
from ometrics._segment_reader import SegmentReader
from ometrics.changes import Changes
from ometrics.segments import folding, identity, locks, places
from ometrics.segments.followed import Followed
from ometrics.segments.instances import Instance, Reading

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot

# How often a reading begins anew at most: after a folding that came in between, or when
# a segment grew or changed too fast.
_TRIES: Final = 100
# Seconds until a segment that changes too fast is read anew: about as long as one
# thread of its process goes on before another has its turn.
_PAUSE: Final = 0.005


def attach(directory: str | os.PathLike[str] | None = None) -> Attached:
    """
    All processes whose collectors have this directory, as one source.

    Args:
        directory: As given to `MetricsCollector(directory=...)`; `None`: as in the
            environment variable `OMETRICS_DIR`.

    Raises:
        ValueError: No directory is given, and none is in the environment.
        OSError: This system cannot have segments.
    """
    if not HAS_SEGMENTS:
        raise OSError(
            "this system cannot have segments: read each process's endpoint instead,"
            " ometrics.merge(ometrics.read(url), ...)"
        )
    directory = directory or os.environ.get("OMETRICS_DIR")
    if not directory:
        raise ValueError("which directory? give one, or set OMETRICS_DIR")
    return Attached(directory)


class Attached:
    """
    A directory of segments as a source; made by `attach()`.

    Nothing is read before it is asked, and then anew each time. A process is read at
    one instant; one that records so fast that it cannot be is read model by model, each
    at one instant. Segments that cannot be read are left out and counted, by reason, in
    `segments_bad` of the snapshot; so are processes with other latency buckets than
    most have, whose histograms have no exact sum.

    Thread-safety:
        Any thread.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.abspath(directory)  # noqa: PTH100 - keeps links
        # One name for all that its processes ever count: what comes later goes on. With
        # the machine's: other machines, or containers, have a directory of that path.
        name = f"{platform.node()}:{self.directory}"
        self._id = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32]
        #: Why files of the directory were left out, by name: `(reason, message)`.
        self.bad: dict[str, tuple[str, str]] = {}

    def snapshot(self) -> Snapshot:
        """
        What all processes counted, the dead ones included.

        Raises:
            FileNotFoundError: There is no such directory.
            PermissionError: Somebody else can write to it.
            OSError: It cannot be read.
        """
        return self.total_of(self.read().snapshots)

    def total_of(self, snapshots: list[Snapshot]) -> Snapshot:
        """The sum of what was read, as this source's."""
        from msgspec.structs import replace

        total, *others = folding.totals_of(snapshots) or [_nothing()]
        if others:
            self.bad["buckets"] = (
                "buckets",
                f"{len(others)} sets of processes have other latency buckets than most",
            )
        return replace(
            total,
            instance_id=self._id,
            collection_time=_utc(time.time_ns()),
            segments_bad=self._bad_by_reason(),
        )

    def instances(self) -> list[Instance]:
        """
        The processes that run, and those that ended and are not folded yet.

        Raises:
            OSError: As `snapshot`.
        """
        return self.read().instances

    def follow(self) -> Followed:
        """The same for one who looks again and again: its counts never go back."""
        return Followed(self.directory, self.read, self.total_of, self.bad)

    def watch(self, interval: float = 1.0) -> Iterator[Snapshot]:
        """
        What was counted since the one before, every `interval` seconds, for ever.

        Raises:
            ValueError: `interval` is not above zero.
            OSError: As `snapshot`.
        """
        if not interval > 0:
            raise ValueError(f"interval {interval!r} must be above 0 seconds")
        return self._watch(interval)

    def _watch(self, interval: float) -> Iterator[Snapshot]:
        changes = Changes(self.follow())
        changes.look()
        while True:
            time.sleep(interval)
            yield changes.look().counts

    def read(self) -> Reading:
        """
        The processes, and the sum of those that are folded, at one time.

        Those that ended are folded afterwards, so whoever looks often sees the last of
        each.

        Raises:
            OSError: As `snapshot`.
        """
        directory = places.open_directory(self.directory)
        try:
            for _ in range(_TRIES):
                folded = self._folded(directory)
                version = folding.version_of(directory)
                instances = list(self._living(directory, folded.ids))
                # Who was folded meanwhile would count twice, or not at all.
                if folding.version_of(directory) == version == folded.version:
                    break
            if folded.ids or not all(instance.alive for instance in instances):
                with contextlib.suppress(OSError, BadSegment):
                    folding.fold(directory)
            return Reading(instances, folded)
        finally:
            os.close(directory)

    def _folded(self, directory: int) -> folding.Folded:
        try:
            return folding.read_folded(directory)
        except BadSegment as error:
            self.bad[places.FOLDED] = (error.reason, str(error))
            return folding.Folded(version=folding.version_of(directory))

    def _living(self, directory: int, passed: frozenset[str]) -> Iterator[Instance]:
        for name in folding.segment_names(directory):
            if name.removesuffix(places.SUFFIX) in passed:
                continue
            try:
                file, status = folding.open_own(directory, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.bad[name] = ("unreadable", error.strerror or str(error))
                continue
            except BadSegment as error:
                self.bad[name] = (error.reason, str(error))
                continue
            try:
                yield _instance(file, status.st_size)
            except BadSegment as error:
                self.bad[name] = (error.reason, f"{name}: {error}")
            except MemoryError as error:
                self.bad[name] = ("too large", f"{name}: {error}")
            finally:
                os.close(file)

    def _bad_by_reason(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for reason, _ in self.bad.values():
            counts[reason] = counts.get(reason, 0) + 1
        return counts

    def __repr__(self) -> str:
        return f"<Attached {self.directory!r}>"


def _read(file: int, size: int, *, alive: bool) -> tuple[SegmentReader, Snapshot]:
    """
    Read a segment; anew where it grew, or changed too fast, meanwhile.

    Raises:
        BadSegment: It cannot be read.
        MemoryError: There is no room for as much as the file's size.
    """
    for left in reversed(range(_TRIES)):
        try:
            reader = SegmentReader(file, size, identity.fields_digest())
            snapshot = reader.read(alive)
            if not left or not reader.has_grown():
                break
        except BadSegment as error:
            if not left or error.reason != "busy":
                raise
            time.sleep(_PAUSE)
        size = os.fstat(file).st_size
    return reader, snapshot


def _instance(file: int, size: int) -> Instance:
    alive = locks.is_held(file)
    reader, snapshot = _read(file, size, alive=alive)
    about = reader.identity()
    process = identity.Process(
        about["pid"], about["pid_namespace"], about["process_start"]
    )
    command = identity.command_line(process) if alive else None
    return Instance(
        id=about["id"],
        pid=about["pid"],
        command=command or about["program"],
        program=about["program"],
        started=snapshot.start_time,
        last_heard=_utc(reader.last_heard_ns()),
        alive=alive,
        snapshot=snapshot,
    )


def _nothing() -> Snapshot:
    from ometrics.snapshot import Snapshot

    now = _utc(time.time_ns())
    return Snapshot(
        instance_id="", start_time=now, collection_time=now, uptime_seconds=0.0
    )


def _utc(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 1000 / 1e6, timezone.utc)
