from collections.abc import Callable
from typing import Any, final

from ometrics._histogram import Layout
from ometrics._json_plan import Key, Unit

def go_duration(seconds: float, /) -> str: ...
def go_duration_ns(ns: int, /) -> str: ...

@final
class JsonWriter:
    def __new__(
        cls,
        keys: dict[type, list[Key]],
        units: dict[type, Unit],
        quantiles: dict[str, float],
        layout_of: Callable[[tuple[float, ...]], Layout],
        encode: Callable[[Any], bytes],
        fields: Callable[[Any], tuple[Any, ...]],
    ) -> JsonWriter: ...
    def write(self, owner: Any, /) -> bytes: ...
