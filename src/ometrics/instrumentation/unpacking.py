# SPDX-License-Identifier: MIT
"""What undoes a `Content-Encoding`, piece by piece and in bounded memory."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

# The most that is unpacked at a time. Bytes.
_UNPACKED: Final = 64 << 10

Unpack = Callable[[bytes], Iterable[bytes]]


def unpacker(encoding: str) -> Unpack | None:
    """
    A function that undoes a `Content-Encoding`, piece by piece.

    Args:
        encoding: `gzip`, `deflate`; `br` and `zstd` where a package for it is there.

    Returns:
        The function; `None` if this encoding cannot be undone here.
    """
    try:
        make = _UNPACKERS.get(encoding)
        return None if make is None else make()
    except ImportError:
        return None


def _gzip() -> Unpack:
    packed = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def unpack(data: bytes) -> Iterator[bytes]:
        nonlocal packed
        while data:
            if packed.eof:  # another member follows
                packed = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield from _pieces(packed, data)
            data = packed.unused_data

    return unpack


def _deflate() -> Unpack:
    packed: Any = None

    def unpack(data: bytes) -> Iterator[bytes]:
        nonlocal packed
        if packed is None and data:
            # Some servers leave out the header that `deflate` should have; its low four
            # bits are the method, and no other block begins with these.
            has_header = data[0] & 0x0F == zlib.DEFLATED
            wbits = zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
            packed = zlib.decompressobj(wbits)
        return _pieces(packed, data)

    return unpack


def _pieces(packed: Any, data: bytes) -> Iterator[bytes]:
    """Unpack a bounded piece at a time: a little may have been made of very much."""
    while data and not packed.eof:
        yield packed.decompress(data, _UNPACKED)
        data = packed.unconsumed_tail


def _brotli() -> Unpack:
    packed = _import("brotli", "brotlicffi").Decompressor()
    return lambda data: (packed.process(data),)


def _zstd() -> Unpack:
    package = _import("compression.zstd", "zstandard")  # the first from Python 3.14 on
    packed = package.ZstdDecompressor()
    if hasattr(packed, "decompressobj"):
        packed = packed.decompressobj()
    return lambda data: (packed.decompress(data),)


def _import(name: str, other: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return importlib.import_module(other)


_UNPACKERS: Final = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
