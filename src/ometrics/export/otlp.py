# SPDX-License-Identifier: MIT
"""Push to an OpenTelemetry collector: OTLP over HTTP, protobuf, cumulative.

    exporter = PeriodicExporter(collector)      # OTEL_EXPORTER_OTLP_ENDPOINT, ...
    ...
    exporter.close()                            # one last export; exit does it as well

Everything counted since the start is in every export, so one that was lost loses
nothing: there is no queue, and what is kept between exports is the collector itself.

Thread-safety: one daemon thread of the exporter takes snapshots, encodes and sends; no
recorder ever waits for it, and nothing it runs into is raised into the program:
`health()` tells. A forked child never touches what its parent's thread was doing: it
gets a thread, a connection and a health of its own, and its numbers leave under the
`service.instance.id` that the fork gave its collector. A child made by a `fork()` in C
(uWSGI without its Python hooks) is noticed when its exporter is next used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from ometrics.export import _otlp_env
from ometrics.export._otlp_encode import HistogramKind, requests
from ometrics.export._otlp_http import Client, OtlpAnswer
from ometrics.snapshot import Snapshot
from ometrics.sources import Source, parts_of

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

__all__ = ["Health", "PeriodicExporter", "requests"]

# The OTLP specification asks for exponential backoff with jitter and names no figures;
# these are of OpenTelemetry's SDK for Python.
FIRST_BACKOFF_SECONDS: Final = 1.0
JITTER: Final = 0.2
# A server may ask for longer; a slip of its clock must not silence us for ever.
MAX_RETRY_AFTER_SECONDS: Final = 3_600.0
# What the end of a program may cost while its collector does not answer.
CLOSE_SECONDS: Final = 5.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """
    How exporting goes, in this process.

    Attributes:
        running: Whether the exporter's thread is alive.
        exports: Exports that went well.
        last_success: When the last of them ended (UTC); `None` before the first.
        consecutive_failures: Exports that failed since then.
        failures: Requests given up, by reason: `connection`, `timeout`, `tls`,
            `status_NNN`, `content` (an answer that is no collector's), `internal`.
        retries: Attempts that were repeated.
        partial_successes: Answers that told of rejected points or warned.
        rejected_points: Data points that the collector said it did not take.
    """

    running: bool = False
    exports: int = 0
    last_success: datetime | None = None
    consecutive_failures: int = 0
    failures: dict[str, int] = {}
    retries: int = 0
    partial_successes: int = 0
    rejected_points: int = 0


@final
class PeriodicExporter:
    """
    Exports a collector every `interval` seconds until `close()` or the end.

    What a collector refuses for good (400, 413, ...) is sent anew at the next interval;
    429, 502, 503, 504, lost connections and silence are tried again within `timeout`,
    after 1, 2, 4, ... s with jitter and not before `Retry-After`; where that is longer
    than what is left, the next export waits for it.

    A normal end of the process exports once more (`atexit`), within 5 s. A signal's
    default action, `os._exit` and children of multiprocessing run no exit handlers:
    what was recorded after the last export is lost there, unless the program calls
    `close()`.

    Args:
        collector: What to export.
        endpoint: URL; without a path it gets `/v1/metrics`. By default
            `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, then `OTEL_EXPORTER_OTLP_ENDPOINT`,
            then a collector on this machine.
        interval: Seconds between exports; `OTEL_METRIC_EXPORT_INTERVAL` (ms) or 60.
        timeout: Seconds for one export, its retries included;
            `OTEL_EXPORTER_OTLP_TIMEOUT` (seconds, as in OpenTelemetry's SDK) or 10.
        headers: Beside those of `OTEL_EXPORTER_OTLP_HEADERS`.
        compression: `none`, `gzip`, `deflate`; `OTEL_EXPORTER_OTLP_COMPRESSION`.
        resource: Attributes over those of `OTEL_RESOURCE_ATTRIBUTES` and
            `OTEL_SERVICE_NAME`.
        histograms: `exponential`, or `explicit` for backends that cannot read those.

    Raises:
        ImportError: The extra `otlp` is not installed.
        ValueError: An argument is out of range or not an HTTP URL.

    Thread-safety:
        Every method, from any thread.
    """

    def __init__(
        self,
        collector: Source,
        *,
        endpoint: str | None = None,
        interval: float | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        compression: str | None = None,
        resource: Mapping[str, str] | None = None,
        histograms: HistogramKind = "exponential",
    ) -> None:
        if histograms not in ("exponential", "explicit"):
            raise ValueError(f"histograms {histograms!r}: exponential or explicit")
        self._plan = _Plan(
            collector=collector,
            target=_otlp_env.target(endpoint, headers, timeout, compression),
            interval=_otlp_env.interval(interval),
            resource=_otlp_env.resource(resource),
            histograms=histograms,
        )
        self._closed = False
        self._worker = _Worker(self._plan)
        self._worker.start()
        _exporters.add(self)
        # Exit handlers run last in, first out. The thread's connections have
        # finalizers, and `weakref` must not run all of those while it makes one: so the
        # handler of `weakref`, which comes with the first finalizer, is there before.
        weakref.finalize(self, bool).detach()
        # Also what keeps an exporter that nobody holds until the end.
        atexit.register(self.close)

    def flush(self, timeout: float = 10.0) -> bool:
        """
        Export now, and wait for it.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether everything reached the collector.
        """
        return self._here().flush(timeout)

    def health(self) -> Health:
        """How exporting goes, in this process."""
        return self._here().health()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """
        Export once more and stop. Idempotent; never raises.

        Args:
            timeout: Seconds to wait at most, also where the collector does not answer.
        """
        worker = self._here()
        self._closed = True
        _exporters.discard(self)
        atexit.unregister(self.close)
        if worker.pid == os.getpid():  # not what a closed one left to a forked child
            worker.close(timeout)

    def __enter__(self) -> PeriodicExporter:
        """The exporter itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Where to, without credentials."""
        return f"<PeriodicExporter to {self._plan.target!r}>"

    def _here(self) -> _Worker:
        """The worker of this process."""
        if self._worker.pid != os.getpid() and not self._closed:
            self._after_fork()
        return self._worker

    def _after_fork(self) -> None:
        # The parent's worker is dropped as it is: a thread that does not exist here may
        # have held its locks.
        self._worker = _Worker(self._plan)
        with contextlib.suppress(RuntimeError):  # no more threads: health() tells
            self._worker.start()


_exporters: Final[weakref.WeakSet[PeriodicExporter]] = weakref.WeakSet()


def _restart_after_fork() -> None:
    for exporter in list(_exporters):
        exporter._after_fork()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_after_fork)


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an exporter was asked to do; the same in every process."""

    collector: Any
    target: _otlp_env.OtlpTarget
    interval: float
    resource: dict[str, str]
    histograms: HistogramKind


class _Worker:
    """The exporter in one process: its thread, its connection, its health."""

    def __init__(self, plan: _Plan) -> None:
        self.pid = os.getpid()
        self._plan = plan
        self._client: Client | None = None
        self._health = Health()  # written by the thread only, as a whole
        # Protects the three that follow; held for assignments only.
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._close_by: float | None = None
        self._not_before = 0.0
        self._thread = threading.Thread(
            target=self._run, name="ometrics-otlp", daemon=True
        )

    # --- for the program ---

    def start(self) -> None:
        self._thread.start()

    def health(self) -> Health:
        return msgspec.structs.replace(self._health, running=self._thread.is_alive())

    def flush(self, timeout: float) -> bool:
        if not self._thread.is_alive():
            return False
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._done >= mine, timeout)
        return done and not self._health.consecutive_failures

    def close(self, timeout: float) -> None:
        with self._changed:
            if self._close_by is None:
                self._close_by = time.monotonic() + timeout
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    # --- the thread ---

    def _run(self) -> None:
        due = time.monotonic() + self._plan.interval
        closing = False
        while not closing:
            closing = self._wait_until(due)
            with self._changed:
                asked, close_by = self._asked, self._close_by
            deadline = time.monotonic() + self._plan.target.timeout
            if close_by is not None:
                closing, deadline = True, min(deadline, close_by)
            self._export(deadline, final=closing)
            with self._changed:
                self._done = asked
                self._changed.notify_all()
            late = time.monotonic() - due
            if late >= 0:
                # Missed ones are not made up for: every export has everything.
                due += self._plan.interval * (late // self._plan.interval + 1)
        if self._client is not None:
            self._client.close()

    def _wait_until(self, due: float) -> bool:
        """Wait for the next export; whether it is the last."""
        with self._changed:
            while self._close_by is None:
                asked = self._asked > self._done
                wait = max(0.0 if asked else due, self._not_before) - time.monotonic()
                if wait <= 0:
                    return False
                self._changed.wait(wait)
        return True

    def _export(self, deadline: float, *, final: bool) -> None:
        """One snapshot, sent in as many requests as it takes, one at a time."""
        failed = False
        try:
            client = self._client = self._client or Client(self._plan.target)
            for request in self._requests():
                body = client.compressed(request.SerializeToString())
                answer = self._send(client, body, deadline, final=final)
                self._count(answer)
                failed |= answer.failure is not None
                if answer.failure is not None and answer.retry:
                    break  # The rest would fail as well, and the next export has it.
        except Exception:  # noqa: BLE001 - law 7: the program never hears of it
            failed = True
            self._count(OtlpAnswer("internal"))
        health = self._health
        self._health = (
            msgspec.structs.replace(
                health, consecutive_failures=health.consecutive_failures + 1
            )
            if failed
            else msgspec.structs.replace(
                health,
                exports=health.exports + 1,
                last_success=datetime.now(timezone.utc),
                consecutive_failures=0,
            )
        )

    def _requests(self) -> Iterator[ExportMetricsServiceRequest]:
        """Everything; parts of a source are resources of their own."""
        shown = parts_of(self._plan.collector)
        snapshots = [shown] if isinstance(shown, Snapshot) else shown.values()
        for snapshot in snapshots:
            yield from requests(
                snapshot, self._plan.resource, histograms=self._plan.histograms
            )

    def _send(
        self, client: Client, body: bytes, deadline: float, *, final: bool
    ) -> OtlpAnswer:
        """One request, tried until it goes well, cannot, or must not any more."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            answer = client.post(body, deadline)
            if answer.failure is None or not answer.retry:
                return answer
            if final and answer.failure == "connection":
                return answer  # No program waits at its end for what is not there.
            pause = backoff * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            backoff *= 2
            if answer.retry_after is not None:
                asked = min(answer.retry_after, MAX_RETRY_AFTER_SECONDS)
                self._not_before = time.monotonic() + asked
                pause = max(pause, asked)
            if time.monotonic() + pause >= deadline or self._interrupted(pause, final):
                return answer
            health = self._health
            self._health = msgspec.structs.replace(health, retries=health.retries + 1)

    def _interrupted(self, seconds: float, final: bool) -> bool:
        """Wait; whether the last export is wanted instead of a repetition of this."""
        if final:
            time.sleep(seconds)
            return False
        with self._changed:
            return self._changed.wait_for(lambda: self._close_by is not None, seconds)

    def _count(self, answer: OtlpAnswer) -> None:
        health = self._health
        failures = health.failures
        if answer.failure is not None:
            count = failures.get(answer.failure, 0) + 1
            failures = {**failures, answer.failure: count}
        self._health = msgspec.structs.replace(
            health,
            failures=failures,
            partial_successes=health.partial_successes + answer.partial,
            rejected_points=health.rejected_points + answer.rejected,
        )
