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
from libc.math cimport NAN, isfinite, rint
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memchr

from ometrics._buckets cimport MIN_EXPONENT, OCTAVE, SCALE
from ometrics._histogram cimport (
    MAX_BOUNDS,
    Layout,
    om_cells,
    om_exponential,
    sum_of,
)
from ometrics._json_numbers cimport (
    DURATION,
    as_count,
    put,
    put_bytes,
    put_duration,
    put_int,
    rounded_ns,
)
from ometrics._json_plan cimport (
    AS_DURATION,
    COMPUTED,
    FIELD,
    LEAST,
    MEAN,
    MOST,
    PROPERTY,
    RATIO,
    ROOM,
    SUM,
    TOTAL,
    Key,
    Shape,
    lines_of,
)

cimport cython

cdef enum:
    MAX_QUANTILES = 16
    MAX_SHAPES = 64             # kept; a process has two or three

cdef object UTC = _datetime.timezone.utc
cdef object Time = _datetime.datetime


def go_duration_ns(uint64_t ns, /):
    """`ometrics.durations.format_duration` for 0 to 2^64 - 1 nanoseconds."""
    cdef char text[DURATION]
    return text[:put_duration(text, ns) - text].decode("utf-8")


def go_duration(double seconds, /):
    """The same for finite seconds >= 0, rounded to nanoseconds."""
    return go_duration_ns(rounded_ns(seconds))


