# SPDX-License-Identifier: MIT
"""What every instrumented client needs: who watches, one call's watch, the patch.

An `Instrumentation` knows the collectors and puts its wrappers in place. A `Watch` is
one call seen for one collector. Whatever a watch does, the caller never notices: its
methods catch every failure of their own, count it and log it once.

Thread-safety: `Instrumentation` has a lock for changes; calls read one tuple. A watch
belongs to its call.
"""

from __future__ import annotations

import functools
import logging
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

from ometrics._calls import CANCELLED, FAILURE, SUCCESS, Call
from ometrics.collector import MetricsCollector
from ometrics.errors import classify
from ometrics.responses import NOT_INFERENCE, NOTHING, Told

logger = logging.getLogger("ometrics")

_Method = TypeVar("_Method", bound=Callable[..., None])

# Bounds of what a caller could make grow: places of failure that were logged, and
# layers around one method.
_MAX_REPORTED: Final = 100
_MAX_LAYERS: Final = 100

_default_lock = threading.Lock()
_default: MetricsCollector | None = None


def default_collector() -> MetricsCollector:
    """The collector of everything that is instrumented without naming one."""
    global _default  # noqa: PLW0603 - one a process is the idea
    with _default_lock:
        if _default is None:
            _default = MetricsCollector()
        return _default


_reported: set[str] = set()


def report(collectors: Iterable[MetricsCollector], error: Exception) -> None:
    """Count a failure of ours, and log its class and place the first time."""
    try:
        for collector in collectors:
            collector.count_internal_error()
        name = f"{type(error).__name__} in {_place(error)}"
        if name not in _reported and len(_reported) < _MAX_REPORTED:
            _reported.add(name)
            logger.warning("instrumentation failed, the call did not: %s", name)
    except Exception:  # noqa: BLE001, S110 - nothing is left to tell it to
        pass


def _place(error: Exception) -> str:
    """The function that raised, never the message: that may hold anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name if trace is not None else "?"


def guarded(method: _Method) -> _Method:
    """Keep every failure of a watch's method from the caller."""

    @functools.wraps(method)
    def call(self: Watch, *args: Any) -> None:
        try:
            method(self, *args)
        except Exception as error:  # noqa: BLE001 - the caller's call comes first
            report((self.collector,), error)

    return cast("_Method", call)


class Sheltered:
    """A `with` that keeps every failure of ours inside it from the caller."""

    __slots__ = ("_watches",)

    def __init__(self, watches: Iterable[Watch]) -> None:
        self._watches = watches

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> bool:
        """Swallow what is an `Exception`, counted and logged."""
        if isinstance(error, Exception):
            report([watch.collector for watch in self._watches], error)
            return True
        return False


class Watch:
    """
    One call, seen for one collector.

    Args:
        collector: Who counts it.
        model: Name of the model as requested.
        operation: `chat`, `text_completion` or `embeddings`.
    """

    __slots__ = ("call", "collector", "model", "operation")

    def __init__(self, collector: MetricsCollector, model: str, operation: str) -> None:
        self.collector = collector
        self.model = model
        self.operation = operation
        self.call: Call | None = None

    @guarded
    def start(self) -> None:
        """The request goes out now."""
        self.call = self.collector.start_call(self.model, self.operation)

    @guarded
    def chunk(self, answer: bool) -> None:
        """Output has arrived: of the answer, or thinking."""
        if self.call is not None:
            self.call.chunk(answer)

    @guarded
    def succeeded(self, told: Told = NOTHING) -> None:
        """The answer is complete, or was none: a model was loaded or unloaded."""
        if self.call is None:
            return
        if told.done_reason in NOT_INFERENCE:
            self.call.discard()
        else:
            self.call.end(SUCCESS, None, *told)

    @guarded
    def failed(self, code: str, told: Told = NOTHING) -> None:
        """The call failed, under this code."""
        if self.call is not None:
            self.call.end(FAILURE, code, *told)

    @guarded
    def raised(self, error: BaseException, told: Told = NOTHING) -> None:
        """
        The call ended by an exception.

        What is no `Exception` is the caller's going away: `GeneratorExit` (a break,
        close or garbage collection), `CancelledError`, `KeyboardInterrupt`.
        """
        if self.call is None or self.call.ended:
            return
        if isinstance(error, Exception):
            self.call.end(FAILURE, classify(error), *told)
        else:
            self.call.end(CANCELLED, None, *told)

    @guarded
    def cancelled(self, told: Told = NOTHING) -> None:
        """The caller went away."""
        if self.call is not None:
            self.call.end(CANCELLED, None, *told)


class Underway:
    """The `with` around a request: it begins, and what it raises ends it."""

    __slots__ = ("_watches",)

    def __init__(self, watches: Iterable[Watch]) -> None:
        self._watches = watches

    def __enter__(self) -> None:
        """Begin."""
        for watch in self._watches:
            watch.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """End it if it raised."""
        if error is not None:
            for watch in self._watches:
                watch.raised(error)


