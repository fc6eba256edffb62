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

from ometrics._growing cimport (
    DECIMAL,
    om_bytes,
    put,
    put_byte,
    put_decimal,
    reserve,
    write_decimal,
)

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
    om_text labels              # of the owner of the number
    om_text own                 # of the metric
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


cdef inline void put_name(om_bytes *out, om_text name, om_sample *s) noexcept nogil:
    """`NAME{key="value",...}`; the braces only if there are labels."""
    put_text(out, name)
    if s.labels.n or s.own.n:
        put_byte(out, c"{")
        if s.labels.n:
            put(out, s.labels.data + 1, s.labels.n - 1)     # without the first comma
            put_text(out, s.own)
        else:
            put(out, s.own.data + 1, s.own.n - 1)
        put_byte(out, c"}")


def labels(tuple pairs not None, /):
    """
    The bytes of `,key="value"` for each pair: with the comma first they can be joined.

    Args:
        pairs: Attributes and their values, in valid Unicode.
    """
    cdef bytearray text = bytearray()
    for key, value in pairs:
        if "\\" in value or '"' in value or "\n" in value:
            value = (
                value.replace("\\", r"\\").replace('"', r'\"').replace("\n", r"\n")
            )
        text += b',%s="%s"' % (key.replace(".", "_").encode(), value.encode())
    return bytes(text)


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


cdef void write_buckets(
    om_bytes *out, om_sample *s, const om_text *heads, Py_ssize_t n, size_t n_text
) noexcept nogil:
    """One line a bucket. They are most of a page: room is made once for all of them."""
    cdef size_t tail = s.labels.n + s.own.n + DECIMAL + 3
    cdef unsigned char *at
    cdef Py_ssize_t k
    if not reserve(out, n_text + n * tail):
        return
    at = out.data + out.size
    for k in range(n):
        memcpy(at, heads[k].data, heads[k].n)
        at += heads[k].n
        memcpy(at, s.labels.data, s.labels.n)
        at += s.labels.n
        if s.own.n:
            memcpy(at, s.own.data, s.own.n)
            at += s.own.n
        at[0] = c"}"
        at[1] = c" "
        at += 2
        at += write_decimal(at, s.counts[k])
        at[0] = c"\n"
        at += 1
    out.size = at - out.data


cdef inline int name_sample(om_sample *s, labels, own) except -1:
    s.labels = text_of(<bytes?> labels)
    s.own.n = 0
    if own is not None:
        s.own = text_of(<bytes?> own)
    return 0


@cython.final
cdef class Lines:
    """How the lines of a family's histograms begin, for one set of bounds."""

    cdef tuple bounds
    cdef list texts             # `NAME_bucket{le="BOUND"` of each bound and of infinity
    cdef om_text *heads         # the same
    cdef Py_ssize_t n_heads
    cdef size_t n_text          # bytes of all heads
    cdef bytes count, sum, created, seconds

    def __cinit__(self, bytes name, tuple bounds, bytes created):
        cdef Py_ssize_t i
        self.bounds = bounds
        self.texts = [
            b'%s_bucket{le="%s"' % (name, number_text(bound).encode())
            for bound in (*bounds, float("inf"))
        ]
        self.n_heads = len(self.texts)
        self.heads = <om_text *> malloc(self.n_heads * sizeof(om_text))
        if self.heads == NULL:
            raise MemoryError
        for i in range(self.n_heads):
            self.heads[i] = text_of(<bytes> self.texts[i])
            self.n_text += self.heads[i].n
        self.count = name + b"_count"
        self.sum = name + b"_sum"
        self.created = name + b"_created"
        self.seconds = created

    def __dealloc__(self):
        free(self.heads)


