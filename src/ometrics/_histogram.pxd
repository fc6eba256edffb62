# SPDX-License-Identifier: MIT
from ometrics._buckets cimport om_layout

cdef class Layout:
    cdef om_layout c
    cdef readonly tuple bounds
    cdef int *exp_end           # last cell of each exponential bucket
    cdef dict _ends             # explicit bound -> last cell at or below it

    cdef int fits(self, int first, int n) except -1
