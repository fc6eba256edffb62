# SPDX-License-Identifier: MIT
"""What the server says of its models, asked now and then, read only.

    with ometrics.ollama.residency() as residency:
        for model in residency.models:
            print(model.name, model.gpu_share, model.context_length)

`/api/ps` says which are in memory; `/api/show`, asked once of each, what it leaves out.
A model that comes and goes between two polls is not seen.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from ometrics.instrumentation.registry import registry
from ometrics.loaded import LoadedModel
from ometrics.text import valid

if TYPE_CHECKING:
    from typing_extensions import Self

    from ometrics.clock import Clock
    from ometrics.snapshot import Snapshot
    from ometrics.sources import Source

_LONGEST_WAIT: Final = 60.0
_MAX_ANSWER: Final = 1 << 20
_OK: Final = 200
_MOST: Final = 2**53
_LONGEST_TEXT: Final = 256
_MOST_MODELS: Final = 1000
# Seconds by which clocks of two machines may differ, and a poll may be late.
_SLACK: Final = 15.0


class _Details(msgspec.Struct):
    quantization_level: str | None = None
    parameter_size: str | None = None


class _Row(msgspec.Struct):
    name: str
    size: int | None = None
    size_vram: int | None = None
    context_length: int | None = None
    details: _Details | None = None
    expires_at: datetime | None = None


class _Answer(msgspec.Struct):
    models: list[_Row] | None = None


class _ShowAnswer(msgspec.Struct):
    details: _Details | None = None
    model_info: dict[str, Any] | None = None

    @property
    def longest_context(self) -> int | None:
        """The number under a key such as `llama.context_length`."""
        for key, value in (self.model_info or {}).items():
            if key.endswith(".context_length") and type(value) is int and value > 0:
                return value
        return None


class _VersionAnswer(msgspec.Struct):
    version: str


class _RefusedError(ConnectionError):
    """The server answered, and not what it was asked for."""


class Residency:
    """
    Asks a server for its models again and again; made by `residency()`.

    Args:
        url: The server; `OLLAMA_HOST` or this machine if `None`.
        interval: Seconds between polls; more while the server is away.
        timeout: Seconds for one answer.
        clock: Where to read the wall clock instead of the system, for tests.

    Attributes:
        version: The server's; `None` until it answered.
        polls: Answers that were understood.
        failures: Polls without one.

    Raises:
        ValueError: `url` is none, or the interval is not above zero.

    Thread-safety:
        Every method, from any thread.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        interval: float = 5.0,
        timeout: float = 2.0,
        clock: Clock | None = None,
    ) -> None:
        from ometrics.instrumentation.providers import ollama_host

        if not 0 < interval < float("inf"):
            raise ValueError(f"interval {interval!r} must be above 0 s")
        value = os.environ.get("OLLAMA_HOST", "") if url is None else url
        host, port = ollama_host(value)
        if not host:
            raise ValueError(f"{value!r} is no server's address")
        self._secure = value.strip().lower().startswith("https://")
        self._host, self._port = host, port
        self._interval, self._timeout = float(interval), float(timeout)
        self._clock: Clock = clock or time
        self._lock = threading.Lock()
        self._models: dict[str, LoadedModel] = {}
        self._shown: dict[str, _ShowAnswer] = {}
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.version: str | None = None
        self.polls = 0
        self.failures = 0

    @property
    def models(self) -> list[LoadedModel]:
        """All models seen so far; `loaded` says which are in memory."""
        return list(self._models.values())

    def poll(self) -> bool:
        """
        Ask once, now.

        Returns:
            Whether the server answered.
        """
        with self._lock:
            try:
                if self.version is None:
                    answer = self._get("/api/version")
                    self.version = msgspec.json.decode(
                        answer, type=_VersionAnswer
                    ).version
                answer = self._get("/api/ps")
                rows = msgspec.json.decode(answer, type=_Answer).models or []
                self._shown = {
                    row.name: self._shown.get(row.name) or self._show(row.name)
                    for row in rows[:_MOST_MODELS]
                }
            except (OSError, http.client.HTTPException, msgspec.MsgspecError):
                self.failures += 1
                self.version = None  # it may come back as another
                return False
            self._take({valid(row.name)[:_LONGEST_TEXT]: row for row in rows})
            self.polls += 1
        return True

    def _take(self, rows: dict[str, _Row]) -> None:
        """Make a new dictionary: readers have the old one meanwhile, and never wait."""
        models = dict(self._models)
        for name, row in rows.items():
            known = self._models.get(name)
            shown = self._shown.get(row.name, _ShowAnswer())
            details, more = row.details or _Details(), shown.details or _Details()
            came = self.polls > 0 and (known is None or not known.loaded)
            models[name] = LoadedModel(
                name=name,
                size=_count(row.size),
                size_vram=_count(row.size_vram),
                context_length=_count(row.context_length),
                longest_context=_count(shown.longest_context),
                quantization=_text(
                    details.quantization_level or more.quantization_level
                ),
                parameters=_text(details.parameter_size or more.parameter_size),
                expires_at=_time(row.expires_at),
                loads=(0 if known is None else known.loads) + came,
                evictions=0 if known is None else known.evictions,
            )
        for name, known in self._models.items():
            if known.loaded and name not in rows:
                models[name] = replace(
                    known,
                    loaded=False,
                    evictions=known.evictions + self._was_evicted(known),
                )
        while len(models) > _MOST_MODELS:
            gone = (name for name, model in models.items() if not model.loaded)
            del models[next(gone, next(iter(models)))]
        self._models = models

    def _was_evicted(self, model: LoadedModel) -> bool:
        """Whether it went before its time."""
        if model.expires_at is None:
            return False
        return model.expires_at.timestamp() > self._clock.time() + _SLACK

    def _show(self, name: str) -> _ShowAnswer:
        """What `/api/show` says; nothing if the server has no such page."""
        try:
            answer = self._get("/api/show", {"model": name})
            return msgspec.json.decode(answer, type=_ShowAnswer)
        except (_RefusedError, msgspec.MsgspecError):
            return _ShowAnswer()

    def _get(self, path: str, question: object = None) -> bytes:
        kind = (
            http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        )
        connection = kind(self._host, self._port, timeout=self._timeout)
        registry.leave_out(connection)  # no call of the program's
        try:
            method, body = "GET", None
            if question is not None:
                method, body = "POST", msgspec.json.encode(question)
            headers = {"user-agent": "ometrics", "content-type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER + 1)
        finally:
            connection.close()
        if response.status != _OK or len(answer) > _MAX_ANSWER:
            raise _RefusedError(f"status {response.status}")
        return answer

    def start(self) -> Self:
        """Poll in a daemon thread until `close`. Idempotent."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="ometrics-residency", daemon=True
                )
                self._thread.start()
        return self

    def revive(self) -> None:
        """Start again in a forked child, which has no threads; nothing elsewhere."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._lock = threading.Lock()  # the parent may have held it
        self._thread = None
        if not self._stop.is_set():
            self._stop = threading.Event()
            self.start()

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot with what the server said last."""
        return replace(snapshot, loaded_models=self._models)

    def beside(self, source: Source) -> Source:
        """A source of the same numbers with what the server said last."""
        return _Beside(source, self)

    def _run(self) -> None:
        wait = self._interval
        while True:
            wait = self._interval if self.poll() else min(2 * wait, _LONGEST_WAIT)
            if self._stop.wait(wait):
                return

    def close(self) -> None:
        """Poll no more. Idempotent; what was seen can still be read."""
        self._stop.set()

    def __enter__(self) -> Self:
        """The poller itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


class _Beside:
    """A source, and what a server says beside it."""

    def __init__(self, source: Source, residency: Residency) -> None:
        self._source, self._residency = source, residency

    def snapshot(self) -> Snapshot:
        """Of both."""
        return self._residency.added_to(self._source.snapshot())


# What a server says goes into exports as it is, so it must be what it seems to be.


def _count(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= _MOST else None


def _text(value: str | None) -> str | None:
    return None if value is None else valid(value)[:_LONGEST_TEXT]


def _time(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is None:
        return None
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        return None


def residency(url: str | None = None, *, interval: float = 5.0) -> Residency:
    """
    Ask a server for its models, every few seconds, in the background.

    Args:
        url: The server; `OLLAMA_HOST` or this machine if `None`.
        interval: Seconds between polls; up to a minute while the server is away.

    Raises:
        ValueError: `url` is none, or the interval is not above zero.
    """
    return Residency(url, interval=interval).start()