@cython.final
cdef class Page:
    """
    A text page that grows family by family.

    Args:
        pace: Called after some hundred samples each, to let other threads run.
    """

    cdef om_bytes out
    cdef om_sample samples[AT_ONCE]
    cdef object pace

    def __cinit__(self, pace=None):
        self.pace = pace

    def __dealloc__(self):
        free(self.out.data)

    def text(self, bytes text not None, /):
        """Add lines that are finished already."""
        put_text(&self.out, text_of(text))

    def numbers(
        self, bytes name not None, list columns not None, bytes created not None, /
    ):
        """
        Add a line for each sample.

        Args:
            name: The metric's.
            columns: As of `ometrics.export.names.Family`, with labels as `labels` gives
                them.
            created: `NAME SECONDS` of a second line for each, or nothing.
        """
        cdef Py_ssize_t n = 0
        cdef list kept = []
        cdef om_text c_name = text_of(name)
        cdef bytes created_name, seconds
        created_name, _, seconds = created.partition(b" ")
        cdef om_text c_created = text_of(created_name)
        cdef om_text c_seconds = text_of(seconds)
        for column in columns:
            own, read = column.own, column.read
            for labels, owner in <list?> column.owners:
                value = owner if read is None else read(owner)
                if value is None:
                    continue
                name_sample(&self.samples[n], labels, own)
                read_number(&self.samples[n].number, value, kept)
                n += 1
                if n == AT_ONCE:
                    self.write_numbers(n, c_name, c_created, c_seconds)
                    kept.clear()
                    n = 0
        self.write_numbers(n, c_name, c_created, c_seconds)

    cdef int write_numbers(
        self, Py_ssize_t n, om_text name, om_text created, om_text seconds
    ) except -1:
        cdef Py_ssize_t i
        cdef om_sample *s
        with nogil:
            for i in range(n):
                s = &self.samples[i]
                put_name(&self.out, name, s)
                put_number(&self.out, &s.number)
                if created.n:
                    put_name(&self.out, created, s)
                    put_byte(&self.out, c" ")
                    put_text(&self.out, seconds)
                    put_byte(&self.out, c"\n")
        if self.pace is not None:
            self.pace()
        return 0

    def histograms(
        self,
        bytes name not None,
        list columns not None,
        tuple bounds,
        bytes created not None,
        /,
    ):
        """
        Add the lines of each histogram: its buckets, count and sum.

        Args:
            name: The metric's.
            columns: As for `numbers`; the values are histograms.
            bounds: Explicit bounds; `None` for each histogram's own.
            created: Seconds since 1970 for one line more, or nothing.
        """
        cdef Py_ssize_t n = 0
        cdef list kept = []
        cdef bytes counts
        cdef tuple mine
        cdef Lines lines = None
        for column in columns:
            own, read = column.own, column.read
            for labels, owner in <list?> column.owners:
                value = owner if read is None else read(owner)
                if value is None:
                    continue
                mine = value.bucket_bounds if bounds is None else bounds
                if lines is None or (
                    mine is not lines.bounds and mine != lines.bounds
                ):
                    if n:
                        self.write_histograms(n, lines)
                        n = 0
                    lines = Lines(name, mine, created)
                name_sample(&self.samples[n], labels, own)
                counts = value.packed_cumulative(mine)
                kept.append(counts)
                self.samples[n].counts = (
                    <const uint64_t *> <void *> PyBytes_AS_STRING(counts)
                )
                read_number(&self.samples[n].number, value.total, kept)
                n += 1
                if n == AT_ONCE:
                    self.write_histograms(n, lines)
                    kept.clear()
                    n = 0
        if n:
            self.write_histograms(n, lines)

    cdef int write_histograms(self, Py_ssize_t n, Lines lines) except -1:
        cdef Py_ssize_t i
        cdef om_sample *s
        cdef Py_ssize_t n_heads = lines.n_heads
        cdef om_text count = text_of(lines.count)
        cdef om_text sum = text_of(lines.sum)
        cdef om_text created = text_of(lines.created)
        cdef om_text seconds = text_of(lines.seconds)
        with nogil:
            for i in range(n):
                s = &self.samples[i]
                write_buckets(&self.out, s, lines.heads, n_heads, lines.n_text)
                put_name(&self.out, count, s)
                put_byte(&self.out, c" ")
                put_decimal(&self.out, s.counts[n_heads - 1])
                put_byte(&self.out, c"\n")
                put_name(&self.out, sum, s)
                put_number(&self.out, &s.number)
                if seconds.n:
                    put_name(&self.out, created, s)
                    put_byte(&self.out, c" ")
                    put_text(&self.out, seconds)
                    put_byte(&self.out, c"\n")
        if self.pace is not None:
            self.pace()
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
