# SPDX-License-Identifier: MIT
from libc.stdint cimport uint64_t

from ometrics._buckets cimport EXP_CELLS, om_layout

cdef enum:
    MAX_BOUNDS = 1024           # explicit ones of a layout

# The cells of one histogram, borrowed from the bytes that hold them.
cdef struct om_cells:
    const uint64_t *counts
    int first                   # index of the first of them in the layout
    int n

# The exponential view, trimmed; `first` is the bucket of the first count.
cdef struct om_exponential:
    int first
    int n
    uint64_t underflow
    uint64_t overflow
    uint64_t counts[EXP_CELLS]

cdef class Layout:
    cdef om_layout c
    cdef readonly tuple bounds
    cdef int n_bounds
    cdef int *exp_end           # last cell of each exponential bucket
    cdef int *bucket_of         # the exponential bucket of each cell; -1 is below all
    cdef int *bound_end         # last cell at or below each explicit bound
    cdef dict _ends             # explicit bound -> last cell at or below it
    cdef dict _ends_of          # id of bounds -> them, and the ends of all of them

    cdef om_cells cells_of(self, int first, bytes cells) except *
    cdef bytes ends_of(self, tuple bounds)
    cdef uint64_t explicit_counts(
        self, const om_cells *cells, uint64_t *counts
    ) noexcept nogil
    cdef void exponential_counts(
        self, const om_cells *cells, om_exponential *view
    ) noexcept nogil
    cdef void quantiles_of(
        self, const om_cells *cells, uint64_t count, double low, double high,
        const double *q, int n, double *values,
    ) noexcept nogil

cdef Layout layout_for(tuple buckets)
cdef uint64_t sum_of(const uint64_t *c, Py_ssize_t n, bint *over) noexcept nogil
