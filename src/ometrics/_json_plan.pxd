# SPDX-License-Identifier: MIT
from ometrics._histogram cimport Layout

cdef enum:
    MAX_SUM = 4                 # fields of one sum
    INDENT = 2                  # spaces a level
    MAX_DEPTH = 12              # a histogram of a call is at 6, its counts at 7
    ROOM = 64                   # more than any short token, and the deepest indent

cdef enum:          # what a key shows
    FIELD           # of the owner
    PROPERTY        # of the owner
    COMPUTED        # what a function makes of the owner
    SUM             # of fields, up to 2^64 - 1
    RATIO           # of sums of fields
    MEAN            # of the histogram that a field is; in seconds
    LEAST
    MOST
    TOTAL
    AS_DURATION = 16        # the same as Go writes it

cdef class Ratio:
    cdef tuple over, under
    cdef bint percent

cdef class Places:
    cdef int n
    cdef int places[MAX_SUM]

    cdef object sum_of(self, tuple values)

cdef class Key:
    cdef list lines             # the key on its line, by depth
    cdef readonly str name
    cdef object source
    cdef int shows
    cdef int place              # of the field
    cdef Places over, under     # the sum, or the parts of the ratio
    cdef bint percent

    cdef object ratio_of(self, tuple values)

cdef class Unit:
    cdef str sum_field
    cdef str suffix
    cdef double seconds
    cdef object labels

cdef class Shape:
    cdef object owner
    cdef tuple buckets
    cdef Unit unit
    cdef Layout layout
    cdef list labels            # their lines
    cdef int *bucket_ends       # how many of the bounds' counts end with each bucket
    cdef int shift              # of the exponential view, in buckets
    cdef bytes bucket_bounds, bounds
    cdef list sum_line, total_line, mean_line, min_line, max_line
    cdef list percentiles_line, bounds_line
    cdef list empty             # the whole text of one without values, by depth
    cdef Py_ssize_t room        # bytes that one histogram can take at most

cdef list lines_of(str text)
