# SPDX-License-Identifier: MIT

from typing_extensions import Self, disjoint_base

class BadSegment(ValueError):  # noqa: N818 - it is the segment that is bad
    reason: str
    def __init__(self, reason: str, message: str) -> None: ...

@disjoint_base
class Mirror:
    bounds: tuple[float, ...]
    one_instant: bool
    def __new__(cls, file: int, size: int, fields: bytes) -> Self: ...
    def has_grown(self) -> bool: ...
