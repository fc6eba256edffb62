# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t

from ometrics._table cimport Slot, Table

cdef class ModelRecorder:
    cdef Table table
    cdef Slot slot
    cdef readonly object name

    cdef Slot current(self)

cdef class Timer:
    cdef Table table
    cdef object name
    cdef int64_t start_ns
