# SPDX-License-Identifier: MIT
from typing import Any

from typing_extensions import Self, disjoint_base

from ometrics.snapshot import Snapshot

class BadSegment(ValueError):  # noqa: N818 - it is the segment that is bad
    reason: str
    def __init__(self, reason: str, message: str) -> None: ...

@disjoint_base
class Mirror:
    bounds: tuple[float, ...]
    one_instant: bool
    def __new__(cls, file: int, size: int, fields: bytes) -> Self: ...
    def read(self, alive: bool, /) -> Snapshot: ...
    def last_heard_ns(self) -> int: ...
    def identity(self) -> dict[str, Any]: ...
