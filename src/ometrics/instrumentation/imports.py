# SPDX-License-Identifier: MIT
"""Do something to a package when the program imports it, not before.

To import HTTP clients ourselves would cost programs that use none of them half a
second, and could pick up a module of the program's own before its time.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

# A Python that starts imports this: `importlib.abc` would take longer than all else.
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

Imported = Callable[[ModuleType], object]


class ImportWatch:
    """
    Sees the imports of some packages, which the other finders do as ever.

    Each spec that is handed out is prepared, so that a program which only asks whether
    a package is there (`importlib.util.find_spec`), however often, changes nothing. A
    name is forgotten when its module has run.

    Args:
        imported: Called with each module once, after it has run. Must not raise.

    Thread-safety:
        Any thread.
    """

    def __init__(self, imported: Imported) -> None:
        self._imported = imported
        self._names: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def watch(self, names: set[str]) -> None:
        """Watch for packages, of which those that are here already are seen at once."""
        with self._lock:
            self._names = frozenset(names - sys.modules.keys())
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            if self._names:
                sys.meta_path.insert(0, self)
        for name in sorted(names & sys.modules.keys()):
            self._imported(sys.modules[name])

    def stop(self) -> None:
        """Watch no more."""
        self.watch(set())

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of the other finders, its loader made to tell us afterwards."""
        if fullname not in self._names:
            return None
        for finder in list(sys.meta_path):
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                self._prepare(spec)
                return spec
        return None

    def _prepare(self, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return

        @functools.wraps(execute)
        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._has_run(module)

        try:
            loader.exec_module = exec_module
        except AttributeError:  # one that shares its loader with others is not seen
            return

    def _has_run(self, module: ModuleType) -> None:
        with self._lock:
            if module.__name__ not in self._names:
                return
            self._names -= {module.__name__}
            if not self._names and self in sys.meta_path:
                sys.meta_path.remove(self)
        self._imported(module)


class _BeforeFirst:
    """A finder that does something when the first of some packages is looked for."""

    def __init__(self, names: frozenset[str], do: Callable[[], object]) -> None:
        self._names = names
        self._left = [do]

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of the other finders, which are other ones afterwards."""
        if fullname not in self._names:
            return None
        try:
            do = self._left.pop()
        except IndexError:  # done, or another thread does it
            return None
        with suppress(Exception):  # the program's import must not fail
            sys.meta_path.remove(self)
            do()
        for finder in list(sys.meta_path):
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


def before_first(names: set[str], do: Callable[[], object]) -> None:
    """
    Do something before the first of some packages is imported, or else now.

    Args:
        names: Of the packages.
        do: Called once. What it raises is dropped.
    """
    if names & sys.modules.keys():
        with suppress(Exception):
            do()
        return
    sys.meta_path.insert(0, _BeforeFirst(frozenset(names), do))
