# SPDX-License-Identifier: MIT
"""A snapshot as JSON text, written in C from a plan of its keys.

Compiled because a model is hundreds of counts, most of a document's bytes. Structure,
integers and histograms are written here; floats, strings and times are left to msgspec,
all in one call, and then put into their places: a NUL, which no JSON text contains,
keeps each. Pure: no lock, no shared state; to be called from any thread.
"""

import datetime as _datetime

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.math cimport NAN, isfinite, ldexp, log2, rint
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memset

from ometrics._buckets cimport EXP_CELLS, MIN_EXPONENT, OCTAVE, SCALE
from ometrics._histogram cimport MAX_BOUNDS, Layout, om_cells, om_exponential

cimport cython

cdef enum:
    DIGITS = 20                 # of 2^64 - 1
    DURATION = 32               # more than the longest duration with its quotes
    MAX_QUANTILES = 16
    INDENT = 2                  # spaces a level
    SPACES = 32
    ROOM = 64                   # more than any short token, and a line feed and SPACES

cdef double TWO_TO_64 = ldexp(1.0, 64)
cdef uint64_t MINUTE = <uint64_t> 60 * 1_000_000_000    # in nanoseconds
cdef object UTC = _datetime.timezone.utc
cdef object Time = _datetime.datetime


# --- Numbers as text

cdef inline char *put(char *out, const char *text, Py_ssize_t n) noexcept nogil:
    memcpy(out, text, n)
    return out + n

