# SPDX-License-Identifier: MIT
"""Many latencies at once: counted in a histogram of the caller's own, without lock and
GIL, then added to the model's record as one."""

from libc.math cimport INFINITY, NAN, fabs
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

from ometrics._buckets cimport (
    FIRST_SLICE,
    SLICE_SHIFT,
    SLICES,
    cell_of,
    om_layout,
)
from ometrics._events cimport EVENT_LATENCY, locked_emit
from ometrics._fields cimport (
    MODEL_LATENCY_HIST,
    MODEL_LATENCY_UNKNOWN,
    MODEL_SUCCESSFUL_REQS,
    SNAPSHOT_SATURATED,
)
from ometrics._record cimport (
    cells_at,
    histogram_at,
    locked_add,
    locked_add_seconds,
    locked_merge_histogram,
    om_histogram,
    om_record,
)
from ometrics._state cimport INVALID_REASONS, VALID, om_core, reason_of

# A batch being counted: a record that nobody else sees, and what it could not hold.
cdef struct om_batch:
    om_record *record
    uint64_t saturated
    uint64_t invalid[INVALID_REASONS]

cdef inline void fill(
    const om_layout *layout, om_batch *batch, const double *data, Py_ssize_t n
) noexcept nogil:
    """Count `n` values. Nearly all are in the exponential range, which one comparison
    tells: they are valid then, and their nanoseconds fit. The guess is corrected
    without a branch, since values that come in no order are mispredicted half of the
    time."""
    cdef om_histogram *h = histogram_at(layout, batch.record, 0)
    cdef uint64_t *cells = cells_at(h)
    cdef double low = INFINITY
    cdef double high = -INFINITY
    cdef uint64_t part = 0
    cdef uint64_t bits
    cdef double value
    cdef int cell
    cdef Py_ssize_t i
    for i in range(n):
        value = data[i]
        memcpy(&bits, &value, sizeof(bits))
        bits = (bits >> SLICE_SHIFT) - FIRST_SLICE
        if bits < SLICES:
            cell = layout.guess[bits]
            cell += value > layout.upper[cell]
            while value > layout.upper[cell]:
                cell += 1
            cells[cell] += 1
            part += <uint64_t> <int64_t> (value * 1e9 + 0.5)
            if part > UINT64_MAX // 2:      # long before it could wrap
                locked_add(&h.sum_ns, part, &batch.saturated, NULL)
                part = 0
        elif reason_of(value) != VALID:
            batch.invalid[reason_of(value)] += 1
            continue
        else:
            value = fabs(value)     # -0.0
            cells[cell_of(layout, value)] += 1
            locked_add_seconds(&h.sum_ns, value, &batch.saturated, NULL)
        low = value if value < low else low
        high = value if value > high else high
    locked_add(&h.sum_ns, part, &batch.saturated, NULL)
    h.min = low
    h.max = high

cdef inline void locked_add_batch(
    om_core *c, om_record *record, om_batch *batch, const double *data, Py_ssize_t n,
    int64_t now,
) noexcept nogil:
    """Add what `fill` counted; only the events that can still be read are written."""
    cdef uint64_t *saturated = &c.totals.counters[SNAPSHOT_SATURATED]
    cdef uint64_t *counters = record.counters
    cdef uint64_t unknown = 0
    cdef Py_ssize_t i, first
    cdef int reason
    for reason in range(INVALID_REASONS):
        if batch.invalid[reason]:
            unknown += batch.invalid[reason]
            locked_add(
                &c.totals.invalid[reason], batch.invalid[reason], saturated, c.journal
            )
    locked_add(&counters[MODEL_SUCCESSFUL_REQS], n, saturated, c.journal)
    locked_add(&counters[MODEL_LATENCY_UNKNOWN], unknown, saturated, c.journal)
    record.updated_ns = now
    locked_add(saturated, batch.saturated, saturated, c.journal)
    locked_merge_histogram(
        c.layout,
        histogram_at(c.layout, record, MODEL_LATENCY_HIST),
        histogram_at(c.layout, batch.record, 0),
        saturated, c.journal,
    )
    if c.ring.emitting:
        first = n - <Py_ssize_t> c.ring.mask - 1
        if first > 0:
            c.ring.head += first
        else:
            first = 0
        for i in range(first, n):
            locked_emit(
                &c.ring, EVENT_LATENCY, 1, record.name_id,
                data[i] if reason_of(data[i]) == VALID else NAN, now,
            )
