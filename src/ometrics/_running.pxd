# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t

cdef class Running:
    cdef int64_t calls
    cdef int64_t oldest
    cdef int64_t oldest_silence
    cdef int64_t silence        # the longest
    cdef int64_t silent         # age of that call
    cdef int64_t wait           # age of the oldest without a chunk
    cdef int64_t newest         # since the last chunk of any

    cdef void add(self, int64_t age, int64_t last) noexcept

cdef tuple of_running(Running running)
