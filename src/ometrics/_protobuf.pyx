# SPDX-License-Identifier: MIT
"""Encoder of `io.prometheus.client.MetricFamily`, native histograms included.

Compiled because a native histogram is some two hundred counts: with the `protobuf`
package (upb) a page of a thousand models took 62 ms. As in `_exposition`, numbers are
gathered a few hundred samples at a time, and bytes are written without the GIL.

The wire format is small: a tag is `field << 3 | type`; type 0 is a varint, type 1 a
little-endian double, type 2 a length and bytes. Nothing here reads protobuf. Pure: no
lock, no shared state; every function may be called from any thread.

Field numbers: client_model, `io/prometheus/client/metrics.proto`.
"""

from array import array

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from ometrics._growing cimport om_bytes, put, reserve

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

    # Ours; Prometheus numbers buckets as OpenTelemetry plus one: bucket i is
    # (base^(i-1), base^i].
    SCHEMA = 5
    MAX_VARINT = 10                         # bytes of 2^64 - 1

    AT_ONCE = 256                           # samples gathered at a time

    MAX_PACKED = 64
    MAX_NAMES = 64

# id of bounds -> them, and as native doubles: the hash of floats is dear.
cdef dict PACKED = {}
cdef dict NAMES = {}                        # attribute -> label
TYPES = {"counter": 0, "gauge": 1, "histogram": 4}


cdef struct om_sample:
    const char *labels                      # of their owner, in bytes that outlive it
    size_t n_labels
    const char *own                         # the metric's own
    size_t n_own
    double value                            # of a histogram: its sum
    const double *bounds
    Py_ssize_t n_bounds
    const uint64_t *below                   # at or below each bound, and in all
    const uint64_t *counts                  # of the exponential view
    Py_ssize_t n_counts
    int offset
    int above                               # index of the bucket for the overflow
    double zero_threshold
    uint64_t underflow
    uint64_t overflow


cdef inline unsigned char *write_varint(
    unsigned char *at, uint64_t value
) noexcept nogil:
    """Write up to `MAX_VARINT` bytes; returns where they end."""
    while value >= 0x80:
        at[0] = <unsigned char> (value | 0x80)
        at += 1
        value >>= 7
    at[0] = <unsigned char> value
    return at + 1


cdef inline void varint(om_bytes *b, uint64_t value) noexcept nogil:
    if reserve(b, MAX_VARINT):
        b.size = write_varint(b.data + b.size, value) - b.data


cdef inline uint64_t zigzag(int64_t value) noexcept nogil:
    return (<uint64_t> value << 1) ^ <uint64_t> (value >> 63)


cdef inline void number(om_bytes *b, int tag, double value) noexcept nogil:
    cdef uint64_t bits
    cdef int i
    varint(b, tag)
    memcpy(&bits, &value, sizeof(bits))
    if reserve(b, sizeof(bits)):
        for i in range(<int> sizeof(bits)):
            b.data[b.size + i] = <unsigned char> (bits >> 8 * i)
        b.size += sizeof(bits)


cdef inline void text(
    om_bytes *b, int tag, const char *data, size_t n
) noexcept nogil:
    varint(b, tag)
    varint(b, n)
    put(b, data, n)


cdef inline void message(om_bytes *b, int tag, om_bytes *content) noexcept nogil:
    """`content` as a field; it is empty afterwards."""
    text(b, tag, <char *> content.data, content.size)
    b.failed |= content.failed
    content.size = 0


@cython.final
cdef class Buffer:
    """Bytes that are freed with this object."""

    cdef om_bytes bytes

    def __dealloc__(self):
        free(self.bytes.data)

    cdef int field(self, int tag, bytes content) except -1:
        text(
            &self.bytes, tag, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content)
        )
        return 0

    cdef bytes value(self):
        if self.bytes.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *> self.bytes.data, self.bytes.size)


def labels(tuple pairs not None, /):
    """
    The `label` fields of a `Metric`; they can be joined by `+`.

    Args:
        pairs: Attributes and their values, in valid Unicode.
    """
    cdef Buffer out = Buffer()
    cdef Buffer pair = Buffer()
    cdef bytes label
    for name, value in pairs:
        label = NAMES.get(name)
        if label is None:
            label = name.replace(".", "_").encode()
            if len(NAMES) < MAX_NAMES:
                NAMES[name] = label
        pair.field(LABEL_NAME, label)
        pair.field(LABEL_VALUE, value.encode())
        message(&out.bytes, METRIC_LABEL, &pair.bytes)
    return out.value()


