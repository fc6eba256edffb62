# SPDX-License-Identifier: MIT
"""Encoder of `io.prometheus.client.MetricFamily`, native histograms included.

Compiled because a native histogram is some two hundred counts. A page of a thousand
models takes 9 ms; with the `protobuf` package (upb) it took 62 ms, and in pure Python
the differences of the counts alone 27 ms (CPython 3.11).

The wire format is small: a tag is `field << 3 | type`; type 0 is a varint, type 1 a
little-endian double, type 2 a length and bytes. Nothing here reads protobuf. Pure: no
lock, no shared state; every function may be called from any thread.

Field numbers: client_model, `io/prometheus/client/metrics.proto`.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

cimport cython

cdef enum:
    VARINT = 0
    DOUBLE = 1
    BYTES = 2

    FAMILY_NAME = 1 << 3 | BYTES
    FAMILY_HELP = 2 << 3 | BYTES
    FAMILY_TYPE = 3 << 3 | VARINT
    FAMILY_METRIC = 4 << 3 | BYTES
    FAMILY_UNIT = 5 << 3 | BYTES

    METRIC_LABEL = 1 << 3 | BYTES
    METRIC_GAUGE = 2 << 3 | BYTES
    METRIC_COUNTER = 3 << 3 | BYTES
    METRIC_HISTOGRAM = 7 << 3 | BYTES

    LABEL_NAME = 1 << 3 | BYTES
    LABEL_VALUE = 2 << 3 | BYTES

    NUMBER_VALUE = 1 << 3 | DOUBLE          # of both Gauge and Counter
    COUNTER_CREATED = 3 << 3 | BYTES

    HISTOGRAM_COUNT = 1 << 3 | VARINT
    HISTOGRAM_SUM = 2 << 3 | DOUBLE
    HISTOGRAM_BUCKET = 3 << 3 | BYTES
    HISTOGRAM_SCHEMA = 5 << 3 | VARINT
    HISTOGRAM_ZERO_THRESHOLD = 6 << 3 | DOUBLE
    HISTOGRAM_ZERO_COUNT = 7 << 3 | VARINT
    HISTOGRAM_SPAN = 12 << 3 | BYTES
    HISTOGRAM_DELTA = 13 << 3 | BYTES
    HISTOGRAM_CREATED = 15 << 3 | BYTES

    BUCKET_COUNT = 1 << 3 | VARINT
    BUCKET_BOUND = 2 << 3 | DOUBLE

    SPAN_OFFSET = 1 << 3 | VARINT
    SPAN_LENGTH = 2 << 3 | VARINT

    TIMESTAMP_SECONDS = 1 << 3 | VARINT
    TIMESTAMP_NANOS = 2 << 3 | VARINT

    # A gap of empty buckets up to this long costs less as zeros than as a new span
    # (client_golang, makeBuckets).
    MAX_GAP = 2

    # Both ends of our exponential buckets, in Prometheus' numbering, which is
    # OpenTelemetry's plus one: bucket i is (base^(i-1), base^i].
    SCHEMA = 5
    ABOVE_RANGE = (12 << SCHEMA) + 1        # the bucket right above 2^12 s
    MAX_VARINT = 10                         # bytes of 2^64 - 1

TYPES = {"counter": 0, "gauge": 1, "histogram": 4}
ZERO_THRESHOLD = 2.0 ** -20


@cython.final
cdef class Buffer:
    """Bytes that grow at the end."""

    cdef unsigned char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    def __cinit__(self):
        self.capacity = 1024
        self.data = <unsigned char *> PyMem_Malloc(self.capacity)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef inline int reserve(self, Py_ssize_t more) except -1:
        cdef unsigned char *data
        if self.size + more > self.capacity:
            self.capacity = 2 * (self.size + more)
            data = <unsigned char *> PyMem_Realloc(self.data, self.capacity)
            if data == NULL:
                raise MemoryError
            self.data = data
        return 0

    cdef inline int varint(self, uint64_t value) except -1:
        self.reserve(MAX_VARINT)
        while value >= 0x80:
            self.data[self.size] = <unsigned char> (value | 0x80)
            self.size += 1
            value >>= 7
        self.data[self.size] = <unsigned char> value
        self.size += 1
        return 0

    cdef inline int zigzag(self, int64_t value) except -1:
        return self.varint((<uint64_t> value << 1) ^ <uint64_t> (value >> 63))

    cdef inline int put(self, const void *data, Py_ssize_t size) except -1:
        self.reserve(size)
        memcpy(self.data + self.size, data, size)
        self.size += size
        return 0

    cdef inline int number(self, int tag, double value) except -1:
        cdef uint64_t bits
        cdef int i
        self.varint(tag)
        self.reserve(sizeof(bits))
        memcpy(&bits, &value, sizeof(bits))
        for i in range(<int> sizeof(bits)):
            self.data[self.size + i] = <unsigned char> (bits >> 8 * i)
        self.size += sizeof(bits)
        return 0

    cdef inline int text(self, int tag, bytes text) except -1:
        self.varint(tag)
        self.varint(PyBytes_GET_SIZE(text))
        return self.put(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef inline int message(self, int tag, Buffer content) except -1:
        """`content` as a field; it is empty afterwards."""
        self.varint(tag)
        self.varint(content.size)
        self.put(content.data, content.size)
        content.size = 0
        return 0

    cdef bytes value(self):
        return PyBytes_FromStringAndSize(<char *> self.data, self.size)


def labels(list pairs, /):
    """
    The `label` fields of a `Metric`; they can be joined by `+`.

    Args:
        pairs: Tuples of a name and a value, both valid Unicode.
    """
    cdef Buffer out = Buffer()
    cdef Buffer pair = Buffer()
    for name, value in pairs:
        pair.text(LABEL_NAME, name.encode())
        pair.text(LABEL_VALUE, value.encode())
        out.message(METRIC_LABEL, pair)
    return out.value()


def timestamp(int64_t seconds, int nanos, /):
    """A `google.protobuf.Timestamp` since 1970."""
    cdef Buffer out = Buffer()
    out.varint(TIMESTAMP_SECONDS)
    out.varint(<uint64_t> seconds)
    out.varint(TIMESTAMP_NANOS)
    out.varint(nanos)
    return out.value()


def family(
    str name,
    str help,
    str kind,
    str unit,
    list samples,
    bytes created,
    object bounds,
    /,
):
    """
    One `MetricFamily` after its length.

    Args:
        name: Name with `_total` of a counter.
        help: For people.
        kind: `counter`, `gauge` or `histogram`.
        unit: Prometheus' unit or nothing.
        samples: Pairs of `labels` and a number, or a `LatencyHistogram`.
        created: `timestamp` of the start of counters and histograms.
        bounds: Explicit bounds of histograms in seconds; `None` for each one's own.
    """
    cdef Buffer out = Buffer()
    cdef Buffer metric = Buffer()
    cdef Buffer value = Buffer()
    cdef Buffer part = Buffer()
    cdef bytes label
    out.text(FAMILY_NAME, name.encode())
    out.text(FAMILY_HELP, help.encode())
    out.varint(FAMILY_TYPE)
    out.varint(TYPES[kind])
    for label, sample in samples:
        metric.put(PyBytes_AS_STRING(label), PyBytes_GET_SIZE(label))
        if kind == "histogram":
            put_histogram(value, part, sample, bounds)
            value.text(HISTOGRAM_CREATED, created)
            metric.message(METRIC_HISTOGRAM, value)
        elif kind == "counter":
            value.number(NUMBER_VALUE, sample)
            value.text(COUNTER_CREATED, created)
            metric.message(METRIC_COUNTER, value)
        else:
            value.number(NUMBER_VALUE, sample)
            metric.message(METRIC_GAUGE, value)
        out.message(FAMILY_METRIC, metric)
    if unit:
        out.text(FAMILY_UNIT, unit.encode())
    part.varint(out.size)
    part.put(out.data, out.size)
    return part.value()


cdef int put_histogram(Buffer out, Buffer part, histogram, bounds) except -1:
    """The classic and the native view of one histogram, side by side."""
    cdef uint64_t count = histogram.count
    if bounds is None:
        bounds = histogram.bucket_bounds
    out.varint(HISTOGRAM_COUNT)
    out.varint(count)
    out.number(HISTOGRAM_SUM, histogram.total)
    # The bucket of infinity may be left out: it is the count.
    for bound, below in zip(bounds, histogram.cumulative(bounds)):
        part.varint(BUCKET_COUNT)
        part.varint(below)
        part.number(BUCKET_BOUND, bound)
        out.message(HISTOGRAM_BUCKET, part)
    # Differences of larger counts do not fit the format; then the classic view is all.
    if count <= <uint64_t> INT64_MAX:
        put_native(out, part, histogram)
    return 0


cdef int put_native(Buffer out, Buffer part, histogram) except -1:
    """
    The native view: the same exponential buckets in Prometheus' numbering.

    Values above 2^12 s go to the bucket right above. Prometheus requires that the
    buckets add up to the count, and its own bucket for the rest begins at 2^1024, which
    would turn quantiles and heat maps into nonsense. So quantiles up there read "at
    least 4,096 s", as they do for a classic histogram above its last bound.
    """
    cdef list counts
    cdef uint64_t underflow, overflow
    cdef int offset
    offset, counts, underflow, overflow = histogram.exponential()
    offset += 1
    if overflow:
        if not counts:
            offset = ABOVE_RANGE
        counts.extend([0] * (ABOVE_RANGE - offset - len(counts)))
        counts.append(overflow)
    out.varint(HISTOGRAM_SCHEMA)
    out.zigzag(SCHEMA)
    out.number(HISTOGRAM_ZERO_THRESHOLD, ZERO_THRESHOLD)
    out.varint(HISTOGRAM_ZERO_COUNT)
    out.varint(underflow)

    cdef Buffer deltas = Buffer()
    cdef Py_ssize_t i
    cdef Py_ssize_t n = len(counts)
    cdef Py_ssize_t start = 0               # of the span
    cdef Py_ssize_t end = 0                 # behind its last bucket that is not empty
    cdef int64_t before = 0
    cdef int64_t count
    for i in range(n):
        count = counts[i]
        if count == 0:
            continue
        if i - end > MAX_GAP:
            put_span(out, part, offset, end - start)
            offset = <int> (i - end)
            start = end = i
        while end < i:
            deltas.zigzag(-before)
            before = 0
            end += 1
        deltas.zigzag(count - before)
        before = count
        end += 1
    if end > start:
        put_span(out, part, offset, end - start)
        out.message(HISTOGRAM_DELTA, deltas)
    return 0


cdef int put_span(Buffer out, Buffer part, int offset, Py_ssize_t n) except -1:
    """`n` buckets; the offset is the first span's index, another's gap before it."""
    part.varint(SPAN_OFFSET)
    part.zigzag(offset)
    part.varint(SPAN_LENGTH)
    part.varint(n)
    return out.message(HISTOGRAM_SPAN, part)