cdef inline char *put_bytes(char *out, bytes text) noexcept:
    return put(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

cdef inline char *put_int(char *out, uint64_t value) noexcept nogil:
    if value < 10:                      # nearly all counts
        out[0] = <char> (48 + value)
        return out + 1
    if value < 100:
        out[0] = <char> (48 + value // 10)
        out[1] = <char> (48 + value % 10)
        return out + 2
    cdef char digits[DIGITS]
    cdef int n = DIGITS
    while value:
        n -= 1
        digits[n] = <char> (48 + value % 10)
        value //= 10
    return put(out, digits + n, DIGITS - n)

cdef char *put_fixed(
    char *out, uint64_t whole, uint64_t part, int digits
) noexcept nogil:
    """`whole.part`, `part` having so many digits, without trailing zeros."""
    out = put_int(out, whole)
    if part == 0:
        return out
    while part % 10 == 0:
        part //= 10
        digits -= 1
    out[0] = b"."
    cdef int i
    for i in range(digits, 0, -1):
        out[i] = <char> (48 + part % 10)
        part //= 10
    return out + 1 + digits

cdef char *put_duration(char *out, uint64_t ns) noexcept nogil:
    """As Go writes it; see `ometrics.durations.format_duration`."""
    cdef uint64_t minutes
    if ns == 0:
        return put(out, b"0s", 2)
    if ns < 1_000:
        return put(put_int(out, ns), b"ns", 2)
    if ns < 1_000_000:
        return put(put_fixed(out, ns // 1_000, ns % 1_000, 3), b"\xc2\xb5s", 3)
    if ns < 1_000_000_000:
        return put(put_fixed(out, ns // 1_000_000, ns % 1_000_000, 6), b"ms", 2)
    minutes = ns // MINUTE
    ns %= MINUTE
    if minutes >= 60:
        out = put(put_int(out, minutes // 60), b"h", 1)
    if minutes:
        out = put(put_int(out, minutes % 60), b"m", 1)
    out = put_fixed(out, ns // 1_000_000_000, ns % 1_000_000_000, 9)
    return put(out, b"s", 1)

cdef inline uint64_t as_count(value) except? 0:
    try:
        return value
    except OverflowError:
        raise ValueError(
            f"{value} is not within the 0 to 2^64 - 1 of a count"
        ) from None

cdef inline uint64_t rounded_ns(double seconds) noexcept nogil:
    cdef double ns = rint(seconds * 1e9)
    return <uint64_t> ns if ns < TWO_TO_64 else UINT64_MAX


def go_duration_ns(uint64_t ns, /):
    """`ometrics.durations.format_duration` for 0 to 2^64 - 1 nanoseconds."""
    cdef char text[DURATION]
    return text[:put_duration(text, ns) - text].decode("utf-8")


def go_duration(double seconds, /):
    """The same for finite seconds >= 0, rounded to nanoseconds."""
    return go_duration_ns(rounded_ns(seconds))


# --- What is written: keys, and the shape of histograms

cdef enum:          # what a key shows
    VALUE           # an attribute of the owner
    COMPUTED        # what a function makes of the owner
    SUM             # of attributes, up to 2^64 - 1
    RATIO           # of sums of attributes
    MEAN            # of the histogram that an attribute is; in seconds
    LEAST
    MOST
    TOTAL
    AS_DURATION = 16        # the same as Go writes it

cdef dict FACTS = {"mean": MEAN, "min": LEAST, "max": MOST, "total": TOTAL}


@cython.final
cdef class Ratio:
    """
    A quotient of sums of attributes; 0.0 of nothing.

    Args:
        over: Names of the attributes whose sum is divided.
        under: Names of those whose sum divides it.
        percent: Multiply by 100.
    """

    cdef tuple over, under
    cdef bint percent

    def __cinit__(self, tuple over, tuple under, bint percent=False):
        self.over = over
        self.under = under
        self.percent = percent

    cdef object of(self, owner):
        under = sum_of(owner, self.under)
        if not under:
            return 0.0
        over = sum_of(owner, self.over)
        return 100.0 * over / under if self.percent else over / under


cdef object sum_of(owner, tuple names):
    result = getattr(owner, names[0])
    cdef Py_ssize_t i
    for i in range(1, len(names)):
        result = result + getattr(owner, names[i])
    return result


@cython.final
cdef class Key:
    """
    A key of an object of the document, and where its value comes from.

    Args:
        name: The key.
        source: Name of an attribute of the owner, several names for the sum of these,
            a `Ratio`, or a function of the owner.
        fact: `mean`, `min`, `max` or `total` of the histogram that the attribute is.
        duration: Write the fact as Go writes a duration, `0s` for an unknown mean.
    """

    cdef bytes text
    cdef readonly str name
    cdef object source
    cdef int shows

    def __cinit__(self, str name, source, str fact=None, bint duration=False):
        self.name = name
        self.text = f'"{name}": '.encode()
        self.source = source
        self.shows = COMPUTED
        if isinstance(source, str):
            self.shows = VALUE
        elif isinstance(source, tuple):
            self.shows = SUM
        elif isinstance(source, Ratio):
            self.shows = RATIO
        if fact is not None:
            self.shows = FACTS[fact] + (AS_DURATION if duration else 0)


@cython.final
cdef class Unit:
    """
    The names in a histogram's object.

    Args:
        sum_field: The field that holds the sum of the values.
        suffix: What follows the keys of values: `_seconds`, or nothing.
        seconds: What the value 1 is among the cells, in seconds.
        labels: Buckets -> their labels, or `None` to show none.
    """

    cdef str sum_field
    cdef str suffix
    cdef double seconds
    cdef object labels

    def __cinit__(self, str sum_field, str suffix, double seconds, labels):
        self.sum_field = sum_field
        self.suffix = suffix
        self.seconds = seconds
        self.labels = labels


@cython.final
cdef class _Shape:
    """What all histograms of one unit and one layout have in common, as text."""

    cdef object owner
    cdef tuple buckets
    cdef Unit unit
    cdef Layout layout
    cdef list labels
    cdef int *bucket_ends       # how many of the bounds' counts end with each bucket
    cdef int shift              # of the exponential view, in buckets
    cdef bytes bucket_bounds, bounds
    cdef bytes sum_key, total_key, mean_key, min_key, max_key
    cdef bytes percentiles_key, bounds_key
    cdef Py_ssize_t room        # bytes that one histogram can take at most

    def __cinit__(self, owner, tuple buckets, Unit unit, Layout layout, encode):
        cdef int i
        self.owner = owner
        self.buckets = buckets
        self.unit = unit
        self.layout = layout
        bounds = [bound / unit.seconds for bound in layout.bounds]
        self.bucket_bounds = encode(buckets)
        self.bounds = encode(bounds)
        self.shift = <int> rint(-log2(unit.seconds) * OCTAVE)
        suffix = unit.suffix
        self.sum_key = f'"{unit.sum_field}": '.encode()
        self.total_key = f'"total{suffix}": '.encode() if suffix else b""
        self.mean_key = f'"mean{suffix}": '.encode()
        self.min_key = f'"min{suffix}": '.encode()
        self.max_key = f'"max{suffix}": '.encode()
        self.percentiles_key = f'"percentiles{suffix}": '.encode()
        self.bounds_key = f'"bounds{suffix}": '.encode()
        self.bucket_ends = <int *> malloc(len(buckets) * sizeof(int))
        if self.bucket_ends == NULL:
            raise MemoryError
        for i in range(len(buckets) - 1):
            self.bucket_ends[i] = layout.bounds.index(buckets[i]) + 1
        self.bucket_ends[len(buckets) - 1] = layout.n_bounds + 1
        self.labels = []
        if unit.labels is not None:
            self.labels = [f'"{label}": '.encode() for label in unit.labels(buckets)]
        self.room = (
            4096 + len(self.bucket_bounds) + len(self.bounds)
            + (DIGITS + 1) * (EXP_CELLS + 2 + layout.n_bounds)
            + sum([len(label) + DIGITS + ROOM for label in self.labels])
        )

    def __dealloc__(self):
        free(self.bucket_ends)


# --- The page

cdef enum:
    RECENT = 32

cdef struct _Recent:
    PyObject *value
    int index                   # in `later`

cdef struct _Token:
    const char *text
    Py_ssize_t length


@cython.final
cdef class _Page:
    """One document while it is written."""

    cdef Writer writer
    cdef char *start
    cdef char *at
    cdef char *end
    cdef list later             # what msgspec writes, in the order of the places
    cdef _Shape shape            # of the last histogram
    cdef object known           # the histogram that the next two are of
    cdef uint64_t known_count
    cdef object known_mean
    cdef object known_total     # in seconds
    cdef int *places            # for each NUL, which of `later` belongs there
    cdef Py_ssize_t n_places, places_size
    cdef _Recent recent[RECENT]

    def __cinit__(self, Writer writer):
        self.writer = writer
        self.later = []
        self.start = <char *> PyMem_Malloc(1 << 16)
        if self.start == NULL:
            raise MemoryError
        self.at = self.start
        self.end = self.start + (1 << 16)

    def __dealloc__(self):
        PyMem_Free(self.start)
        PyMem_Free(self.places)

    cdef int need(self, Py_ssize_t n) except -1:
        """Make room for `n` more bytes."""
        cdef Py_ssize_t used = self.at - self.start
        cdef Py_ssize_t size = 2 * (used + n)
        cdef char *larger
        if self.end - self.at < n:
            larger = <char *> PyMem_Realloc(self.start, size)
            if larger == NULL:
                raise MemoryError
            self.start = larger
            self.at = larger + used
            self.end = larger + size
        return 0

    cdef inline void line(self, int depth, bytes key) noexcept:
        """A new line with its key."""
        self.at[0] = b"\n"
        memset(self.at + 1, b" ", SPACES)       # of a fixed size: two stores
        if depth * INDENT > SPACES:
            memset(self.at + 1, b" ", depth * INDENT)
        self.at = put_bytes(self.at + 1 + depth * INDENT, key)

    cdef inline void close(self, int depth, bint empty) noexcept:
        """The end of an object; the last comma gives way to it."""
        if empty:
            self.at = put(self.at, b"}", 1)
        else:
            self.at -= 1
            self.line(depth, b"}")

    cdef inline int put_later(self, value) except -1:
        """A place for a value; one that was just there is not written again."""
        cdef _Recent *recent = &self.recent[(<size_t> <PyObject *> value >> 4) % RECENT]
        if recent.value != <PyObject *> value:
            recent.value = <PyObject *> value       # `later` keeps it alive
            recent.index = <int> len(self.later)
            self.later.append(value)
        if self.n_places == self.places_size:
            self.more_places()
        self.places[self.n_places] = recent.index
        self.n_places += 1
        self.at[0] = 0
        self.at += 1
        return 0

    cdef int more_places(self) except -1:
        cdef Py_ssize_t size = 2 * self.places_size + 256
        cdef int *larger = <int *> PyMem_Realloc(self.places, size * sizeof(int))
        if larger == NULL:
            raise MemoryError
        self.places = larger
        self.places_size = size
        return 0

    cdef int put_float(self, value) except -1:
        if not isfinite(<double> value):
            raise ValueError(f"{value} is not a number that JSON can say")
        return self.put_later(value)

    cdef int put_value(self, value, int depth) except -1:
        """Any value; there is room for a short one."""
        cdef object kind = type(value)
        if value is None:
            self.at = put(self.at, b"null", 4)
        elif kind is int:
            self.at = put_int(self.at, as_count(value))
        elif kind is float:
            self.put_float(value)
        elif kind is str:
            self.put_later(value)
        elif kind is Time:
            self.put_later(value if value.tzinfo is UTC else value.astimezone(UTC))
        elif kind is dict:
            self.put_mapping(value, depth)
        else:
            self.put_owner(kind, value, depth)
        return 0

    cdef int put_owner(self, kind, value, int depth) except -1:
        keys = self.writer.keys.get(kind)
        if keys is not None:
            self.put_object(<tuple> keys, value, depth)
        elif kind in self.writer.units:
            self.put_histogram(kind, value, depth)
        elif isinstance(value, float):
            self.put_float(value)
        elif hasattr(value, "items"):
            self.put_mapping(dict(value), depth)
        else:
            raise TypeError(f"a {kind.__name__} has no place in a document")
        return 0

    cdef int put_mapping(self, dict mapping, int depth) except -1:
        self.at = put(self.at, b"{", 1)
        for name, value in mapping.items():
            self.need(depth * INDENT + ROOM)
            self.line(depth + 1, b"")
            self.put_later(name)
            self.at = put(self.at, b": ", 2)
            try:
                self.put_value(value, depth + 1)
            except ValueError as error:
                raise located(f"[{name!r}]", error) from None
            self.need(depth * INDENT + ROOM)
            self.at = put(self.at, b",", 1)
        self.close(depth, not mapping)
        return 0

    cdef int put_object(self, tuple keys, owner, int depth) except -1:
        cdef Key key
        cdef int line = (depth + 1) * INDENT + ROOM
        self.at = put(self.at, b"{", 1)
        for item in keys:
            key = <Key> item
            self.need(line + PyBytes_GET_SIZE(key.text))
            self.line(depth + 1, key.text)
            try:
                if key.shows == VALUE:
                    self.put_value(getattr(owner, key.source), depth + 1)
                elif key.shows == COMPUTED:
                    self.put_value(key.source(owner), depth + 1)
                elif key.shows == SUM:
                    self.put_sum(sum_of(owner, <tuple> key.source))
                elif key.shows == RATIO:
                    self.put_value((<Ratio> key.source).of(owner), 0)
                else:
                    self.put_fact(key.shows, getattr(owner, key.source))
            except ValueError as error:
                raise located(f".{key.name}", error) from None
            self.need(line)
            self.at = put(self.at, b",", 1)
        self.close(depth, not keys)
        return 0

    cdef int put_sum(self, total) except -1:
        self.at = put_int(self.at, total if total <= UINT64_MAX else UINT64_MAX)
        return 0

    cdef int learn(self, histogram, total, double scale) except -1:
        """Count, mean and total of a histogram, unless it is the last one."""
        if self.known is histogram:
            return 0
        cdef bytes cells = histogram.cells
        cdef const uint64_t *c = <const uint64_t *> <void *> PyBytes_AS_STRING(cells)
        cdef uint64_t count = 0
        cdef Py_ssize_t i
        for i in range(PyBytes_GET_SIZE(cells) // <Py_ssize_t> sizeof(uint64_t)):
            count += c[i]
        self.known = histogram
        self.known_count = count
        self.known_mean = total / count / scale if count else None
        self.known_total = total / scale
        return 0

    cdef int put_fact(self, int shows, histogram) except -1:
        """A number about a histogram of latencies that its owner shows as well."""
        cdef int fact = shows & ~AS_DURATION
        cdef uint64_t ns = 0
        self.learn(histogram, histogram.sum_ns, 1e9)
        if fact == TOTAL:
            value = self.known_total
        elif fact == LEAST:
            value = histogram.min
        elif fact == MOST:
            value = histogram.max
        else:
            value = self.known_mean
        if shows < AS_DURATION or value is None and fact != MEAN:
            return self.put_value(value, 0)
        if fact == TOTAL:
            ns = histogram.sum_ns
        elif value is not None:
            ns = rounded_ns(value)
        self.at[0] = b'"'
        self.at = put(put_duration(self.at + 1, ns), b'"', 1)
        return 0

    # --- Histograms

    cdef _Shape shape_of(self, kind, tuple buckets):
        shape = self.shape
        if shape is None or shape.buckets is not buckets or shape.owner is not kind:
            shape = self.shape = self.writer.shape_of(kind, buckets)
        return shape

    cdef int put_histogram(self, kind, histogram, int depth) except -1:
        cdef _Shape shape = self.shape_of(kind, histogram.bucket_bounds)
        cdef Layout layout = shape.layout
        cdef int first = histogram.first_cell
        cdef om_cells cells = layout.cells_of(first, histogram.cells)
        cdef uint64_t counts[MAX_BOUNDS + 1]
        cdef om_exponential view
        cdef uint64_t count = layout.explicit_counts(&cells, counts)
        cdef uint64_t total = as_count(getattr(histogram, shape.unit.sum_field))
        low, high = histogram.min, histogram.max
        layout.exponential_counts(&cells, &view)
        self.need(shape.room + (16 + len(shape.labels)) * (depth + 3) * INDENT)
        depth += 1
        self.at = put(self.at, b"{", 1)
        self.put_count(depth, b'"count": ', count)
        self.put_count(depth, shape.sum_key, total)
        if shape.total_key:
            self.line(depth, shape.total_key)
            self.learn(histogram, total, 1e9)
            self.put_float(self.known_total)
            self.at = put(self.at, b",", 1)
        self.line(depth, shape.mean_key)
        self.learn(histogram, total, 1e9 if shape.total_key else 1.0)
        self.put_value(self.known_mean, 0)
        self.at = put(self.at, b",", 1)
        self.line(depth, shape.min_key)
        self.put_value(low, 0)
        self.at = put(self.at, b",", 1)
        self.line(depth, shape.max_key)
        self.put_value(high, 0)
        self.at = put(self.at, b",", 1)
        self.line(depth, shape.percentiles_key)
        self.put_percentiles(shape, &cells, count, low, high, depth)
        if shape.labels:
            self.line(depth, b'"buckets": {')
            self.put_buckets(shape, counts, depth)
        self.line(depth, b'"bucket_bounds_seconds": ')
        self.at = put(put_bytes(self.at, shape.bucket_bounds), b",", 1)
        self.line(depth, b'"explicit": {')
        self.line(depth + 1, shape.bounds_key)
        self.at = put(put_bytes(self.at, shape.bounds), b",", 1)
        self.line(depth + 1, b'"counts": ')
        self.put_counts(counts, layout.n_bounds + 1)
        self.close(depth, False)
        self.at = put(self.at, b",", 1)
        self.line(depth, b'"exponential": {')
        self.put_exponential(shape, &view, depth)
        self.close(depth - 1, False)
        return 0

    cdef inline void put_count(self, int depth, bytes key, uint64_t count) noexcept:
        self.line(depth, key)
        self.at = put(put_int(self.at, count), b",", 1)

    cdef void put_counts(self, const uint64_t *counts, int n) noexcept nogil:
        """An array, on one line."""
        cdef char *out = self.at
        cdef int i
        out[0] = b"["
        out += 1
        for i in range(n):
            out = put_int(out, counts[i])
            out[0] = b","
            out += 1
        if n:
            out -= 1
        self.at = put(out, b"],", 2)

    cdef int put_percentiles(
        self, _Shape shape, const om_cells *cells, uint64_t count, low, high, int depth
    ) except -1:
        cdef Writer writer = self.writer
        cdef double values[MAX_QUANTILES]
        cdef double unit = shape.unit.seconds
        cdef int i
        if count:
            shape.layout.quantiles_of(
                cells, count, NAN if low is None else low * unit,
                NAN if high is None else high * unit,
                writer.q, writer.n_quantiles, values,
            )
        self.at = put(self.at, b"{", 1)
        for i in range(writer.n_quantiles):
            self.line(depth + 1, <bytes> writer.quantile_keys[i])
            if not count:
                self.put_value(None, 0)
            elif high is not None and values[i] == <double> high * unit:
                self.put_later(high)
            elif unit == 1.0:
                self.put_later(values[i])
            else:
                self.put_later(rint(values[i] / unit))
            self.at = put(self.at, b",", 1)
        self.close(depth, False)
        self.at = put(self.at, b",", 1)
        return 0

    cdef void put_buckets(
        self, _Shape shape, const uint64_t *counts, int depth
    ) noexcept:
        cdef int bucket
        cdef int i = 0
        cdef uint64_t count
        for bucket in range(len(shape.labels)):
            count = 0
            while i < shape.bucket_ends[bucket]:
                count += counts[i]
                i += 1
            self.put_count(depth + 1, <bytes> shape.labels[bucket], count)
        self.close(depth, False)
        self.at = put(self.at, b",", 1)

    cdef void put_exponential(
        self, _Shape shape, const om_exponential *view, int depth
    ) noexcept:
        cdef int offset = 0
        if view.n:
            offset = view.first + MIN_EXPONENT * OCTAVE + shape.shift
        self.put_count(depth + 1, b'"scale": ', SCALE)
        self.line(depth + 1, b'"offset": ')
        if offset < 0:
            self.at = put(self.at, b"-", 1)
            offset = -offset
        self.at = put(put_int(self.at, offset), b",", 1)
        self.line(depth + 1, b'"counts": ')
        self.put_counts(view.counts, view.n)
        self.put_count(depth + 1, b'"underflow": ', view.underflow)
        self.put_count(depth + 1, b'"overflow": ', view.overflow)
        self.close(depth, False)
        self.at = put(self.at, b",", 1)

    # --- The end

    cdef bytes finished(self):
        """The text, with what msgspec writes in its places."""
        try:
            encoded = self.writer.encode(self.later)
        except UnicodeEncodeError:
            # Half a surrogate pair, of a hand-made snapshot: the core repairs names.
            encoded = self.writer.encode([repaired(value) for value in self.later])
        cdef Py_ssize_t n = len(self.later)
        cdef _Token *tokens = <_Token *> PyMem_Malloc((n + 1) * sizeof(_Token))
        if tokens == NULL:
            raise MemoryError
        try:
            split(encoded, tokens, n)
            return self.filled(tokens)
        finally:
            PyMem_Free(tokens)

    cdef bytes filled(self, const _Token *tokens):
        """The text with a token in each place."""
        cdef Py_ssize_t size = self.at - self.start - self.n_places
        cdef Py_ssize_t i
        for i in range(self.n_places):
            size += tokens[self.places[i]].length
        cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
        cdef char *out = PyBytes_AS_STRING(result)
        cdef const char *piece = self.start
        cdef const char *place
        cdef const _Token *token
        for i in range(self.n_places):
            place = <const char *> memchr(piece, 0, self.at - piece)
            out = put(out, piece, place - piece)
            piece = place + 1
            token = &tokens[self.places[i]]
            out = put(out, token.text, token.length)
        put(out, piece, self.at - piece)
        return result


cdef int split(bytes encoded, _Token *tokens, Py_ssize_t n) except -1:
    """The `n` elements of a compact array of numbers and strings."""
    cdef const char *at = PyBytes_AS_STRING(encoded) + 1
    cdef const char *last = at + PyBytes_GET_SIZE(encoded) - 2
    cdef const char *after
    cdef Py_ssize_t i
    for i in range(n):
        if at[0] == b'"':
            after = after_string(at, last)
        else:
            after = <const char *> memchr(at, b",", last - at)
            if after == NULL:
                after = last
        tokens[i].text = at
        tokens[i].length = after - at
        at = after + 1
    return 0


cdef inline const char *after_string(const char *at, const char *end) noexcept:
    """The place behind the string whose opening quote is at `at`."""
    cdef const char *back
    while True:
        at = <const char *> memchr(at + 1, b'"', end - at - 1)
        if at == NULL:
            return end
        back = at
        while (back - 1)[0] == b"\\":
            back -= 1
        if (at - back) % 2 == 0:        # an odd number of backslashes escapes the quote
            return at + 1


cdef object repaired(value):
    return value.encode("utf-8", "replace").decode() if type(value) is str else value


cdef object located(str step, error):
    """The error with one more step of the path in front of it."""
    text = str(error)
    if text.startswith((".", "[")):
        return ValueError(step + text)
    return ValueError(f"{step}: {text}")


@cython.final
cdef class Writer:
    """
    Writes documents.

    Args:
        keys: Read type -> its `Key`s, in order.
        units: Type of a histogram -> its `Unit`.
        quantiles: Key -> quantile, ascending, at most 16, each above 0 and below 1.
        layout_of: Buckets -> their layout.
        encode: Writes a list or tuple of floats, strings and times as compact JSON.

    Thread-safety:
        Immutable.
    """

    cdef dict keys
    cdef dict units
    cdef object layout_of
    cdef object encode
    cdef list quantile_keys
    cdef int n_quantiles
    cdef double q[MAX_QUANTILES]

    def __cinit__(self, dict keys, dict units, dict quantiles, layout_of, encode):
        if len(quantiles) > MAX_QUANTILES:
            raise ValueError(f"more than {MAX_QUANTILES} quantiles")
        self.keys = keys
        self.units = units
        self.layout_of = layout_of
        self.encode = encode
        self.quantile_keys = [f'"{name}": '.encode() for name in quantiles]
        self.n_quantiles = len(quantiles)
        for i, q in enumerate(quantiles.values()):
            self.q[<int> i] = q

    cdef _Shape shape_of(self, kind, tuple buckets):
        return _Shape(
            kind, buckets, self.units[kind], self.layout_of(buckets), self.encode
        )

    def write(self, owner, /):
        """
        The document of a read type: two spaces a level, arrays on one line.

        Returns:
            UTF-8 with a line feed at the end.

        Raises:
            ValueError: A number that JSON cannot say, or a count beyond 64 bits; the
                message starts with its path.
        """
        cdef _Page page = _Page(self)
        try:
            page.put_value(owner, 0)
        except ValueError as error:
            raise ValueError(f"${error}") from None
        page.need(ROOM)
        page.at = put(page.at, b"\n", 1)
        return page.finished()
