# SPDX-License-Identifier: MIT
"""Adding up the segments of processes that ended, each exactly once.

The file `folded` holds the sum of all that were folded, and the ids of those whose
files may still be there. It is replaced in one rename: before it, a segment counts by
its own file; after it, by the sum, and its file is passed over until it is removed.
Whoever is killed in between leaves a directory that says the same as before or after.

The sum is MessagePack, not the JSON of exports: a tenth of the bytes and an eighth of
the time, and a version with further fields still reads it.

One process folds at a time, under a lock of the directory itself. Readers need none:
they begin again when the sum was replaced meanwhile (see `attached`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ometrics._mirror import BadSegment
from ometrics._segment_reader import SegmentReader
from ometrics.segments import identity, locks, places

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot

# A process that begins folds when it finds more dead ones than that: so that it costs
# little often, and a pool of recycled workers leaves few files where nobody reads.
_MANY: Final = 8
# Seconds after which the unfinished file of a process that died while it made it goes.
_UNFINISHED_FOR: Final = 60.0
# Seconds after which nobody is expected any more to write a segment to its store.
_STORE_WITHIN: Final = 7 * 86_400.0
_MAX_FOLDED: Final = 256 << 20
# Processes of which more than the sum is kept.
_NEWEST: Final = 100


class Ended(NamedTuple):
    """
    One process that was folded.

    Attributes:
        id: The collector's `instance_id`.
        pid: Its number, which may be another's by now.
        program: What ran, without its arguments.
        requests: What it counted.
        errors: How many of them failed.
    """

    id: str
    pid: int
    program: str
    requests: int
    errors: int


@dataclass(frozen=True)
class Folded:
    """
    The sum of the processes that were folded.

    Attributes:
        totals: What they counted; one for each set of latency buckets.
        processes: How many they were.
        newest: The last hundred of them that made requests.
        ids: Of those whose files may still be there, to be passed over.
        version: Changes with every folding; 0 without a file.
    """

    totals: tuple[Snapshot, ...] = ()
    processes: int = 0
    newest: tuple[Ended, ...] = ()
    ids: frozenset[str] = field(default_factory=frozenset)
    version: tuple[int, int] = (0, 0)


def version_of(directory: int) -> tuple[int, int]:
    """What tells one sum from the next: which file it is, and when it was written."""
    try:
        status = os.stat(places.FOLDED, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def read_folded(directory: int) -> Folded:
    """
    The sum as it is now.

    Raises:
        BadSegment: The file is not what was written.
        OSError: It cannot be read.
    """
    import msgspec

    from ometrics.snapshot import Snapshot

    try:
        file, status = open_own(directory, places.FOLDED)
    except FileNotFoundError:
        return Folded()
    with os.fdopen(file, "rb") as stream:
        if status.st_size > _MAX_FOLDED:
            raise BadSegment("damaged", f"{places.FOLDED}: {status.st_size} bytes")
        data = stream.read(_MAX_FOLDED)
    head, _, body = data.partition(b"\n")
    try:
        about: dict[str, Any] = json.loads(head)
        return Folded(
            tuple(msgspec.msgpack.decode(body, type=list[Snapshot])),
            int(about["processes"]),
            tuple(Ended(*one) for one in about.get("newest", ())),
            frozenset(map(str, about["ids"])),
            (status.st_ino, status.st_mtime_ns),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # msgspec's too
        raise BadSegment("damaged", f"{places.FOLDED}: {error}") from None


def fold(directory: int) -> int:
    """
    Add up the segments of processes that ended, and remove their files.

    Args:
        directory: Descriptor of a directory of segments.

    Returns:
        How many were folded. 0 if another process is folding at this moment.

    Raises:
        OSError: The sum cannot be written; then it is as it was.
        BadSegment: The sum that is there cannot be read, so nothing may replace it.
    """
    if not locks.take(directory):
        return 0
    try:
        before = read_folded(directory)
        with contextlib.ExitStack() as opened:
            found = list(_dead(directory, before.ids, opened))
            if found:
                _replace(directory, before, found)
            for name in [f"{key}{places.SUFFIX}" for key in before.ids] + [
                name for name, _, _ in found
            ]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            _sweep(directory)
        return len(found)
    finally:
        locks.release(directory)


def fold_if_many(directory: int) -> None:
    """Fold if several processes have ended; what goes wrong is for readers to say."""
    names = segment_names(directory)
    if len(names) < _MANY:
        return
    dead = 0
    for name in names:
        with contextlib.suppress(OSError):
            file, _ = open_own(directory, name)
            dead += not locks.is_held(file)
            os.close(file)
    if dead >= _MANY:
        with contextlib.suppress(OSError, BadSegment):
            fold(directory)


def segment_names(directory: int) -> list[str]:
    """Names of the files that should be segments."""
    return sorted(n for n in os.listdir(directory) if n.endswith(places.SUFFIX))


def open_own(directory: int, name: str) -> tuple[int, os.stat_result]:
    """
    Open a plain file of this user's for reading.

    Raises:
        OSError: It is gone, or cannot be opened.
        BadSegment: It is a link or no file, or somebody else's.
    """
    # Not blocking: it may be a FIFO, which would wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        file = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadSegment("link", f"{name} is a link") from None
        raise
    status = os.fstat(file)
    try:
        _check_plain(status, name)
    except BadSegment:
        os.close(file)
        raise
    return file, status


def _check_plain(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadSegment("no file", f"{name} is no plain file")
    try:
        places.check_owner(status, name)
    except PermissionError as error:
        raise BadSegment("owner", str(error)) from None


def _dead(
    directory: int, passed: frozenset[str], opened: contextlib.ExitStack
) -> Iterator[tuple[str, Ended, Snapshot]]:
    """The segments of dead processes that can be read, with what they say."""
    for name in segment_names(directory):
        if name.removesuffix(places.SUFFIX) in passed:
            continue
        try:
            file, status = open_own(directory, name)
        except (OSError, BadSegment):
            continue
        opened.callback(os.close, file)
        if locks.is_held(file) or _waits(directory, name):
            continue
        with contextlib.suppress(BadSegment, MemoryError):
            reader = SegmentReader(file, status.st_size, identity.fields_digest())
            snapshot = reader.read(False)
            yield name, _ended(reader.identity(), snapshot), snapshot


def _waits(directory: int, name: str) -> bool:
    """Whether a segment is to stay until its counts are in a store (`unwritten`)."""
    mark = name.removesuffix(places.SUFFIX) + places.STORE
    try:
        status = os.stat(mark, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return time.time() - status.st_mtime < _STORE_WITHIN


def _ended(about: dict[str, Any], snapshot: Snapshot) -> Ended:
    return Ended(
        about["id"],
        about["pid"],
        about["program"],
        snapshot.total_requests,
        snapshot.total_errors,
    )


def totals_of(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """The sums of those that have the same latency buckets, the largest group first."""
    from ometrics.sources import total_of

    groups: dict[tuple[float, ...] | None, list[Snapshot]] = {}
    for snapshot in snapshots:
        groups.setdefault(_buckets(snapshot), []).append(snapshot)
    without = groups.pop(None, [])  # no model, so any group will do
    largest = sorted(groups.values(), key=len, reverse=True) or [[]]
    largest[0].extend(without)
    return [total_of(group) for group in largest if group]


def _buckets(snapshot: Snapshot) -> tuple[float, ...] | None:
    for model in snapshot.models.values():
        return model.latency_hist.bucket_bounds
    return None


def _replace(
    directory: int, before: Folded, found: list[tuple[str, Ended, Snapshot]]
) -> None:
    """Write the sum with what was found, and make it the one that counts."""
    import msgspec

    totals = [
        # All ids, joined, would have no end.
        msgspec.structs.replace(total, instance_id="", models=dict(total.models))
        for total in totals_of([*before.totals, *(one for _, _, one in found)])
    ]
    newest = [*before.newest, *(ended for _, ended, _ in found if ended.requests)]
    about = {
        "processes": before.processes + len(found),
        "newest": newest[-_NEWEST:],
        "ids": [name.removesuffix(places.SUFFIX) for name, _, _ in found],
    }
    data = json.dumps(about).encode() + b"\n" + msgspec.msgpack.encode(totals)
    name = places.FOLDED + places.UNFINISHED
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(name, places.FOLDED, src_dir_fd=directory, dst_dir_fd=directory)


def _sweep(directory: int) -> None:
    """Remove what processes left that died while they made it."""
    for name in os.listdir(directory):
        if not name.endswith(places.SUFFIX + places.UNFINISHED):
            continue
        with contextlib.suppress(OSError, BadSegment):
            file, status = open_own(directory, name)
            with contextlib.closing(os.fdopen(file)):
                old = time.time() - status.st_mtime > _UNFINISHED_FOR
                if old and not locks.is_held(file):
                    os.unlink(name, dir_fd=directory)
