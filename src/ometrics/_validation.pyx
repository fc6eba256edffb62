# SPDX-License-Identifier: MIT
"""What a histogram must be: each one that is made is checked here.

Compiled because reading a snapshot makes thousands. Pure: no lock, no shared state.
"""

from cpython.long cimport PyLong_Check
from libc.math cimport INFINITY, NAN, ldexp
from libc.stdint cimport UINT64_MAX, uint64_t

from ometrics._buckets cimport cell_of
from ometrics._histogram cimport Layout, layout_for, om_cells, sum_of
from ometrics._record cimport nanoseconds

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1

cdef double TWO_TO_53 = ldexp(1.0, 53)          # whole numbers are exact up to here
cdef double TOKEN_SECONDS = ldexp(1.0, -14)     # as `histogram.TOKEN_SECONDS`


def check_latencies(histogram, /):
    """
    Refuse a `LatencyHistogram` that no values could have made.

    Raises:
        TypeError: A field is of another type.
        ValueError: A field contradicts the layout or another field; the message names
            it.
    """
    check(histogram, histogram.sum_ns, "sum_ns", 1.0)


def check_tokens(histogram, /):
    """The same for a `TokenHistogram`."""
    check(histogram, histogram.total, "total", TOKEN_SECONDS)


cdef int check(histogram, sum, str sum_name, double unit) except -1:
    """`unit` is the place of the value 1 among the cells, in seconds."""
    buckets = histogram.bucket_bounds
    cells = histogram.cells
    first = histogram.first_cell
    low = histogram.min
    high = histogram.max
    if type(buckets) is not tuple or type(cells) is not bytes:
        raise TypeError("a histogram's bucket_bounds are a tuple, its cells bytes")
    if not PyLong_Check(first) or not PyLong_Check(sum):
        raise TypeError(f"a histogram's first_cell and {sum_name} are integers")
    cdef Layout layout = layout_for(buckets)
    cdef int overflow = 0
    cdef long long place = PyLong_AsLongLongAndOverflow(first, &overflow)
    if overflow or not 0 <= place < layout.c.n_cells:
        raise ValueError(
            f"first_cell {first} is not one of the {layout.c.n_cells} of this layout"
        )
    cdef uint64_t known_sum
    try:
        known_sum = sum
    except OverflowError:
        raise ValueError(f"{sum_name} {sum} is not within 0 to 2^64 - 1") from None
    cdef om_cells c = layout.cells_of(<int> place, cells)
    if c.n == 0:
        if place == 0 and known_sum == 0 and low is None and high is None:
            return 0
        for name, value, nothing in (
            ("first_cell", first, 0), (sum_name, sum, 0), ("min", low, None),
            ("max", high, None),
        ):
            if value != nothing:
                raise ValueError(f"{name} {value} of no values must be {nothing}")
    if c.counts[0] == 0 or c.counts[c.n - 1] == 0:
        raise ValueError("cells must be trimmed: neither end may be zero")
    cdef bint over
    cdef uint64_t count = sum_of(c.counts, c.n, &over)
    if over:
        raise ValueError(f"cells add up to more than {UINT64_MAX}")
    cdef double least = check_extreme(layout, low, "min", unit, c.first, "first")
    cdef double most = check_extreme(
        layout, high, "max", unit, c.first + c.n - 1, "last"
    )
    if least > most:
        raise ValueError(f"min {low} is above max {high}")
    # Each value is rounded to a whole number before it is added, always the same way.
    cdef uint64_t mean = known_sum // count
    if known_sum != UINT64_MAX and least < TWO_TO_53 and mean < whole(least, unit):
        raise ValueError(f"{sum_name} {sum} is below {count} times min {low}")
    mean += known_sum % count != 0
    if most < TWO_TO_53 and mean > whole(most, unit):
        raise ValueError(f"{sum_name} {sum} is above {count} times max {high}")
    return 0


cdef double check_extreme(
    Layout layout, extreme, str name, double unit, int cell, str place
) except? -1.0:
    """The extreme as a number, NaN where it is not known."""
    if extreme is None:
        return NAN
    cdef double value = extreme
    if not 0.0 <= value < INFINITY or cell_of(&layout.c, value * unit) != cell:
        raise ValueError(f"{name} {extreme} is not in the {place} cell")
    return value


cdef inline uint64_t whole(double value, double unit) noexcept:
    """What a value adds to the sum: nanoseconds, or tokens, which are whole."""
    return nanoseconds(value) if unit == 1.0 else <uint64_t> value
