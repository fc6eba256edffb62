from typing import Any, final

from ometrics._histogram import Layout

def go_duration(seconds: float, /) -> str: ...
def go_duration_ns(ns: int) -> str: ...
def indent(compact: bytes, /) -> bytes: ...

@final
class Views:
    def __new__(
        cls,
        layout: Layout,
        buckets: tuple[float, ...],
        labels: tuple[str, ...],
        bounds: bytes,
        quantiles: tuple[float, ...],
    ) -> Views: ...
    # The three are `msgspec.Raw`: whatever field of a document they are put into.
    def render(self, first: int, cells: bytes, /) -> tuple[int, Any, Any, Any]: ...
    def quantiles(
        self,
        first: int,
        cells: bytes,
        count: int,
        low: float | None,
        high: float | None,
        /,
    ) -> tuple[float, ...]: ...
