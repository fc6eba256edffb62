# SPDX-License-Identifier: MIT
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import (
    Any,
    NoReturn,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
)

from typing_extensions import Self

from ometrics._table import Table

_Latency: TypeAlias = float | SupportsFloat | SupportsIndex | timedelta
_Function = TypeVar("_Function", bound=Callable[..., Any])

@final
class ModelRecorder:
    @property
    def name(self) -> str: ...
    def __new__(cls, table: Table, name: str) -> Self: ...
    def record_latency(self, latency: _Latency, /) -> None: ...
    def record_latencies(self, values: Iterable[_Latency], /) -> None: ...
    def record_error(
        self,
        error: BaseException | type[BaseException] | str,
        /,
        latency: _Latency | None = None,
    ) -> None: ...
    def record_tokens(self, token_count: SupportsIndex, /) -> None: ...
    def time(self) -> Timer: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object) -> NoReturn: ...

@final
class Timer:
    def __new__(cls, table: Table, name: str) -> Self: ...
    def __enter__(self) -> Timer: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool: ...
    async def __aenter__(self) -> Timer: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool: ...
    def __call__(self, function: _Function, /) -> _Function: ...
