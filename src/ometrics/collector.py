# SPDX-License-Identifier: MIT
"""`MetricsCollector`: the thin public face of the core.

Recording is inherited unchanged from the compiled `Core`; here are the ways to read.
"""

from __future__ import annotations

import os

from ometrics import _channels, _reading
from ometrics._calls import Call
from ometrics._core import Core
from ometrics._histogram import layout_of
from ometrics._table import forks_of
from ometrics.bounds import DEFAULT_BUCKETS
from ometrics.errors import UnknownModelError

# `import ometrics` loads neither the read types nor msgspec or typing: the first
# collector does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, Final

    from typing_extensions import Self

    from ometrics.clock import Clock
    from ometrics.events import EventChannel
    from ometrics.export.files import AnyPath
    from ometrics.gpu_sampling import GpuSampler
    from ometrics.ollama import Residency
    from ometrics.resources import ResourceSampler
    from ometrics.rules import Alert, Objective, Rule, Stalls
    from ometrics.rules.receivers import Receiver
    from ometrics.rules.watch import Watch
    from ometrics.serve import Endpoint
    from ometrics.snapshot import (
        PerformanceMetrics,
        ResourceMetrics,
        Snapshot,
        TaskStatistics,
    )
    from ometrics.store import Writer
    from ometrics.windows import Windows


_MOST_MODELS: Final = 100_000_000


