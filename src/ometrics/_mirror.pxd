# SPDX-License-Identifier: MIT
from libc.stdint cimport uint32_t, uint64_t

from ometrics._histogram cimport Layout
from ometrics._journal cimport om_marks
from ometrics._segment cimport om_block, om_header

# Where a block of the file is, and to which model it belongs.
cdef struct om_place:
    uint64_t offset
    uint64_t family

cdef struct om_places:
    om_place *places
    uint32_t n
    uint32_t room

cdef class Mirror:
    cdef int file
    cdef om_header h
    cdef char *data             # the mirror
    cdef size_t size            # of the file, and so of the mirror
    cdef Layout layout
    cdef readonly tuple bounds
    cdef om_places records
    cdef om_places running      # blocks of places for running calls
    cdef dict codes
    cdef readonly bint one_instant  # whether all of it is; else each model is

    cdef int check(self, bint was_read) except -1
    cdef bint header_is_sound(self)
    cdef int read_bounds(self) except -1
    cdef bint fill(self, uint64_t offset, size_t size) noexcept nogil
    cdef int walk(self) except -1
    cdef int read_code(self, uint64_t at) except -1
    cdef str text(self, const char *data, size_t length)
    cdef int read_part(self, om_place *records, uint32_t n, bint rest) noexcept nogil
    cdef bint read_marks(self, om_marks *marks, uint64_t *reuses) noexcept nogil
    cdef bint read_record(self, om_place *place) noexcept nogil
    cdef bint read_changes(self, uint64_t done, uint64_t begun) noexcept nogil
    cdef int put_back(
        self, uint64_t done, uint64_t begun, om_place *records, uint32_t n, bint rest
    ) noexcept nogil
    cdef bint is_part(
        self, uint64_t at, om_place *records, uint32_t n, bint rest
    ) noexcept nogil
    cdef om_block *block_at(self, uint64_t offset) noexcept nogil
    cdef uint64_t offset_of(self, uint64_t address) noexcept nogil
    cdef int read_all(self, bint alive) except -1
    cdef int read_by_model(self) noexcept nogil
    cdef int read_patiently(
        self, om_place *records, uint32_t n, bint rest
    ) noexcept nogil
