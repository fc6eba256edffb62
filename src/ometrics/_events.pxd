# SPDX-License-Identifier: MIT
"""The ring of events: one a collector, whatever the number of readers.

All of it runs under the collector's mutex. To record an event is some stores; a reader
is a position in the ring, and copies events out to make Python objects of them later.

Account of a reader: events emitted since it began (that pass its filter) are delivered,
lost, or can still be read. `ring.lost` is the sum over all readers, those that are gone
included; a reader that fell behind since it last looked adds `locked_behind`.
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

cdef extern from "_mutex.h":
    void om_barrier() noexcept nogil
    void om_publish(void **, void *) noexcept nogil

cdef enum:  # of an event
    EVENT_LATENCY
    EVENT_ERROR
    EVENT_TASK
    EVENT_RESOURCE
    EVENT_ALERT             # published by Python code, which keeps the object
    N_EVENT_TYPES

cdef enum:
    EVENTS_AT_ONCE = 256    # read in one go: bounds the time under the mutex
    FILTERED_REACH = 8192   # how far back a reader with a filter looks

cdef struct om_event:
    int64_t wall_ns
    double value            # seconds, ms of a task, MB, code id of an error
    double cpu_percent
    int64_t count           # goroutines of a resource event; number of an alert
    uint32_t name_id
    uint8_t type
    uint8_t success

cdef struct om_ring:
    om_event *events
    uint64_t mask           # its length, a power of two, less one
    uint64_t head           # events ever emitted
    uint64_t first          # events before this one are another process's
    bint emitting
    om_reader *readers
    uint64_t lost           # by all readers, ever

# A position in the ring. Behind a filter, what passes it moves to a ring of the
# reader's own, so that frequent events do not push out rare ones.
cdef struct om_reader:
    uint64_t cursor         # the next event to look at
    uint64_t end            # where it was closed, or UINT64_MAX
    uint64_t capacity       # unread events that it keeps
    uint64_t reach          # how far it may be behind: at most the ring's length
    uint64_t lost
    bint idle               # nobody has read from it yet, so it loses nothing
    bint filtered
    uint32_t types          # bit by event type
    uint32_t n_names
    uint32_t *names         # their ids; NULL for any
    om_event *kept
    uint64_t first_kept
    uint64_t n_kept
    om_reader *next
    om_reader *previous

cdef inline om_event *locked_next_event(om_ring *ring) noexcept nogil:
    cdef om_event *event = &ring.events[ring.head & ring.mask]
    ring.head += 1
    return event

cdef inline void locked_emit(
    om_ring *ring, uint8_t type, uint8_t success, uint32_t name_id, double value,
    int64_t wall_ns,
) noexcept nogil:
    cdef om_event *event
    if ring.emitting:
        event = locked_next_event(ring)
        event.type = type
        event.success = success
        event.name_id = name_id
        event.value = value
        event.wall_ns = wall_ns

cdef inline void locked_emit_resources(
    om_ring *ring, double memory_mb, double cpu_percent, int64_t goroutines,
    int64_t wall_ns,
) noexcept nogil:
    cdef om_event *event
    if ring.emitting:
        event = locked_next_event(ring)
        event.type = EVENT_RESOURCE
        event.success = 1
        event.name_id = 0
        event.value = memory_mb
        event.cpu_percent = cpu_percent
        event.count = goroutines
        event.wall_ns = wall_ns

cdef inline void locked_emit_alert(
    om_ring *ring, uint32_t name_id, int64_t number, int64_t wall_ns
) noexcept nogil:
    cdef om_event *event
    if ring.emitting:
        event = locked_next_event(ring)
        event.type = EVENT_ALERT
        event.success = 0
        event.name_id = name_id
        event.value = 0.0
        event.count = number
        event.wall_ns = wall_ns

cdef inline void locked_open_reader(om_ring *ring, om_reader *reader) noexcept nogil:
    """Begin to read at what comes next, or an idle one at the first event."""
    reader.cursor = ring.first if reader.idle else ring.head
    reader.previous = NULL
    reader.next = ring.readers
    if ring.readers != NULL:
        ring.readers.previous = reader
    om_publish(<void **> &ring.readers, reader)     # a fork follows `next` only

cdef inline void locked_close_reader(om_ring *ring, om_reader *reader) noexcept nogil:
    if reader.end == UINT64_MAX:
        reader.end = ring.head

cdef inline bint locked_is_closed(
    const om_ring *ring, const om_reader *reader
) noexcept nogil:
    return reader.end != UINT64_MAX or not ring.emitting

cdef inline uint64_t locked_oldest(
    const om_ring *ring, const om_reader *reader
) noexcept nogil:
    """The oldest event that a reader can still read, or its end."""
    cdef uint64_t oldest = ring.head - reader.reach if ring.head > reader.reach else 0
    return max(reader.cursor, min(oldest, reader.end))

cdef inline uint64_t locked_behind(
    const om_ring *ring, const om_reader *reader
) noexcept nogil:
    """Events that a reader has lost since it last looked."""
    return 0 if reader.idle else locked_oldest(ring, reader) - reader.cursor

cdef inline uint64_t locked_lost(const om_ring *ring) noexcept nogil:
    """Events that all readers ever lost; never goes back."""
    cdef uint64_t lost = ring.lost
    cdef const om_reader *reader = ring.readers
    while reader != NULL:
        lost += locked_behind(ring, reader)
        reader = reader.next
    return lost

cdef inline void locked_lose(
    om_ring *ring, om_reader *reader, uint64_t n
) noexcept nogil:
    reader.lost += n
    ring.lost += n

cdef inline void locked_catch_up(om_ring *ring, om_reader *reader) noexcept nogil:
    """Give up the events that are too far back."""
    cdef uint64_t oldest = locked_oldest(ring, reader)
    locked_lose(ring, reader, locked_behind(ring, reader))
    reader.cursor = oldest

cdef inline void locked_remove_reader(om_ring *ring, om_reader *reader) noexcept nogil:
    """Forget a reader; what it lost stays counted."""
    locked_catch_up(ring, reader)
    if reader.previous != NULL:
        om_publish(<void **> &reader.previous.next, reader.next)
    elif ring.readers == reader:
        om_publish(<void **> &ring.readers, reader.next)
    if reader.next != NULL:
        reader.next.previous = reader.previous

cdef inline void locked_begin_in_child(om_ring *ring) noexcept nogil:
    """What was emitted, lost or not yet read before a fork is the parent's."""
    cdef om_reader *reader = ring.readers
    ring.lost = 0
    ring.first = ring.head
    if reader != NULL:
        reader.previous = NULL
    while reader != NULL:
        reader.cursor = ring.head
        reader.end = UINT64_MAX if reader.end == UINT64_MAX else ring.head
        reader.lost = 0
        reader.n_kept = 0
        if reader.next != NULL:
            reader.next.previous = reader   # only these links may be half made
        reader = reader.next

