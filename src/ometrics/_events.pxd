# SPDX-License-Identifier: MIT
"""The ring of events: one a collector, whatever the number of readers.

All of it runs under the collector's mutex, but for the allocation of a larger ring. An
event is some stores; a reader copies events out and makes Python objects of them later.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "_mutex.h":
    void om_barrier() noexcept nogil

cdef enum:  # of an event
    EVENT_LATENCY
    EVENT_ERROR
    EVENT_TASK
    EVENT_RESOURCE

cdef enum:
    EVENTS_AT_ONCE = 256    # read in one go: bounds the time under the mutex

cdef struct om_event:
    int64_t wall_ns
    double value            # seconds, ms of a task, MB, code id of an error
    double cpu_percent
    int64_t count           # goroutines of a resource event
    uint32_t name_id
    uint8_t type
    uint8_t success

cdef struct om_ring:
    om_event *events
    uint64_t mask           # its length, a power of two, less one
    uint64_t head           # events ever emitted
    uint64_t floor          # events before this one are another process's
    bint emitting

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

cdef inline int locked_read_events(
    om_ring *ring, uint64_t *cursor, uint64_t capacity, om_event *to, uint64_t *lost
) noexcept nogil:
    """Copy the next events out, at most `EVENTS_AT_ONCE`; returns how many.

    A reader that is more than `capacity` behind loses the oldest."""
    cdef uint64_t kept = min(capacity, ring.mask + 1)
    cdef uint64_t oldest = ring.head - kept if ring.head > kept else 0
    cdef int n = 0
    cursor[0] = max(cursor[0], ring.floor)
    lost[0] = 0
    if cursor[0] < oldest:
        lost[0] = oldest - cursor[0]
        cursor[0] = oldest
    while cursor[0] < ring.head and n < EVENTS_AT_ONCE:
        to[n] = ring.events[cursor[0] & ring.mask]
        n += 1
        cursor[0] += 1
    return n

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
