# SPDX-License-Identifier: MIT
"""`MethodPatch`: one method of a foreign class, wrapped while anybody measures."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Final

# What others put around a method could be a circle.
_MAX_LAYERS: Final = 100

IsActive = Callable[[], bool]


class MethodPatch:
    """
    One method of a foreign class that is wrapped while anybody measures.

    Args:
        owner: The class.
        name: Its method.
        wrap: Gets the method found there, and a function that says whether the wrapper
            is still to measure; returns what takes its place, with the method as its
            `__wrapped__`.

    Thread-safety:
        The caller's; methods that are running stay what they were.
    """

    def __init__(
        self, owner: type, name: str, wrap: Callable[[Any, IsActive], Any]
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
        def is_active() -> bool:
            return self.wrapper is wrapper

        wrapper = self.wrap(vars(self.owner)[self.name], is_active)
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
