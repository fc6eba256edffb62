# SPDX-License-Identifier: MIT
from typing import Final, final

from typing_extensions import Self

from ometrics._core import Core

SUCCESS: Final[int]
FAILURE: Final[int]
CANCELLED: Final[int]

@final
class Call:
    model: str
    ended: bool
    def __new__(cls, core: Core, model: str, operation: str) -> Self: ...
    def chunk(self, answer: bool, /) -> None: ...
    def discard(self) -> None: ...
    def end(
        self,
        outcome: int,
        error: object,
        total: object,
        load: object,
        prefill: object,
        decode: object,
        prompt_tokens: object,
        cached_tokens: object,
        completion_tokens: object,
        done_reason: object,
        /,
    ) -> bool: ...

def record_call(
    core: Core,
    model: str,
    operation: str,
    latency: object,
    total: object,
    load: object,
    prefill: object,
    decode: object,
    prompt_tokens: object,
    cached_tokens: object,
    completion_tokens: object,
    done_reason: object,
    /,
) -> None: ...
