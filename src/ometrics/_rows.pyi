# SPDX-License-Identifier: MIT
from collections.abc import Sequence
from typing import Any, final

@final
class Rows:
    def __init__(
        self,
        numbers: Sequence[str],
        counts: Sequence[str],
        histograms: Sequence[str],
        tags: Sequence[int],
        kinds: Sequence[type],
    ) -> None: ...
    def write(
        self, histograms: tuple[Any, ...], /
    ) -> tuple[list[int | None], bytes | None]: ...
    def read(
        self, row: tuple[Any, ...], at: int, bounds: tuple[float, ...], /
    ) -> dict[str, Any]: ...
