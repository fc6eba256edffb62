# SPDX-License-Identifier: MIT
"""The fields of `Table`, and the ways through it that must be fast."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ometrics._histogram cimport Layout
from ometrics._journal cimport om_journal
from ometrics._record cimport om_record
from ometrics._state cimport (
    om_core,
    om_running,
    om_totals,
    om_monotonic_ns,
    om_mutex_acquire,
    om_mutex_release,
    om_precise_wall_ns,
    om_wall_ns,
)

cdef class Memory:
    """Where records live that other processes read; `_segment.Segment` is one."""
    cdef om_journal journal
    cdef om_totals *totals
    cdef om_running **free_running      # room for all there are
    cdef uint32_t n_free_running
    cdef int file                       # its descriptor
    cdef int lock                       # that of its lock

    cdef void *take(self, size_t size, uint32_t kind) except NULL
    cdef int give_back(self, void *block) except -1
    cdef int add_code(self, uint32_t id, str code) except -1
    cdef int add_running(self, om_core *c) except -1

cdef class Slot:
    """Owns one record's memory; the table's dictionary holds it by the model's name."""
    cdef om_record *record
    cdef om_record *private_record  # of this process alone: to be freed; or NULL
    cdef Memory memory              # where else the record is, or None
    cdef dict calls         # key of operation and provider -> slot, or None
    cdef uint32_t running   # calls that have this slot and have not ended

cdef class Table:
    cdef om_core *c
    cdef Layout layout
    cdef readonly int max_models
    cdef object home        # asked for a `Memory` other processes can read, or None
    cdef Memory memory      # the one that records are in now, or None
    cdef list memories      # all that records ever were in
    cdef bint placing
    cdef dict slots         # by name
    cdef uint64_t generation
    cdef uint64_t next_family
    cdef object last_name
    cdef Slot last_slot
    cdef dict names         # by id
    cdef dict name_ids
    cdef uint32_t next_name_id
    cdef dict filters       # ids of names that a reader of events waits for, by reader
    cdef dict alerts        # the newest that were published, by number
    cdef int64_t next_alert
    cdef dict code_ids
    cdef list codes
    cdef int n_classes
    cdef set warned
    cdef object clock
    cdef object __weakref__

    cdef Slot live_slot(self, object name)
    cdef Slot find_slot(self, object model)
    cdef Slot known_slot(self, object model)
    cdef Slot add_slot(self, object model, bint count_repair)
    cdef Slot call_slot(self, Slot model_slot, uint32_t operation, uint32_t provider)
    cdef Slot new_slot(self, str name, uint32_t operation, uint32_t name_id)
    cdef om_record *new_record(self, Slot slot, int n_histograms) except NULL
    cdef int place(self) except -1
    cdef int place_call(self) except -1
    cdef int move_to(self, Memory memory) except -1
    cdef list slots_elsewhere(self, Memory memory)
    cdef int restart(self) except -1
    cdef int forget_last(self) except -1
    cdef Slot renew(self, object model, Slot slot)
    cdef bint remove(self, object model) except -1
    cdef int drop_unused(self, Slot slot) except -1
    cdef int grow(self) except -1
    cdef uint32_t name_id(self, str name) except 0
    cdef int forget_names(self) except -1
    cdef uint32_t code_id(self, object error) except? 0xFFFFFFFF
    cdef int reject(self, object model, str what, int reason) except -1
    cdef int warn_once(self, object key, str message, tuple args) except -1
    cdef int show_code(self, uint32_t id, str code) except -1
    cdef int count_internal_error(self) except -1

# Free functions, because a method of an open class is called through a table and never
# inlined.

cdef inline int64_t wall(Table table) except? -1:
    """Wall clock in nanoseconds, coarse: for "last updated" and event times."""
    if table.clock is None:
        return om_wall_ns()
    return <int64_t> (table.clock.time() * 1e9)

cdef inline int64_t precise_wall(Table table) except? -1:
    if table.clock is None:
        return om_precise_wall_ns()
    return <int64_t> (table.clock.time() * 1e9)

cdef inline int64_t monotonic(Table table) except? -1:
    if table.clock is None:
        return om_monotonic_ns()
    return <int64_t> (table.clock.monotonic() * 1e9)

cdef inline Slot slot_of(Table table, object model):
    """The slot of a model, made if need be; the last one is remembered."""
    if model is table.last_name:
        return table.last_slot
    return table.find_slot(model)
