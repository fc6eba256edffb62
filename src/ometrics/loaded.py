# SPDX-License-Identifier: MIT
"""`LoadedModel`: what a server says of a model in its memory."""

from __future__ import annotations

from datetime import datetime

import msgspec


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """
    A model that is, or was, in the server's memory.

    Attributes:
        name: With its tag, such as `llama3.2:latest`.
        size: Bytes of memory that it takes; `None` if the server does not say.
        size_vram: Bytes of these in GPU memory.
        context_length: Tokens that a prompt and its answer may have together.
        quantization: Such as `Q4_K_M`.
        parameters: Such as `3.2B`.
        expires_at: When it will be unloaded if nobody asks for it.
        loaded: Whether it is in memory now.
        loads: Times that it was seen to come into memory after the first poll.
        evictions: Times that it went before it had expired: another took its place.
    """

    name: str
    size: int | None = None
    size_vram: int | None = None
    context_length: int | None = None
    quantization: str | None = None
    parameters: str | None = None
    expires_at: datetime | None = None
    loaded: bool = True
    loads: int = 0
    evictions: int = 0

    @property
    def gpu_share(self) -> float | None:
        """Part of it in GPU memory, 0 to 1; `None` if the server does not say."""
        if not self.size or self.size_vram is None:
            return None
        return min(self.size_vram / self.size, 1.0)
