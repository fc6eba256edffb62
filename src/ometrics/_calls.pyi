# SPDX-License-Identifier: MIT
from datetime import timedelta
from typing import SupportsFloat, final

from typing_extensions import Self

from ometrics._table import Table
from ometrics.outcomes import OutcomeName

@final
class Call:
    @property
    def model(self) -> str: ...
    @property
    def ended(self) -> bool: ...
    def __new__(
        cls, collector: Table, model: str, operation: str, provider: str = "ollama"
    ) -> Self: ...
    def chunk(self, answer: bool = True, /) -> None: ...
    def retry(self, is_retry: bool, /) -> None: ...
    def discard(self) -> None: ...
    def end(
        self,
        outcome: OutcomeName,
        error: object = None,
        /,
        total: object = None,
        load: object = None,
        prefill: object = None,
        decode: object = None,
        prompt_tokens: object = None,
        cached_tokens: object = None,
        completion_tokens: object = None,
        done_reason: object = None,
        connect: object = None,
    ) -> bool: ...

def record_call(
    collector: Table,
    model: str,
    operation: str,
    latency: SupportsFloat | timedelta | None = None,
    /,
    total: object = None,
    load: object = None,
    prefill: object = None,
    decode: object = None,
    prompt_tokens: object = None,
    cached_tokens: object = None,
    completion_tokens: object = None,
    done_reason: object = None,
    *,
    provider: str = "ollama",
) -> None: ...
