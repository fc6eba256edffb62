# SPDX-License-Identifier: MIT
"""JSON text in C: the integer views of a histogram, Go durations, and indentation.

Compiled because an export writes hundreds of counts a model, most of a document's
bytes; everything else of the document is written by msgspec. Pure: no lock, no shared
state; every function may be called from any thread.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.math cimport NAN, ldexp, rint
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy

from ometrics._buckets cimport EXP_CELLS, MIN_EXPONENT, OCTAVE, SCALE
from ometrics._histogram cimport MAX_BOUNDS, Layout, om_cells, om_exponential

cimport cython

from msgspec import Raw

cdef enum:
    DIGITS = 20                 # of 2^64 - 1
    MAX_QUANTILES = 16
    INDENT = 2                  # spaces a level
    SPACES = 16
    ROOM = 64                   # more than a line feed and SPACES

cdef extern from "Python.h":
    # Declared anew: the bytes object is not yet one that Cython may count.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *text, Py_ssize_t n)
    int _PyBytes_Resize(PyObject **text, Py_ssize_t size) except -1

cdef const char *SIXTEEN_SPACES = b"                "

cdef double TWO_TO_64 = ldexp(1.0, 64)


cdef inline char *put(char *out, const char *text, Py_ssize_t n) noexcept nogil:
    if n:       # of nothing there may be no text either
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


def go_duration(double seconds, /):
    """
    A duration as Go writes it, like `ometrics.durations.format_duration`.

    Args:
        seconds: Finite and >= 0; rounded to nanoseconds, at most 2^64 - 1 of them.

    Returns:
        A string such as `1m1.5s`.
    """
    cdef double ns = rint(seconds * 1e9)
    return go_duration_ns(<uint64_t> ns if ns < TWO_TO_64 else UINT64_MAX)


cpdef str go_duration_ns(uint64_t ns):
    """`ometrics.durations.format_duration` for 0 to 2^64 - 1 nanoseconds."""
    cdef char text[48]
    cdef char *out = text
    cdef uint64_t minutes
    if ns == 0:
        return "0s"
    if ns < 1_000:
        out = put(put_int(out, ns), b"ns", 2)
    elif ns < 1_000_000:
        out = put(put_fixed(out, ns // 1_000, ns % 1_000, 3), b"\xc2\xb5s", 3)
    elif ns < 1_000_000_000:
        out = put(put_fixed(out, ns // 1_000_000, ns % 1_000_000, 6), b"ms", 2)
    else:
        minutes = ns // 60_000_000_000
        ns %= 60_000_000_000
        if minutes >= 60:
            out = put(put_int(out, minutes // 60), b"h", 1)
        if minutes:
            out = put(put_int(out, minutes % 60), b"m", 1)
        out = put_fixed(out, ns // 1_000_000_000, ns % 1_000_000_000, 9)
        out = put(out, b"s", 1)
    return text[:out - text].decode("utf-8")


@cython.final
cdef class Views:
    """
    What can be said in integers about histograms of one layout, as JSON.

    Args:
        layout: The cells.
        buckets: Bounds in seconds, each a bound of the layout.
        labels: A label for each of them; the last one is for the rest.
        bounds: The layout's bounds as a JSON array.
        quantiles: Up to 16 of them, ascending, each above 0 and below 1.

    Thread-safety:
        Immutable.
    """

    cdef Layout layout
    cdef int n_buckets, n_bounds, n_quantiles
    cdef Py_ssize_t room        # bytes that the longest of the texts can take
    cdef int *bucket_ends       # how many of the bounds' counts end with each bucket
    cdef list keys              # `"label":` in UTF-8
    cdef bytes explicit_head
    cdef double q[MAX_QUANTILES]

    def __cinit__(
        self, Layout layout, tuple buckets, tuple labels, bytes bounds, tuple quantiles
    ):
        cdef int i
        if len(quantiles) > MAX_QUANTILES:
            raise ValueError("too many quantiles")
        if len(labels) != len(buckets):
            raise ValueError("every bucket needs one label")
        self.layout = layout
        self.n_buckets = len(buckets)
        self.n_bounds = len(layout.bounds)
        self.n_quantiles = len(quantiles)
        self.keys = [f'"{label}":'.encode() for label in labels]
        self.explicit_head = b'{"bounds_seconds":' + bounds + b',"counts":['
        self.room = 256 + len(self.explicit_head) + (DIGITS + 1) * (
            EXP_CELLS + 2 + self.n_bounds
        ) + sum([len(key) for key in self.keys])
        self.bucket_ends = <int *> malloc((self.n_buckets + 1) * sizeof(int))
        if self.bucket_ends == NULL:
            raise MemoryError
        for i in range(self.n_buckets - 1):
            self.bucket_ends[i] = layout.bounds.index(buckets[i]) + 1
        self.bucket_ends[self.n_buckets - 1] = self.n_bounds + 1
        for i in range(self.n_quantiles):
            self.q[i] = quantiles[i]

    def __dealloc__(self):
        free(self.bucket_ends)

    def render(self, int first, bytes cells, /):
        """
        The three views of the same cells.

        Returns:
            `(count, buckets, explicit, exponential)`: the number of values, and three
            JSON objects as `msgspec.Raw`. The counts of `explicit` are not cumulative
            and have one more for what is above the last bound.

        Raises:
            ValueError: These are no cells of the layout.
        """
        cdef om_cells c = self.layout.cells_of(first, cells)
        cdef uint64_t counts[MAX_BOUNDS + 1]
        cdef uint64_t count = self.layout.explicit_counts(&c, counts)
        cdef om_exponential view
        self.layout.exponential_counts(&c, &view)
        cdef char *text = <char *> malloc(self.room)
        if text == NULL:
            raise MemoryError
        try:
            buckets = Raw(text[:self.put_buckets(text, counts) - text])
            explicit = Raw(text[:self.put_explicit(text, counts) - text])
            exponential = Raw(text[:put_exponential(text, &view) - text])
        finally:
            free(text)
        return count, buckets, explicit, exponential

    cdef char *put_buckets(self, char *out, const uint64_t *counts) noexcept:
        cdef int bucket
        cdef int i = 0
        cdef uint64_t seen
        out[0] = b"{"
        out += 1
        for bucket in range(self.n_buckets):
            seen = 0
            while i < self.bucket_ends[bucket]:
                seen += counts[i]
                i += 1
            out = put_int(put_bytes(out, <bytes> self.keys[bucket]), seen)
            out[0] = b","
            out += 1
        (out - 1)[0] = b"}"             # instead of the last comma
        return out

    cdef char *put_explicit(self, char *out, const uint64_t *counts) noexcept:
        cdef int bound
        out = put_bytes(out, self.explicit_head)
        for bound in range(self.n_bounds + 1):
            out = put_int(out, counts[bound])
            out[0] = b","
            out += 1
        (out - 1)[0] = b"]"
        out[0] = b"}"
        return out + 1

    def quantiles(self, int first, bytes cells, uint64_t count, low, high, /):
        """
        `LatencyHistogram.quantile` of each of the quantiles, in one pass.

        Args:
            first: Index of the first cell.
            cells: The counts.
            count: Their sum, above 0.
            low: The minimum in seconds, or `None`.
            high: The maximum in seconds, or `None`.

        Returns:
            A tuple of seconds.

        Raises:
            ValueError: These are no cells of the layout.
        """
        cdef om_cells c = self.layout.cells_of(first, cells)
        if c.n == 0:
            raise ValueError("nothing has no quantiles")
        cdef double values[MAX_QUANTILES]
        cdef int i
        self.layout.quantiles_of(
            &c, count, NAN if low is None else low, NAN if high is None else high,
            self.q, self.n_quantiles, values,
        )
        return tuple([values[i] for i in range(self.n_quantiles)])


cdef char *put_exponential(char *out, const om_exponential *view) noexcept:
    cdef int i
    cdef int offset = view.first + MIN_EXPONENT * OCTAVE if view.n else 0
    out = put_int(put(out, b'{"scale":', 9), SCALE)
    out = put(out, b',"offset":', 10)
    if offset < 0:
        out[0] = b"-"
        out += 1
        offset = -offset
    out = put_int(out, offset)
    out = put(out, b',"counts":[', 11)
    if view.n == 0:
        out += 1                        # the comma that the bracket replaces
    for i in range(view.n):
        out = put_int(out, view.counts[i])
        out[0] = b","
        out += 1
    (out - 1)[0] = b"]"
    out = put_int(put(out, b',"underflow":', 13), view.underflow)
    out = put_int(put(out, b',"overflow":', 12), view.overflow)
    out[0] = b"}"
    return out + 1


cdef struct Text:
    PyObject *text              # the bytes object under construction
    char *at
    char *end

cdef int grow(Text *text, Py_ssize_t n) except -1:
    """Make room for `n` more bytes."""
    cdef Py_ssize_t used = text.at - PyBytes_AS_STRING(<object> text.text)
    cdef Py_ssize_t size = 2 * (used + n)
    _PyBytes_Resize(&text.text, size)
    text.at = PyBytes_AS_STRING(<object> text.text) + used
    text.end = text.at - used + size
    return 0

cdef inline int put_piece(Text *text, const char *piece, Py_ssize_t n) except -1:
    """`piece`; afterwards there is room for a line feed and a short indent."""
    if text.end - text.at < n + ROOM:
        grow(text, n + ROOM)
    text.at = put(text.at, piece, n)
    return 0

cdef inline int put_line(
    Text *text, const char *piece, Py_ssize_t n, int depth
) except -1:
    """`piece`, then a new line at this depth."""
    put_piece(text, piece, n)
    text.at[0] = b"\n"
    text.at += 1
    cdef int spaces = depth * INDENT
    while spaces > SPACES:
        memcpy(text.at, SIXTEEN_SPACES, SPACES)
        text.at += SPACES
        spaces -= SPACES
        put_piece(text, NULL, 0)
    memcpy(text.at, SIXTEEN_SPACES, SPACES)     # of a fixed size: one store
    text.at += spaces
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

cdef const char *after_array(const char *at, const char *end) noexcept:
    """The place behind the array whose opening bracket is at `at`."""
    cdef int depth = 0
    cdef const char *close = <const char *> memchr(at, b"]", end - at)
    if (
        close != NULL
        and memchr(at, b'"', close - at) == NULL
        and memchr(at + 1, b"[", close - at - 1) == NULL
    ):
        return close + 1                # only numbers, as all our arrays
    while at < end:
        if at[0] == b'"':
            at = after_string(at, end)
            continue
        if at[0] == b"[":
            depth += 1
        elif at[0] == b"]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return end

cdef int put_indented(Text *text, const char *at, const char *end) except -1:
    cdef int depth = 0
    cdef const char *piece = at         # what is not written yet
    while at < end:
        if at[0] == b'"':
            at = after_string(at, end)
        elif at[0] == b",":
            at += 1
            put_line(text, piece, at - piece, depth)
            piece = at
        elif at[0] == b":":
            at += 1
            put_piece(text, piece, at - piece)
            text.at[0] = b" "
            text.at += 1
            piece = at
        elif at[0] == b"[":
            at = after_array(at, end)
        elif at[0] == b"{":
            at += 1
            if at < end and at[0] == b"}":
                at += 1
                continue
            depth += 1
            put_line(text, piece, at - piece, depth)
            piece = at
        elif at[0] == b"}":
            depth -= 1
            put_line(text, piece, at - piece, depth)
            piece = at
            at += 1
        else:
            at += 1
    put_line(text, piece, end - piece, 0)
    return 0


def indent(bytes compact, /):
    """
    Spread a JSON document over lines: two spaces a level, arrays on one line.

    Args:
        compact: A valid document without white space between its tokens, as msgspec
            writes it.

    Returns:
        The same document, with a line feed at its end.
    """
    cdef const char *at = PyBytes_AS_STRING(compact)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(compact)
    cdef Py_ssize_t size = n + n // 2 + ROOM
    cdef Text text
    text.text = new_bytes(NULL, size)
    if text.text == NULL:
        raise MemoryError
    text.at = PyBytes_AS_STRING(<object> text.text)
    text.end = text.at + size
    try:
        put_indented(&text, at, at + n)
        n = text.at - PyBytes_AS_STRING(<object> text.text)
        _PyBytes_Resize(&text.text, n)
        return <object> text.text
    finally:
        Py_XDECREF(text.text)           # a failed resize has set it to NULL
