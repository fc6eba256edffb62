# SPDX-License-Identifier: MIT
"""How arrays of numbers become a read type: by the names that are declared for them.

Pure: no lock, no shared state.
"""

from cpython.list cimport PyList_New
from libc.stdint cimport uint64_t

cimport cython


@cython.final
cdef class Plan:
    """
    The names under which an array of counters, of codes and of histograms becomes a
    read type, in the order of the places.

    Args:
        owner: The read type.
        n_counters: How many counters the core was compiled for.
        n_codes: How many mappings of codes.
        n_histograms: How many histograms.
        others: Fields that the caller gives, after these.

    Raises:
        ImportError: The declarations are not those that the core was compiled for.
    """
    def __cinit__(self, owner, int n_counters, int n_codes, int n_histograms, others):
        from ometrics.fields import Counter, Counts, Distribution, fields_of, stored
        if max(n_counters, n_histograms) > MAX_NUMBERS:
            raise ImportError(f"{owner.__name__} has more than {MAX_NUMBERS} numbers")
        counters = stored(owner, Counter)
        codes = stored(owner, Counts)
        histograms = stored(owner, Distribution)
        if (len(counters), len(codes), len(histograms)) != (
            n_counters, n_codes, n_histograms
        ):
            raise ImportError(
                f"{owner.__name__} has other fields than ometrics was compiled for:"
                " build it anew"
            )
        declared = {field.name: field for field in fields_of(owner)}
        self.owner = owner
        self.n_counters = n_counters
        self.n_codes = n_codes
        self.n_histograms = n_histograms
        self.keywords = (*counters, *codes, *histograms, *others)
        self.n = len(self.keywords)
        for i, name in enumerate(counters):
            known_by = declared[name].known_by
            self.known_by[<int> i] = counters.index(known_by) if known_by else -1
        for i, name in enumerate(histograms):
            self.of_tokens[<int> i] = declared[name].metric.unit == "{token}"

    cdef list values(self, const uint64_t *counters):
        """Room for all values, with those of the counters filled in."""
        cdef list values = PyList_New(self.n)
        cdef int i, known
        for i in range(self.n_counters):
            known = self.known_by[i]
            fill(
                values, i, None if known >= 0 and counters[known] == 0 else counters[i]
            )
        return values

    cdef object make(self, list values, tuple others):
        """The read type of values in the order of the keywords, `others` the last."""
        cdef int first = self.n - <int> len(others)
        cdef int i
        for i in range(<int> len(others)):
            fill(values, first + i, others[i])
        return called(self.owner, values, self.keywords)
