# SPDX-License-Identifier: MIT
"""The lines of a Prometheus text page, written without the GIL.

A page of a thousand models has some 25,000 lines, most of them bucket counts. Labels
and numbers are gathered from Python objects a few hundred samples at a time; their
bytes are written with the GIL released, so that other threads run in between.

No lock: a `TextPage` is for one thread.
"""

from msgspec.json import Encoder

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.math cimport fabs, rint
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memmove

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


cdef enum:
    AT_ONCE = 256               # samples gathered at a time: some 50 us with the GIL
    MAX_FLOAT = 32              # the longest takes 24 characters
    MAX_NAMES = 64

cdef dict NAMES = {}            # attribute -> `,label="`

cdef dict SPECIAL = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
# The shortest fraction of a float, in a tenth of Python's time.
cdef object ENCODE = Encoder().encode


cdef struct om_text:
    const char *data            # of a bytes object that outlives it
    size_t n


cdef struct om_number:
    uint64_t integer            # what is written where there is no text
    om_text text
    bint is_later               # the text is still to be made, with that of others
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


cdef inline void put_created(
    om_bytes *out, om_text name, om_sample *s, om_text seconds
) noexcept nogil:
    """The line that says since when a sample counts."""
    put_name(out, name, s)
    put_byte(out, c" ")
    put_text(out, seconds)
    put_byte(out, c"\n")


def labels(tuple pairs not None, /):
    """
    The bytes of `,key="value"` for each pair: with the comma first they can be joined.

    Args:
        pairs: Attributes and their values, in valid Unicode.
    """
    cdef list parts = []
    for key, value in pairs:
        if "\\" in value or '"' in value or "\n" in value:
            value = (
                value.replace("\\", r"\\").replace('"', r'\"').replace("\n", r"\n")
            )
        name = NAMES.get(key)
        if name is None:
            name = f',{key.replace(".", "_")}="'.encode()
            if len(NAMES) < MAX_NAMES:
                NAMES[key] = name
        parts += (name, value.encode(), b'"')
    return b"".join(parts)


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


cdef int read_number(om_number *number, value, list kept, list later) except -1:
    """Take over a number; `later` gets one whose text `put_later` has to make."""
    cdef double x
    number.text.n = 0
    number.is_later = False
    if PyFloat_CheckExact(value):
        x = PyFloat_AS_DOUBLE(value)
        number.text.data = number.digits
        number.text.n = write_fraction(number.digits, x, 1e9, 9)
        if number.text.n == 0:
            number.text.n = write_fraction(number.digits, x, 1e6, 6)
        if number.text.n:
            return 0
        if 1e-4 <= fabs(x) < 1e16:      # without an exponent
            number.is_later = True
            later.append(value)
            return 0
    elif type(value) is int and 0 <= value <= 0xFFFF_FFFF_FFFF_FFFF:
        number.integer = value
        return 0
    text = number_text(value).encode()
    kept.append(text)
    number.text = text_of(text)
    return 0


cdef int put_later(om_sample *samples, Py_ssize_t n, list kept, list later) except -1:
    """Make the texts that are still missing, all at once."""
    cdef bytes texts
    cdef const char *at
    cdef const char *end
    cdef const char *comma
    cdef Py_ssize_t i
    if not later:
        return 0
    texts = ENCODE(later)
    kept.append(texts)
    later.clear()
    at = PyBytes_AS_STRING(texts) + 1
    end = at + PyBytes_GET_SIZE(texts) - 2
    for i in range(n):
        if samples[i].number.is_later:
            comma = <const char *> memchr(at, c",", end - at)
            if comma == NULL:
                comma = end
            samples[i].number.text.data = at
            samples[i].number.text.n = comma - at
            at = comma + 1
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
cdef class TextPage:
    """
    A text page that grows family by family.

    Args:
        pace: Called after some hundred samples each, to let other threads run.
    """

    cdef om_bytes out
    cdef om_sample samples[AT_ONCE]
    cdef list kept              # what the samples point into
    cdef list later             # their floats whose text is made at once
    cdef object pace

    def __cinit__(self, pace=None):
        self.kept = []
        self.later = []
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
                read_number(&self.samples[n].number, value, self.kept, self.later)
                n += 1
                if n == AT_ONCE:
                    self.write_numbers(n, c_name, c_created, c_seconds)
                    n = 0
        self.write_numbers(n, c_name, c_created, c_seconds)

    cdef int write_numbers(
        self, Py_ssize_t n, om_text name, om_text created, om_text seconds
    ) except -1:
        cdef Py_ssize_t i
        cdef om_sample *s
        put_later(self.samples, n, self.kept, self.later)
        with nogil:
            for i in range(n):
                s = &self.samples[i]
                put_name(&self.out, name, s)
                put_number(&self.out, &s.number)
                if created.n:
                    put_created(&self.out, created, s, seconds)
        return self.wrote()

    cdef int wrote(self) except -1:
        """Samples are written: nothing that they pointed into is needed any more."""
        self.kept.clear()
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
                self.kept.append(counts)
                self.samples[n].counts = (
                    <const uint64_t *> <void *> PyBytes_AS_STRING(counts)
                )
                read_number(
                    &self.samples[n].number, value.total, self.kept, self.later
                )
                n += 1
                if n == AT_ONCE:
                    self.write_histograms(n, lines)
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
        put_later(self.samples, n, self.kept, self.later)
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
                    put_created(&self.out, created, s, seconds)
        return self.wrote()

    def value(self):
        """
        The whole page.

        Raises:
            MemoryError: There was no room for all of it.
        """
        if self.out.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *> self.out.data, self.out.size)
