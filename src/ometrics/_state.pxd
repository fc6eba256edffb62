# SPDX-License-Identifier: MIT
"""One collector's state, and all that happens while its mutex is held.

The structs of `om_core` are plain C; the functions that change them are `locked_*`,
`noexcept nogil` (law 1). Python's side is `_core.pyx`.
"""

from libc.math cimport INFINITY, isnan
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from ometrics._buckets cimport om_layout
from ometrics._events cimport locked_lost, om_ring
from ometrics._fields cimport SNAPSHOT_COUNTERS, TASK_COUNTERS
from ometrics._journal cimport keep, keep_all, om_journal, record_is_complete
from ometrics._record cimport OM_NEVER, locked_pack, om_record, packed_limit

cdef extern from "_mutex.h":
    ctypedef struct om_mutex:
        pass
    void om_mutex_init(om_mutex *) noexcept nogil
    void om_mutex_destroy(om_mutex *) noexcept nogil
    void om_mutex_acquire(om_mutex *) noexcept
    void om_mutex_lock(om_mutex *) noexcept nogil
    void om_mutex_release(om_mutex *) noexcept nogil
    void om_mutex_yield() noexcept nogil
    void om_close(int) noexcept nogil
    int om_at_fork(void (*child)() noexcept nogil) noexcept nogil
    bint OM_HAS_GIL
    void om_publish(void **, void *) noexcept nogil
    void *om_published(void **) noexcept nogil
    void om_barrier() noexcept nogil
    uint64_t om_load(const uint64_t *) noexcept nogil
    void om_store(uint64_t *, uint64_t) noexcept nogil
    int64_t om_wall_ns() noexcept nogil
    int64_t om_precise_wall_ns() noexcept nogil
    int64_t om_monotonic_ns() noexcept nogil

cdef enum:  # why a value is not counted as a number
    VALID = -1
    NOT_A_NUMBER
    INFINITE
    NEGATIVE
    INVALID_REASONS

# Everything that is not a model's: copied whole into each snapshot.
cdef struct om_totals:
    uint64_t counters[SNAPSHOT_COUNTERS]    # places: `_fields.pxd`
    uint64_t tasks[TASK_COUNTERS]           # likewise
    double task_min_ms
    double task_max_ms
    int64_t task_updated_ns     # or OM_NEVER
    double memory_mb            # these four change as one
    double cpu_percent
    int64_t goroutines
    int64_t resources_ns        # or OM_NEVER
    uint64_t invalid[INVALID_REASONS]
    uint64_t events_before  # `ring.head` when this window began
    uint64_t lost_before    # the same of `locked_lost`
    int64_t start_wall_ns
    int64_t start_monotonic_ns
    uint64_t generation     # of the records that belong to these

# A running call in a file: when it began, the address of its record; at 0 none runs.
cdef struct om_running:
    int64_t start_ns
    uint64_t record
    int64_t last_ns         # its last chunk, since the start; below 0 before the first

# A running call, in a list by start time.
cdef struct om_call:
    om_call *next
    om_call *previous
    int64_t start_ns        # monotonic
    uint32_t name_id
    uint32_t operation
    uint32_t provider       # id of a code
    bint listed
    bint stalled            # and counted as such
    int64_t last_ns         # as in the file; changes without the mutex
    om_running *shown       # where other processes see it, or NULL

cdef struct om_core:
    const om_layout *layout
    om_mutex lock           # all below
    om_mutex copying        # see _copy.pxd; taken before lock
    bint own_clock          # times come from the user's clock, not the system's
    uint64_t epoch
    uint64_t generation
    uint64_t forks
    om_record **table
    uint32_t n
    uint32_t capacity
    uint32_t next_order
    size_t packed_limit     # bytes a snapshot of the table can need
    om_totals *totals       # `own_totals`, or in the file
    om_totals own_totals
    om_journal *journal     # `own_journal`; NULL: all is in private memory
    om_journal own_journal
    om_running **free_running   # places for calls that begin, in the file
    uint32_t n_free_running
    void *memories          # a list of Python's that keeps the file mapped
    int file                # its descriptor, which a forked child gives up; or -1
    int lock_file           # that of its lock, likewise
    bint wants_file         # records are to be in a file
    bint unplaced           # but are not, or not all
    om_ring ring
    om_call *calls          # oldest first
    om_call *last_call
    uint32_t n_calls
    bint snapshotting
    char *packed            # where a record goes that a snapshot has yet to copy
    size_t packed_size
    om_core *next           # all cores of this process, for the forked child
    om_core *previous

cdef enum:  # what `locked_make_current` found
    CURRENT
    STALE                   # the record was reset, removed, or is the parent process's
    FULL                    # the table must grow before this record fits