class MetricsCollector(Core):
    """
    Metrics of agents that talk to Ollama models.

        with MetricsCollector() as mc:
            mc.record_latency("llama2", 0.150)
            print(mc.get_summary())

    Args:
        buckets: Ascending upper bounds in seconds for the labelled histogram; the last
            one only names the rest.
        max_models: Models kept apart; further names count under `__overflow__`.
        channel_capacity: Unread events that `metrics_channel` keeps.
        clock: Where to read the time instead of the system, for tests.
        directory: Where to keep the records in a file that other processes can read,
            `ometrics.attach(directory)` among them; they survive this process, however
            it ends. `None`: as in the environment variable `OMETRICS_DIR`, else in
            private memory. A directory that cannot be used is said in the log, counted
            in `segment_failures` and tried again; recording goes on.
        store: A path or database URL in which to keep history (extra `store`): written
            every 10 s, by `close` and at exit. One that cannot be written is said in
            the log and tried again; recording goes on.

    Raises:
        ImportError: `store` is given and SQLAlchemy is not installed.
        OSError: `directory` is given and this system cannot have segments.
        ValueError: A bound, `max_models` or `channel_capacity` is out of range.

    Thread-safety:
        Every method, from any thread; recording also from signal handlers and
        finalizers. A forked child starts at zero with an `instance_id` of its own.
    """

    __slots__ = (
        "_channel_capacity",
        "_clock",
        "_closed",
        "_endpoints",
        "_gpus",
        "_identities",
        "_made",
        "_residency",
        "_sampler",
        "_watches",
        "_writer",
        "buckets",
    )

    buckets: tuple[float, ...]
    _closed: bool
    _endpoints: list[Endpoint]
    _identities: dict[int, str]
    _channel_capacity: int
    _clock: Clock | None
    _made: dict[str, Any]
    _gpus: GpuSampler | None
    _residency: Residency | None
    _sampler: ResourceSampler | None
    _watches: list[Watch]
    _writer: Writer | None

    def __new__(
        cls,
        *,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_models: int = 1000,
        channel_capacity: int = 100,
        clock: Clock | None = None,
        directory: str | os.PathLike[str] | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Make the core; see the class."""
        bounds = tuple(float(bound) for bound in buckets)
        if not 1 <= max_models <= _MOST_MODELS:
            raise ValueError(
                f"max_models {max_models} must be from 1 to {_MOST_MODELS:,}"
            )
        if channel_capacity < 1:
            raise ValueError(f"channel_capacity {channel_capacity} must be at least 1")
        _reading.load_read_types()
        self = super().__new__(
            cls, layout_of(bounds), max_models, channel_capacity, clock
        )
        self.buckets = bounds
        self._closed = False
        self._endpoints = []
        self._identities = {}
        self._gpus = None
        self._residency = None
        self._sampler = None
        self._watches = []
        self._channel_capacity = channel_capacity
        self._clock = clock
        self._made = {}
        self._writer = None
        directory = directory or os.environ.get("OMETRICS_DIR")
        if directory:
            self._place_in(directory)
        if store is not None:
            self._write_to(store, directory)
        return self

    def __init__(self, **_: Any) -> None:
        """All is done by `__new__`."""

    def _write_to(
        self, store: str | os.PathLike[str], directory: str | os.PathLike[str] | None
    ) -> None:
        """Keep history; with a directory, also of what others were killed over."""
        from ometrics.store import Writer

        unwritten = None
        if directory:
            from ometrics.segments.unwritten import UnwrittenSegments

            where = os.path.abspath(directory)  # noqa: PTH100 - keeps links
            unwritten = UnwrittenSegments(where, lambda: self.instance_id)
        writer = Writer(store, self, clock=self._clock, unwritten=unwritten)
        self._writer = writer.start()

    def _place_in(self, directory: str | os.PathLike[str]) -> None:
        """Have the records in a segment of this directory."""
        from ometrics._segment import HAS_SEGMENTS

        if not HAS_SEGMENTS:
            raise OSError(
                "this system cannot have segments: leave `directory` and OMETRICS_DIR"
                " out, and read each process's endpoint instead (mc.serve())"
            )
        from ometrics.segments.home import Home

        self._live_in(
            Home(
                directory,
                self,
                layout_of(self.buckets),
                own_clock=self._clock is not None,
            )
        )

    # --- calls from start to end ---

    def start_call(
        self, model: str, operation: str = "chat", provider: str = "ollama"
    ) -> Call:
        """
        A call that begins now, for those who instrument a client of their own.

        Args:
            model: Name of the model.
            operation: `chat`, `text_completion` or `embeddings`.
            provider: OpenTelemetry `gen_ai.provider.name` of the server.

        Returns:
            `Call`: report each `chunk()` to it, and its one `end()`.

        Raises:
            TypeError: `model` is not a `str`.
            ValueError: The operation is unknown.
        """
        return Call(self, model, operation, provider)

    def record_response(
        self, response: object, *, latency: float | timedelta | None = None
    ) -> None:
        """
        Count a call that you made over HTTP yourself.

        Args:
            response: What a finished call answered: the dictionary of the JSON body (of
                a stream: of its last line), or the client's response object. Ollama's
                and OpenAI's forms are known.
            latency: From call to last byte, if you timed it. Without it the server's
                own total duration counts as the latency, and the network's share is
                unknown.

        Raises:
            TypeError: `response` is neither form of a finished call.
        """
        from ometrics import responses

        responses.record(self, response, latency)

    # --- reading ---

    @property
    def instance_id(self) -> str:
        """Random name of this collector; a forked child has one of its own."""
        # setdefault: two threads that look first in a child must see one name
        return self._identities.setdefault(forks_of(self), os.urandom(16).hex())

    def snapshot(self) -> Snapshot:
        """
        Everything, at one instant.

        Recorders are never held up for longer than it takes to copy one model.

        Raises:
            MemoryError: There is no room for the copy.
        """
        return self._snapshot(reset=False)

    def reset_metrics(self) -> Snapshot:
        """
        Clear everything and restart the clock.

        Returns:
            What was cleared. Every record is in it or counted afterwards, none twice.

        Raises:
            MemoryError: There is no room for the copy; nothing was cleared.
        """
        cleared = self._snapshot(reset=True)
        if "windows" in self._made:
            self._windows.cleared(cleared)
        if self._writer is not None:
            self._writer.cleared(cleared)
        return cleared

    def window(self, length: str | float | timedelta) -> Snapshot:
        """
        What was counted within the last minutes: rates, quantiles, error ratios of now.

        The first call starts a thread that samples every second until `close()`; so at
        first a window may cover less than was asked, as its `uptime_seconds` says.
        Resets and the wall clock do not matter to it.

        Args:
            length: From a second to 15 minutes: `"5m"`, seconds or a `timedelta`.

        Raises:
            TypeError: `length` is of another type.
            ValueError: `length` is no length, or out of range.
        """
        if not self._closed:
            self._windows.start()
        return self._windows.window(length)

    @property
    def _windows(self) -> Windows:
        """The windows, made when somebody first asks for one."""
        import weakref

        from ometrics.windows import Windows

        # setdefault: of two threads that ask first, both see one
        windows: Windows = self._made.setdefault(
            "windows", Windows(weakref.proxy(self), clock=self._clock)
        )
        return windows

    def poll_ollama(self, url: str | None = None, *, interval: float = 5.0) -> None:
        """
        Ask a server for its models until `close()`: `Snapshot.loaded_models`.

        It only reads, in a thread of its own. A second call asks another server.

        Args:
            url: The server; `OLLAMA_HOST` or this machine if `None`.
            interval: Seconds between polls; up to a minute while the server is away.

        Raises:
            RuntimeError: The collector is closed.
            ValueError: `url` is none, or the interval is not above zero.
        """
        from ometrics.ollama.polling import residency

        if self._closed:
            raise RuntimeError("the collector is closed: nothing polls for it any more")
        polling = residency(url, interval=interval)
        if self._residency is not None:
            self._residency.close()
        self._residency = polling

    def sample_gpus(self, interval: float = 5.0) -> None:
        """
        Look at this machine's GPUs until `close()`: `Snapshot.gpus`.

        Without a GPU, or its vendor's library (extras `nvidia`, `amd`), none is seen.

        Args:
            interval: Seconds between two looks. A second call changes it.

        Raises:
            RuntimeError: The collector is closed.
            ValueError: `interval` is not above zero.
        """
        from ometrics.gpu_sampling import GpuSampler

        if self._closed:
            raise RuntimeError("the collector is closed: nothing looks for it any more")
        sampler = GpuSampler(interval=interval)
        if self._gpus is not None:
            self._gpus.close()
        self._gpus = sampler.start()

    def _snapshot(self, *, reset: bool) -> Snapshot:
        if self._sampler is not None:
            self._sampler.revive()
        if self._writer is not None:
            self._writer.revive()
        self._place()
        snapshot: Snapshot = _reading.snapshot(
            self, self.buckets, self.instance_id, reset
        )
        for watcher in (self._residency, self._gpus):
            if watcher is not None:
                watcher.revive()
                snapshot = watcher.added_to(snapshot)
        return snapshot

    def get_model_metrics(self, model: str) -> PerformanceMetrics | None:
        """One model's metrics; `None` if nothing was recorded for it."""
        return _reading.model_metrics(self, model, self.buckets)

    def get_all_model_metrics(self) -> dict[str, PerformanceMetrics]:
        """Every model's metrics, at one instant, by name."""
        return dict(self.snapshot().models)

    def get_task_statistics(self) -> TaskStatistics:
        """How tasks went."""
        return _reading.task_statistics(self)

    def get_resource_metrics(self) -> ResourceMetrics | None:
        """What the process used when last reported; `None` before the first time."""
        return _reading.resource_metrics(self)

    def get_summary(self) -> str:
        """Everything, as text for people."""
        from ometrics.view import summary

        return summary.summary(self.snapshot())

    def get_model_summary(self, model: str) -> str:
        """
        One model, as text for people.

        Raises:
            UnknownModelError: Nothing was recorded for `model`.
        """
        from ometrics.view import summary

        return summary.model_summary(self._known(model))

    def get_histogram_summary(self, model: str) -> str:
        """
        One model's latency histogram, as text for people.

        Raises:
            UnknownModelError: Nothing was recorded for `model`.
        """
        from ometrics.view import summary

        return summary.histogram_summary(self._known(model))

    def _known(self, model: str) -> PerformanceMetrics:
        metrics = self.get_model_metrics(model)
        if metrics is None:
            raise UnknownModelError(model)
        return metrics

    def export_json(self) -> bytes:
        """Everything as JSON (UTF-8), in the original's format with our additions."""
        return self.snapshot().to_json()

    def export_json_to_file(self, path: AnyPath) -> None:
        """
        Write the JSON; a reader sees the old file or the new one, also after a crash.

        Raises:
            OSError: It cannot be written; the old file stays, the error names the path.
        """
        from ometrics.export import json

        json.write(self.snapshot(), path)

    # --- live ---

    @property
    def metrics_channel(self) -> EventChannel:
        """
        The channel that every collector has from the start.

        It keeps the newest `channel_capacity` events. What it could not keep counts as
        lost only once somebody has read from it.
        """
        channel: EventChannel | None = self._made.get("channel")
        if channel is None:
            from ometrics.events import EventChannel

            channel = self._made.setdefault(
                "channel",
                EventChannel(self, capacity=self._channel_capacity, idle=True),
            )
        return channel

    def get_metrics_channel(self) -> EventChannel:
        """The channel that every collector has from the start."""
        return self.metrics_channel

    def subscribe(
        self,
        *,
        capacity: int = 100,
        types: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
    ) -> EventChannel:
        """
        A channel of its own for one more reader: every reader sees every event.

        Args:
            capacity: Unread events that are kept; beyond, the oldest are lost.
            types: Only these event types; `None` for all, a lone string for one.
            models: Only these models; `None` for all, a lone string for one.

        Raises:
            TypeError: A model's name is not a `str`.
            ValueError: `capacity` is below 1 or above 2^24, or a type is unknown.
        """
        from ometrics.events import EventChannel

        return EventChannel(self, capacity=capacity, types=types, models=models)

    def sample_resources(self, interval: float = 5.0) -> None:
        """
        Sample this process in the background until `close()` (extra `resources`).

        Args:
            interval: Seconds between samples. A second call changes it.

        Raises:
            ImportError: psutil is not installed.
            RuntimeError: The collector is closed.
            ValueError: `interval` is not above zero.
        """
        from ometrics.resources import ResourceSampler

        if self._closed:
            raise RuntimeError(
                "the collector is closed: nothing samples for it any more"
            )
        sampler = ResourceSampler(self, interval)
        if self._sampler is not None:
            self._sampler.close()
        self._sampler = sampler

    def serve(
        self,
        port: int = 9464,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        tls_client_ca: str | os.PathLike[str] | None = None,
        allowed_hosts: Collection[str] = (),
        allow_public: bool = False,
        max_bytes: int = 64 * 2**20,
    ) -> Endpoint:
        """
        Serve `/metrics`, `/metrics.json`, `/healthz` until `close()` (extra `serve`).

        Args:
            port: Where to listen; 0 for any free port.
            host: Address to listen on.
            token: Bearer token that readers must send; `/healthz` needs none.
            token_file: File that holds it, of mode 0600.
            tls_cert: PEM file with the certificate; makes it HTTPS (TLS 1.2 or later).
            tls_key: PEM file with its key; `None`: it is in `tls_cert`.
            tls_client_ca: PEM file with the authorities whose clients may connect.
            allowed_hosts: Host names that readers may use besides `localhost` and the
                address listened on.
            allow_public: Listen beyond this machine without asking for anything.
            max_bytes: Largest page before compression; a larger one is a 503.

        Returns:
            `Endpoint`, with its `url`.

        Raises:
            ImportError: uvicorn is not installed; the message names the extra.
            OSError: The port cannot be had, or a file cannot be read.
            ValueError: Strangers could read, or the arguments contradict each other.
        """
        from ometrics.serve import Endpoint

        endpoint = Endpoint.start(
            self,
            port=port,
            host=host,
            token=token,
            token_file=token_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            allowed_hosts=allowed_hosts,
            allow_public=allow_public,
            max_bytes=max_bytes,
        )
        self._endpoints.append(endpoint)
        return endpoint

    def watch(
        self,
        rules: Iterable[Rule | Objective],
        *,
        notify: Iterable[Receiver | Callable[[Alert], object]] = (),
        interval: float = 1.0,
        stalls: Stalls | None = None,
        findings: bool = False,
        state: str | os.PathLike[str] | None = None,
    ) -> Watch:
        """
        Evaluate rules until `close()`; alerts come as events of type `alert` as well.

        Args:
            rules: Rules and objectives; `ometrics.rules.load.load` reads a file.
            notify: Who is told: receivers of `ometrics.rules.receivers`, or functions
                that are called with each `Alert`, on a thread of ours.
            interval: Seconds between evaluations; at most 0.75 with `stalls`.
            stalls: Limits for calls in flight: `ometrics.rules.Stalls()`; `None` looks
                for no stalls.
            findings: Whether what `ometrics.diagnose` finds in the last 15 minutes is
                told of as well.
            state: File in which incidents outlive a restart.

        Raises:
            OSError: `state` cannot be read.
            RuntimeError: The collector is closed.
            ValueError: Two rules have one name, or `state` is another kind of file.
        """
        from ometrics.rules.watch import Watch

        if self._closed:
            raise RuntimeError("the collector is closed: nothing watches it any more")
        watch = Watch(
            *(self, rules),
            notify=notify,
            interval=interval,
            stalls=stalls,
            findings=findings,
            state=state,
        )
        self._watches.append(watch)
        return watch.start()

    def alert_when(
        self,
        metric: str,
        call: Callable[[Alert], object] | None = None,
        /,
        **rule: Any,
    ) -> Watch:
        """
        Watch one number: `mc.alert_when("error_rate", above=5.0)`.

        Args:
            metric: Such as `latency.p95`; `ometrics rules metrics` lists all.
            call: A function for each `Alert`; without it, `logging` is told.
            rule: `above` or `below`, and what else a `Rule` takes.

        Raises:
            RuleError: The rule makes no sense.
            RuntimeError: The collector is closed.
        """
        from ometrics.rules import Rule
        from ometrics.rules.receivers import Log

        name = rule.pop("name", metric)
        told: Receiver | Callable[[Alert], object] = Log() if call is None else call
        return self.watch([Rule(name, metric, **rule)], notify=[told])

    # --- end ---

    def close(self) -> None:
        """
        End the channels, the sampler, what `watch` and `serve` began. Idempotent.

        What was counted since the last write goes to the store, if there is one.

        What the channels hold can still be read. Recording goes on counting, without
        events.
        """
        self._closed = True
        for watch in self._watches:
            watch.close()
        _channels.stop(self)
        if "windows" in self._made:
            self._windows.close()
        if self._writer is not None:
            self._writer.close()
        if self._sampler is not None:
            self._sampler.close()
        if self._residency is not None:
            self._residency.close()
        if self._gpus is not None:
            self._gpus.close()
        for endpoint in self._endpoints:
            endpoint.close()

    def __enter__(self) -> Self:
        """The collector itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Identity only: reading the counts is `snapshot()`'s."""
        state = "closed" if self._closed else "open"
        return f"<MetricsCollector {self.instance_id[:8]}, {state}>"

    def _repr_html_(self) -> str:
        """Show its state in a notebook."""
        return self.snapshot()._repr_html_()
