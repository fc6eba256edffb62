# SPDX-License-Identifier: MIT
"""`WatchedPieces`: the pieces of an answer's body, seen in passing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ometrics.instrumentation.exchange import Exchange


class WatchedPieces:
    """
    An iterator over the pieces of a body that shows each to an exchange.

    Attributes:
        _next: Gets the next piece, or what is to be awaited for it.
    """

    _exchange: Exchange
    _next: Callable[[], Any]

    def __next__(self) -> bytes:
        try:
            data: bytes = self._next()
        except StopIteration:
            self._exchange.finished()
            raise
        except BaseException as error:
            self._exchange.broke(error)
            raise
        self._exchange.data(data)
        return data

    async def __anext__(self) -> bytes:
        try:
            data: bytes = await self._next()
        except StopAsyncIteration:
            self._exchange.finished()
            raise
        except BaseException as error:
            self._exchange.broke(error)
            raise
        self._exchange.data(data)
        return data
