# SPDX-License-Identifier: MIT
"""Histograms in few bytes, for rows of a database; compiled, because a day has many.

    version 1 | histogram ... | CRC-32 of all before, 4 bytes, little-endian
    histogram: tag, 2 bytes | first cell | cells that are not 0 | step ...
    step: 2 * count + 1, the count of the next cell | 2 * n, the next n cells are empty

The tag says which histogram it is. All numbers from the first cell on are unsigned
LEB128. Counts stop at 2^63 - 1, as the integers of both databases do.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

import zlib

cdef enum:
    VERSION = 1
    MAX_CELLS = 2048    # more than any layout has: what claims more is damaged
    MAX_VARINT = 10     # bytes of a 64-bit number
    CHECKSUM = 4        # bytes

cdef uint64_t MOST_COUNT = (<uint64_t>1 << 63) - 1


cdef Py_ssize_t write_varint(uint8_t *to, uint64_t value) noexcept nogil:
    cdef Py_ssize_t n = 0
    while value >= 128:
        to[n] = <uint8_t>(value & 127) | 128
        value >>= 7
        n += 1
    to[n] = <uint8_t>value
    return n + 1


cdef Py_ssize_t read_varint(
    const uint8_t *data, Py_ssize_t at, Py_ssize_t end, uint64_t *value
) noexcept nogil:
    """Where the number at `at` ends; -1 if it is cut or above 64 bits."""
    cdef int shift = 0
    value[0] = 0
    while at < end and shift < 64:
        if shift == 63 and data[at] > 1:
            return -1
        value[0] |= <uint64_t>(data[at] & 127) << shift
        if data[at] < 128:
            return at + 1
        at += 1
        shift += 7
    return -1


def pack(list histograms not None, /):
    """
    Histograms as one value of a row.

    Args:
        histograms: `(tag, first cell, native 64-bit counts)`, none empty.

    Returns:
        The bytes that `unpack` reads.

    Raises:
        ValueError: More cells than any layout has.
    """
    cdef list parts = [bytes((VERSION,))]
    cdef bytes cells, part
    cdef const uint64_t *counts
    cdef uint8_t *to
    cdef Py_ssize_t n, i, used, last, filled
    cdef uint64_t tag, first, count
    for tag, first, cells in histograms:
        n = PyBytes_GET_SIZE(cells) // 8
        if first + n > MAX_CELLS or tag > 0xFFFF:
            raise ValueError(f"histogram {tag} has {first + n} cells")
        counts = <const uint64_t *>PyBytes_AS_STRING(cells)
        part = PyBytes_FromStringAndSize(NULL, 2 + MAX_VARINT * 2 * (n + 1))
        to = <uint8_t *>PyBytes_AS_STRING(part)
        filled = 0
        for i in range(n):
            filled += counts[i] != 0
        to[0] = <uint8_t>(tag & 255)
        to[1] = <uint8_t>(tag >> 8)
        used = 2
        used += write_varint(to + used, first)
        used += write_varint(to + used, filled)
        last = -1
        for i in range(n):
            if counts[i]:
                if i > last + 1:
                    used += write_varint(to + used, 2 * (i - last - 1))
                count = min(counts[i], MOST_COUNT)
                used += write_varint(to + used, 2 * count + 1)
                last = i
        parts.append(part[:used])
    cdef bytes body = b"".join(parts)
    return body + zlib.crc32(body).to_bytes(CHECKSUM, "little")


def unpack(bytes data not None, /):
    """
    Read what `pack` wrote.

    Returns:
        `(tag, first cell, native 64-bit counts)` of each.

    Raises:
        ValueError: Damaged, or of a later version; the message says which.
    """
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if size <= CHECKSUM:
        raise ValueError(f"cut to {size} bytes")
    cdef const uint8_t *bytes_ = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = size - CHECKSUM
    if zlib.crc32(data[:end]) != int.from_bytes(data[end:], "little"):
        raise ValueError("checksum does not match")
    if bytes_[0] != VERSION:
        raise ValueError(f"version {bytes_[0]} is not {VERSION}")
    cdef list result = []
    cdef uint64_t first, filled, step
    cdef uint64_t counts[MAX_CELLS]
    cdef uint64_t cell
    cdef Py_ssize_t at = 1
    cdef int tag
    memset(counts, 0, sizeof(counts))
    while at < end:
        if at + 2 > end:
            raise ValueError("cut within a histogram")
        tag = bytes_[at] | (bytes_[at + 1] << 8)
        at = read_varint(bytes_, at + 2, end, &first)
        if at >= 0:
            at = read_varint(bytes_, at, end, &filled)
        if at < 0 or first >= MAX_CELLS or not 0 < filled <= MAX_CELLS:
            raise ValueError("cut within a histogram")
        cell = 0
        while filled:
            at = read_varint(bytes_, at, end, &step)
            if at < 0 or step == 1:
                raise ValueError("cut within a histogram")
            if step & 1:
                if first + cell >= MAX_CELLS:
                    raise ValueError("a cell beyond all layouts")
                counts[cell] = step >> 1
                cell += 1
                filled -= 1
            elif not step or step > 2 * MAX_CELLS:
                raise ValueError("cut within a histogram")
            else:
                cell += step >> 1
        result.append((
            tag, <Py_ssize_t>first,
            PyBytes_FromStringAndSize(<char *>counts, <Py_ssize_t>cell * 8),
        ))
        memset(counts, 0, cell * 8)
    return result
