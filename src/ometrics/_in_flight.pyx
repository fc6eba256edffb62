# SPDX-License-Identifier: MIT
"""Calls that run, as somebody who looks for stalls must know them: how old each is, and
how long ago its last chunk came.

Compiled because there may be ten thousand. They are copied under the mutex, and put
into groups, one for each model, operation and provider, without it and without the GIL.
"""

from ometrics._table import OVERFLOW
from ometrics.models import OPERATIONS

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from ometrics._fields cimport MODEL_STALLED_CALLS
from ometrics._journal cimport keep
from ometrics._record cimport om_record
from ometrics._state cimport (
    commit,
    om_call,
    om_core,
    om_load,
    om_mutex_acquire,
    om_mutex_lock,
    om_mutex_release,
)
from ometrics._recording cimport acquire_record
from ometrics._table cimport Table, monotonic, slot_of

cdef enum:
    NO_CHUNK = -1

cdef struct om_running_call:
    uint64_t key                # model, provider and operation
    int64_t age
    int64_t silence             # since the last chunk, or NO_CHUNK

cdef struct om_group:
    uint32_t calls
    om_running_call oldest
    om_running_call silent      # whose last chunk is the longest ago; calls == 0: none
    int64_t waiting             # age of the oldest without a chunk, or NO_CHUNK
    int64_t heard               # since the last chunk of any, or NO_CHUNK

# How long is too long for the calls of a group.
cdef struct om_limits:
    int64_t age
    int64_t silence
    int64_t waiting
    uint64_t found              # calls past one of these

# Keys and their places: open addressing, multiplicative hash.
cdef struct om_index:
    uint64_t *keys              # 0 is a free place: operations begin at 1
    uint64_t mask

cdef struct om_running_calls:
    om_running_call *calls
    uint32_t n
    uint32_t room
    om_index index
    om_group *groups            # by place in the index

cdef inline uint64_t key_of(const om_call *call) noexcept nogil:
    return (
        <uint64_t> call.name_id << 32 | <uint64_t> call.provider << 8 | call.operation
    )

cdef inline void locked_look_at(
    om_call *call, int64_t now, om_running_call *seen
) noexcept nogil:
    cdef int64_t last = <int64_t> om_load(<uint64_t *> &call.last_ns)
    seen.key = key_of(call)
    seen.age = max(now - call.start_ns, 0)
    seen.silence = NO_CHUNK if last < 0 else max(seen.age - last, 0)

cdef bint copy_calls(om_core *c, int64_t now, om_running_calls *running) noexcept nogil:
    """Copy all calls that run; whether there was memory for it."""
    cdef om_call *call
    om_mutex_lock(&c.lock)
    while c.n_calls > running.room:
        running.room = c.n_calls
        om_mutex_release(&c.lock)
        free(running.calls)
        running.calls = <om_running_call *> malloc(
            running.room * sizeof(om_running_call)
        )
        if running.calls == NULL:
            return False
        om_mutex_lock(&c.lock)
    call = c.calls
    while call != NULL:
        locked_look_at(call, now, &running.calls[running.n])
        running.n += 1
        call = call.next
    om_mutex_release(&c.lock)
    return True

cdef bint make_index(om_index *index, uint64_t keys) noexcept nogil:
    """Room for so many keys and as many free places; whether there was memory."""
    cdef uint64_t size = 1
    while size < 2 * keys:
        size *= 2
    index.mask = size - 1
    index.keys = <uint64_t *> calloc(size, sizeof(uint64_t))
    return index.keys != NULL

cdef inline uint64_t locked_place(const om_index *index, uint64_t key) noexcept nogil:
    """The place of a key, or a free one for it."""
    cdef uint64_t at = ((key * <uint64_t> 0x9E3779B97F4A7C15) >> 32) & index.mask
    while index.keys[at] != 0 and index.keys[at] != key:
        at = (at + 1) & index.mask
    return at

cdef void add_to(om_group *group, const om_running_call *call) noexcept nogil:
    if group.calls == 0:
        group.oldest.age = NO_CHUNK
        group.silent.silence = group.waiting = group.heard = NO_CHUNK
    group.calls += 1
    if call.age > group.oldest.age:
        group.oldest = call[0]
    if call.silence == NO_CHUNK:
        group.waiting = max(group.waiting, call.age)
        return
    if call.silence > group.silent.silence:
        group.silent = call[0]
    if group.heard == NO_CHUNK or call.silence < group.heard:
        group.heard = call.silence

cdef bint look(om_core *c, int64_t now, om_running_calls *running) noexcept nogil:
    """Copy and group all calls that run; whether there was memory for it."""
    cdef uint64_t place
    cdef uint32_t i
    if not copy_calls(c, now, running) or not make_index(&running.index, running.n):
        return False
    running.groups = <om_group *> calloc(running.index.mask + 1, sizeof(om_group))
    if running.groups == NULL:
        return False
    for i in range(running.n):
        place = locked_place(&running.index, running.calls[i].key)
        running.index.keys[place] = running.calls[i].key
        add_to(&running.groups[place], &running.calls[i])
    return True

