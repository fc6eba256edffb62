# SPDX-License-Identifier: MIT
"""What the server says of its models: `/api/ps`, asked now and then, read only.

    with ometrics.ollama.residency() as residency:
        for model in residency.models:
            print(model.name, model.gpu_share, model.context_length)

A model that comes and goes between two polls is not seen.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from ometrics.loaded import LoadedModel

if TYPE_CHECKING:
    from typing_extensions import Self

    from ometrics.clock import Clock

_LONGEST_WAIT: Final = 60.0
_MAX_ANSWER: Final = 1 << 20
_OK: Final = 200
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


class _Version(msgspec.Struct):
    version: str


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
                    self.version = msgspec.json.decode(answer, type=_Version).version
                answer = self._get("/api/ps")
                rows = msgspec.json.decode(answer, type=_Answer).models or []
            except (OSError, http.client.HTTPException, msgspec.MsgspecError):
                self.failures += 1
                self.version = None  # it may come back as another
                return False
            self._take({row.name: row for row in rows})
            self.polls += 1
        return True

    def _take(self, rows: dict[str, _Row]) -> None:
        """Make a new dictionary: readers have the old one meanwhile, and never wait."""
        models = dict(self._models)
        for name, row in rows.items():
            known = self._models.get(name)
            details = row.details or _Details()
            came = self.polls > 0 and (known is None or not known.loaded)
            models[name] = LoadedModel(
                name=name,
                size=row.size,
                size_vram=row.size_vram,
                context_length=row.context_length,
                quantization=details.quantization_level,
                parameters=details.parameter_size,
                expires_at=row.expires_at,
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
        self._models = models

    def _was_evicted(self, model: LoadedModel) -> bool:
        """Whether it went before its time."""
        if model.expires_at is None:
            return False
        return model.expires_at.timestamp() > self._clock.time() + _SLACK

    def _get(self, path: str) -> bytes:
        kind = (
            http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        )
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            connection.request("GET", path, headers={"user-agent": "ometrics"})
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER + 1)
        finally:
            connection.close()
        if response.status != _OK or len(body) > _MAX_ANSWER:
            raise ConnectionError(f"status {response.status}")
        return body

    def start(self) -> Self:
        """Poll in a daemon thread until `close`. Idempotent."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="ometrics-residency", daemon=True
                )
                self._thread.start()
        return self

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
