# SPDX-License-Identifier: MIT
"""Who measures what: collectors, by interface and by client; and the patches for them.

The HTTP clients are patched where the request leaves them, at the last layer that knows
it as one: no client that is patched is built on another one that is, so a call passes
exactly one patch, and counts once.

Thread-safety: a lock for changes; a call reads what stands.
"""

from __future__ import annotations

import importlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple

from ometrics.collector import MetricsCollector
from ometrics.instrumentation.clients import CLIENTS
from ometrics.instrumentation.endpoints import (
    UNKNOWN_MODEL,
    asked_by,
    endpoint_of,
    is_retry,
)
from ometrics.instrumentation.exchange import Exchange, report
from ometrics.instrumentation.imports import ImportWatch
from ometrics.instrumentation.patching import MethodPatch
from ometrics.instrumentation.providers import is_local_ollama, provider_of

logger = logging.getLogger("ometrics")

INTERFACES: Final = ("ollama", "openai", "anthropic")

Collectors = tuple[MetricsCollector, ...]

_default_lock = threading.Lock()
_default: MetricsCollector | None = None


def default_collector() -> MetricsCollector:
    """The collector of everything that is instrumented without naming one."""
    global _default  # noqa: PLW0603 - one a process is the idea
    with _default_lock:
        if _default is None:
            _default = MetricsCollector()
        return _default


class _Measuring(NamedTuple):
    """One collector that measures an interface, everywhere or of one client."""

    collector: MetricsCollector
    interface: str
    hosts: frozenset[str] = frozenset()


class SentRequest(NamedTuple):
    """
    A request as an HTTP client sends it.

    Attributes:
        method: As `POST`.
        path: Of the address.
        host: Name or address of the server.
        port: `None` for the scheme's own.
        headers: Looked up by lower-case names.
        body: `bytes`, `str` or a dictionary, `None` if there is none; anything else is
            not looked at.
        transport: What sends it, where collectors may measure one client only.
        collectors: Who measures this one request.
    """

    method: str
    path: str
    host: str
    port: int | None
    headers: Mapping[str, str]
    body: object
    transport: object = None
    collectors: Collectors = ()


