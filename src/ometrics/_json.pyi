from collections.abc import Callable
from typing import Any, final

from ometrics._histogram import Layout

def go_duration(seconds: float, /) -> str: ...
def go_duration_ns(ns: int, /) -> str: ...

@final
class Ratio:
    def __new__(
        cls, over: tuple[str, ...], under: tuple[str, ...], percent: bool = False
    ) -> Ratio: ...

@final
class Key:
    def __new__(
        cls,
        name: str,
        source: str | tuple[str, ...] | Ratio | Callable[[Any], Any],
        fact: str | None = None,
        duration: bool = False,
    ) -> Key: ...
    @property
    def name(self) -> str: ...

@final
class Unit:
    def __new__(
        cls,
        sum_field: str,
        suffix: str,
        seconds: float,
        labels: Callable[[tuple[float, ...]], tuple[str, ...]] | None,
    ) -> Unit: ...

@final
class Writer:
    def __new__(
        cls,
        keys: dict[type, tuple[Key, ...]],
        units: dict[type, Unit],
        quantiles: dict[str, float],
        layout_of: Callable[[tuple[float, ...]], Layout],
        encode: Callable[[Any], bytes],
    ) -> Writer: ...
    def write(self, owner: Any, /) -> bytes: ...