cdef inline bint passes(const om_reader *reader, const om_event *event) noexcept nogil:
    cdef uint32_t i
    if not reader.types >> event.type & 1:
        return 0
    if reader.names == NULL:
        return 1
    for i in range(reader.n_names):
        if reader.names[i] == event.name_id:
            return 1
    return 0

cdef inline bint locked_sift(
    om_ring *ring, om_reader *reader, uint64_t until
) noexcept nogil:
    """Move what passes the filter to the reader's own ring, `EVENTS_AT_ONCE` looked at;
    whether there is more before `until`. The newest are kept."""
    cdef const om_event *event
    cdef uint64_t last
    locked_catch_up(ring, reader)
    until = min(until, min(ring.head, reader.end))
    last = min(until, reader.cursor + EVENTS_AT_ONCE)
    while reader.cursor < last:
        event = &ring.events[reader.cursor & ring.mask]
        reader.cursor += 1
        if not passes(reader, event):
            continue
        if reader.n_kept == reader.capacity:
            reader.first_kept = (reader.first_kept + 1) % reader.capacity
            reader.n_kept -= 1
            locked_lose(ring, reader, 1)
        reader.kept[(reader.first_kept + reader.n_kept) % reader.capacity] = event[0]
        reader.n_kept += 1
    return reader.cursor < until

cdef inline int locked_read(
    om_ring *ring, om_reader *reader, uint64_t until, om_event *to, int n
) noexcept nogil:
    """Copy out the next events before `until`, at most `n`; returns how many.

    Of a filtered reader: what it has sifted."""
    cdef int i = 0
    if reader.filtered:
        while i < n and reader.n_kept > 0:
            to[i] = reader.kept[reader.first_kept]
            reader.first_kept = (reader.first_kept + 1) % reader.capacity
            reader.n_kept -= 1
            i += 1
        return i
    locked_catch_up(ring, reader)
    until = min(until, min(ring.head, reader.end))
    while i < n and reader.cursor < until:
        to[i] = ring.events[reader.cursor & ring.mask]
        reader.cursor += 1
        i += 1
    return i

cdef inline om_event *locked_widen(
    om_ring *ring, om_event *events, uint64_t size
) noexcept nogil:
    """Move into a longer ring; returns the old one, to be freed."""
    cdef om_event *old = ring.events
    cdef uint64_t first = ring.head - ring.mask - 1 if ring.head > ring.mask else 0
    cdef uint64_t i
    for i in range(first, ring.head):
        events[i & (size - 1)] = old[i & ring.mask]
    ring.events = events
    om_barrier()                # a fork here sees the longer ring, or both
    ring.mask = size - 1
    return old

cdef inline void free_reader(om_reader *reader) noexcept nogil:
    free(reader.names)
    free(reader.kept)
    free(reader)
