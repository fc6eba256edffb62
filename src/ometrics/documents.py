# SPDX-License-Identifier: MIT
"""Exported documents from outside: read within a limit, refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ometrics.snapshot import Snapshot

#: Largest document in bytes that is read; a thousand busy models take about 30 MB.
MAX_BYTES: Final = 256 * 2**20
PIECE: Final = 2**16  # bytes read at once


def in_pieces(read: Callable[[int], bytes]) -> bytes:
    """
    All that there is to read, but no more than `parse` needs to refuse it.

    Args:
        read: Returns at most so many bytes, soon; none at the end.
    """
    pieces, size = [], 0
    while size <= MAX_BYTES and (piece := read(PIECE)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def parse(data: bytes, name: str) -> Snapshot:
    """
    An exported document as a snapshot.

    Args:
        data: The document.
        name: Where it came from, for the messages.

    Raises:
        ValueError: It is too large, or not an export.
    """
    from ometrics.snapshot import Snapshot

    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: larger than {MAX_BYTES >> 20} MiB, no export is")
    try:
        return Snapshot.from_json(data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
