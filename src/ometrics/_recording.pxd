# SPDX-License-Identifier: MIT
"""One record of each kind: by name, or by a slot that the caller holds.

`slot` is None for a record by name: it is looked up after the arguments were converted,
so that refused ones leave nothing behind. Conversion, look-up, clocks and warnings come
before or after the mutex is held; in between are some stores.
"""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.math cimport NAN, fabs
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ometrics._arguments cimport seconds_of
from ometrics._buckets cimport cell_of
from ometrics._events cimport EVENT_ERROR, EVENT_LATENCY, locked_emit
from ometrics._fields cimport (
    MODEL_ERRORS,
    MODEL_FAILED_LATENCY_HIST,
    MODEL_FAILED_REQS,
    MODEL_LATENCY_HIST,
    MODEL_LATENCY_UNKNOWN,
    MODEL_SUCCESSFUL_REQS,
    MODEL_TOKENS_PROCESSED,
    SNAPSHOT_SATURATED,
)
from ometrics._journal cimport keep, om_journal, record_is_complete
from ometrics._record cimport (
    cells_at,
    histogram_at,
    locked_add,
    locked_add_code,
    locked_add_value,
    locked_add_value_kept,
    locked_count,
    om_histogram,
    om_record,
)
from ometrics._state cimport (
    NEGATIVE,
    VALID,
    commit,
    om_core,
    om_mutex_acquire,
    om_mutex_release,
    reason_of,
)
from ometrics._table cimport Slot, Table, slot_of, wall

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1

cdef int add_batch(Table table, object model, Slot slot, object values) except -1
cdef int add_many_tokens(Table table, object model, Slot slot, object count) except -1

# The rest of `acquire_record`: of a record that is not current.
cdef om_record *acquire_renewed(Table table, object model, Slot slot) except NULL

cdef inline om_record *acquire_record(
    Table table, object model, Slot slot
) except NULL:
    """
    Take the mutex, with a model's record ready to be changed.

    Nobody can free the record before the mutex is released: whoever takes a slot out of
    the dictionary has made its record stale first, under the mutex.

    Args:
        slot: The model's slot, which may have become stale meanwhile.

    Raises:
        MemoryError: No room for the record. The mutex is not held.
    """
    cdef om_core *c = table.c
    om_mutex_acquire(&c.lock)
    if slot.record.epoch == c.epoch:        # nearly always: short enough to be inlined
        return slot.record
    om_mutex_release(&c.lock)
    return acquire_renewed(table, model, slot)

cdef inline void locked_add_latency(
    om_core *c, om_record *record, int cell, double seconds, int reason,
    om_journal *journal,
) noexcept nogil:
    cdef om_histogram *h = histogram_at(c.layout, record, MODEL_LATENCY_HIST)
    cdef uint64_t *successful = &record.counters[MODEL_SUCCESSFUL_REQS]
    if reason == VALID:
        keep(journal, successful, &cells_at(h)[cell], &h.sum_ns)
        successful[0] += 1
        locked_add_value_kept(
            h, cell, seconds, &c.totals.counters[SNAPSHOT_SATURATED], journal
        )
    else:
        locked_count(successful, journal)
        locked_count(&record.counters[MODEL_LATENCY_UNKNOWN], journal)
        locked_count(&c.totals.invalid[reason], journal)
    record_is_complete(journal)

cdef inline int add_latency(
    Table table, object model, Slot slot, object latency
) except -1:
    cdef om_core *c = table.c
    cdef om_record *record
    cdef double seconds
    cdef int cell = 0
    cdef int reason
    cdef int64_t now
    if PyFloat_CheckExact(latency):
        seconds = PyFloat_AS_DOUBLE(latency)
    else:
        seconds = seconds_of(latency)
    reason = reason_of(seconds)
    if reason == VALID:
        seconds = fabs(seconds)     # -0.0
        cell = cell_of(c.layout, seconds)
    now = wall(table)
    if slot is None:
        slot = slot_of(table, model)

    record = acquire_record(table, model, slot)
    record.updated_ns = now
    if c.journal == NULL:       # compiled twice: private memory asks only once
        locked_add_latency(c, record, cell, seconds, reason, NULL)
    else:
        locked_add_latency(c, record, cell, seconds, reason, &c.own_journal)
    locked_emit(
        &c.ring, EVENT_LATENCY, 1, record.name_id,
        seconds if reason == VALID else NAN, now,
    )
    om_mutex_release(&c.lock)

    if reason != VALID:
        table.reject(model, f"latency {seconds} s", reason)
    return 0

cdef inline int add_error(
    Table table, object model, Slot slot, object error, object latency
) except -1:
    cdef om_core *c = table.c
    cdef om_record *record
    cdef double seconds = 0.0
    cdef int cell = 0
    cdef int reason = VALID
    cdef uint32_t code = table.code_id(error)
    cdef int64_t now
    if latency is not None:
        seconds = seconds_of(latency)
        reason = reason_of(seconds)
        if reason == VALID:
            seconds = fabs(seconds)     # -0.0
            cell = cell_of(c.layout, seconds)
    now = wall(table)
    if slot is None:
        slot = slot_of(table, model)

    record = acquire_record(table, model, slot)
    locked_count(&record.counters[MODEL_FAILED_REQS], c.journal)
    record.updated_ns = now
    locked_add_code(&record.codes[MODEL_ERRORS], code, c.journal)
    if reason != VALID:
        locked_count(&c.totals.invalid[reason], c.journal)
    elif latency is not None:
        locked_add_value(
            histogram_at(c.layout, record, MODEL_FAILED_LATENCY_HIST), cell, seconds,
            &c.totals.counters[SNAPSHOT_SATURATED], c.journal,
        )
    locked_emit(&c.ring, EVENT_ERROR, 0, record.name_id, code, now)
    commit(c)

    if reason != VALID:
        table.reject(model, f"latency {seconds} s", reason)
    return 0

cdef inline int add_tokens(
    Table table, object model, Slot slot, object count
) except -1:
    cdef om_core *c = table.c
    cdef om_record *record
    cdef int overflow = 0
    cdef long long tokens = PyLong_AsLongLongAndOverflow(count, &overflow)
    cdef int64_t now
    if overflow > 0:
        return add_many_tokens(table, model, slot, count)
    now = wall(table)
    if slot is None:
        slot = slot_of(table, model)

    record = acquire_record(table, model, slot)
    record.updated_ns = now
    if overflow < 0 or tokens < 0:
        overflow = -1
        locked_count(&c.totals.invalid[NEGATIVE], c.journal)
    else:
        locked_add(
            &record.counters[MODEL_TOKENS_PROCESSED], <uint64_t> tokens,
            &c.totals.counters[SNAPSHOT_SATURATED], c.journal,
        )
    commit(c)

    if overflow < 0:
        table.reject(model, f"number of tokens {tokens}", NEGATIVE)
    return 0
