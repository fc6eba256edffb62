# SPDX-License-Identifier: MIT
"""Histograms in few bytes, for rows of a database; compiled, because a day has many.

    version 2 | bits, filled up with zeros to a byte | CRC-32 of all before, 4 bytes

The checksum is little-endian. The bits, the highest of a byte first, are:

    number of histograms, 8 bits | histogram ...
    histogram: tag, 8 bits | first cell, 11 bits | cells that are not 0, minus 1
               | order of gaps, 4 bits | order of counts, 4 bits
               | count - 1 | gap, count - 1 | gap, count - 1 ...

The tag says which histogram it is; a gap is a number of empty cells. Numbers without a
width are exponential Golomb codes, the first of order 3: of order k, n is written as
n + 2^k in binary after as many zeros as that has bits above k + 1 (ITU-T H.264, 9.1).
An order is chosen for each histogram. Counts stop at 2^63 - 1, as the integers of both
databases do.

Version 1, which is still read, had the same as bytes:

    histogram: tag, and a byte that says no more | first cell | cells that are not 0
               | step ...
    step: 2 * count + 1, the count of the next cell | 2 * n, the next n cells are empty

where all numbers from the first cell on are unsigned LEB128.
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
    BITWISE = 2         # versions
    BYTEWISE = 1
    MAX_CELLS = 2048    # more than any layout has: what claims more is damaged
    CELL_BITS = 11      # of a place among them
    TAG_BITS = 8
    NUMBER_BITS = 8     # of how many histograms
    ORDER_BITS = 4
    LENGTH_ORDER = 3    # of the number of cells
    MOST_ORDER = (1 << ORDER_BITS) - 1
    MAX_CODE = 16       # bytes of the longest code
    CHECKSUM = 4        # bytes

cdef uint64_t MOST_COUNT = (<uint64_t>1 << 63) - 1


# --- bits

cdef struct om_bits:
    uint8_t *data
    size_t at           # in bits
    size_t end          # likewise; only of what is read
    bint cut            # whether more was read than there is


cdef void put(om_bits *bits, uint64_t value, int n) noexcept nogil:
    """The lowest `n` bits of a value; the memory behind is zero."""
    cdef int room, some
    while n > 0:
        room = 8 - <int> (bits.at & 7)
        some = min(room, n)
        n -= some
        bits.data[bits.at >> 3] |= <uint8_t> (
            ((value >> n) & ((1 << some) - 1)) << (room - some)
        )
        bits.at += some


cdef uint64_t get(om_bits *bits, int n) noexcept nogil:
    """The next `n` bits; 0 where they are cut."""
    cdef uint64_t value = 0
    cdef int room, some
    if bits.end - bits.at < <size_t> n:
        bits.cut = True
        bits.at = bits.end
        return 0
    while n > 0:
        room = 8 - <int> (bits.at & 7)
        some = min(room, n)
        n -= some
        value = (value << some) | (
            (bits.data[bits.at >> 3] >> (room - some)) & ((1 << some) - 1)
        )
        bits.at += some
    return value


cdef int length_of(uint64_t value) noexcept nogil:
    """Bits of a number; 0 has none."""
    cdef int n = 0
    while value:
        value >>= 1
        n += 1
    return n


cdef void put_golomb(om_bits *bits, uint64_t value, int order) noexcept nogil:
    value += <uint64_t> 1 << order
    cdef int n = length_of(value)
    bits.at += n - order - 1
    put(bits, value, n)


cdef uint64_t get_golomb(om_bits *bits, int order) noexcept nogil:
    cdef int n = order
    while get(bits, 1) == 0:
        n += 1
        if n > 63 or bits.cut:
            bits.cut = True
            return 0
    return ((<uint64_t> 1 << n) | get(bits, n)) - (<uint64_t> 1 << order)


cdef int order_for(uint64_t sum, Py_ssize_t n) noexcept nogil:
    """The order for `n` numbers with this sum: about the length of their mean."""
    return min(max(length_of(sum // n) - 1, 0), MOST_ORDER) if n else 0


# --- histograms

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


cdef void put_histogram(
    om_bits *bits, uint64_t tag, uint64_t first, const uint64_t *counts, Py_ssize_t n
) noexcept nogil:
    """`n` cells, of which neither end is 0."""
    cdef Py_ssize_t i
    cdef Py_ssize_t last = 0
    cdef Py_ssize_t filled = 0
    cdef uint64_t sum = 0
    cdef int of_gaps, of_counts
    for i in range(n):
        filled += counts[i] != 0
        sum += min(counts[i], MOST_COUNT // MAX_CELLS)
    of_gaps = order_for(n - filled, filled - 1)
    of_counts = order_for(sum - filled, filled)
    put(bits, tag, TAG_BITS)
    put(bits, first, CELL_BITS)
    put_golomb(bits, filled - 1, LENGTH_ORDER)
    put(bits, of_gaps, ORDER_BITS)
    put(bits, of_counts, ORDER_BITS)
    for i in range(n):
        if counts[i]:
            if i:
                put_golomb(bits, i - last - 1, of_gaps)
            put_golomb(bits, min(counts[i], MOST_COUNT) - 1, of_counts)
            last = i


def pack(list histograms not None, /):
    """
    Histograms as one value of a row.

    Args:
        histograms: At most 255 of `(tag, first cell, native 64-bit counts)`, none
            empty or with an empty cell at an end.

    Returns:
        The bytes that `unpack` reads.

    Raises:
        ValueError: More cells than any layout has, or empty ones at an end.
    """
    cdef bytes cells
    cdef uint64_t tag, first
    cdef const uint64_t *counts
    cdef Py_ssize_t n, size
    cdef om_bits bits
    size = 2
    for tag, first, cells in histograms:
        n = PyBytes_GET_SIZE(cells) // 8
        counts = <const uint64_t *> PyBytes_AS_STRING(cells)
        if n == 0 or first + n > MAX_CELLS or tag >> TAG_BITS:
            raise ValueError(f"histogram {tag} has {first + n} cells")
        if counts[0] == 0 or counts[n - 1] == 0:
            raise ValueError(f"histogram {tag} has empty cells at an end")
        size += MAX_CODE + 2 * MAX_CODE * n
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, size)
    memset(PyBytes_AS_STRING(whole), 0, size)
    bits = om_bits(data=<uint8_t *> PyBytes_AS_STRING(whole), at=0, end=0, cut=False)
    put(&bits, BITWISE, 8)
    put(&bits, len(histograms), NUMBER_BITS)
    for tag, first, cells in histograms:
        put_histogram(
            &bits, tag, first, <const uint64_t *> PyBytes_AS_STRING(cells),
            PyBytes_GET_SIZE(cells) // 8,
        )
    cdef bytes body = whole[:(bits.at + 7) // 8]
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
    cdef const uint8_t *bytes_ = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end = size - CHECKSUM
    if zlib.crc32(data[:end]) != int.from_bytes(data[end:], "little"):
        raise ValueError("checksum does not match")
    if bytes_[0] == BITWISE:
        return unpack_bits(bytes_, end)
    if bytes_[0] == BYTEWISE:
        return unpack_bytes(bytes_, end)
    raise ValueError(f"version {bytes_[0]} is not {BITWISE}")


cdef list unpack_bits(const uint8_t *data, Py_ssize_t end):
    cdef list result = []
    cdef om_bits bits = om_bits(
        data=<uint8_t *> data, at=8, end=8 * <size_t> end, cut=False
    )
    cdef uint64_t counts[MAX_CELLS]
    cdef uint64_t number = get(&bits, NUMBER_BITS)
    cdef uint64_t tag, first, filled, cell, gap
    cdef int of_gaps, of_counts
    memset(counts, 0, sizeof(counts))
    while number and not bits.cut:
        number -= 1
        tag = get(&bits, TAG_BITS)
        first = get(&bits, CELL_BITS)
        filled = get_golomb(&bits, LENGTH_ORDER) + 1
        of_gaps = <int> get(&bits, ORDER_BITS)
        of_counts = <int> get(&bits, ORDER_BITS)
        cell = 0
        while not bits.cut:
            counts[cell] = get_golomb(&bits, of_counts) + 1
            filled -= 1
            cell += 1
            if filled == 0:
                break
            gap = get_golomb(&bits, of_gaps)
            if gap >= MAX_CELLS or first + cell + gap >= MAX_CELLS:
                raise ValueError("a cell beyond all layouts")
            cell += gap
        result.append((
            tag, <Py_ssize_t> first,
            PyBytes_FromStringAndSize(<char *> counts, <Py_ssize_t> cell * 8),
        ))
        memset(counts, 0, cell * 8)
    if bits.cut:
        raise ValueError("cut within a histogram")
    return result


cdef list unpack_bytes(const uint8_t *bytes_, Py_ssize_t end):
    """Version 1."""
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
        tag = bytes_[at]
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
