# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ometrics._buckets cimport om_layout
from ometrics._histogram cimport Layout
from ometrics._record cimport om_record

cdef extern from "_mutex.h":
    ctypedef struct om_mutex:
        pass
    void om_mutex_init(om_mutex *) noexcept nogil
    void om_mutex_destroy(om_mutex *) noexcept nogil
    void om_mutex_acquire(om_mutex *) noexcept
    void om_mutex_lock(om_mutex *) noexcept nogil
    void om_mutex_release(om_mutex *) noexcept nogil
    int om_at_fork(void (*child)() noexcept nogil) noexcept nogil
    bint OM_HAS_GIL
    int64_t om_wall_ns() noexcept nogil
    int64_t om_precise_wall_ns() noexcept nogil
    int64_t om_monotonic_ns() noexcept nogil

cdef enum:  # why a value is not counted as a number
    VALID = -1
    NOT_A_NUMBER
    INFINITE
    NEGATIVE
    INVALID_REASONS

cdef enum:  # of an event
    EVENT_LATENCY
    EVENT_ERROR
    EVENT_TASK
    EVENT_RESOURCE

cdef struct om_event:
    int64_t wall_ns
    double value            # seconds, milliseconds of a task, megabytes
    double cpu_percent
    int64_t count           # goroutines of a resource event, code id of an error
    uint32_t name_id
    uint8_t type
    uint8_t success

# Everything that is not a model's: copied whole into each snapshot.
cdef struct om_totals:
    uint64_t tasks_completed
    uint64_t tasks_failed
    uint64_t tasks_unknown
    uint64_t task_sum_ns
    double task_min_ms
    double task_max_ms
    int64_t task_updated_ns
    double memory_mb
    double cpu_percent
    int64_t goroutines
    int64_t resources_ns    # 0: never told
    uint64_t invalid[INVALID_REASONS]
    uint64_t truncated_names
    uint64_t saturated
    uint64_t internal_errors
    uint64_t events_before  # `head` when this window began
    int64_t start_wall_ns
    int64_t start_monotonic_ns

# A running call, in a list by start time.
cdef struct om_call:
    om_call *next
    om_call *previous
    int64_t start_ns        # monotonic
    uint32_t name_id
    uint32_t operation
    bint listed

cdef struct om_core:
    const om_layout *layout
    om_mutex lock           # all below
    om_mutex copying        # held through a snapshot, reset or removal; taken before lock
    uint64_t epoch
    uint64_t generation
    uint64_t forks
    om_record **table
    uint32_t n
    uint32_t capacity
    uint32_t next_order
    size_t packed_limit     # bytes a snapshot of the table can need
    om_totals totals
    om_event *events
    uint64_t event_mask
    uint64_t head           # events ever emitted
    uint64_t floor          # events before this one are another process's
    bint emitting
    om_call *calls          # oldest first
    om_call *last_call
    uint32_t n_calls
    bint snapshotting
    char *packed            # where an unseen record goes before it changes
    size_t packed_size
    om_core *next           # all cores of this process, for the forked child
    om_core *previous

cdef enum:  # what `locked_settle` found
    SETTLED
    STALE                   # the record was reset, removed, or is the parent process's
    FULL                    # the table must grow before this record fits

cdef class Slot:
    """Owns one record's memory; the core's dictionary holds it under the model's name."""
    cdef om_record *record
    cdef list calls         # the slots of the model's operations, or None

cdef class Core:
    cdef om_core *c
    cdef readonly Layout layout
    cdef readonly Py_ssize_t max_models
    cdef dict slots
    cdef uint64_t generation
    cdef object last_name
    cdef Slot last_slot
    cdef dict names
    cdef uint32_t next_name_id
    cdef dict code_ids
    cdef list codes
    cdef set warned
    cdef object clock
    cdef object __weakref__

    cdef int warn_once(self, object key, str message, tuple args) except -1
    cdef Slot find_slot(self, object model)
    cdef Slot add_slot(self, object model)
    cdef Slot new_slot(self, str name, int operation, uint32_t name_id)
    cdef Slot call_slot(self, Slot model_slot, int operation)
    cdef int restart(self) except -1
    cdef int forget_names(self) except -1
    cdef Slot renew(self, object model, Slot slot)
    cdef int grow(self) except -1
    cdef uint32_t code_id(self, object error) except? 0xFFFFFFFF
    cdef int reject(self, object model, int reason) except -1

# Free functions, because a method of an open class is called through a table and never
# inlined.

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

cdef int locked_settle(om_core *c, om_record *record) noexcept nogil
cdef void locked_emit(
    om_core *c, uint8_t type, uint8_t success, uint32_t name_id, double value,
    int64_t wall_ns,
) noexcept nogil
cdef void locked_list(om_core *c, om_call *call) noexcept nogil
cdef void locked_unlist(om_core *c, om_call *call) noexcept nogil
