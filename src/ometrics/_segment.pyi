# SPDX-License-Identifier: MIT
from typing import Any, final

from typing_extensions import Self

from ometrics._histogram import Layout
from ometrics._table import Memory

HAS_SEGMENTS: bool

@final
class Segment(Memory):
    def __new__(
        cls,
        file: int,
        lock: int,
        layout: Layout,
        bounds: tuple[float, ...],
        identity: Any,
    ) -> Self: ...
    def is_of_this_process(self) -> bool: ...
    def descriptor(self) -> int: ...

def reserve(file: int, start: int, size: int, /) -> None: ...
