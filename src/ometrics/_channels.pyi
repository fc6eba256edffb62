# SPDX-License-Identifier: MIT
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeVar

from typing_extensions import Self, disjoint_base

from ometrics._table import Table
from ometrics.events import AlertEvent

EVENT_TYPES: Final[tuple[str, ...]]

_Event = TypeVar("_Event")

@disjoint_base
class EventReader:
    @property
    def capacity(self) -> int: ...
    @property
    def types(self) -> frozenset[str] | None: ...
    @property
    def models(self) -> frozenset[str] | None: ...
    @property
    def dropped(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def __new__(
        cls,
        table: Table,
        *,
        capacity: int = 100,
        types: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
        idle: bool = False,
    ) -> Self: ...
    def close(self) -> None: ...
    def _take(self, make: Callable[..., _Event], n: int, /) -> list[_Event]: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object) -> NoReturn: ...

def stop(table: Table, /) -> None: ...
def publish(table: Table, event: AlertEvent, model: str, /) -> None: ...
