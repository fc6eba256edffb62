from typing import final

@final
class Layout:
    def __new__(cls, bounds: tuple[float, ...]) -> Layout: ...
    @property
    def bounds(self) -> tuple[float, ...]: ...
    @property
    def n_cells(self) -> int: ...
    def cell(self, value: float, /) -> int: ...
    def upper(self, cell: int, /) -> float: ...
    def cumulative(
        self, bounds: tuple[float, ...], first: int, cells: bytes, /
    ) -> bytes: ...
    def exponential(
        self, first: int, cells: bytes, /
    ) -> tuple[int, bytes, int, int]: ...
    def quantile(
        self,
        first: int,
        cells: bytes,
        q: float,
        low: float | None,
        high: float | None,
        /,
    ) -> float | None: ...
    def add(
        self, first_a: int, a: bytes, first_b: int, b: bytes, /
    ) -> tuple[int, bytes]: ...
    def subtract(
        self, first_a: int, a: bytes, first_b: int, b: bytes, /
    ) -> tuple[int, bytes]: ...
    def assemble(
        self,
        offset: int,
        counts: list[int],
        underflow: int,
        overflow: int,
        explicit: list[int],
        /,
    ) -> tuple[int, bytes]: ...

def total(cells: bytes, /) -> int: ...
def layout_of(buckets: tuple[float, ...], /) -> Layout: ...
