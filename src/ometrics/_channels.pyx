# SPDX-License-Identifier: MIT
"""A reader's place in a collector's ring of events, and events that Python code adds.

Compiled because position, filter and losses change together under the collector's
mutex: so several threads share a reader, finalizers may drop one anywhere, and what it
lost stays counted. `ometrics.events` makes Python objects of what is read here.
"""

from ometrics._table import ring_size

from libc.math cimport isnan
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc

from ometrics._copy cimport NO_MEMORY, widen_events
from ometrics._arguments cimport model_name
from ometrics._table cimport Table, wall
from ometrics._events cimport *
from ometrics._state cimport om_core, om_mutex_acquire, om_mutex_release

cimport cython

EVENT_TYPES = ("latency", "error", "task_complete", "resource", "alert")

cdef enum:
    MAX_ALERTS = 1024       # published objects that are kept for readers


cdef frozenset names_of(names):
    """A filter's names; a lone string is one name."""
    if names is None:
        return None
    return frozenset([names] if isinstance(names, str) else names)


@cython.no_gc_clear         # __dealloc__ needs the core
cdef class EventReader:
    """
    A position in the stream of events; `EventChannel` is its public face.

    Args:
        core: Whose events.
        capacity: How many unread events are kept; beyond, the oldest are lost.
        types: Only these event types; `None` for all.
        models: Only events of these models; `None` for all.
        idle: Whether it only begins to lose events when somebody first reads.

    Raises:
        TypeError: A model's name is not a `str`.
        ValueError: `capacity` is below 1 or above 2^24, or a type is unknown.
    """
    cdef Table table
    cdef om_reader *reader
    cdef readonly object capacity
    cdef readonly frozenset types
    cdef readonly frozenset models

    def __cinit__(
        self, Table table not None, *, capacity=100, types=None, models=None,
        bint idle=False,
    ):
        cdef om_core *c = table.c
        cdef om_reader *reader
        cdef uint32_t i
        cdef uint64_t size
        cdef int status
        if capacity < 1:
            raise ValueError(f"capacity {capacity} must be at least 1")
        self.types = names_of(types)
        if self.types is not None and not self.types <= set(EVENT_TYPES):
            raise ValueError(
                f"event types {sorted(self.types - set(EVENT_TYPES))} are unknown;"
                f" there are {sorted(EVENT_TYPES)}"
            )
        self.models = names_of(models)
        if self.models is not None:
            self.models = frozenset([model_name(model) for model in self.models])
        self.capacity = capacity
        reader = <om_reader *> calloc(1, sizeof(om_reader))
        if reader == NULL:
            raise MemoryError("no memory for a reader of events")
        reader.end = UINT64_MAX
        reader.idle = idle
        reader.filtered = self.types is not None or self.models is not None
        try:
            size = ring_size(capacity)
            reader.capacity = capacity
            reader.reach = capacity
            if reader.filtered:
                reader.reach = max(reader.reach, <uint64_t> FILTERED_REACH)
                size = max(size, <uint64_t> FILTERED_REACH)
                reader.kept = <om_event *> malloc(reader.capacity * sizeof(om_event))
                if reader.kept == NULL:
                    raise MemoryError(f"no memory for {capacity} events")
            for i in range(<uint32_t> N_EVENT_TYPES):
                if self.types is None or EVENT_TYPES[i] in self.types:
                    reader.types |= 1 << i
            if self.models is not None:
                reader.n_names = len(self.models)
                reader.names = <uint32_t *> malloc(
                    (reader.n_names + 1) * sizeof(uint32_t)
                )
                if reader.names == NULL:
                    raise MemoryError("no memory for the names of a filter")
                table.filters[<size_t> reader] = ids = set()
                for i, model in enumerate(self.models):
                    reader.names[i] = table.name_id(model)
                    ids.add(reader.names[i])
            with nogil:
                status = widen_events(c, size)
            if status == NO_MEMORY:
                raise MemoryError(f"no memory for {size} events")
        except BaseException:
            table.filters.pop(<size_t> reader, None)
            free_reader(reader)
            raise
        om_mutex_acquire(&c.lock)
        locked_open_reader(&c.ring, reader)
        om_mutex_release(&c.lock)
        self.table = table
        self.reader = reader

    def __dealloc__(self):
        if self.reader == NULL:
            return
        cdef om_core *c = self.table.c
        sift(c, self.reader)
        om_mutex_acquire(&c.lock)
        locked_remove_reader(&c.ring, self.reader)
        om_mutex_release(&c.lock)
        if self.table.filters is not None:   # else the core goes with it
            self.table.filters.pop(<size_t> self.reader, None)
        free_reader(self.reader)

    def __reduce__(self):
        raise TypeError(
            f"cannot pickle or copy a live {type(self).__name__}: subscribe() to have"
            " another"
        )

    def __copy__(self):
        return self.__reduce__()

    def __deepcopy__(self, memo):
        return self.__reduce__()

    @property
    def dropped(self):
        """
        Events lost because this reader was too slow.

        Exact without a filter. With one, of the events that were overwritten before the
        filter saw them (more than 8,192 behind, and more than `capacity`) all count.
        """
        cdef om_core *c = self.table.c
        cdef uint64_t lost
        sift(c, self.reader)
        om_mutex_acquire(&c.lock)
        lost = self.reader.lost + locked_behind(&c.ring, self.reader)
        om_mutex_release(&c.lock)
        return lost

    @property
    def closed(self):
        """Whether no further events will come; unread ones can still be read."""
        cdef om_core *c = self.table.c
        cdef bint closed
        om_mutex_acquire(&c.lock)
        closed = locked_is_closed(&c.ring, self.reader)
        om_mutex_release(&c.lock)
        return closed

    def close(self):
        """Take no further events. Idempotent."""
        cdef om_core *c = self.table.c
        om_mutex_acquire(&c.lock)
        locked_close_reader(&c.ring, self.reader)
        om_mutex_release(&c.lock)

    def _take(self, make, n, /):
        """
        The next events of those that are there now, at most `n`.

        Args:
            make: Makes an event of `(type, model, value, success, wall_ns, cpu_percent,
                count)`; an alert is its value.
            n: At most so many.
        """
        cdef om_core *c = self.table.c
        cdef om_event rows[EVENTS_AT_ONCE]
        cdef uint64_t left = n
        cdef uint64_t until
        cdef int i, found
        cdef list events = []
        om_mutex_acquire(&c.lock)
        if self.reader.idle:
            self.reader.cursor = locked_oldest(&c.ring, self.reader)
            self.reader.idle = 0
        until = c.ring.head
        om_mutex_release(&c.lock)
        sift(c, self.reader)
        while left > 0:
            om_mutex_acquire(&c.lock)
            found = locked_read(
                &c.ring, self.reader, until, rows,
                <int> min(left, <uint64_t> EVENTS_AT_ONCE),
            )
            om_mutex_release(&c.lock)
            if found == 0:
                break
            try:
                for i in range(found):
                    event = self.event_of(&rows[i], make)
                    if event is not None:
                        events.append(event)
                        left -= 1
            except BaseException:   # an interrupt: these reach nobody
                self.lose(len(events) + found - i)
                raise
        return events

    cdef int lose(self, uint64_t n) noexcept:
        om_mutex_acquire(&self.table.c.lock)
        locked_lose(&self.table.c.ring, self.reader, n)
        om_mutex_release(&self.table.c.lock)
        return 0

    cdef object event_of(self, om_event *event, make):
        """The Python object; `None` for an alert that is kept no longer."""
        if event.type == EVENT_ALERT:
            value = self.table.alerts.get(event.count)
            if value is None:
                self.lose(1)
                return None
        elif event.type == EVENT_ERROR:
            value = self.table.codes[<Py_ssize_t> event.value]
        else:
            value = None if isnan(event.value) else event.value
        return make(
            EVENT_TYPES[event.type],
            self.table.names.get(event.name_id, "") if event.name_id else "",
            value,
            bool(event.success),
            event.wall_ns,
            event.cpu_percent,
            event.count,
        )


