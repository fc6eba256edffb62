# SPDX-License-Identifier: MIT
"""Instrument each client when the program imports it, not before.

Importing `ollama` or `openai` ourselves would cost programs that use neither a second,
and could pick up a module of the program's own before its time.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from ometrics.collector import MetricsCollector

# Package of a client -> our module that instruments it.
ROOMS: Final = {"ollama": "ometrics.ollama", "openai": "ometrics.openai"}

Complain = Callable[[str], object]


def instrument_when_imported(collector: MetricsCollector, complain: Complain) -> None:
    """
    Have each client record to `collector` from its import on.

    Args:
        collector: Where to record.
        complain: Told in one line of a client that cannot be instrumented; the program
            then runs without.
    """
    sys.meta_path.insert(0, _Watcher(collector, complain))
    for package in ROOMS.keys() & sys.modules.keys():
        _instrument(package, collector, complain)


class _Watcher(MetaPathFinder):
    """
    Sees each client's import, which the other finders do as ever.

    Thread-safety:
        Any thread: a package's name is taken out by one of them.
    """

    def __init__(self, collector: MetricsCollector, complain: Complain) -> None:
        self._collector = collector
        self._complain = complain
        self._waiting = set(ROOMS)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of the other finders, its loader made to instrument afterwards."""
        del path, target
        if fullname not in self._waiting:
            return None
        self._waiting.discard(fullname)  # else the next line would come back here
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            self._waiting.add(fullname)  # perhaps it is there later
            return None
        execute = spec.loader.exec_module

        def execute_and_instrument(module: ModuleType) -> None:
            execute(module)
            _instrument(fullname, self._collector, self._complain)

        spec.loader.exec_module = execute_and_instrument  # type: ignore[method-assign]
        return spec


def _instrument(package: str, collector: MetricsCollector, complain: Complain) -> None:
    try:
        importlib.import_module(ROOMS[package]).instrument(collector)
    except Exception as error:  # noqa: BLE001 - the program's import must not fail
        complain(f"{package} is not measured: {type(error).__name__}: {error}")
