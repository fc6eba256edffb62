from collections.abc import Callable
from typing import Any, Final, final

TYPES: Final[dict[str, int]]

@final
class Buffer: ...

@final
class ProtobufWriter: ...

def labels(pairs: tuple[tuple[str, str], ...], /) -> bytes: ...
def timestamp(seconds: int, nanos: int, /) -> bytes: ...
def family(
    name: str,
    help: str,
    kind: str,
    unit: str,
    columns: list[Any],
    created: bytes,
    bounds: tuple[float, ...] | None,
    pace: Callable[[], object] | None = None,
    /,
) -> bytes: ...
