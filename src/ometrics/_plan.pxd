# SPDX-License-Identifier: MIT
from cpython.list cimport PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

cdef enum:
    MAX_NUMBERS = 64            # counters or histograms of a read type

cdef extern from "Python.h":
    PyObject **PySequence_Fast_ITEMS(list)
    object PyObject_Vectorcall(
        object callable, PyObject *const *args, size_t nargs, object keywords
    )

cdef class Plan:
    cdef object owner
    cdef tuple keywords
    cdef int n
    cdef int n_counters, n_codes, n_histograms
    cdef int known_by[MAX_NUMBERS]      # place of what says if one is known, or -1
    cdef bint of_tokens[MAX_NUMBERS]    # whether a histogram is one of tokens

    cdef list values(self, const uint64_t *counters)
    cdef object make(self, list values, tuple others)

cdef inline void fill(list values, int i, object value) noexcept:
    """Put a value where there is none yet."""
    Py_INCREF(value)
    PyList_SET_ITEM(values, i, value)

cdef inline object called(object owner, list values, tuple keywords):
    """The owner of these values, in the order of the keywords."""
    return PyObject_Vectorcall(owner, PySequence_Fast_ITEMS(values), 0, keywords)
