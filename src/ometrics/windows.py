# SPDX-License-Identifier: MIT
"""The last minutes of a source, in process: rates, quantiles, error ratios.

A sample is what was counted since the one before, so a window is a sum of samples: no
reset, restart or removed model makes it negative. Samples of a second are kept packed;
each minute also has its sum, so that 15 minutes are at most 15 sums and two minutes of
samples. A window's edge is exact to a sample's length, one second.

Memory, measured (`benchmarks/README.md`): nothing for a model that stands still. Where
all samples together would pass `max_bytes`, the oldest minutes keep only their sum, and
a window's edge within those is exact to a minute.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from ometrics.changes import Changes
from ometrics.durations import parse_length
from ometrics.snapshot import (
    OPERATIONS,
    CallMetrics,
    PerformanceMetrics,
    Snapshot,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from ometrics.clock import Clock
    from ometrics.sources import Source

# The windows that tables, pages and rules show.
STANDARD: Final = ("1m", "5m", "15m")

_STEP: Final = 1.0
_MINUTE: Final = 60.0
_MAX_BYTES: Final = 64 << 20

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Snapshot).decode
_EPOCH: Final = datetime.fromtimestamp(0, timezone.utc)
# What packed samples have in common, the names of fields above all.
_COMMON: Final = _encode(
    Snapshot(
        instance_id="",
        start_time=_EPOCH,
        collection_time=_EPOCH,
        uptime_seconds=_STEP,
        models={
            "": PerformanceMetrics(
                model="",
                calls={name: CallMetrics(operation=name) for name in OPERATIONS},
            )
        },
    )
)


def pack(counts: Snapshot) -> bytes:
    """A snapshot in few bytes."""
    packer = zlib.compressobj(level=1, zdict=_COMMON)
    return packer.compress(_encode(counts)) + packer.flush()


def unpack(data: bytes) -> Snapshot:
    """
    Read what `pack` wrote.

    Raises:
        ValueError: It is damaged.
    """
    return _decode(zlib.decompressobj(zdict=_COMMON).decompress(data))


class _Packed(NamedTuple):
    """What was counted from `start` to `end`; `data` is empty where nothing was."""

    start: float
    end: float
    data: bytes

    def counts(self) -> Snapshot | None:
        """Unpacked."""
        return unpack(self.data) if self.data else None


class _Sum:
    """Changes that follow each other, added up."""

    __slots__ = ("_counts", "end", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.end = start
        self._counts: Snapshot | None = None

    def add(self, end: float, counts: Snapshot | None) -> None:
        """Go on to `end`."""
        self.end = end
        if counts is not None:
            known = self._counts
            self._counts = counts if known is None else known.merge(counts)

    def counts(self) -> Snapshot | None:
        """All of them; `None` if nothing was counted."""
        return self._counts

    def pack(self) -> _Packed:
        """The same in few bytes."""
        counts = self._counts
        data = b"" if counts is None else pack(counts)
        return _Packed(self.start, self.end, data)


class _Minute(NamedTuple):
    """A minute that is over: its sum, and the samples that it consists of."""

    whole: _Packed
    samples: list[_Packed]


class Windows:
    """
    What a source counted within the last minutes.

        with Windows(source).start() as windows:
            windows.window("5m").models["llama3.2"].latency_p99

    Without `start` there is no thread: samples are taken when a window is read or
    `sample` is called, and edges are exact to the time between those.

    Args:
        source: Whose numbers; a collector's own are at `MetricsCollector.window`.
        longest: The longest window that can be asked for, such as `"15m"`.
        clock: Where to read the monotonic time instead of the system, for tests.
        max_bytes: Memory for samples; beyond, the oldest are kept by the minute.

    Raises:
        ValueError: `longest` is no length of at least a second.

    Thread-safety:
        Every method, from any thread. A forked child begins anew.
    """

    def __init__(
        self,
        source: Source,
        *,
        longest: str | float | timedelta = "15m",
        clock: Clock | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._longest = parse_length(longest)
        if self._longest < _STEP:
            raise ValueError(f"longest window {longest!r} must be at least a second")
        self._source = source
        self._clock = clock
        self._max_bytes = max_bytes
        self._begin()

    def _begin(self) -> None:
        """Forget everything; also what a forked child does first."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._changes = Changes(self._source, self._clock)
        self._sampled = False
        self._end = 0.0
        self._minutes: deque[_Minute] = deque()  # those that are over
        self._minute: _Sum | None = None  # the one that is not
        self._samples: list[_Packed] = []  # its samples
        self._sample: _Sum | None = None  # the sample that is not a second long yet
        self._bytes = 0

    # --- reading ---

    def window(self, length: str | float | timedelta) -> Snapshot:
        """
        What was counted within the last `length`.

        `uptime_seconds` is the time that is covered, within a second of what was asked;
        less where the source, or sampling, began later. Running calls are those of now.
        Models without a record in the window are there, with counts of 0.

        Args:
            length: Such as `"5m"`; or seconds, or a `timedelta`.

        Raises:
            TypeError: `length` is of another type.
            ValueError: `length` is no length, or not from a second to `longest`.
        """
        seconds = parse_length(length)
        if not _STEP <= seconds <= self._longest:
            raise ValueError(
                f"window {length!r} must be from 1 s to the longest that is kept,"
                f" {self._longest:g} s"
            )
        self._follow_fork()
        with self._lock:
            now = self._look()
            end = self._end
            parts = self._parts_since(end - seconds)
        total = now.delta(now)
        for part in parts:
            counts = part.counts()
            if counts is not None:
                total = total.merge(counts)
        return _dated(total, now, end - parts[0].start if parts else 0.0)

    def _parts_since(self, edge: float) -> list[_Packed | _Sum]:
        """The fewest parts that make up the time since `edge`, in order."""
        parts: list[_Packed | _Sum] = []
        for whole, samples in self._minutes:
            if whole.start >= edge or not samples:
                parts.append(whole)
            else:
                parts += samples
        if self._minute is not None and self._minute.start >= edge:
            parts.append(self._minute)
        else:
            parts += self._samples
        if self._sample is not None:
            parts.append(self._sample)
        return [part for part in parts if _within(part, edge)]

    # --- sampling ---

    def start(self) -> Self:
        """Take a sample every second in a daemon thread, until `close`. Idempotent."""
        self._follow_fork()
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="ometrics-windows", daemon=True
                )
                self._thread.start()
        return self

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(_STEP):
            try:
                self.sample()
            except ReferenceError:
                return  # the collector is gone
            except Exception:  # noqa: BLE001, S110
                # A source that cannot be read now (a server that is away): the next
                # sample has what came meanwhile, and whoever reads gets the error.
                pass

    def sample(self) -> None:
        """
        Take a sample now.

        Raises:
            Exception: What the source raises.
        """
        self._follow_fork()
        with self._lock:
            self._look()

    def cleared(self, snapshot: Snapshot) -> None:
        """Keep what a reset of the source cleared, so that windows go on with it."""
        if self._sampled and self._pid == os.getpid():
            self._changes.cleared(snapshot)

    def _look(self) -> Snapshot:
        """Take a sample; the source's whole snapshot at its end."""
        start, end, counts, now = self._changes.look()
        self._sampled = True
        self._end = end
        if self._sample is None:
            self._sample = _Sum(start)
        self._sample.add(end, None if _is_empty(counts) else counts)
        if end - self._sample.start >= _STEP:
            self._keep(self._sample)
            self._sample = None
        return now

    def _keep(self, sample: _Sum) -> None:
        if self._minute is None:
            self._minute = _Sum(sample.start)
        self._minute.add(sample.end, sample.counts())
        self._samples.append(sample.pack())
        self._bytes += len(self._samples[-1].data)
        if sample.end - self._minute.start >= _MINUTE:
            self._minutes.append(_Minute(self._minute.pack(), self._samples))
            self._bytes += len(self._minutes[-1].whole.data)
            self._minute, self._samples = None, []
        self._forget(sample.end - self._longest - _MINUTE)

    def _forget(self, time: float) -> None:
        """Drop what ended before `time`, and what there is no memory for."""
        while self._minutes and self._minutes[0].whole.end < time:
            self._drop_oldest()
        for minute in self._minutes:
            if self._bytes <= self._max_bytes:
                return
            self._bytes -= sum(len(sample.data) for sample in minute.samples)
            minute.samples.clear()
        while self._minutes and self._bytes > self._max_bytes:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        whole, samples = self._minutes.popleft()
        self._bytes -= sum(len(part.data) for part in (whole, *samples))

    # --- end ---

    def _follow_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def close(self) -> None:
        """End the thread. Idempotent; windows can still be read."""
        self._stop.set()

    def __enter__(self) -> Self:
        """The windows themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _within(part: _Packed | _Sum, edge: float) -> bool:
    """Whether more of `part` lies after `edge` than before, half a minute at most."""
    return part.start >= edge - min((part.end - part.start) / 2, _MINUTE / 2)


def _is_empty(counts: Snapshot) -> bool:
    nothing = replace(
        counts.delta(counts),
        start_time=counts.start_time,
        uptime_seconds=counts.uptime_seconds,
    )
    return not counts.models and nothing == counts


def _dated(total: Snapshot, now: Snapshot, seconds: float) -> Snapshot:
    """`total` as the window of the `seconds` up to `now`."""
    models = {
        name: replace(model, uptime_seconds=seconds)
        for name, model in total.models.items()
    }
    return replace(
        total,
        instance_id=now.instance_id,
        start_time=now.collection_time - timedelta(seconds=seconds),
        collection_time=now.collection_time,
        uptime_seconds=seconds,
        models=models,
    )