cdef inline int reason_of(double value) noexcept nogil:
    """VALID, or why `value` cannot be counted as a number."""
    if 0.0 <= value < INFINITY:
        return VALID
    if isnan(value):
        return NOT_A_NUMBER
    return INFINITE if value > 0 else NEGATIVE

cdef inline bint is_in(om_core *c, const om_journal *journal) noexcept nogil:
    """Whether the records are in the file of this journal."""
    return c.journal != NULL and c.own_journal.marks == journal.marks

cdef inline void commit(om_core *c) noexcept nogil:
    """Give the mutex back after a change, which is complete now."""
    record_is_complete(c.journal)
    om_mutex_release(&c.lock)

cdef inline void locked_clear(
    om_core *c, int64_t wall_ns, int64_t monotonic_ns
) noexcept nogil:
    """Empty the core; its old records become stale by their generation."""
    om_store(&c.generation, c.generation + 1)
    c.epoch += 1
    c.n = 0
    c.next_order = 0
    c.packed_limit = 0
    keep_all(c.journal, c.totals, sizeof(om_totals))
    memset(c.totals, 0, sizeof(om_totals))
    c.totals.generation = c.generation
    c.totals.task_min_ms = INFINITY
    c.totals.task_max_ms = -INFINITY
    c.totals.task_updated_ns = OM_NEVER
    c.totals.resources_ns = OM_NEVER
    c.totals.events_before = c.ring.head
    c.totals.lost_before = locked_lost(&c.ring)
    c.totals.start_wall_ns = wall_ns
    c.totals.start_monotonic_ns = monotonic_ns

cdef inline int locked_make_current(om_core *c, om_record *record) noexcept nogil:
    """Make a record whose epoch is not the core's ready to be changed: one that is not
    in the table is put there, one that a running snapshot has yet to copy is copied."""
    if record.generation != c.generation:
        return STALE
    if not record.published:
        if c.n == c.capacity:
            return FULL
        keep(c.journal, &record.published)
        record.published = 1
        record.order = c.next_order
        c.next_order += 1
        c.table[c.n] = record
        c.n += 1
        c.packed_limit += packed_limit(c.layout, record.n_histograms)
    elif c.snapshotting:
        c.packed_size += locked_pack(c.layout, record, c.packed + c.packed_size)
    record.epoch = c.epoch
    return CURRENT

cdef inline void locked_show(
    om_core *c, om_call *call, om_record *record
) noexcept nogil:
    """Let other processes know which record a running call belongs to."""
    if call.shown != NULL:
        keep(c.journal, &call.shown.record)
        call.shown.record = <uint64_t> record

cdef inline void locked_list(
    om_core *c, om_call *call, om_record *record
) noexcept nogil:
    """Put a call that starts now at the end of the list; `record` is what counts it."""
    call.next = NULL
    call.previous = c.last_call
    if c.last_call != NULL:
        c.last_call.next = call
    else:
        c.calls = call
    c.last_call = call
    c.n_calls += 1
    call.listed = 1
    call.shown = NULL
    if c.n_free_running > 0:
        c.n_free_running -= 1
        call.shown = c.free_running[c.n_free_running]
        keep(
            c.journal, &call.shown.start_ns, &call.shown.record, &call.shown.last_ns
        )
        call.shown.start_ns = call.start_ns
        call.shown.last_ns = call.last_ns
        call.shown.record = <uint64_t> record

cdef inline void locked_unlist(om_core *c, om_call *call) noexcept nogil:
    """Take a running call off the list."""
    if call.previous != NULL:
        call.previous.next = call.next
    else:
        c.calls = call.next
    if call.next != NULL:
        call.next.previous = call.previous
    else:
        c.last_call = call.previous
    c.n_calls -= 1
    call.listed = 0
    if call.shown != NULL:
        keep(c.journal, &call.shown.record)
        call.shown.record = 0
        c.free_running[c.n_free_running] = call.shown
        c.n_free_running += 1
        call.shown = NULL

cdef inline int locked_retire(om_core *c, om_record *model) noexcept nogil:
    """Take a model's record and those of its calls out of the table; returns how many
    there were.

    They belong together by `family`, not by name: the name may have a new record by
    now, which is somebody else's. The model's own becomes stale even if it was never
    published; one of a call that was not needs no care, since it is only published
    after its model's record was current."""
    cdef uint32_t i = c.n
    cdef int found = 0
    cdef om_record *record
    keep(c.journal, &model.generation)
    om_store(&model.generation, UINT64_MAX)     # stale for ever
    model.epoch = 0
    while i > 0:
        i -= 1
        record = c.table[i]
        if record.family == model.family:
            c.packed_limit -= packed_limit(c.layout, record.n_histograms)
            keep(c.journal, &record.generation)
            om_store(&record.generation, UINT64_MAX)
            record.epoch = 0
            c.n -= 1
            c.table[i] = c.table[c.n]
            found += 1
    return found
