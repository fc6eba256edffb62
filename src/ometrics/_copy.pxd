# SPDX-License-Identifier: MIT
"""What happens under `om_core.copying`: reading a core whole, rebuilding its tables.

All of it runs without the GIL, from the moment that `copying` is taken to the one that
it is given back: so nobody waits for the GIL while holding it, and no Python code can
run there that would ask for it again. `copying` is taken before `lock`.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ometrics._events cimport locked_lost, locked_widen, om_event
from ometrics._journal cimport keep, om_journal, record_is_complete
from ometrics._record cimport locked_pack, om_record
from ometrics._state cimport *

cdef enum:  # how it went
    COPIED
    OUTDATED                # the slots' dictionary is of another generation
    NO_MEMORY

cdef struct om_copy:
    char *packed
    size_t room
    size_t used
    om_call *calls          # running ones, oldest first
    uint32_t calls_room
    uint32_t n_calls
    om_totals totals
    uint64_t events_emitted
    uint64_t events_dropped
    bint clocks_read        # a user's clock was, before; else the system's are read
    int64_t wall_ns         # of the instant
    int64_t monotonic_ns

cdef inline void free_copy(om_copy *copy) noexcept nogil:
    free(copy.packed)
    free(copy.calls)

cdef inline bint reserve(om_copy *copy, size_t packed, uint32_t calls) noexcept nogil:
    """Make room; what was in there before is dropped."""
    free_copy(copy)
    copy.room = packed + 1
    copy.calls_room = calls + 1
    copy.packed = <char *> malloc(copy.room)
    copy.calls = <om_call *> malloc(copy.calls_room * sizeof(om_call))
    return copy.packed != NULL and copy.calls != NULL

cdef inline void locked_copy_totals(om_core *c, om_copy *copy) noexcept nogil:
    """The instant, and all that is neither a record's nor a running call's."""
    copy.totals = c.totals[0]
    copy.events_emitted = c.ring.head - c.totals.events_before
    copy.events_dropped = locked_lost(&c.ring) - c.totals.lost_before
    if not copy.clocks_read:
        copy.wall_ns = om_precise_wall_ns()
        copy.monotonic_ns = om_monotonic_ns()
    elif copy.monotonic_ns < c.totals.start_monotonic_ns:
        # A clock of the user's was read before a reset that came first.
        copy.wall_ns = c.totals.start_wall_ns
        copy.monotonic_ns = c.totals.start_monotonic_ns

cdef inline void locked_copy_calls(
    om_core *c, om_copy *copy, uint32_t name_id
) noexcept nogil:
    """The running calls of one model, or of all if the id is 0."""
    cdef om_call *call = c.calls
    cdef om_call *copied
    copy.n_calls = 0
    while call != NULL:
        if name_id == 0 or call.name_id == name_id:
            copied = &copy.calls[copy.n_calls]
            copied.start_ns = call.start_ns
            copied.name_id = call.name_id
            copied.operation = call.operation
            copied.provider = call.provider
            copied.last_ns = <int64_t> om_load(<uint64_t *> &call.last_ns)
            copy.n_calls += 1
        call = call.next

cdef inline void copy_totals(om_core *c, om_copy *copy) noexcept nogil:
    om_mutex_lock(&c.lock)
    locked_copy_totals(c, copy)
    om_mutex_release(&c.lock)

cdef inline int copy_all(
    om_core *c, bint reset, uint64_t generation, om_copy *copy
) noexcept nogil:
    """
    Copy everything, or with `reset` move it out.

    The caller holds the slots of `generation` and so keeps their records alive.
    """
    cdef om_record **table = NULL
    cdef uint32_t i, n, n_calls
    cdef size_t size
    om_mutex_lock(&c.copying)
    if generation != c.generation:
        om_mutex_release(&c.copying)
        return OUTDATED
    if reset:
        table = <om_record **> malloc(c.capacity * sizeof(om_record *))
        if table == NULL:
            om_mutex_release(&c.copying)
            return NO_MEMORY
    om_mutex_lock(&c.lock)
    while c.packed_limit > copy.room or c.n_calls > copy.calls_room:
        size = c.packed_limit
        n_calls = c.n_calls
        om_mutex_release(&c.lock)
        if not reserve(copy, size, n_calls):
            om_mutex_release(&c.copying)
            free(table)
            return NO_MEMORY
        om_mutex_lock(&c.lock)
    locked_copy_totals(c, copy)
    locked_copy_calls(c, copy, 0)
    copy.events_dropped = locked_lost(&c.ring) - c.totals.lost_before
    copy.used = 0
    n = c.n
    if reset:
        table, c.table = c.table, table
        locked_clear(c, copy.wall_ns, copy.monotonic_ns)
        commit(c)
        for i in range(n):      # no recorder can change these any more
            copy.used += locked_pack(c.layout, table[i], copy.packed + copy.used)
    else:
        c.epoch += 1
        c.snapshotting = 1
        c.packed = copy.packed
        c.packed_size = 0
        om_mutex_release(&c.lock)
        for i in range(n):
            om_mutex_lock(&c.lock)
            if c.table[i].epoch != c.epoch:
                locked_make_current(c, c.table[i])
            om_mutex_release(&c.lock)
            om_mutex_yield()
        om_mutex_lock(&c.lock)
        c.snapshotting = 0
        copy.used = c.packed_size
        om_mutex_release(&c.lock)
    om_mutex_release(&c.copying)
    free(table)
    return COPIED

cdef inline int copy_model(
    om_core *c, om_record **records, int n, om_copy *copy
) noexcept nogil:
    """Copy the records of one model, its own first; the caller keeps them alive."""
    cdef size_t size = 0
    cdef uint32_t n_calls
    cdef int i
    for i in range(n):
        size += packed_limit(c.layout, records[i].n_histograms)
    om_mutex_lock(&c.lock)
    while size > copy.room or c.n_calls > copy.calls_room:
        n_calls = c.n_calls
        om_mutex_release(&c.lock)
        if not reserve(copy, size, n_calls):
            return NO_MEMORY
        om_mutex_lock(&c.lock)
    locked_copy_totals(c, copy)
    locked_copy_calls(c, copy, records[0].name_id)
    copy.used = 0
    for i in range(n):
        if records[i].generation == c.generation and records[i].published:
            copy.used += locked_pack(c.layout, records[i], copy.packed + copy.used)
    om_mutex_release(&c.lock)
    return COPIED

cdef inline int grow_table(om_core *c) noexcept nogil:
    """Make room for more records, unless somebody else has."""
    cdef om_record **table
    cdef uint32_t capacity
    om_mutex_lock(&c.copying)
    om_mutex_lock(&c.lock)
    capacity = c.capacity if c.n < c.capacity else 2 * c.capacity
    om_mutex_release(&c.lock)
    if capacity == c.capacity:
        om_mutex_release(&c.copying)
        return COPIED
    table = <om_record **> malloc(capacity * sizeof(om_record *))
    if table == NULL:
        om_mutex_release(&c.copying)
        return NO_MEMORY
    om_mutex_lock(&c.lock)
    memcpy(table, c.table, c.n * sizeof(om_record *))
    table, c.table = c.table, table
    om_barrier()                # a fork here sees the larger table, or both
    c.capacity = capacity
    om_mutex_release(&c.lock)
    om_mutex_release(&c.copying)
    free(table)
    return COPIED

cdef inline int widen_events(om_core *c, uint64_t size) noexcept nogil:
    """Make the ring at least `size` events long, a power of two."""
    cdef om_event *events
    om_mutex_lock(&c.copying)
    if size <= c.ring.mask + 1:
        om_mutex_release(&c.copying)
        return COPIED
    events = <om_event *> calloc(size, sizeof(om_event))
    if events == NULL:
        om_mutex_release(&c.copying)
        return NO_MEMORY
    om_mutex_lock(&c.lock)
    events = locked_widen(&c.ring, events, size)
    om_mutex_release(&c.lock)
    om_mutex_release(&c.copying)
    free(events)
    return COPIED

# A record that is to be in other memory.
cdef struct om_move:
    om_record **record      # the slot's
    om_record *to           # zeroes
    size_t size

cdef inline void locked_move(om_core *c, om_move *moves, int n) noexcept nogil:
    """Move records. In the file each appears whole: published when it is filled."""
    cdef om_record *record
    cdef om_record *to
    cdef uint64_t published
    cdef uint32_t i
    cdef int k
    for k in range(n):
        record = moves[k].record[0]
        to = moves[k].to
        published = record.published
        memcpy(to, record, moves[k].size)
        to.published = 0
        keep(c.journal, &to.published)
        to.published = published
        moves[k].record[0] = to
        record.moved = 1
        record.order = k            # where to
        if k % 1024 == 0:           # a ring is longer than that
            record_is_complete(c.journal)
    for i in range(c.n):
        if c.table[i].moved:
            c.table[i] = moves[c.table[i].order].to

cdef inline void move_records(
    om_core *c, om_move *moves, int n, om_journal *journal, om_totals *totals,
    om_running **free_running, uint32_t n_free_running, int file, int lock,
) noexcept nogil:
    """Go on in a file; the new one is seen by others once this has ended."""
    cdef om_call *call
    om_mutex_lock(&c.copying)
    om_mutex_lock(&c.lock)
    if not is_in(c, journal):
        totals[0] = c.totals[0]
        c.own_journal = journal[0]
        c.journal = &c.own_journal
        c.totals = totals
        c.file = file
        c.lock_file = lock
        c.free_running = free_running
        c.n_free_running = n_free_running
        call = c.calls
        while call != NULL:
            # What others saw of it was in the old file, which stays mapped: it may be
            # about to write its chunk there.
            om_publish(<void **> &call.shown, NULL)
            call = call.next
    locked_move(c, moves, n)
    commit(c)
    om_mutex_release(&c.copying)

cdef inline int retire(om_core *c, om_record *model) noexcept nogil:
    """Take a model out of the table; returns how many records that were."""
    cdef int found
    om_mutex_lock(&c.copying)
    om_mutex_lock(&c.lock)
    found = locked_retire(c, model)
    commit(c)
    om_mutex_release(&c.copying)
    return found
