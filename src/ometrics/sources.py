# SPDX-License-Identifier: MIT
"""Where numbers come from: the one thing that a reader of numbers knows about that.

A `Source` is anything with `snapshot()`: a live collector, several of them, a file that
was exported. Endpoint, exporters, commands, store and rules take any source, so what
works for one process works for all of a machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot


class Source(Protocol):
    """What has numbers to read: a `MetricsCollector`, or anything like it."""

    def snapshot(self) -> Snapshot:
        """Everything, at one instant."""
        ...


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
        first, *others = self._sources
        total = first.snapshot()
        for source in others:
            total = total.merge(source.snapshot())
        return total

    def __repr__(self) -> str:
        return f"<Merged of {len(self._sources)} sources>"


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
