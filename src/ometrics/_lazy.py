# SPDX-License-Identifier: MIT
"""Public names whose modules load when first read (PEP 562).

`import ometrics` costs every program that only wants to record, so it loads nothing
that a program does not use; this file imports no module at all for the same reason.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers take it for true; `typing` itself is slow to load
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


def lazy(
    package: str, exports: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Make the `__getattr__` and `__dir__` of a package.

    Args:
        package: The package's `__name__`.
        exports: By module of the package, the names that it provides.
        modules: Public modules and packages inside of the package.

    Returns:
        `__getattr__`, which imports a name's module when the name is first read and
        keeps the value in the package; and `__dir__`, the public names.

    Thread-safety:
        As importing is: two threads that read first get the same object.
    """
    homes = {name: home for home, names in exports.items() for name in names}
    submodules = frozenset(modules)
    namespace = vars(sys.modules[package])

    def getattr_(name: str) -> Any:
        if name in homes:
            module = f"{package}.{homes[name]}"
            __import__(module)
            value = namespace[name] = getattr(sys.modules[module], name)
            return value
        if name in submodules:
            module = f"{package}.{name}"
            __import__(module)  # which binds it in the package
            return sys.modules[module]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def dir_() -> list[str]:
        dunders = {name for name in namespace if name.startswith("__")}
        return sorted({*dunders, *homes, *submodules} - {"__getattr__", "__dir__"})

    return getattr_, dir_
