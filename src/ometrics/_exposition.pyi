from typing import Any, final

def number_text(value: float, /) -> str: ...

@final
class Page:
    def text(self, text: bytes, /) -> None: ...
    def numbers(
        self, name: bytes, samples: list[tuple[bytes, Any]], created: bytes, /
    ) -> None: ...
    def histograms(
        self,
        name: bytes,
        samples: list[tuple[bytes, Any]],
        bounds: tuple[float, ...] | None,
        created: bytes,
        /,
    ) -> None: ...
    def value(self) -> bytes: ...