cdef void sift(om_core *c, om_reader *reader) noexcept:
    """Apply a reader's filter to what is in the ring now."""
    cdef uint64_t until
    cdef bint more = reader.filtered
    if not more:
        return
    om_mutex_acquire(&c.lock)
    until = c.ring.head
    om_mutex_release(&c.lock)
    while more:
        om_mutex_acquire(&c.lock)
        more = locked_sift(&c.ring, reader, until)
        om_mutex_release(&c.lock)


def stop(Table table not None, /):
    """Close every reader of a collector, and those that are still to come."""
    om_mutex_acquire(&table.c.lock)
    table.c.ring.emitting = 0
    om_mutex_release(&table.c.lock)


def publish(Table table not None, event, str model, /):
    """
    Add an event of type `alert` to the stream. Internal.

    It comes to the readers in order with all others. The newest 1,024 are kept, also
    where nobody reads; a reader that is later than that counts it as lost.

    Args:
        event: What readers get.
        model: The model that it is about, for filters; empty for none.
    """
    cdef om_core *c = table.c
    cdef uint32_t name_id = table.name_id(model_name(model)) if model else 0
    cdef int64_t now = wall(table)
    cdef int64_t number
    with cython.critical_section(table):
        number = table.next_alert
        table.next_alert += 1
    table.alerts[number] = event
    table.alerts.pop(number - MAX_ALERTS, None)
    om_mutex_acquire(&c.lock)
    locked_emit_alert(&c.ring, name_id, number, now)
    om_mutex_release(&c.lock)
