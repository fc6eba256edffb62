# SPDX-License-Identifier: MIT
"""The records that need not be inlined: batches, and tokens beyond 2^63."""

from array import array
from operator import index

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strcmp

from ometrics._arguments cimport model_name, seconds_of
from ometrics._batch cimport fill, locked_add_batch, om_batch
from ometrics._journal cimport keep
from ometrics._record cimport record_size
from ometrics._state cimport CURRENT, INVALID_REASONS, locked_make_current


cdef om_record *acquire_renewed(Table table, object model, Slot slot) except NULL:
    """The same with a record that has to be made current, perhaps another slot's."""
    cdef om_core *c = table.c
    om_mutex_acquire(&c.lock)
    while (
        slot.record.epoch != c.epoch
        and locked_make_current(c, slot.record) != CURRENT
    ):
        om_mutex_release(&c.lock)
        slot = table.renew(model, slot)
        om_mutex_acquire(&c.lock)
    return slot.record


cdef int add_batch(Table table, object model, Slot slot, object values) except -1:
    """Fill a histogram of our own without lock and GIL, then add it."""
    cdef Py_buffer view
    cdef om_record *record
    cdef om_core *c = table.c
    cdef const double *data
    cdef Py_ssize_t n
    cdef int reason
    cdef int64_t now = wall(table)
    cdef om_batch batch
    if not view_of(values, &view):
        numbers = array("d", [seconds_of(value) for value in values])
        PyObject_GetBuffer(numbers, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    data = <const double *> view.buf
    n = view.len // <Py_ssize_t> sizeof(double)
    memset(&batch, 0, sizeof(batch))
    batch.record = <om_record *> calloc(1, record_size(c.layout, 1))    # latencies
    if batch.record == NULL:
        PyBuffer_Release(&view)
        raise MemoryError("no memory to count a batch")
    try:
        with nogil:
            fill(c.layout, &batch, data, n)
        if n == 0:
            model_name(model)       # refuse what is no name, and count nothing
        else:
            if slot is None:
                slot = slot_of(table, model)
            record = acquire_record(table, model, slot)
            locked_add_batch(c, record, &batch, data, n, now)
            commit(c)
    finally:
        free(batch.record)
        PyBuffer_Release(&view)
    for reason in range(INVALID_REASONS):
        if batch.invalid[reason]:
            table.reject(model, f"{batch.invalid[reason]} of {n} latencies", reason)
    return 0


cdef bint view_of(object values, Py_buffer *view) except -1:
    """
    Look at the float64 in a buffer without copying them.

    Returns:
        Whether that is possible: else they are to be read as an iterable.

    Raises:
        TypeError: Text, whose items are no numbers.
    """
    if PyObject_CheckBuffer(values):
        try:
            PyObject_GetBuffer(values, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except (BufferError, ValueError):
            return False        # not contiguous
        if (
            view.format != NULL
            and strcmp(view.format, b"d") == 0
            and <size_t> view.buf % sizeof(double) == 0
        ):
            return True
        PyBuffer_Release(view)
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"latencies are numbers, not {type(values).__name__}")
    return False


cdef int add_many_tokens(Table table, object model, Slot slot, object count) except -1:
    """Add a number above 2^63; above 2^64 the sum stops at its limit."""
    cdef om_core *c = table.c
    cdef om_record *record
    cdef object number = index(count)
    cdef uint64_t n = UINT64_MAX
    cdef bint too_many = number > UINT64_MAX
    cdef int64_t now = wall(table)
    if not too_many:
        n = number
    if slot is None:
        slot = slot_of(table, model)
    record = acquire_record(table, model, slot)
    record.updated_ns = now
    if too_many:
        keep(c.journal, &record.counters[MODEL_TOKENS_PROCESSED])
        record.counters[MODEL_TOKENS_PROCESSED] = UINT64_MAX
        locked_count(&c.totals.counters[SNAPSHOT_SATURATED], c.journal)
    else:
        locked_add(
            &record.counters[MODEL_TOKENS_PROCESSED], n,
            &c.totals.counters[SNAPSHOT_SATURATED], c.journal,
        )
    commit(c)
    return 0