def timestamp(int64_t seconds, int nanos, /):
    """A `google.protobuf.Timestamp` since 1970."""
    cdef Buffer out = Buffer()
    varint(&out.bytes, TIMESTAMP_SECONDS)
    varint(&out.bytes, <uint64_t> seconds)
    varint(&out.bytes, TIMESTAMP_NANOS)
    varint(&out.bytes, nanos)
    return out.value()


def family(
    str name,
    str help,
    str kind,
    str unit,
    list columns,
    bytes created,
    tuple bounds,
    pace=None,
    /,
):
    """
    One `MetricFamily` after its length.

    Args:
        name: Name with `_total` of a counter.
        help: For people.
        kind: `counter`, `gauge` or `histogram`.
        unit: Prometheus' unit or nothing.
        columns: As of `ometrics.export.names.Family`, with labels as `labels` gives
            them, and numbers or histograms as values.
        created: `timestamp` of the start of counters and histograms, or nothing.
        bounds: Explicit bounds of histograms; `None` for each one's own.
        pace: Called after some hundred samples each, to let other threads run.
    """
    cdef Buffer whole = Buffer()
    cdef Buffer out = Buffer()
    cdef ProtobufWriter writer = ProtobufWriter()
    writer.pace = pace
    out.field(FAMILY_NAME, name.encode())
    out.field(FAMILY_HELP, help.encode())
    varint(&out.bytes, FAMILY_TYPE)
    varint(&out.bytes, TYPES[kind])
    writer.write(&out.bytes, kind, columns, created, bounds)
    if unit:
        out.field(FAMILY_UNIT, unit.encode())
    varint(&whole.bytes, out.bytes.size)
    put(&whole.bytes, out.bytes.data, out.bytes.size)
    whole.bytes.failed |= out.bytes.failed
    return whole.value()