class Registry:
    """Who measures what; see the module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._everywhere: tuple[_Measuring, ...] = ()
        self._by_transport: weakref.WeakKeyDictionary[Any, tuple[_Measuring, ...]] = (
            weakref.WeakKeyDictionary()
        )
        self._left_out: weakref.WeakSet[Any] = weakref.WeakSet()
        self._marking: weakref.WeakSet[Any] = weakref.WeakSet()
        self._patches: dict[str, list[MethodPatch]] = {}
        self._imports = ImportWatch(self._imported)
        self._has_noted_unknown = False

    @property
    def everywhere(self) -> Collectors:
        """Who measures all clients."""
        return tuple(dict.fromkeys(m.collector for m in self._everywhere))

    def add(
        self,
        collector: MetricsCollector,
        interfaces: Iterable[str],
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        """Let a collector measure interfaces, whatever client is used."""
        with self._lock:
            for interface in interfaces:
                measuring = _Measuring(collector, interface, hosts)
                self._everywhere = _with(self._everywhere, measuring)
            self._put()

    def add_client(
        self, collector: MetricsCollector, interface: str, transports: Iterable[object]
    ) -> None:
        """Let a collector measure the requests of these transports."""
        measuring = _Measuring(collector, interface)
        with self._lock:
            for transport in transports:
                known = self._by_transport.get(transport, ())
                self._by_transport[transport] = _with(known, measuring)
            self._put()

    def add_marking(self, client: object) -> None:
        """Let a client that says of each request who measures it be heard."""
        with self._lock:
            self._marking.add(client)
            self._put()

    def leave_out(self, transport: object) -> None:
        """Never measure here what this one sends: it is measured elsewhere."""
        self._left_out.add(transport)

    def remove(
        self, collector: MetricsCollector | None, interfaces: Iterable[str]
    ) -> None:
        """End it for a collector, or all if `None`; after the last, unpatch."""
        interfaces = frozenset(interfaces)

        def stays(one: _Measuring) -> bool:
            is_meant = collector is None or one.collector is collector
            return not (is_meant and one.interface in interfaces)

        with self._lock:
            self._everywhere = tuple(filter(stays, self._everywhere))
            for transport, known in list(self._by_transport.items()):
                left = tuple(filter(stays, known))
                if left:
                    self._by_transport[transport] = left
                else:
                    del self._by_transport[transport]
            if not (self._everywhere or self._by_transport or self._marking):
                self._imports.stop()
                for patches in self._patches.values():
                    for patch in patches:
                        patch.remove()

    def patches(self) -> list[MethodPatch]:
        """The patches of all clients that have been imported."""
        return [patch for patches in self._patches.values() for patch in patches]

    def _put(self) -> None:
        """Patch what is imported, and the rest when it is."""
        self._imports.watch(set(CLIENTS))

    def _imported(self, module: ModuleType) -> None:
        """Patch a client; a failure leaves it unmeasured, and is logged."""
        name = module.__name__
        try:
            with self._lock:
                if name not in self._patches:
                    ours = importlib.import_module(CLIENTS[name])
                    self._patches[name] = ours.patches(module, self.exchange_for)
                for patch in self._patches[name]:
                    patch.put()
        except Exception as error:  # noqa: BLE001 - the program's import must not fail
            logger.warning("%s is not measured: %s", name, type(error).__name__)

    def exchange_for(self, read: Callable[[], SentRequest]) -> Exchange | None:
        """
        What measures a request; `None` if it is no call to a model, or not of interest.

        Args:
            read: Tells of the request; called only here, where a failure harms nobody.
        """
        try:
            return self._exchange_for(read())
        except Exception as error:  # noqa: BLE001 - the caller's call comes first
            report(self.everywhere, error)
            return None

    def _exchange_for(self, request: SentRequest) -> Exchange | None:
        host, port, headers = request.host, request.port, request.headers
        # To look at headers takes longer than all the rest, so only where it matters.
        endpoint = endpoint_of(request.method, request.path)
        if endpoint is None and "x-stainless-lang" in headers:
            endpoint = endpoint_of(request.method, request.path, by_openai_client=True)
        if endpoint is None:
            return None
        collectors = self._collectors_of(request, endpoint.interface)
        if not collectors:
            return None
        model = asked_by(request.body).model
        if model is None:
            return None
        if model == UNKNOWN_MODEL:
            self._note_unknown()
        provider = provider_of(endpoint.interface, host, port)
        # Ollama's own clients do not say.
        retry = None if endpoint.interface == "ollama" else is_retry(headers)
        return Exchange(collectors, model, endpoint, provider, retry)

    def _collectors_of(self, request: SentRequest, interface: str) -> Collectors:
        """Who measures a request, each once."""
        collectors = request.collectors
        if request.transport in self._left_out:
            return ()
        if request.transport is not None and self._by_transport:
            for one in self._by_transport.get(request.transport, ()):
                if one.interface == interface:
                    collectors = _once(collectors, one.collector)
        for one in self._everywhere:
            if one.interface == interface and (
                is_local_ollama(request.host, request.port, one.hosts)
                or _is_official(request.headers)
            ):
                collectors = _once(collectors, one.collector)
        return collectors

    def _note_unknown(self) -> None:
        """Say once that calls count under no name of their own."""
        if not self._has_noted_unknown:
            self._has_noted_unknown = True
            logger.warning(
                "calls whose body is an iterator or a file, which only its sender may"
                " read, count as of the model %r: pass bytes to have their own names",
                UNKNOWN_MODEL,
            )


def _is_official(headers: Mapping[str, str]) -> bool:
    """Whether the packages `openai` or `ollama` made a request."""
    if "x-stainless-lang" in headers:
        return True
    return str(headers.get("user-agent", "")).startswith("ollama-")


def _once(collectors: Collectors, one: MetricsCollector) -> Collectors:
    for other in collectors:
        if other is one:
            return collectors
    return (*collectors, one)


def _with(known: tuple[_Measuring, ...], one: _Measuring) -> tuple[_Measuring, ...]:
    def is_same(other: _Measuring) -> bool:
        return other.collector is one.collector and other[1:] == one[1:]

    return known if any(map(is_same, known)) else (*known, one)


registry: Final = Registry()
