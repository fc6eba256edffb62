# SPDX-License-Identifier: MIT
from collections.abc import Callable
from typing import Any, final

from ometrics._histogram import Layout

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
        fields: tuple[str, ...],
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
class Places:
    def __new__(cls, fields: tuple[str, ...], names: tuple[str, ...]) -> Places: ...

@final
class Shape:
    def __new__(
        cls,
        owner: type,
        buckets: tuple[float, ...],
        unit: Unit,
        layout: Layout,
        encode: Callable[[Any], bytes],
    ) -> Shape: ...