@cython.final
cdef class ProtobufWriter:
    """
    The `Metric` messages of one family.

    A message goes into the one around it once its length is known, so there is a buffer
    for each level.
    """

    cdef om_bytes metric
    cdef om_bytes value
    cdef om_bytes part
    cdef om_bytes deltas
    cdef om_sample samples[AT_ONCE]
    cdef object pace

    def __dealloc__(self):
        free(self.metric.data)
        free(self.value.data)
        free(self.part.data)
        free(self.deltas.data)

    cdef int write(
        self, om_bytes *out, str kind, list columns, bytes created, tuple bounds
    ) except -1:
        cdef Py_ssize_t n = 0
        cdef om_sample *s
        cdef list kept = []
        cdef bint histograms = kind == "histogram"
        cdef int tag = METRIC_COUNTER if kind == "counter" else METRIC_GAUGE
        if histograms:
            tag = METRIC_HISTOGRAM
        for column in columns:
            own, read = column.own, column.read
            for labels, owner in <list?> column.owners:
                value = owner if read is None else read(owner)
                if value is None:
                    continue
                s = &self.samples[n]
                s.labels = PyBytes_AS_STRING(<bytes?> labels)
                s.n_labels = PyBytes_GET_SIZE(labels)
                s.n_own = 0
                if own is not None:
                    s.own = PyBytes_AS_STRING(<bytes?> own)
                    s.n_own = PyBytes_GET_SIZE(own)
                if histograms:
                    gather(s, value, bounds, kept)
                else:
                    s.value = value
                n += 1
                if n == AT_ONCE:
                    self.flush(out, n, tag, created)
                    kept.clear()
                    n = 0
        return self.flush(out, n, tag, created)

    cdef int flush(
        self, om_bytes *out, Py_ssize_t n, int tag, bytes created
    ) except -1:
        cdef const char *c_created = PyBytes_AS_STRING(created)
        cdef size_t n_created = PyBytes_GET_SIZE(created)
        cdef Py_ssize_t i
        cdef om_sample *s
        with nogil:
            for i in range(n):
                s = &self.samples[i]
                put(&self.metric, s.labels, s.n_labels)
                put(&self.metric, s.own, s.n_own)
                if tag == METRIC_HISTOGRAM:
                    self.histogram(s)
                    if n_created:
                        text(&self.value, HISTOGRAM_CREATED, c_created, n_created)
                else:
                    number(&self.value, NUMBER_VALUE, s.value)
                    if tag == METRIC_COUNTER and n_created:
                        text(&self.value, COUNTER_CREATED, c_created, n_created)
                message(&self.metric, tag, &self.value)
                message(out, FAMILY_METRIC, &self.metric)
        if self.pace is not None:
            self.pace()
        return 0

    cdef void histogram(self, om_sample *s) noexcept nogil:
        """The classic and the native view of one histogram, side by side."""
        cdef uint64_t count = s.below[s.n_bounds]
        cdef Py_ssize_t i
        varint(&self.value, HISTOGRAM_COUNT)
        varint(&self.value, count)
        number(&self.value, HISTOGRAM_SUM, s.value)
        # The bucket of infinity may be left out: it is the count.
        for i in range(s.n_bounds):
            varint(&self.part, BUCKET_COUNT)
            varint(&self.part, s.below[i])
            number(&self.part, BUCKET_BOUND, s.bounds[i])
            message(&self.value, HISTOGRAM_BUCKET, &self.part)
        # Differences of larger counts do not fit the format: then that was all.
        if count <= <uint64_t> INT64_MAX:
            self.native(s)

    cdef void native(self, om_sample *s) noexcept nogil:
        """
        The native view: the same exponential buckets in Prometheus' numbering.

        Values above the exponential view go to the bucket right above. Prometheus
        requires that the buckets add up to the count, and its own bucket for the rest
        begins at 2^1024, which would turn quantiles and heat maps into nonsense. So
        quantiles up there read "at least 4,096 s", as they do for a classic histogram
        above its last bound.
        """
        cdef Py_ssize_t i
        cdef Py_ssize_t n = s.n_counts
        cdef Py_ssize_t start = 0           # of the span
        cdef Py_ssize_t end = 0             # behind its last bucket that is not empty
        cdef int64_t before = 0
        cdef int64_t count
        cdef unsigned char *at
        cdef int offset = s.offset + 1
        if s.overflow:
            if n == 0:
                offset = s.above + 1
            n = s.above + 2 - offset
        varint(&self.value, HISTOGRAM_SCHEMA)
        varint(&self.value, zigzag(SCHEMA))
        number(&self.value, HISTOGRAM_ZERO_THRESHOLD, s.zero_threshold)
        varint(&self.value, HISTOGRAM_ZERO_COUNT)
        varint(&self.value, s.underflow)
        if not reserve(&self.deltas, n * MAX_VARINT):
            return
        at = self.deltas.data
        for i in range(n):
            if i < s.n_counts:
                count = s.counts[i]
            elif i == n - 1:
                count = s.overflow
            else:
                continue
            if count == 0:
                continue
            if i - end > MAX_GAP:
                self.span(offset, end - start)
                offset = <int> (i - end)
                start = end = i
            while end < i:
                at = write_varint(at, zigzag(-before))
                before = 0
                end += 1
            at = write_varint(at, zigzag(count - before))
            before = count
            end += 1
        self.deltas.size = at - self.deltas.data
        if end > start:
            self.span(offset, end - start)
            message(&self.value, HISTOGRAM_DELTA, &self.deltas)

    cdef void span(self, int offset, Py_ssize_t n) noexcept nogil:
        """`n` buckets; the first span's offset is an index, another's a gap."""
        varint(&self.part, SPAN_OFFSET)
        varint(&self.part, zigzag(offset))
        varint(&self.part, SPAN_LENGTH)
        varint(&self.part, n)
        message(&self.value, HISTOGRAM_SPAN, &self.part)


cdef int gather(om_sample *s, histogram, tuple bounds, list kept) except -1:
    """What is to be written of one histogram; `kept` keeps its counts alive."""
    if bounds is None:
        bounds = histogram.bucket_bounds
    cdef bytes below = histogram.packed_cumulative(bounds)
    cdef bytes counts, c_bounds
    offset, counts, underflow, overflow = histogram.packed_exponential()
    c_bounds = packed_bounds(bounds)
    kept.append((below, counts, c_bounds))
    s.n_bounds = len(bounds)
    s.bounds = <const double *> <void *> PyBytes_AS_STRING(c_bounds)
    s.below = <const uint64_t *> <void *> PyBytes_AS_STRING(below)
    s.value = histogram.total
    s.offset = offset
    s.counts = <const uint64_t *> <void *> PyBytes_AS_STRING(counts)
    s.n_counts = PyBytes_GET_SIZE(counts) // sizeof(uint64_t)
    s.underflow = underflow
    s.overflow = overflow
    s.above = histogram.overflow_index
    s.zero_threshold = histogram.zero_threshold
    return 0


cdef bytes packed_bounds(tuple bounds):
    """The same few bounds again and again, as C has them."""
    cdef object key = <size_t> <PyObject *> bounds
    entry = PACKED.get(key)
    if entry is None:
        if len(PACKED) >= MAX_PACKED:
            PACKED.clear()
        # Holds the bounds, so that their id stays their own.
        entry = PACKED[key] = (bounds, array("d", bounds).tobytes())
    return <bytes> (<tuple> entry)[1]