class Seam:
    """
    One method of a foreign class that is wrapped while anybody watches.

    Args:
        owner: The class.
        name: Its method.
        wrap: Gets the method found there, and a function that says whether the wrapper
            still counts; returns what takes its place.
    """

    def __init__(
        self, owner: type, name: str, wrap: Callable[[Any, Callable[[], bool]], Any]
    ) -> None:
        self.owner = owner
        self.name = name
        self.wrap = wrap
        self.wrapper: Any = None

    def put(self) -> None:
        """Wrap the method, unless our wrapper is still part of it."""
        if self.wrapper is not None and self._depth() is not None:
            return

        # A wrapper that somebody hides in a function of his own may still be called.
        def counts() -> bool:
            return self.wrapper is wrapper

        wrapper = self.wrap(vars(self.owner)[self.name], counts)
        self.wrapper = wrapper
        setattr(self.owner, self.name, wrapper)

    def remove(self) -> None:
        """
        Put back the very object that was found.

        Others may have wrapped our wrapper since. An outer layer that can be re-pointed
        (wrapt's, so OpenTelemetry's) is; under any other ours stays, and does nothing.
        """
        depth = self._depth()
        if depth is None:
            self.wrapper = None
            return
        found, layers = self.wrapper.__wrapped__, self._layers()
        if depth == 0:
            setattr(self.owner, self.name, found)
        elif type(layers[depth - 1]) is not types.FunctionType:  # wrapt's pretends
            layers[depth - 1].__wrapped__ = found
        if self._depth() is None:
            self.wrapper = None

    def _depth(self) -> int | None:
        """How many layers are around our wrapper; `None` if it is not there."""
        # By identity, because a layer of wrapt's is equal to what it wraps.
        found = [layer is self.wrapper for layer in self._layers()]
        return found.index(True) if True in found else None

    def _layers(self) -> list[Any]:
        """The method as it stands and what it wraps, outermost first."""
        layer = vars(self.owner).get(self.name)
        layers: list[Any] = []
        while layer is not None and len(layers) < _MAX_LAYERS:
            layers.append(layer)
            layer = getattr(layer, "__wrapped__", None)
        return layers


class Instrumentation:
    """
    Which collectors watch which clients of one library.

    Args:
        seams: Where to patch; called when the first collector comes, so that the
            library is imported only then.
    """

    def __init__(self, seams: Callable[[], list[Seam]]) -> None:
        self._make_seams = seams
        self._seams: list[Seam] | None = None
        self._lock = threading.Lock()
        self._everywhere: tuple[MetricsCollector, ...] = ()
        self._by_client: weakref.WeakKeyDictionary[
            Any, tuple[MetricsCollector, ...]
        ] = weakref.WeakKeyDictionary()

    def add(
        self, collector: MetricsCollector | None, client: object
    ) -> MetricsCollector:
        """
        Let a collector watch one client, or all if `client` is `None`.

        Returns:
            The collector; the process's default one if none was given.

        Raises:
            TypeError: `client` is not a client of the library.
        """
        if collector is None:
            collector = default_collector()
        with self._lock:
            if self._seams is None:
                self._seams = self._make_seams()
            kinds = tuple(seam.owner for seam in self._seams)
            if client is not None and not isinstance(client, kinds):
                raise TypeError(f"not a client that can be watched: {client!r:.200}")
            if client is None:
                self._everywhere = _with(self._everywhere, collector)
            else:
                known = self._by_client.get(client, ())
                self._by_client[client] = _with(known, collector)
            for seam in self._seams:
                seam.put()
        return collector

    def remove(self, collector: MetricsCollector | None) -> None:
        """Let a collector, or all if `None`, watch no more; the last takes it down."""
        with self._lock:
            self._everywhere = _without(self._everywhere, collector)
            for client, known in list(self._by_client.items()):
                self._by_client[client] = _without(known, collector)
                if not self._by_client[client]:
                    del self._by_client[client]
            if not self._everywhere and not self._by_client:
                for seam in self._seams or ():
                    seam.remove()

    @property
    def everywhere(self) -> tuple[MetricsCollector, ...]:
        """Who watches all clients."""
        return self._everywhere

    def collectors(self, client: object) -> tuple[MetricsCollector, ...]:
        """Who watches this client."""
        everywhere = self._everywhere
        if not self._by_client:
            return everywhere
        own = self._by_client.get(client, ())
        return everywhere + tuple(c for c in own if c not in everywhere)


def _with(
    known: tuple[MetricsCollector, ...], one: MetricsCollector
) -> tuple[MetricsCollector, ...]:
    return known if any(c is one for c in known) else (*known, one)


def _without(
    known: tuple[MetricsCollector, ...], one: MetricsCollector | None
) -> tuple[MetricsCollector, ...]:
    return () if one is None else tuple(c for c in known if c is not one)
