# SPDX-License-Identifier: MIT
"""`Upload`: a request's body on its way, never more of it in memory than its ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import web

# A call's body is read as far as this before it is sent on, so that its model is known
# first. Above it, `asked_by` looks at both ends only.
_AHEAD: Final = (4 << 20) + 1
_END: Final = 64 << 10
_SMALL: Final = 64 << 10


class Upload:
    """
    The body of one request.

    Args:
        request: Whose.
        count: Told the size of each piece as it is passed on.

    Attributes:
        is_whole: Whether all of it has been read.

    Thread-safety:
        One task at a time.
    """

    def __init__(self, request: web.BaseRequest, count: Callable[[int], None]) -> None:
        self._content = request.content
        self._count = count
        self._ahead = bytearray()
        self._end = b""
        self.is_whole = not request.body_exists

    @property
    def known(self) -> bytearray:
        """What has been read ahead, and the end of the rest where that has passed."""
        return self._ahead + self._end

    def take_small(self) -> bytes | None:
        """All of it, if it is here and not large: what needs no task to send it."""
        if not self.is_whole or len(self._ahead) > _SMALL:
            return None
        self._count(len(self._ahead))
        return bytes(self._ahead)

    async def read_ahead(self) -> None:
        """Read the body, or its first four MiB."""
        while len(self._ahead) < _AHEAD and not self.is_whole:
            piece = await self._content.readany()
            self._ahead += piece
            self.is_whole = not piece

    async def pieces(self, at_end: Callable[[], None]) -> AsyncIterator[bytes]:
        """
        Pass all of it on.

        Args:
            at_end: Called when the last of it has come.
        """
        if self._ahead:
            self._count(len(self._ahead))
            yield bytes(self._ahead)
        if self.is_whole:
            return
        keeps_end = bool(self._ahead)
        async for piece in self._content.iter_any():
            if keeps_end:
                self._end = (self._end + piece)[-_END:]
            self._count(len(piece))
            yield piece
        self.is_whole = True
        at_end()