cdef object seconds(int64_t ns):
    return None if ns == NO_CHUNK else ns / 1e9


def calls_in_flight(Table table not None, /):
    """
    The calls that run now, by model, operation and provider.

    Args:
        table: Whose.

    Returns:
        For each group a tuple, times in seconds, `None` for no such call:
        `key`, `model`, `operation`, `provider`, number of calls, age of the oldest and
        how long ago its last chunk came, the same two of the call whose last chunk is
        the longest ago, age of the oldest without a chunk, time since any chunk.

    Raises:
        MemoryError: No room for a copy of them.

    Thread-safety:
        Any thread; who records waits at most while the list is copied.
    """
    cdef int64_t now = monotonic(table)
    cdef om_running_calls running
    cdef om_group *group
    cdef bint done
    cdef uint64_t i
    cdef list result = []
    memset(&running, 0, sizeof(running))
    try:
        with nogil:
            done = look(table.c, now, &running)
        if not done:
            raise MemoryError("no memory for a copy of the calls in flight")
        for i in range(running.index.mask + 1):
            group = &running.groups[i]
            if group.calls == 0:
                continue
            result.append((
                running.index.keys[i],
                table.names.get(running.index.keys[i] >> 32, OVERFLOW),
                OPERATIONS[(running.index.keys[i] & 0xFF) - 1],
                table.codes[running.index.keys[i] >> 8 & 0xFFFFFF],
                group.calls,
                group.oldest.age / 1e9,
                seconds(group.oldest.silence),
                None if group.silent.silence == NO_CHUNK else group.silent.age / 1e9,
                seconds(group.silent.silence),
                seconds(group.waiting),
                seconds(group.heard),
            ))
    finally:
        free(running.calls)
        free(running.groups)
        free(running.index.keys)
    return result


cdef void locked_mark(
    om_core *c, const om_index *index, om_limits *limits, int64_t now
) noexcept nogil:
    """Mark the calls that are past a limit of their group, and count new ones there."""
    cdef om_running_call seen
    cdef om_limits *limit
    cdef om_call *call = c.calls
    while call != NULL:
        if not call.stalled:
            locked_look_at(call, now, &seen)
            limit = &limits[locked_place(index, seen.key)]
            if seen.age > limit.age or (
                seen.age > limit.waiting if seen.silence == NO_CHUNK
                else seen.silence > limit.silence
            ):
                call.stalled = True
                limit.found += 1
        call = call.next


cdef int64_t limit_of(object seconds) except -1:
    return INT64_MAX if seconds is None else <int64_t> (seconds * 1e9)


def count_stalled(Table table not None, list groups not None, /):
    """
    Count calls that are past a limit, each once in its life.

    Args:
        table: Whose.
        groups: For each a tuple: its `key` and `model`, as `calls_in_flight` gave them,
            and limits in seconds, `None` for none: the age of a call, the time since
            its last chunk, the age of one that had no chunk.

    Returns:
        How many were counted.

    Raises:
        MemoryError: No room for the limits.

    Thread-safety:
        Any thread; who records waits while the list of calls is walked.
    """
    cdef int64_t now = monotonic(table)
    cdef om_core *c = table.c
    cdef om_limits *limits = NULL
    cdef om_record *record
    cdef om_index index
    cdef uint64_t place
    cdef uint64_t found
    cdef uint64_t i
    cdef object counted = 0
    index.keys = NULL
    try:
        if make_index(&index, len(groups) + 1):
            limits = <om_limits *> calloc(index.mask + 1, sizeof(om_limits))
        if limits == NULL:
            raise MemoryError("no memory for the limits of calls in flight")
        for i in range(index.mask + 1):
            limits[i].age = limits[i].silence = limits[i].waiting = INT64_MAX
        for key, _, age, silence, waiting in groups:
            place = locked_place(&index, key)
            index.keys[place] = key
            limits[place].age = limit_of(age)
            limits[place].silence = limit_of(silence)
            limits[place].waiting = limit_of(waiting)
        om_mutex_acquire(&c.lock)
        locked_mark(c, &index, limits, now)
        om_mutex_release(&c.lock)
        for key, model, *_ in groups:
            found = limits[locked_place(&index, key)].found
            if found:
                record = acquire_record(table, model, slot_of(table, model))
                keep(c.journal, &record.counters[MODEL_STALLED_CALLS])
                record.counters[MODEL_STALLED_CALLS] += found
                commit(c)
                counted += found
    finally:
        free(limits)
        free(index.keys)
    return counted
