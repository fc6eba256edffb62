# SPDX-License-Identifier: MIT
"""Which record a name has: names, codes and slots of one collector.

All of it runs with the GIL (or in a critical section where there is none) and without
the mutex. A slot that is found may become stale before its record is locked: removed,
cleared by a reset, or the parent process's after a fork. `acquire_record` notices that
under the mutex and asks `renew` for another one. A stale slot counts as absent wherever
one is looked up, so that loop always goes on.
"""

from ometrics.errors import OllamaError, code_of

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport INFINITY
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ometrics._arguments cimport model_name
from ometrics._copy cimport NO_MEMORY, grow_table, move_records, om_move, retire
from ometrics._events cimport EVENTS_AT_ONCE, om_event
from ometrics._fields cimport (
    CALL_HISTOGRAMS,
    MODEL_HISTOGRAMS,
    SNAPSHOT_INTERNAL_ERRORS,
    SNAPSHOT_SEGMENT_FAILURES,
    SNAPSHOT_TRUNCATED_NAMES,
)
from ometrics._forks cimport link, unlink
from ometrics._histogram cimport Layout
from ometrics._record cimport (
    MAX_OPERATIONS,
    NOT_A_CALL,
    OM_NEVER,
    histogram_at,
    locked_count,
    om_histogram,
    record_size,
)
from ometrics._state cimport (
    OM_HAS_GIL,
    commit,
    is_in,
    locked_clear,
    om_call,
    om_load,
    om_mutex_destroy,
    om_mutex_init,
)

cimport cython

OVERFLOW = "__overflow__"
INVALID = ("nan", "infinite", "negative")  # keys of `invalid_values`
MAX_EVENTS = 2**24      # that a ring can be asked to keep

cdef enum:
    MAX_KNOWN_CODES = 4096      # distinct codes a collector keeps apart
    MAX_KNOWN_CLASSES = 256     # exception classes whose code is remembered
    MAX_PROVIDERS = 8           # of one model; further ones count as _OTHER
    FIRST_CAPACITY = 64

cdef object NO_NAME = object()      # what `last_name` is before the first record


def ring_size(capacity, /):
    """
    The power of two that holds so many events.

    Raises:
        ValueError: More than 2^24, a gigabyte.
    """
    if capacity > MAX_EVENTS:
        raise ValueError(
            f"{capacity} events are too many to keep: at most {MAX_EVENTS}"
        )
    return 1 << max(int(capacity) - 1, 0).bit_length()


@cython.final
cdef class Slot:
    def __dealloc__(self):
        if self.memory is not None:
            self.memory.give_back(self.record)
        free(self.private_record)


cdef class Memory:
    cdef void *take(self, size_t size, uint32_t kind) except NULL:
        raise NotImplementedError

    cdef int give_back(self, void *block) except -1:
        raise NotImplementedError

    cdef int add_code(self, uint32_t id, str code) except -1:
        raise NotImplementedError

    cdef int add_running(self, om_core *c) except -1:
        raise NotImplementedError


