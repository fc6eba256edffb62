# SPDX-License-Identifier: MIT
# Numbers as the text of JSON; each function returns where its text ends.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport ldexp, rint
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memcpy

cdef enum:
    DIGITS = 20                 # of 2^64 - 1
    DURATION = 32               # more than the longest duration with its quotes

cdef inline char *put(char *out, const char *text, Py_ssize_t n) noexcept nogil:
    memcpy(out, text, n)
    return out + n

cdef inline char *put_bytes(char *out, bytes text) noexcept:
    return put(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

cdef inline char *put_int(char *out, uint64_t value) noexcept nogil:
    if value < 10:                      # nearly all counts
        out[0] = <char> (48 + value)
        return out + 1
    if value < 100:
        out[0] = <char> (48 + value // 10)
        out[1] = <char> (48 + value % 10)
        return out + 2
    cdef char digits[DIGITS]
    cdef int n = DIGITS
    while value:
        n -= 1
        digits[n] = <char> (48 + value % 10)
        value //= 10
    return put(out, digits + n, DIGITS - n)

cdef inline char *put_fixed(
    char *out, uint64_t whole, uint64_t part, int digits
) noexcept nogil:
    """`whole.part`, `part` having so many digits, without trailing zeros."""
    out = put_int(out, whole)
    if part == 0:
        return out
    while part % 10 == 0:
        part //= 10
        digits -= 1
    out[0] = b"."
    cdef int i
    for i in range(digits, 0, -1):
        out[i] = <char> (48 + part % 10)
        part //= 10
    return out + 1 + digits

cdef inline char *put_duration(char *out, uint64_t ns) noexcept nogil:
    """As Go writes it; see `ometrics.durations.format_duration`."""
    cdef uint64_t minute = <uint64_t> 60 * 1_000_000_000
    cdef uint64_t minutes
    if ns == 0:
        return put(out, b"0s", 2)
    if ns < 1_000:
        return put(put_int(out, ns), b"ns", 2)
    if ns < 1_000_000:
        return put(put_fixed(out, ns // 1_000, ns % 1_000, 3), b"\xc2\xb5s", 3)
    if ns < 1_000_000_000:
        return put(put_fixed(out, ns // 1_000_000, ns % 1_000_000, 6), b"ms", 2)
    minutes = ns // minute
    ns %= minute
    if minutes >= 60:
        out = put(put_int(out, minutes // 60), b"h", 1)
    if minutes:
        out = put(put_int(out, minutes % 60), b"m", 1)
    out = put_fixed(out, ns // 1_000_000_000, ns % 1_000_000_000, 9)
    return put(out, b"s", 1)

cdef inline uint64_t as_count(value) except? 0:
    try:
        return value
    except OverflowError:
        raise ValueError(
            f"{value} is not within the 0 to 2^64 - 1 of a count"
        ) from None

cdef inline uint64_t rounded_ns(double seconds) noexcept nogil:
    cdef double ns = rint(seconds * 1e9)
    return <uint64_t> ns if ns < ldexp(1.0, 64) else UINT64_MAX
