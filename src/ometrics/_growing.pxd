# SPDX-License-Identifier: MIT
# Bytes that grow at the end, written without the GIL.
#
# When memory runs out, `failed` is set and all further writes do nothing: the writer
# looks once, at the end, instead of after each call.

from libc.stdint cimport uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy


cdef enum:
    DECIMAL = 20                # digits of 2^64 - 1


cdef struct om_bytes:
    unsigned char *data
    size_t size
    size_t capacity
    bint failed


cdef inline bint reserve(om_bytes *b, size_t more) noexcept nogil:
    """Whether there is room for so many more."""
    cdef size_t capacity
    cdef void *data
    if b.capacity - b.size >= more:
        return not b.failed
    capacity = 2 * (b.size + more) + 1024
    data = realloc(b.data, capacity)
    if data == NULL:
        b.failed = True
        return False
    b.data = <unsigned char *> data
    b.capacity = capacity
    return not b.failed


cdef inline void put(om_bytes *b, const void *data, size_t n) noexcept nogil:
    if n > 0 and reserve(b, n):     # of nothing, `data` may be NULL
        memcpy(b.data + b.size, data, n)
        b.size += n


cdef inline void put_byte(om_bytes *b, unsigned char byte) noexcept nogil:
    if reserve(b, 1):
        b.data[b.size] = byte
        b.size += 1


cdef inline size_t write_decimal(unsigned char *at, uint64_t value) noexcept nogil:
    """Write up to `DECIMAL` digits; returns how many they are."""
    cdef unsigned char digits[DECIMAL]
    cdef int i = DECIMAL
    while True:
        i -= 1
        digits[i] = <unsigned char> (c'0' + value % 10)
        value //= 10
        if value == 0:
            break
    memcpy(at, digits + i, DECIMAL - i)
    return DECIMAL - i


cdef inline void put_decimal(om_bytes *b, uint64_t value) noexcept nogil:
    if reserve(b, DECIMAL):
        b.size += write_decimal(b.data + b.size, value)