cdef class Table:
    """
    Names, codes and records of one collector; the base of `Core`.

    Args:
        layout: The cells.
        max_models: Names kept apart; later ones count under `__overflow__`.
        ring: Events kept for slow readers; rounded up to a power of two.
        clock: `None`, or an object with `time()` and `monotonic()` in seconds.
    """

    def __cinit__(self, Layout layout not None, int max_models, ring, clock):
        cdef uint64_t size = ring_size(ring)
        self.layout = layout
        self.max_models = max_models
        self.clock = clock
        self.slots = {}
        self.names = {}
        self.name_ids = {}
        self.next_name_id = 1
        self.next_family = 1
        self.filters = {}
        self.alerts = {}
        self.memories = []
        self.codes = ["_OTHER"]
        self.code_ids = {"_OTHER": 0}
        self.warned = set()
        self.c = <om_core *> calloc(1, sizeof(om_core))
        if self.c == NULL:
            raise MemoryError
        cdef om_core *c = self.c
        # A garbage collection may clear the attribute long before __dealloc__, and
        # calls that are dropped later still write to the records.
        Py_INCREF(self.memories)
        c.memories = <void *> self.memories
        om_mutex_init(&c.lock)
        om_mutex_init(&c.copying)
        c.layout = &layout.c
        c.totals = &c.own_totals
        c.file = c.lock_file = -1
        c.capacity = FIRST_CAPACITY
        c.table = <om_record **> malloc(c.capacity * sizeof(om_record *))
        c.ring.events = <om_event *> calloc(size, sizeof(om_event))
        c.ring.mask = size - 1
        c.ring.emitting = 1
        c.own_clock = clock is not None
        if c.table == NULL or c.ring.events == NULL:
            raise MemoryError
        self.last_name = NO_NAME
        locked_clear(c, precise_wall(self), monotonic(self))
        self.generation = c.generation
        link(c)

    def __dealloc__(self):
        cdef om_core *c = self.c
        if c == NULL:
            return
        unlink(c)
        free(c.table)
        free(c.ring.events)
        Py_DECREF(<object> c.memories)
        om_mutex_destroy(&c.lock)
        om_mutex_destroy(&c.copying)
        free(c)

    def __reduce__(self):
        raise TypeError(
            f"cannot pickle or copy a live {type(self).__name__}: its counts are still"
            " moving; pickle what snapshot() returns"
        )

    def __copy__(self):
        return self.__reduce__()

    def __deepcopy__(self, memo):
        return self.__reduce__()

    # --- slots -----------------------------------------------------------------------

    cdef Slot live_slot(self, object name):
        """The slot of exactly this name; None if there is none, or a stale one."""
        cdef Slot slot = self.slots.get(name)
        if slot is not None and om_load(&slot.record.generation) != self.generation:
            return None
        return slot

    cdef Slot find_slot(self, object model):
        # The critical section is nothing where there is a GIL; without one it keeps the
        # dictionary from being replaced between its look-up and our reference to it.
        cdef Slot slot = None
        with cython.critical_section(self):
            if self.generation == om_load(&self.c.generation):
                slot = self.live_slot(model)
            if slot is None:
                return self.add_slot(model, True)
        # A name that was cut or that overflowed never gets here: it is counted in
        # add_slot each time, and there may be room for it later.
        if OM_HAS_GIL:
            self.last_slot = slot
            self.last_name = model
        return slot

    cdef int forget_last(self) except -1:
        if OM_HAS_GIL:
            self.last_name = NO_NAME
            self.last_slot = None
        return 0

    cdef Slot known_slot(self, object model):
        """The slot of exactly this name, if something was recorded under it."""
        with cython.critical_section(self):
            if self.generation == om_load(&self.c.generation):
                return self.live_slot(model)
            return None

    cdef Slot add_slot(self, object model, bint count_repair):
        """The slot of a name that the dictionary does not have as it stands."""
        cdef Slot slot
        cdef str name = model_name(model)
        cdef om_core *c = self.c
        self.restart()
        if count_repair and name != model:
            om_mutex_acquire(&c.lock)
            locked_count(&c.totals.counters[SNAPSHOT_TRUNCATED_NAMES], c.journal)
            commit(c)
        slot = self.live_slot(name)
        if slot is not None:
            return slot
        if name != OVERFLOW and name not in self.slots and (
            len(self.slots) - (OVERFLOW in self.slots) >= self.max_models
        ):
            self.warn_once(
                OVERFLOW,
                "more than %d models: further names, such as %.80r, count under %s",
                (self.max_models, name, OVERFLOW),
            )
            return self.add_slot(OVERFLOW, False)
        slot = self.new_slot(name, NOT_A_CALL, 0)
        # A finalizer that ran in new_slot() may have come first, even with a reset.
        # From here on nothing runs in between: the slot is of the dictionary that it
        # is in.
        found = self.live_slot(name)
        if found is not None:
            return found
        slot.record.generation = self.generation
        self.slots[name] = slot
        return slot

    cdef Slot call_slot(self, Slot model_slot, uint32_t operation, uint32_t provider):
        """The slot of one operation of a model at one provider, made when needed."""
        cdef Slot slot
        with cython.critical_section(model_slot):
            if model_slot.calls is None:
                model_slot.calls = {}
            key = provider * (MAX_OPERATIONS + 1) + operation
            slot = model_slot.calls.get(key)
            if slot is not None:
                return slot
            if len(model_slot.calls) >= MAX_PROVIDERS * MAX_OPERATIONS:
                provider = 0        # _OTHER
                key = operation
                slot = model_slot.calls.get(key)
                if slot is not None:
                    return slot
            name = PyUnicode_DecodeUTF8(
                model_slot.record.name, model_slot.record.name_length, NULL
            )
            slot = self.new_slot(name, operation, model_slot.record.name_id)
            slot.record.provider = provider
            slot.record.family = model_slot.record.family
            slot.record.generation = om_load(&model_slot.record.generation)
            # A finalizer that ran in new_slot() may have come first.
            return model_slot.calls.setdefault(key, slot)

    cdef Slot new_slot(self, str name, uint32_t operation, uint32_t name_id):
        """A slot with an empty record; a name id of 0 asks for a new one."""
        cdef bytes encoded = name.encode()
        cdef Slot slot = Slot.__new__(Slot)
        cdef int n = MODEL_HISTOGRAMS if operation == NOT_A_CALL else CALL_HISTOGRAMS
        cdef om_record *record = self.new_record(slot, n)
        cdef om_histogram *h
        cdef int i
        record.operation = operation
        record.n_histograms = n
        record.updated_ns = OM_NEVER
        record.name_length = PyBytes_GET_SIZE(encoded)
        memcpy(record.name, PyBytes_AS_STRING(encoded), record.name_length)
        for i in range(n):
            h = histogram_at(&self.layout.c, record, i)
            h.min = INFINITY
            h.max = -INFINITY
        record.family = self.next_family
        self.next_family += 1
        record.name_id = self.name_id(name) if name_id == 0 else name_id
        return slot

    cdef om_record *new_record(self, Slot slot, int n_histograms) except NULL:
        """Zeroes for a record: where other processes read if that can be had."""
        cdef om_core *c = self.c
        cdef size_t size = record_size(&self.layout.c, n_histograms)
        if c.unplaced:
            self.place()
        if c.journal != NULL:       # so `memory` is this process's
            try:
                slot.record = <om_record *> self.memory.take(size, n_histograms)
                slot.memory = self.memory
            except (OSError, MemoryError) as error:
                c.unplaced = True
                self.home.failed(error)
        if slot.record == NULL:
            slot.record = slot.private_record = <om_record *> calloc(1, size)
        if slot.record == NULL:
            raise MemoryError(f"no memory for a record of {size} bytes")
        return slot.record

    # --- memory that other processes read --------------------------------------------

    def _live_in(self, home, /):
        """
        Have the records where other processes can read them, as far as possible.

        Args:
            home: `memory()` gives a `Memory` or `None` for not now; `moved(memory)` is
                called when all is there, `failed(error)` when something is not.
        """
        self.home = home
        self.c.wants_file = self.c.unplaced = True
        self.place()

    def _place(self):
        """Move what is only in private memory; at most once a second."""
        if self.c.wants_file and self.home.look():
            self.place()

    cdef int place(self) except -1:
        """Move to the home what is not there, if it can be had; never fails."""
        if self.placing:
            return 0
        self.placing = True
        try:
            memory = self.home.memory()
            if memory is not None:
                self.move_to(memory)
                self.home.moved(memory)
        except Exception as error:      # recording goes on, whatever it is
            self.home.failed(error)
            self.c.unplaced = True
        finally:
            self.placing = False
        return 0

    cdef int place_call(self) except -1:
        """Have a place for one more running call, if other processes can read it."""
        cdef om_core *c = self.c
        if c.unplaced:
            self.place()
        if c.journal != NULL and c.n_free_running == 0:
            try:
                self.memory.add_running(c)
            except (OSError, MemoryError) as error:     # one call that is not shown
                self.home.failed(error)
        return 0

    cdef list slots_elsewhere(self, Memory memory):
        """The live slots whose records are not in this memory."""
        cdef Slot slot, call
        cdef list found = []
        for slot in list(self.slots.values()):
            if slot.memory is not memory:
                found.append(slot)
            if slot.calls is not None:
                for call in list(slot.calls.values()):
                    if call.memory is not memory:
                        found.append(call)
        return found

    cdef int move_to(self, Memory memory) except -1:
        """
        Move all records that are elsewhere to this memory; none is ever in two.

        Raises:
            OSError, MemoryError: There is no room; nothing was moved.
        """
        cdef om_core *c = self.c
        cdef Slot slot
        cdef list slots
        cdef om_move *moves
        cdef int i
        cdef int n = 0
        self.restart()
        for i, code in enumerate(list(self.codes)):
            memory.add_code(i, code)
        slots = self.slots_elsewhere(memory)
        moves = <om_move *> calloc(len(slots) + 1, sizeof(om_move))
        if moves == NULL:
            raise MemoryError("no memory to move records")
        try:
            for slot in slots:
                moves[n].record = &slot.record
                moves[n].size = record_size(&self.layout.c, slot.record.n_histograms)
                moves[n].to = <om_record *> memory.take(
                    moves[n].size, slot.record.n_histograms
                )
                n += 1
            if not is_in(c, &memory.journal):
                memory.add_running(c)
                self.memories.append(memory)
            with nogil:
                move_records(
                    c, moves, n, &memory.journal, memory.totals,
                    memory.free_running, memory.n_free_running, memory.file,
                    memory.lock,
                )
            n = 0       # none is to be given back
        finally:
            for i in range(n):
                memory.give_back(moves[i].to)
            free(moves)
        for slot in slots:
            slot.memory = memory
        self.memory = memory
        # Whoever made a slot while this went on found no place for it.
        c.unplaced = bool(self.slots_elsewhere(memory))
        return 0

    cdef int restart(self) except -1:
        """After a reset or in a forked child: begin with no slots."""
        cdef dict fresh
        if self.generation != om_load(&self.c.generation):
            # The allocation may collect garbage, whose finalizer restarts and records.
            fresh = {}
            if self.generation == om_load(&self.c.generation):
                return 0
            self.slots = fresh
            self.generation = om_load(&self.c.generation)
            self.forget_last()
        return 0

    cdef Slot renew(self, object model, Slot slot):
        """The slot to use instead of one whose record was stale or did not fit."""
        if om_load(&slot.record.generation) == om_load(&self.c.generation):
            self.grow()     # not stale, so there was no room
            return slot
        self.forget_last()
        with cython.critical_section(self):
            return self.add_slot(model, False)

    cdef int grow(self) except -1:
        """Make room in the core's table of records."""
        cdef int status
        with nogil:
            status = grow_table(self.c)
        if status == NO_MEMORY:
            raise MemoryError(f"no memory for {2 * self.c.capacity} models")
        return 0

    cdef bint remove(self, object model) except -1:
        """Forget a model; whether it had a record."""
        cdef om_core *c = self.c
        cdef int found
        cdef str name = model_name(model)
        cdef Slot slot = self.known_slot(name)      # keeps the record alive
        if slot is None:
            return False
        cdef om_record *record = slot.record
        with nogil:
            found = retire(c, record)
        with cython.critical_section(self):
            if self.slots.get(name) is slot:
                del self.slots[name]
        return found > 0

    cdef int drop_unused(self, Slot slot) except -1:
        """Forget the slot of a name under which nothing was recorded, unless a running
        call still has it."""
        cdef om_core *c = self.c
        cdef bint unused
        om_mutex_acquire(&c.lock)
        unused = (
            slot.running == 0
            and not slot.record.published
            and slot.record.generation == c.generation
        )
        if unused:      # whoever else holds the slot finds it stale
            slot.record.generation = UINT64_MAX
            slot.record.epoch = 0
        om_mutex_release(&c.lock)
        if unused:
            with cython.critical_section(self):
                name = self.names.get(slot.record.name_id)
                if self.slots.get(name) is slot:
                    del self.slots[name]
            self.forget_last()
        return 0

    # --- names and codes -------------------------------------------------------------

    cdef uint32_t name_id(self, str name) except 0:
        """The id of a name, given when first asked for."""
        cdef uint32_t id
        known = self.name_ids.get(name)
        if known is not None:
            return known
        id = self.next_name_id
        self.next_name_id += 1
        self.names[id] = name
        self.name_ids[name] = id
        if len(self.names) > 4 * (<int64_t> self.max_models + EVENTS_AT_ONCE):
            self.forget_names()
        return id

    cdef int forget_names(self) except -1:
        """Drop names that no record, event or running call can refer to any more,
        and that no reader of events waits for."""
        cdef om_core *c = self.c
        cdef set live = set()
        cdef Slot slot
        for slot in list(self.slots.values()):
            live.add(slot.record.name_id)
        live.update(*list(self.filters.values()))
        cdef uint32_t ids[EVENTS_AT_ONCE]
        cdef uint64_t cursor = 0
        cdef om_call *call
        cdef int i
        cdef int n = 0
        om_mutex_acquire(&c.lock)
        call = c.calls
        # The oldest: others are still recent.
        while call != NULL and n < EVENTS_AT_ONCE:
            ids[n] = call.name_id
            n += 1
            call = call.next
        om_mutex_release(&c.lock)
        live.update([ids[i] for i in range(n)])
        while cursor <= c.ring.mask:
            n = 0
            om_mutex_acquire(&c.lock)
            while n < EVENTS_AT_ONCE and cursor <= c.ring.mask:
                ids[n] = c.ring.events[cursor].name_id
                n += 1
                cursor += 1
            om_mutex_release(&c.lock)
            live.update([ids[i] for i in range(n)])
        for id in list(self.names):     # in place: readers hold this dictionary
            if id not in live and id + self.max_models < self.next_name_id:
                self.name_ids.pop(self.names.pop(id, None), None)
        return 0

    cdef uint32_t code_id(self, object error) except? 0xFFFFFFFF:
        """The id of an error's code; 0, `_OTHER`, past the limit of codes."""
        cdef object key = error
        cdef str code
        if not isinstance(error, (str, type)):
            key = type(error)
            if isinstance(error, OllamaError) and isinstance(error.code, str):
                key = error.code
        known = self.code_ids.get(key)
        if known is not None:
            return known
        code = model_name(code_of(error))
        with cython.critical_section(self):
            known = self.code_ids.get(code)
            if known is None:
                if len(self.codes) >= MAX_KNOWN_CODES:
                    return 0
                self.codes.append(code)
                known = len(self.codes) - 1
                if self.c.journal != NULL:
                    self.show_code(known, code)
                known = self.code_ids.setdefault(code, known)
        # The look-up of a class keeps it alive: only so many.
        if isinstance(key, type) and self.n_classes < MAX_KNOWN_CLASSES:
            self.n_classes += 1
            self.code_ids[key] = known
        return known

    # --- what is said and counted of bad input ---------------------------------------

    cdef int reject(self, object model, str what, int reason) except -1:
        """Warn of a value that was counted by reason only; once a model and reason."""
        name = "" if model is None else f"model {model_name(model)[:80]!r}: "
        return self.warn_once(
            (name, reason),
            "%s%s is %s and counts as unknown (see `invalid_values`); give a finite"
            " number of at least 0",
            (name, what, INVALID[reason]),
        )

    cdef int warn_once(self, object key, str message, tuple args) except -1:
        # The set is bounded like everything that a caller can make grow.
        if key in self.warned or len(self.warned) > 4 * (self.max_models + 1):
            return 0
        self.warned.add(key)
        try:
            import logging      # 9 ms that nobody pays who records good values
            logging.getLogger("ometrics").warning(message, *args)
        except Exception:       # a logging handler of the user's that raises
            self.count_internal_error()
        return 0

    cdef int show_code(self, uint32_t id, str code) except -1:
        """Let other processes know a code by its id."""
        try:
            self.memory.add_code(id, code)
        except (OSError, MemoryError) as error:     # they show it as `_OTHER`
            self.home.failed(error)
        return 0

    def _count_segment_failure(self):
        cdef om_core *c = self.c
        om_mutex_acquire(&c.lock)
        locked_count(&c.totals.counters[SNAPSHOT_SEGMENT_FAILURES], c.journal)
        commit(c)

    cdef int count_internal_error(self) except -1:
        om_mutex_acquire(&self.c.lock)
        locked_count(&self.c.totals.counters[SNAPSHOT_INTERNAL_ERRORS], self.c.journal)
        commit(self.c)
        return 0


def count_internal_error(Table table not None, /):
    """Count a failure of instrumentation that was kept from the caller."""
    table.count_internal_error()


def forks_of(Table table not None, /):
    """How many forks lie between the creation of a collector and now."""
    return table.c.forks


def n_codes(Table table not None, /):
    """How many distinct codes a collector keeps apart."""
    return len(table.codes)
