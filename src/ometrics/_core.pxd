# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ometrics._copy cimport om_copy
from ometrics._histogram cimport Layout
from ometrics._record cimport om_record
from ometrics._state cimport om_core, om_monotonic_ns, om_precise_wall_ns, om_wall_ns

cdef class Slot:
    """Owns one record's memory; the core's dictionary holds it by the model's name."""
    cdef om_record *record
    cdef list calls         # the slots of the model's operations, or None

cdef class Core:
    cdef om_core *c
    cdef readonly Layout layout
    cdef readonly int max_models
    cdef dict slots
    cdef uint64_t generation
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

    cdef int warn_once(self, object key, str message, tuple args) except -1
    cdef Slot find_slot(self, object model)
    cdef Slot known_slot(self, object model)
    cdef Slot add_slot(self, object model)
    cdef Slot new_slot(self, str name, int operation, uint32_t name_id)
    cdef Slot call_slot(self, Slot model_slot, int operation)
    cdef int restart(self) except -1
    cdef int forget_last(self) except -1
    cdef int forget_names(self) except -1
    cdef uint32_t name_id(self, str name) except 0
    cdef Slot renew(self, object model, om_record *record)
    cdef int grow(self) except -1
    cdef uint32_t code_id(self, object error) except? 0xFFFFFFFF
    cdef int begin_copy(self, om_copy *copy) except -1
    cdef tuple read_copy(self, om_copy *copy, int status)
    cdef int reject(self, object model, int reason) except -1

# Free functions, because a method of an open class is called through a table and never
# inlined.

cdef str mended(object model)
cdef uint64_t ring_size(capacity) except 0

cdef inline int64_t wall(Core core) except? -1:
    """Wall clock in nanoseconds, coarse: for "last updated" and event times."""
    if core.clock is None:
        return om_wall_ns()
    return <int64_t> (core.clock.time() * 1e9)

cdef inline int64_t precise_wall(Core core) except? -1:
    if core.clock is None:
        return om_precise_wall_ns()
    return <int64_t> (core.clock.time() * 1e9)

cdef inline int64_t monotonic(Core core) except? -1:
    if core.clock is None:
        return om_monotonic_ns()
    return <int64_t> (core.clock.monotonic() * 1e9)

cdef inline Slot slot_of(Core core, object model):
    """The slot of a model, made if need be; the last one is remembered."""
    if model is core.last_name:
        return core.last_slot
    return core.find_slot(model)
