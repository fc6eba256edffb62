# SPDX-License-Identifier: MIT
"""`LoadedModel`: what a server says of a model in its memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from ometrics import fields
from ometrics.fields import Counter, Gauge, Metric, Same, since_1970


class Observed(Counter, frozen=True):
    """What several processes may have seen of one server: the most, not the sum."""

    stored: bool = False

    def merge(self, owners: Sequence[Any]) -> int | None:
        """What the one saw that saw most."""
        return max(self.known(owners), default=None)


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A model that is, or was, in a server's memory."""

    name: Annotated[str, Same("With its tag, such as `llama3.2:latest`.")]
    loaded: Annotated[
        bool,
        Gauge(
            "Whether it is in memory now.",
            Metric(
                *("ometrics.server.model.loaded", "{model}"),
                "1 while the server has the model in memory, else 0.",
            ),
            convert=int,
        ),
    ] = True
    size: Annotated[
        int | None,
        Gauge(
            "Bytes of memory that it takes; `None` if the server does not say.",
            Metric(
                *("ometrics.server.model.size", "By"),
                "Memory that the model takes on the server.",
            ),
        ),
    ] = None
    size_vram: Annotated[
        int | None,
        Gauge(
            "Bytes of these in GPU memory.",
            Metric(
                *("ometrics.server.model.gpu_size", "By"),
                "Part of it that is in GPU memory.",
            ),
        ),
    ] = None
    context_length: Annotated[
        int | None,
        Gauge(
            "Tokens that a prompt and its answer may have together.",
            Metric("ometrics.server.model.context_length", "{token}"),
        ),
    ] = None
    longest_context: Annotated[
        int | None,
        Gauge(
            "Tokens of context that the model was made for.",
            Metric("ometrics.server.model.longest_context", "{token}"),
        ),
    ] = None
    quantization: Annotated[str | None, Gauge("Such as `Q4_K_M`.")] = None
    parameters: Annotated[str | None, Gauge("Such as `3.2B`.")] = None
    expires_at: Annotated[
        datetime | None,
        Gauge(
            "When it will be unloaded if nobody asks for it.",
            Metric(
                *("ometrics.server.model.expiry_timestamp", "s"),
                "When the server unloads the model if nobody asks for it, since 1970.",
            ),
            convert=since_1970,
        ),
    ] = None
    loads: Annotated[
        int,
        Observed(
            "Times that it was seen to come into memory after the first poll.",
            Metric("ometrics.server.model.loads", "{load}"),
        ),
    ] = 0
    evictions: Annotated[
        int,
        Observed(
            "Times that it went before it had expired: another took its place.",
            Metric("ometrics.server.model.evictions", "{eviction}"),
        ),
    ] = 0

    @property
    def gpu_share(self) -> float | None:
        """Part of it in GPU memory, 0 to 1; `None` if the server does not say."""
        if not self.size or self.size_vram is None:
            return None
        return min(self.size_vram / self.size, 1.0)

    def merge(self, *others: LoadedModel) -> LoadedModel:
        """What several processes saw of one server."""
        return fields.merge((self, *others))

    def __sub__(self, earlier: LoadedModel) -> LoadedModel:
        """As it is now, with the loads and evictions after `earlier`."""
        return fields.delta(self, earlier)


fields.document(LoadedModel)
