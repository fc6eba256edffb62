# SPDX-License-Identifier: MIT
from typing import Final, TypeAlias

from ometrics._table import Table

OPERATIONS: Final[tuple[str, ...]]
OVERFLOW: Final[str]

_S: TypeAlias = float | None
_Group: TypeAlias = tuple[int, str, str, str, int, float, _S, _S, _S, _S, _S]

def calls_in_flight(table: Table, /) -> list[_Group]: ...
def count_stalled(
    table: Table, groups: list[tuple[int, str, _S, _S, _S]], /
) -> int: ...