# Lines of a histogram, by depth.
cdef list COUNT = lines_of('"count": ')
cdef list BUCKETS = lines_of('"buckets": {')
cdef list BUCKET_BOUNDS = lines_of('"bucket_bounds_seconds": ')
cdef list EXPLICIT = lines_of('"explicit": {')
cdef list EXPONENTIAL = lines_of('"exponential": {')
cdef list SCALE_LINE = lines_of('"scale": ')
cdef list OFFSET = lines_of('"offset": ')
cdef list COUNTS = lines_of('"counts": ')
cdef list UNDERFLOW = lines_of('"underflow": ')
cdef list OVERFLOW = lines_of('"overflow": ')
cdef list NOTHING = lines_of("")
cdef list CLOSE = lines_of("}")


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

    cdef JsonWriter writer
    cdef char *start
    cdef char *at
    cdef char *end
    cdef list later             # what msgspec writes, in the order of the places
    cdef object known           # the last histogram; its shape and what it says:
    cdef Shape shape
    cdef dict shapes            # kind -> shape of the last one
    cdef om_cells cells
    cdef uint64_t count
    cdef uint64_t sum
    cdef object low, high, mean
    cdef object total           # of latencies, in seconds
    cdef int *places            # for each NUL, which of `later` belongs there
    cdef Py_ssize_t n_places, places_size
    cdef _Recent recent[RECENT]

    def __cinit__(self, JsonWriter writer):
        self.writer = writer
        self.later = []
        self.shapes = {}
        self.start = <char *> PyMem_Malloc(writer.usual)
        if self.start == NULL:
            raise MemoryError
        self.at = self.start
        self.end = self.start + writer.usual

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

    cdef inline void line(self, list lines, int depth) noexcept:
        """A new line with its key."""
        self.at = put_bytes(self.at, <bytes> lines[depth])

    cdef inline void comma(self) noexcept:
        self.at[0] = b","
        self.at += 1

    cdef inline void close(self, int depth, bint empty) noexcept:
        """The end of an object; the last comma gives way to it."""
        if empty:
            self.at = put(self.at, b"}", 1)
        else:
            self.at -= 1
            self.line(CLOSE, depth)

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
        elif kind is bool:
            self.at = put(self.at, b"true" if value else b"false", 4 + (not value))
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
            self.put_object(<list> keys, value, depth)
        elif kind in self.writer.units:
            self.put_histogram(kind, value, depth)
        elif isinstance(value, float):
            self.put_float(value)
        elif hasattr(value, "items"):
            self.put_mapping(value, depth)
        else:
            raise TypeError(f"a {kind.__name__} has no place in a document")
        return 0

    cdef int put_mapping(self, mapping, int depth) except -1:
        cdef bint empty = True
        self.at = put(self.at, b"{", 1)
        for name, value in mapping.items():
            empty = False
            self.need(2 * ROOM)
            self.line(NOTHING, depth + 1)
            self.put_later(name)
            self.at = put(self.at, b": ", 2)
            try:
                self.put_value(value, depth + 1)
            except ValueError as error:
                raise located(f"[{name!r}]", error) from None
            self.need(2 * ROOM)
            self.comma()
        self.close(depth, empty)
        return 0

    cdef int put_object(self, list keys, owner, int depth) except -1:
        cdef Key key
        cdef bytes line
        cdef tuple values = self.writer.fields(owner)
        self.at = put(self.at, b"{", 1)
        for item in keys:
            key = <Key> item
            line = <bytes> key.lines[depth + 1]
            self.need(PyBytes_GET_SIZE(line) + 2 * ROOM)
            self.at = put_bytes(self.at, line)
            try:
                if key.shows == FIELD:
                    self.put_value(values[key.place], depth + 1)
                elif key.shows == PROPERTY:
                    self.put_value(getattr(owner, key.source), depth + 1)
                elif key.shows == COMPUTED:
                    self.put_value(key.source(owner), depth + 1)
                elif key.shows == SUM:
                    self.put_sum(key.over.sum_of(values))
                elif key.shows == RATIO:
                    self.put_value(key.ratio_of(values), 0)
                else:
                    self.put_fact(key.shows, values[key.place])
            except ValueError as error:
                raise located(f".{key.name}", error) from None
            self.need(2 * ROOM)
            self.comma()
        self.close(depth, not keys)
        return 0

    cdef int put_sum(self, total) except -1:
        self.at = put_int(self.at, total if total <= UINT64_MAX else UINT64_MAX)
        return 0

    cdef int learn(self, kind, histogram) except -1:
        """What follows from a histogram's fields, unless it is the last one."""
        if self.known is histogram:
            return 0
        cdef Shape shape
        cdef om_cells cells
        cdef uint64_t count
        cdef bint over
        buckets, self.low, self.high, first, packed, total = (
            self.writer.fields(histogram)
        )
        shape = self.shape
        if shape is None or shape.buckets is not buckets or shape.owner is not kind:
            shape = self.shape_of(kind, buckets)
        cells = shape.layout.cells_of(first, packed)
        count = sum_of(cells.counts, cells.n, &over)
        self.shape = shape
        self.known = histogram              # keeps its cells alive
        self.cells = cells
        self.count = count
        self.sum = as_count(total)
        if shape.total_line is None:
            self.mean = total / count if count else None
        else:
            self.mean = total / count / 1e9 if count else None
            self.total = total / 1e9
        return 0

    cdef Shape shape_of(self, kind, tuple buckets):
        """That of the last histogram of this kind, if its buckets are these."""
        cdef Shape shape = self.shapes.get(kind)
        if shape is None or (
            shape.buckets is not buckets and shape.buckets != buckets
        ):
            shape = self.shapes[kind] = self.writer.shape_of(kind, buckets)
        return shape

    cdef int put_fact(self, int shows, histogram) except -1:
        """A number about a histogram of latencies that its owner shows as well."""
        cdef int fact = shows & ~AS_DURATION
        cdef uint64_t ns = 0
        self.learn(type(histogram), histogram)
        if fact == TOTAL:
            value = self.total
        elif fact == LEAST:
            value = self.low
        elif fact == MOST:
            value = self.high
        else:
            value = self.mean
        if shows < AS_DURATION or value is None and fact != MEAN:
            return self.put_value(value, 0)
        if fact == TOTAL:
            ns = self.sum
        elif value is not None:
            ns = rounded_ns(value)
        self.at[0] = b'"'
        self.at = put(put_duration(self.at + 1, ns), b'"', 1)
        return 0

    # --- Histograms

    cdef int put_histogram(self, kind, histogram, int depth) except -1:
        cdef bytes empty
        cdef Py_ssize_t start
        self.learn(kind, histogram)
        cdef Shape shape = self.shape
        self.need(shape.room + (16 + len(shape.labels)) * ROOM)
        if self.count:
            return self.put_views(shape, depth)
        empty = shape.empty[depth]
        if empty is None:       # all without values have the same text
            start = self.at - self.start
            self.put_views(shape, depth)
            empty = self.start[start:self.at - self.start]
            shape.empty[depth] = empty
        else:
            self.at = put_bytes(self.at, empty)
        return 0

    cdef int put_views(self, Shape shape, int depth) except -1:
        cdef Layout layout = shape.layout
        cdef uint64_t counts[MAX_BOUNDS + 1]
        cdef om_exponential view
        layout.explicit_counts(&self.cells, counts)
        layout.exponential_counts(&self.cells, &view)
        depth += 1
        self.at = put(self.at, b"{", 1)
        self.put_count(COUNT, depth, self.count)
        self.put_count(shape.sum_line, depth, self.sum)
        if shape.total_line is not None:
            self.put_number(shape.total_line, depth, self.total)
        self.put_number(shape.mean_line, depth, self.mean)
        self.put_number(shape.min_line, depth, self.low)
        self.put_number(shape.max_line, depth, self.high)
        self.line(shape.percentiles_line, depth)
        self.put_percentiles(shape, depth)
        if shape.labels:
            self.line(BUCKETS, depth)
            self.put_buckets(shape, counts, depth)
        self.line(BUCKET_BOUNDS, depth)
        self.at = put_bytes(self.at, shape.bucket_bounds)
        self.comma()
        self.line(EXPLICIT, depth)
        self.line(shape.bounds_line, depth + 1)
        self.at = put_bytes(self.at, shape.bounds)
        self.comma()
        self.line(COUNTS, depth + 1)
        self.put_counts(counts, layout.n_bounds + 1)
        self.close(depth, False)
        self.comma()
        self.line(EXPONENTIAL, depth)
        self.put_exponential(shape, &view, depth)
        self.close(depth - 1, False)
        return 0

    cdef inline void put_count(self, list line, int depth, uint64_t count) noexcept:
        self.line(line, depth)
        self.at = put_int(self.at, count)
        self.comma()

    cdef int put_number(self, list line, int depth, value) except -1:
        """A number of a histogram, whose text is the same in all that are empty."""
        self.line(line, depth)
        if value is None:
            self.at = put(self.at, b"null", 4)
        elif self.count:
            self.put_float(value)
        else:
            self.at = put(self.at, b"0.0", 3)
        self.comma()
        return 0

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

    cdef int put_percentiles(self, Shape shape, int depth) except -1:
        cdef JsonWriter writer = self.writer
        cdef double values[MAX_QUANTILES]
        cdef double unit = shape.unit.seconds
        cdef double high = NAN if self.high is None else self.high * unit
        cdef int i
        if self.count:
            shape.layout.quantiles_of(
                &self.cells, self.count, NAN if self.low is None else self.low * unit,
                high, writer.q, writer.n_quantiles, values,
            )
        for i in range(writer.n_quantiles):
            self.line(<list> writer.quantile_lines[i], depth + 1)
            if not self.count:
                self.at = put(self.at, b"null", 4)
            elif values[i] == high:
                self.put_later(self.high)
            elif unit == 1.0:
                self.put_later(values[i])
            else:
                self.put_later(rint(values[i] / unit))
            self.comma()
        self.close(depth, False)
        self.comma()
        return 0

    cdef void put_buckets(
        self, Shape shape, const uint64_t *counts, int depth
    ) noexcept:
        cdef int bucket
        cdef int i = 0
        cdef uint64_t count
        for bucket in range(<int> len(shape.labels)):
            count = 0
            while i < shape.bucket_ends[bucket]:
                count += counts[i]
                i += 1
            self.put_count(<list> shape.labels[bucket], depth + 1, count)
        self.close(depth, False)
        self.comma()

    cdef void put_exponential(
        self, Shape shape, const om_exponential *view, int depth
    ) noexcept:
        cdef int offset = 0
        if view.n:
            offset = view.first + MIN_EXPONENT * OCTAVE + shape.shift
        self.put_count(SCALE_LINE, depth + 1, SCALE)
        self.line(OFFSET, depth + 1)
        if offset < 0:
            self.at = put(self.at, b"-", 1)
            offset = -offset
        self.at = put_int(self.at, offset)
        self.comma()
        self.line(COUNTS, depth + 1)
        self.put_counts(view.counts, view.n)
        self.put_count(UNDERFLOW, depth + 1, view.underflow)
        self.put_count(OVERFLOW, depth + 1, view.overflow)
        self.close(depth, False)
        self.comma()

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
cdef class JsonWriter:
    """
    Writes documents.

    Args:
        keys: Read type -> list of its `Key`s, in order.
        units: Type of a histogram -> its `Unit`.
        quantiles: Key -> quantile, ascending, at most 16, each above 0 and below 1.
        layout_of: Buckets -> their layout.
        encode: Writes a list or tuple of floats, strings and times as compact JSON.
        fields: Gets a tuple of all fields of a read type.

    Thread-safety:
        Any thread; what it remembers follows from what it was given.
    """

    cdef dict keys
    cdef dict units
    cdef object layout_of
    cdef object encode
    cdef object fields
    cdef dict shapes            # (type, buckets) -> shape
    cdef Py_ssize_t usual       # bytes of the last document, and some more
    cdef list quantile_lines
    cdef int n_quantiles
    cdef double q[MAX_QUANTILES]

    def __cinit__(
        self, dict keys, dict units, dict quantiles, layout_of, encode, fields
    ):
        if len(quantiles) > MAX_QUANTILES:
            raise ValueError(f"more than {MAX_QUANTILES} quantiles")
        self.keys = keys
        self.units = units
        self.layout_of = layout_of
        self.encode = encode
        self.fields = fields
        self.shapes = {}
        self.usual = 1 << 16
        self.quantile_lines = [lines_of(f'"{name}": ') for name in quantiles]
        self.n_quantiles = len(quantiles)
        for i, q in enumerate(quantiles.values()):
            self.q[<int> i] = q

    cdef Shape shape_of(self, kind, tuple buckets):
        cdef tuple key = (kind, buckets)
        cdef Shape shape = self.shapes.get(key)
        if shape is None:
            shape = Shape(
                kind, buckets, self.units[kind], self.layout_of(buckets), self.encode
            )
            if len(self.shapes) >= MAX_SHAPES:
                self.shapes.clear()
            self.shapes[key] = shape
        return shape

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
        self.usual = (page.at - page.start) * 9 // 8 + 4096
        return page.finished()
