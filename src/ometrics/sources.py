# SPDX-License-Identifier: MIT
"""Where numbers come from: the one thing that a reader of numbers knows about that.

A `Source` is anything with `snapshot()`: a live collector, several of them, a file that
was exported, a directory of processes. Endpoint, exporters, commands, store and rules
take any source, so what works for one process works for all of a machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ometrics import documents

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot


class Source(Protocol):
    """What has numbers to read: a `MetricsCollector`, or anything like it."""

    def snapshot(self) -> Snapshot:
        """Everything, at one instant."""
        ...


class SourceOfParts(Source, Protocol):
    """
    A source of several things that can also be read apart.

    `snapshot()` is the sum. Pages of Prometheus have a label for each part instead, and
    OTLP a resource.
    """

    def parts(self) -> Mapping[str, Snapshot]:
        """The numbers of each part, by its name."""
        ...


def parts_of(source: Source) -> Snapshot | Mapping[str, Snapshot]:
    """What exporters show of a source: its parts by name, else its one snapshot."""
    parts = getattr(source, "parts", None)
    return source.snapshot() if parts is None else parts()


class Merged:
    """
    Several sources as one; made by `merge()`.

    Thread-safety:
        As its sources.
    """

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self._sources = sources

    def snapshot(self) -> Snapshot:
        """
        The sum of the sources, each at an instant of its own.

        Raises:
            ValueError: Two sources have different latency buckets.
        """
        return total_of([source.snapshot() for source in self._sources])

    def __repr__(self) -> str:
        return f"<Merged of {len(self._sources)} sources>"


def total_of(snapshots: Sequence[Snapshot]) -> Snapshot:
    """
    The sum of at least one snapshot.

    Raises:
        ValueError: Two have different latency buckets.
    """
    first, *others = snapshots
    return first.merge(*others)


def merge(*sources: Source) -> Merged:
    """
    Several sources as one source.

    Args:
        sources: At least one; each is asked anew whenever the result is.

    Raises:
        ValueError: There is no source.
    """
    if not sources:
        raise ValueError("merge() needs at least one source")
    return Merged(sources)


def read(
    where: str | os.PathLike[str], *, token: str | None = None, timeout: float = 10.0
) -> Source:
    """
    What was exported, or what another process serves, as a source.

    Nothing is read before `snapshot()` is called, and then anew each time.

    Args:
        where: A file that `export_json_to_file()` or `ometrics run --json` wrote; a
            directory of processes, as `ometrics.attach()` takes it; or the `http://` or
            `https://` URL of an endpoint; of its pages `/metrics.json` is read, which
            may be left out: `read("http://127.0.0.1:9464")`.
        token: The endpoint's bearer token; `None` if it needs none.
        timeout: Seconds until an endpoint must have answered in full.

    Raises:
        ValueError: Not such a URL. `snapshot()` raises it of a document that is not an
            export, or larger than 256 MiB.
        OSError: By `snapshot()`: it cannot be read; of an endpoint, this includes
            every answer but success, and redirects to another host. At once of a
            directory on a system that cannot have segments.
    """
    if isinstance(where, str) and "://" in where:
        from ometrics._remote import Remote

        return Remote(where, token=token, timeout=timeout)
    if token is not None:
        raise ValueError(f"a token is for an endpoint's URL; {str(where)!r} is a file")
    if Path(where).is_dir():
        from ometrics.segments import attach

        return attach(where)
    return File(where)


class File:
    """
    An exported file as a source; made by `read()`.

    Thread-safety:
        Any thread.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def snapshot(self) -> Snapshot:
        """
        What the file holds now.

        Raises:
            ValueError: It is not an export; the message names the file and the field.
            OSError: It cannot be read.
        """
        with self.path.open("rb") as file:
            return documents.parse(documents.in_pieces(file.read1), str(self.path))

    def __repr__(self) -> str:
        return f"<File {str(self.path)!r}>"
