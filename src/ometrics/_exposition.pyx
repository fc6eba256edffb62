# SPDX-License-Identifier: MIT
"""The lines of a Prometheus text page, written without the GIL.

A page of a thousand models has some 25,000 lines, most of them bucket counts. Labels
and numbers are gathered from Python objects a few hundred samples at a time; their
bytes are written with the GIL released, so that other threads run in between.

No lock: a `Page` is for one thread.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_Free
from libc.math cimport isfinite, rint
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, strlen

from ometrics._growing cimport om_bytes, put, put_byte, put_decimal

cimport cython


cdef extern from "Python.h":
    enum: Py_DTSF_ADD_DOT_0
    char *PyOS_double_to_string(
        double value, char code, int precision, int flags, int *kind
    ) except NULL

cdef enum:
    AT_ONCE = 256               # samples gathered at a time: some 50 us with the GIL
    MAX_FLOAT = 32              # the longest takes 24 characters

cdef dict SPECIAL = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


cdef struct om_text:
    const char *data            # of a bytes object that outlives it
    size_t n


cdef struct om_number:
    uint64_t integer            # what is written where there is no text
    om_text text
    char digits[MAX_FLOAT]      # where the text of a float is


cdef struct om_sample:
    om_text labels
    om_number number            # of a histogram: its sum
    const uint64_t *counts      # of a histogram: at or below each bound, and in all


cdef inline om_text text_of(bytes text) noexcept:
    cdef om_text result
    result.data = PyBytes_AS_STRING(text)
    result.n = PyBytes_GET_SIZE(text)
    return result


cdef inline void put_text(om_bytes *out, om_text text) noexcept nogil:
    put(out, text.data, text.n)


cdef inline void put_number(om_bytes *out, om_number *number) noexcept nogil:
    put_byte(out, c" ")
    if number.text.n:
        put_text(out, number.text)
    else:
        put_decimal(out, number.integer)
    put_byte(out, c"\n")


cdef inline void put_name(om_bytes *out, om_text name, om_text labels) noexcept nogil:
    """`NAME{key="value",...}`; the braces only if there are labels."""
    put_text(out, name)
    if labels.n:
        put_byte(out, c"{")
        put(out, labels.data + 1, labels.n - 1)     # without the first comma
        put_byte(out, c"}")


def number_text(value, /):
    """A number as both text formats write it; integers keep every digit."""
    text = str(value)
    return SPECIAL.get(text, text)


cdef inline size_t write_fraction(
    char *digits, double value, double units, int n_units
) noexcept nogil:
    """
    Write a multiple of 1/units as a decimal fraction; 0 if `value` is none.

    Sums are whole nanoseconds and times whole microseconds, divided. Where the division
    is of integers that a double holds, its decimal fraction reads back as that double:
    both are the double next to the same number. This takes a tenth of the time of the
    general search for the shortest such fraction.
    """
    cdef double whole = rint(value * units)
    cdef uint64_t n, left
    cdef int i
    cdef size_t at
    if not (0.0 <= whole < 9007199254740992.0) or whole / units != value:
        return 0
    n = <uint64_t> whole
    left = n % <uint64_t> units
    at = MAX_FLOAT
    for i in range(n_units):
        if left % 10 or at < MAX_FLOAT or i == n_units - 1:     # no zeros at the end
            at -= 1
            digits[at] = <char> (c'0' + left % 10)
        left //= 10
    at -= 1
    digits[at] = c'.'
    n //= <uint64_t> units
    while True:
        at -= 1
        digits[at] = <char> (c'0' + n % 10)
        n //= 10
        if n == 0:
            break
    memmove(digits, digits + at, MAX_FLOAT - at)
    return MAX_FLOAT - at


cdef int read_number(om_number *number, value, list kept) except -1:
    cdef char *digits
    cdef double x
    number.text.n = 0
    if PyFloat_CheckExact(value) and isfinite(PyFloat_AS_DOUBLE(value)):
        x = PyFloat_AS_DOUBLE(value)
        number.text.data = number.digits
        number.text.n = write_fraction(number.digits, x, 1e9, 9)
        if number.text.n == 0:
            number.text.n = write_fraction(number.digits, x, 1e6, 6)
        if number.text.n == 0:
            digits = PyOS_double_to_string(x, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
            number.text.n = strlen(digits)
            memcpy(number.digits, digits, number.text.n)
            PyMem_Free(digits)
    elif type(value) is int and 0 <= value <= 0xFFFF_FFFF_FFFF_FFFF:
        number.integer = value
    else:
        text = number_text(value).encode()
        kept.append(text)
        number.text = text_of(text)
    return 0


@cython.final
cdef class Page:
    """A text page that grows family by family."""

    cdef om_bytes out
    cdef om_sample samples[AT_ONCE]

    def __dealloc__(self):
        free(self.out.data)

    def text(self, bytes text not None, /):
        """Add lines that are finished already."""
        put_text(&self.out, text_of(text))

    def numbers(
        self, bytes name not None, list samples not None, bytes created not None, /
    ):
        """
        Add a line for each sample.

        Args:
            name: The metric's.
            samples: Pairs of labels, as the bytes of `,key="value"` each, and a number.
            created: `NAME SECONDS` of a second line for each, or nothing.
        """
        cdef Py_ssize_t start, i, n
        cdef list kept = []
        cdef om_text c_name = text_of(name)
        cdef bytes created_name, seconds
        created_name, _, seconds = created.partition(b" ")
        cdef om_text c_created = text_of(created_name)
        cdef om_text c_seconds = text_of(seconds)
        cdef om_sample *s
        for start in range(0, len(samples), AT_ONCE):
            n = min(<Py_ssize_t> AT_ONCE, len(samples) - start)
            for i in range(n):
                labels, value = <tuple> samples[start + i]
                s = &self.samples[i]
                s.labels = text_of(<bytes?> labels)
                read_number(&s.number, value, kept)
            with nogil:
                for i in range(n):
                    s = &self.samples[i]
                    put_name(&self.out, c_name, s.labels)
                    put_number(&self.out, &s.number)
                    if c_created.n:
                        put_name(&self.out, c_created, s.labels)
                        put_byte(&self.out, c" ")
                        put_text(&self.out, c_seconds)
                        put_byte(&self.out, c"\n")
            kept.clear()

    def histograms(
        self,
        bytes name not None,
        list samples not None,
        tuple bounds,
        bytes created not None,
        /,
    ):
        """
        Add the lines of each histogram: its buckets, count and sum.

        Args:
            name: The metric's.
            samples: Pairs of labels, as for `numbers`, and a histogram.
            bounds: Explicit bounds; `None` for each histogram's own.
            created: Seconds since 1970 for one line more, or nothing.
        """
        cdef list same = []
        cdef tuple those = bounds
        for sample in samples:
            own = sample[1].bucket_bounds if bounds is None else bounds
            if own != those and same:
                self.same_bounds(name, same, those, created)
                same = []
            those = own
            same.append(sample)
        if same:
            self.same_bounds(name, same, those, created)

    cdef int same_bounds(
        self, bytes name, list samples, tuple bounds, bytes created
    ) except -1:
        """`histograms` of one set of bounds."""
        cdef Py_ssize_t start, i, k, n
        cdef Py_ssize_t n_buckets = len(bounds) + 1
        cdef list kept = []
        cdef list heads = [
            b'%s_bucket{le="%s"' % (name, number_text(bound).encode())
            for bound in (*bounds, float("inf"))
        ]
        cdef bytes count_name = name + b"_count"
        cdef bytes sum_name = name + b"_sum"
        cdef bytes created_name = name + b"_created"
        cdef om_text c_count = text_of(count_name)
        cdef om_text c_sum = text_of(sum_name)
        cdef om_text c_created = text_of(created_name)
        cdef om_text c_seconds = text_of(created)
        cdef om_sample *s
        cdef om_text *c_heads = <om_text *> malloc(n_buckets * sizeof(om_text))
        if c_heads == NULL:
            raise MemoryError
        try:
            for k in range(n_buckets):
                c_heads[k] = text_of(<bytes> heads[k])
            for start in range(0, len(samples), AT_ONCE):
                n = min(<Py_ssize_t> AT_ONCE, len(samples) - start)
                for i in range(n):
                    labels, value = <tuple> samples[start + i]
                    s = &self.samples[i]
                    s.labels = text_of(<bytes?> labels)
                    counts = <bytes?> value.packed_cumulative(bounds)
                    kept.append(counts)
                    s.counts = <const uint64_t *> <void *> PyBytes_AS_STRING(counts)
                    read_number(&s.number, value.total, kept)
                with nogil:
                    for i in range(n):
                        s = &self.samples[i]
                        for k in range(n_buckets):
                            put_text(&self.out, c_heads[k])
                            put_text(&self.out, s.labels)
                            put(&self.out, b"} ", 2)
                            put_decimal(&self.out, s.counts[k])
                            put_byte(&self.out, c"\n")
                        put_name(&self.out, c_count, s.labels)
                        put_byte(&self.out, c" ")
                        put_decimal(&self.out, s.counts[n_buckets - 1])
                        put_byte(&self.out, c"\n")
                        put_name(&self.out, c_sum, s.labels)
                        put_number(&self.out, &s.number)
                        if c_seconds.n:
                            put_name(&self.out, c_created, s.labels)
                            put_byte(&self.out, c" ")
                            put_text(&self.out, c_seconds)
                            put_byte(&self.out, c"\n")
                kept.clear()
        finally:
            free(c_heads)
        return 0

    def value(self):
        """
        The whole page.

        Raises:
            MemoryError: There was no room for all of it.
        """
        if self.out.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *> self.out.data, self.out.size)
