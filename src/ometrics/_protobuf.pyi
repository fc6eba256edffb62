from typing import Any, Final, final

TYPES: Final[dict[str, int]]

@final
class Buffer: ...

@final
class Writer: ...

def labels(pairs: list[tuple[str, str]], /) -> bytes: ...
def timestamp(seconds: int, nanos: int, /) -> bytes: ...
def family(
    name: str,
    help: str,
    kind: str,
    unit: str,
    samples: list[tuple[bytes, Any]],
    created: bytes,
    bounds: tuple[float, ...] | None,
    /,
) -> bytes: ...
