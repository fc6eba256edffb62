# SPDX-License-Identifier: MIT
"""What a fork does to all cores of the process: in the child, each starts at zero.

A handler in C, so that forks count which Python did not make. It runs in the child
only: the parent's recorders are not stopped for it.
"""

from libc.stdint cimport uint64_t

from ometrics._events cimport locked_begin_in_child
from ometrics._state cimport (
    locked_clear,
    om_at_fork,
    om_close,
    om_core,
    om_monotonic_ns,
    om_mutex,
    om_mutex_acquire,
    om_mutex_init,
    om_mutex_release,
    om_precise_wall_ns,
    om_publish,
)

cdef enum:
    FORK_SHIFT = 48         # 65,536 forks in a line, 2^48 snapshots in each

cdef om_mutex cores_lock
cdef om_core *all_cores = NULL
cdef uint64_t n_forks = 0


cdef uint64_t forks_of_process() noexcept:
    """How many forks lie between the first process of this program and this one."""
    return n_forks


cdef void locked_leave_file(om_core *c) noexcept nogil:
    """
    Go on in private memory: the file is the parent's, and the mapping is shared.

    Closing the descriptors here leaves the parent as the only one that holds the lock
    by which others know that it lives: nothing that the child still maps has it.
    """
    c.own_totals.start_wall_ns = c.totals.start_wall_ns
    c.own_totals.start_monotonic_ns = c.totals.start_monotonic_ns
    c.totals = &c.own_totals
    c.journal = NULL
    c.free_running = NULL       # the parent's segment owns it
    c.n_free_running = 0
    c.unplaced = c.wants_file
    if c.file >= 0:
        om_close(c.file)
        om_close(c.lock_file)
        c.file = c.lock_file = -1


cdef void forked_child() noexcept nogil:
    """
    Start every core of a forked child at zero.

    The parent goes on with the counts, so the sum over the family is exact. Other
    threads of the parent may have held any lock or been half way through a record:
    locks are made anew and everything that they protect is dropped, not repaired.
    """
    global n_forks
    cdef om_core *c
    n_forks += 1
    om_mutex_init(&cores_lock)
    c = all_cores
    if c != NULL:
        c.previous = NULL
    while c != NULL:
        om_mutex_init(&c.lock)
        om_mutex_init(&c.copying)
        c.forks += 1
        locked_leave_file(c)
        locked_begin_in_child(&c.ring)
        c.snapshotting = 0
        c.calls = NULL
        c.last_call = NULL
        c.n_calls = 0
        # What the child inherits from its ancestors, and they may go on changing in a
        # file, has numbers of fewer forks: nothing of it can look current here.
        c.generation = c.forks << FORK_SHIFT
        c.epoch = c.forks << FORK_SHIFT
        if c.own_clock:     # which cannot be asked here: time goes on from the start
            locked_clear(c, c.totals.start_wall_ns, c.totals.start_monotonic_ns)
        else:
            locked_clear(c, om_precise_wall_ns(), om_monotonic_ns())
        if c.next != NULL:
            c.next.previous = c     # only these links may have been half made
        c = c.next


cdef void link(om_core *c) noexcept:
    """Make a core known to the handler, which follows `next` only: a fork in between
    finds the list with it or without it, never broken."""
    om_mutex_acquire(&cores_lock)
    c.next = all_cores
    if all_cores != NULL:
        all_cores.previous = c
    om_publish(<void **> &all_cores, c)
    om_mutex_release(&cores_lock)


cdef void unlink(om_core *c) noexcept:
    om_mutex_acquire(&cores_lock)
    if c.previous != NULL:
        om_publish(<void **> &c.previous.next, c.next)
    elif all_cores == c:
        om_publish(<void **> &all_cores, c.next)
    if c.next != NULL:
        c.next.previous = c.previous
    om_mutex_release(&cores_lock)


om_mutex_init(&cores_lock)
if om_at_fork(forked_child) != 0:
    raise MemoryError("no room for the fork handler")
