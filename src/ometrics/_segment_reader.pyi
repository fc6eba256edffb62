# SPDX-License-Identifier: MIT
from typing import Any

from ometrics._mirror import Mirror
from ometrics.snapshot import Snapshot

class SegmentReader(Mirror):
    def read(self, alive: bool, /) -> Snapshot: ...
    def last_heard_ns(self) -> int: ...
    def identity(self) -> dict[str, Any]: ...
