# SPDX-License-Identifier: MIT
"""The recording core: what happens between `record_*()` and `snapshot()`.

Compiled because it runs in the middle of an agent's work: one record costs some tens of
nanoseconds, of which most are CPython's call.

Thread safety
-------------
One mutex a collector (`om_core.lock`) protects all its counts. A single record keeps
the GIL and tries the mutex; only when it is taken, the GIL is given up to wait. Loops
over buffers give the GIL up, fill memory of their own, and take the mutex to add it.
Python code never runs while it is held: argument conversion, look-up, allocation,
warnings and clocks of the user come before or after. So a signal handler, a finalizer
or a logging handler that records cannot meet a held mutex of its own thread.

One instant without stopping anybody
------------------------------------
A snapshot of a thousand models copies megabytes; under the mutex that would block every
recorder for a millisecond. Instead `epoch` is advanced under the mutex: that is the
instant. Each record carries the epoch that it was last seen in. The snapshot then
visits the records one by one, each under the mutex for a microsecond; a recorder that
comes to an unseen record first copies it for the snapshot (`locked_settle`), then
changes it. The price on the hot path is one comparison, which also notices that a
record is no longer in the table: removed, cleared by a reset, or the parent's after a
fork. (Rejected: two halves that writers switch between, as in client_golang: a writer
that a fork cuts off in the old half is waited for in the child for ever.)

Lock order: `copying` (see _copy.pxd), then `lock`. The GIL is never waited for while
holding either, so a daemon thread that is stopped at exit takes neither with it.
Without a GIL, look-ups also use CPython's critical sections, and those a thread that is
stopped may keep: there, a finalizer that runs after `atexit` may hang if such threads
record.
"""

from array import array

from ometrics.errors import OllamaError, code_of

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.datetime cimport import_datetime, timedelta
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.unicode cimport PyUnicode_DecodeUTF8, PyUnicode_FromObject
from libc.math cimport INFINITY, NAN, fabs
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strcmp

from ometrics._buckets cimport cell_of
from ometrics._copy cimport *
from ometrics._events cimport *
from ometrics._histogram cimport Layout
from ometrics._record cimport *
from ometrics._state cimport *

cimport cython

import_datetime()

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1
    double PyFloat_AsDouble(object) except? -1

MAX_NAME = 256          # characters of a model name or code
MAX_EVENTS = 2**24      # that a ring can be asked to keep
OVERFLOW = "__overflow__"
INVALID = ("nan", "infinite", "negative")  # keys of `invalid_values`

cdef enum:
    MAX_KNOWN_CODES = 4096      # distinct codes a collector keeps apart
    MAX_KNOWN_CLASSES = 256     # exception classes whose code is remembered
    FIRST_CAPACITY = 64


# --- forks ---------------------------------------------------------------------------

cdef om_mutex cores_lock
cdef om_core *all_cores = NULL

cdef void forked_child() noexcept nogil:
    """
    Start every core of a forked child at zero.

    The parent goes on with the counts, so the sum over the family is exact. Other
    threads of the parent may have held any lock or been half way through a record:
    locks are made anew and everything that they protect is dropped, not repaired.
    """
    cdef om_core *c
    om_mutex_init(&cores_lock)
    c = all_cores
    if c != NULL:
        c.previous = NULL
    while c != NULL:
        om_mutex_init(&c.lock)
        om_mutex_init(&c.copying)
        c.forks += 1
        locked_begin_in_child(&c.ring)
        c.snapshotting = 0
        c.calls = NULL
        c.last_call = NULL
        c.n_calls = 0
        if c.own_clock:     # which cannot be asked here: time goes on from the start
            locked_clear(c, c.totals.start_wall_ns, c.totals.start_monotonic_ns)
        else:
            locked_clear(c, om_precise_wall_ns(), om_monotonic_ns())
        if c.next != NULL:
            c.next.previous = c     # only these links may have been half made
        c = c.next

om_mutex_init(&cores_lock)
if om_at_fork(forked_child) != 0:
    raise MemoryError("no room for the fork handler")


# --- arguments -----------------------------------------------------------------------

cdef double number_of(object value, str what) except? -1.0:
    """
    The float of any real number.

    Raises:
        TypeError: Not a number; strings are not parsed.
    """
    try:
        return PyFloat_AsDouble(value)
    except OverflowError:
        return INFINITY if value > 0 else -INFINITY
    except ValueError:          # a signalling NaN of decimal
        return NAN
    except TypeError:
        raise TypeError(f"{what}, not {type(value).__name__}") from None

cdef double seconds_of(object latency) except? -1.0:
    """Seconds of any real number or `timedelta`."""
    if isinstance(latency, timedelta):
        return latency.total_seconds()
    return number_of(latency, "a latency is a number of seconds or a timedelta")

cdef str mended(object model):
    """
    A name as it may leave the process: at most 256 characters, no lone surrogates.

    Raises:
        TypeError: Not a string.
    """
    if not isinstance(model, str):
        raise TypeError(f"a model is named by a str, not {type(model).__name__}")
    cdef str name = PyUnicode_FromObject(model)     # str() would name an Enum's member
    if len(name) > MAX_NAME:
        name = name[:MAX_NAME]
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return name


NOBODY = object()       # what `last_name` is before anybody recorded

cdef uint64_t ring_size(capacity) except 0:
    """
    The power of two that holds so many events.

    Raises:
        ValueError: More than 2^24, a gigabyte.
    """
    cdef uint64_t size = 1
    if capacity > MAX_EVENTS:
        raise ValueError(
            f"{capacity} events are too many to keep: at most {MAX_EVENTS}"
        )
    while size < <uint64_t> capacity:
        size *= 2
    return size

cdef int link(om_core *c) noexcept:
    """Make a core known to the fork handler, which follows `next` only: a fork in
    between finds the list with it or without it, never broken."""
    om_mutex_acquire(&cores_lock)
    c.next = all_cores
    if all_cores != NULL:
        all_cores.previous = c
    om_publish(<void **> &all_cores, c)
    om_mutex_release(&cores_lock)
    return 0

cdef int unlink(om_core *c) noexcept:
    om_mutex_acquire(&cores_lock)
    if c.previous != NULL:
        om_publish(<void **> &c.previous.next, c.next)
    elif all_cores == c:
        om_publish(<void **> &all_cores, c.next)
    if c.next != NULL:
        c.next.previous = c.previous
    om_mutex_release(&cores_lock)
    return 0


# --- recording -----------------------------------------------------------------------
#
# `slot` is None for a record by name: it is looked up after the arguments were
# converted, so that refused ones leave nothing behind.

cdef inline int add_latency(
    Core core, object model, Slot slot, object latency
) except -1:
    cdef om_core *c = core.c
    cdef om_record *record
    cdef double seconds
    cdef int cell = 0
    cdef int reason
    cdef int64_t now
    if PyFloat_CheckExact(latency):
        seconds = PyFloat_AS_DOUBLE(latency)
    else:
        seconds = seconds_of(latency)
    reason = reason_of(seconds)
    if reason == VALID:
        seconds = fabs(seconds)     # -0.0
        cell = cell_of(c.layout, seconds)
    now = wall(core)
    if slot is None:
        slot = slot_of(core, model)
    record = slot.record

    om_mutex_acquire(&c.lock)
    while record.epoch != c.epoch and locked_settle(c, record) != SETTLED:
        om_mutex_release(&c.lock)
        slot = core.renew(model, record)
        record = slot.record
        om_mutex_acquire(&c.lock)
    record.successes += 1
    record.updated_ns = now
    if reason == VALID:
        locked_add_value(
            histogram_at(c.layout, record, 0), cell, seconds, &c.totals.saturated
        )
    else:
        record.latency_unknown += 1
        c.totals.invalid[reason] += 1
        seconds = NAN
    locked_emit(&c.ring, EVENT_LATENCY, 1, record.name_id, seconds, now)
    om_mutex_release(&c.lock)

    if reason != VALID:
        core.reject(model, reason)
    return 0

cdef inline int add_error(Core core, object model, Slot slot, object error) except -1:
    cdef om_core *c = core.c
    cdef uint32_t code = core.code_id(error)
    cdef int64_t now = wall(core)
    if slot is None:
        slot = slot_of(core, model)
    cdef om_record *record = slot.record

    om_mutex_acquire(&c.lock)
    while record.epoch != c.epoch and locked_settle(c, record) != SETTLED:
        om_mutex_release(&c.lock)
        slot = core.renew(model, record)
        record = slot.record
        om_mutex_acquire(&c.lock)
    record.failures += 1
    record.updated_ns = now
    locked_add_code(&record.errors, code)
    locked_emit(&c.ring, EVENT_ERROR, 0, record.name_id, code, now)
    om_mutex_release(&c.lock)
    return 0

cdef inline int add_tokens(Core core, object model, Slot slot, object count) except -1:
    cdef om_core *c = core.c
    cdef int overflow = 0
    cdef long long tokens = PyLong_AsLongLongAndOverflow(count, &overflow)
    cdef uint64_t n = <uint64_t> tokens
    cdef int64_t now = wall(core)
    cdef bint negative = overflow < 0 or (overflow == 0 and tokens < 0)
    cdef bint too_many = overflow > 0 and count > UINT64_MAX
    if overflow > 0:
        n = 0 if too_many else int(count)
    if slot is None:
        slot = slot_of(core, model)
    cdef om_record *record = slot.record

    om_mutex_acquire(&c.lock)
    while record.epoch != c.epoch and locked_settle(c, record) != SETTLED:
        om_mutex_release(&c.lock)
        slot = core.renew(model, record)
        record = slot.record
        om_mutex_acquire(&c.lock)
    record.updated_ns = now
    if negative:
        c.totals.invalid[NEGATIVE] += 1
    elif too_many:
        record.tokens = UINT64_MAX
        c.totals.saturated += 1
    else:
        locked_add(&record.tokens, n, &c.totals.saturated)
    om_mutex_release(&c.lock)

    if negative:
        core.reject(model, NEGATIVE)
    return 0

cdef int add_batch(Core core, object model, Slot slot, object values) except -1:
    """Fill a histogram of our own without lock and GIL, then add it."""
    cdef Py_buffer view
    cdef bint viewed = False
    cdef om_record *record
    cdef om_core *c = core.c
    cdef const double *data
    cdef Py_ssize_t n
    cdef int reason
    cdef int64_t now = wall(core)
    cdef om_batch batch
    if PyObject_CheckBuffer(values):
        try:
            PyObject_GetBuffer(values, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
            viewed = True
        except (BufferError, ValueError):
            pass        # not contiguous: read as an iterable
        if viewed and (
            view.format == NULL
            or strcmp(view.format, b"d") != 0
            or <size_t> view.buf % sizeof(double)
        ):
            PyBuffer_Release(&view)
            viewed = False
    if not viewed:
        if isinstance(values, (str, bytes, bytearray)):
            raise TypeError(f"latencies are numbers, not {type(values).__name__}")
        numbers = array("d", [seconds_of(value) for value in values])
        PyObject_GetBuffer(numbers, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    data = <const double *> view.buf
    n = view.len // <Py_ssize_t> sizeof(double)
    memset(&batch, 0, sizeof(batch))
    batch.record = <om_record *> calloc(1, record_size(c.layout, MODEL_HISTOGRAMS))
    if batch.record == NULL:
        PyBuffer_Release(&view)
        raise MemoryError("no memory to count a batch")
    try:
        with nogil:
            fill(c.layout, &batch, data, n)
        if n == 0:
            mended(model)       # refuse what is no name, and count nothing
        else:
            if slot is None:
                slot = slot_of(core, model)
            record = slot.record
            om_mutex_acquire(&c.lock)
            while record.epoch != c.epoch and locked_settle(c, record) != SETTLED:
                om_mutex_release(&c.lock)
                slot = core.renew(model, record)
                record = slot.record
                om_mutex_acquire(&c.lock)
            locked_add_batch(c, record, &batch, data, n, now)
            om_mutex_release(&c.lock)
    finally:
        free(batch.record)
        PyBuffer_Release(&view)
    for reason in range(INVALID_REASONS):
        if batch.invalid[reason]:
            core.reject(model, reason)
    return 0


# --- the core ------------------------------------------------------------------------

@cython.final
cdef class Slot:
    def __dealloc__(self):
        free(self.record)


cdef class Core:
    """
    Counters of one collector. `MetricsCollector` is its public face.

    Args:
        layout: The cells.
        max_models: Names kept apart; later ones count under `__overflow__`.
        ring: Events kept for slow readers; rounded up to a power of two.
        clock: `None`, or an object with `time()` and `monotonic()` in seconds.

    Thread-safety:
        Every method may be called from any thread, signal handler or finalizer.
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
        self.filters = {}
        self.alerts = {}
        self.codes = ["_OTHER"]
        self.code_ids = {"_OTHER": 0}
        self.warned = set()
        self.c = <om_core *> calloc(1, sizeof(om_core))
        if self.c == NULL:
            raise MemoryError
        cdef om_core *c = self.c
        om_mutex_init(&c.lock)
        om_mutex_init(&c.copying)
        c.layout = &layout.c
        c.capacity = FIRST_CAPACITY
        c.table = <om_record **> malloc(c.capacity * sizeof(om_record *))
        c.ring.events = <om_event *> calloc(size, sizeof(om_event))
        c.ring.mask = size - 1
        c.ring.emitting = 1
        c.own_clock = clock is not None
        if c.table == NULL or c.ring.events == NULL:
            raise MemoryError
        self.last_name = NOBODY
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

    # --- names and codes -------------------------------------------------------------

    cdef Slot find_slot(self, object model):
        # The critical section is nothing where there is a GIL; without one it keeps the
        # dictionary from being replaced between its look-up and our reference to it.
        cdef Slot slot = None
        with cython.critical_section(self):
            if self.generation == om_load(&self.c.generation):
                slot = self.slots.get(model)
            if slot is None:
                return self.add_slot(model)
        # A name that was cut or that overflowed never gets here: it is counted in
        # add_slot each time, and there may be room for it later.
        if OM_HAS_GIL:
            self.last_slot = slot
            self.last_name = model
        return slot

    cdef int forget_last(self) except -1:
        if OM_HAS_GIL:
            self.last_name = NOBODY
            self.last_slot = None
        return 0

    cdef Slot known_slot(self, object model):
        """The slot of exactly this name, if something was recorded under it."""
        with cython.critical_section(self):
            if self.generation == om_load(&self.c.generation):
                return self.slots.get(model)
            return None

    cdef Slot add_slot(self, object model):
        """The slot of a name that the dictionary does not have as it stands."""
        cdef Slot slot
        cdef str name = mended(model)
        cdef om_core *c = self.c
        self.restart()
        if name != model:
            om_mutex_acquire(&c.lock)
            c.totals.truncated_names += 1
            om_mutex_release(&c.lock)
        slot = self.slots.get(name)
        if slot is not None:
            return slot
        if name != OVERFLOW and len(self.slots) - (OVERFLOW in self.slots) >= (
            self.max_models
        ):
            self.warn_once(
                OVERFLOW,
                "more than %d models: further names, such as %.80r, count under %s",
                (self.max_models, name, OVERFLOW),
            )
            return self.add_slot(OVERFLOW)
        slot = self.new_slot(name, NOT_A_CALL, 0)
        # A finalizer that ran in new_slot() may have come first, even with a reset.
        # From here on nothing runs in between: the slot is of the dictionary that it
        # is in.
        slot.record.generation = self.generation
        return self.slots.setdefault(name, slot)

    cdef Slot call_slot(self, Slot model_slot, int operation):
        """The record of one operation of a model, made when first needed."""
        cdef Slot slot
        with cython.critical_section(model_slot):
            if model_slot.calls is None:
                model_slot.calls = [None] * MAX_OPERATIONS
            slot = model_slot.calls[operation - 1]
            if slot is not None:
                return slot
            name = PyUnicode_DecodeUTF8(
                model_slot.record.name, model_slot.record.name_length, NULL
            )
            slot = self.new_slot(name, operation, model_slot.record.name_id)
            slot.record.generation = model_slot.record.generation
            if model_slot.calls[operation - 1] is None:     # no finalizer came first
                model_slot.calls[operation - 1] = slot
            return model_slot.calls[operation - 1]

    cdef Slot new_slot(self, str name, int operation, uint32_t name_id):
        """A slot with an empty record; a name id of 0 asks for a new one."""
        cdef bytes encoded = name.encode()
        cdef Slot slot = Slot.__new__(Slot)
        cdef int n = MODEL_HISTOGRAMS if operation == NOT_A_CALL else CALL_HISTOGRAMS
        cdef om_record *record
        cdef om_histogram *h
        cdef int i
        record = <om_record *> calloc(1, record_size(&self.layout.c, n))
        if record == NULL:
            raise MemoryError(f"no memory for the record of model {name!r}")
        slot.record = record
        record.operation = operation
        record.n_histograms = n
        record.name_length = PyBytes_GET_SIZE(encoded)
        memcpy(record.name, PyBytes_AS_STRING(encoded), record.name_length)
        for i in range(n):
            h = histogram_at(&self.layout.c, record, i)
            h.min = INFINITY
            h.max = -INFINITY
        record.name_id = name_id
        if name_id != 0:
            return slot
        record.name_id = self.name_id(name)
        return slot

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

    cdef Slot renew(self, object model, om_record *record):
        """After `locked_settle` refused a record: the slot to try instead."""
        # Not stale, so there was no room.
        if om_load(&record.generation) == om_load(&self.c.generation):
            self.grow()
        self.forget_last()
        return self.find_slot(model)

    cdef int grow(self) except -1:
        """Make room in the table."""
        cdef int status
        with nogil:
            status = grow_table(self.c)
        if status == NO_MEMORY:
            raise MemoryError(f"no memory for {2 * self.c.capacity} models")
        return 0

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
        code = mended(code_of(error))
        with cython.critical_section(self):
            known = self.code_ids.get(code)
            if known is None:
                if len(self.codes) >= MAX_KNOWN_CODES:
                    return 0
                self.codes.append(code)
                known = self.code_ids.setdefault(code, len(self.codes) - 1)
        # The look-up of a class keeps it alive: only so many.
        if isinstance(key, type) and self.n_classes < MAX_KNOWN_CLASSES:
            self.n_classes += 1
            self.code_ids[key] = known
        return known

    # --- recording -------------------------------------------------------------------

    cdef int reject(self, object model, int reason) except -1:
        """Warn of a value that was counted by reason only; once a model and reason."""
        name = mended(model)
        return self.warn_once(
            (name, reason),
            "model %.80r: a value that is %s counts as unknown",
            (name, INVALID[reason]),
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

    def count_internal_error(self):
        """Count a failure of instrumentation that was kept from the caller."""
        om_mutex_acquire(&self.c.lock)
        self.c.totals.internal_errors += 1
        om_mutex_release(&self.c.lock)

    def record_latency(self, model, latency, /):
        """
        Count one successful request.

        Args:
            model: Name of the model.
            latency: Seconds, as any real number, or a `datetime.timedelta`. NaN,
                infinite or negative: the request counts, its latency is unknown.

        Raises:
            TypeError: `model` is not a `str`, or `latency` not a number; nothing
                counts.

        Thread-safety:
            Safe from any thread, signal handler or finalizer.
        """
        add_latency(self, model, None, latency)

    def record_latencies(self, model, values, /):
        """
        Count a batch of successful requests.

        Args:
            model: Name of the model.
            values: Seconds: a C-contiguous buffer of float64 (`array`, `memoryview`,
                NumPy), read without copying and without the GIL, or any iterable of
                what `record_latency` takes.

        Raises:
            TypeError: `model` is not a `str` or a value not a number; nothing counts.

        Thread-safety:
            Safe from any thread. The batch is added at one instant.
        """
        add_batch(self, model, None, values)

    def record_error(self, model, error, /):
        """
        Count one failed request.

        Args:
            model: Name of the model.
            error: An exception, its class, or a code. `OllamaError` counts under its
                code, any other exception under its class name, never its message.

        Raises:
            TypeError: `model` is not a `str`, or `error` none of these; nothing counts.

        Thread-safety:
            Safe from any thread, signal handler or finalizer.
        """
        add_error(self, model, None, error)

    def record_tokens(self, model, token_count, /):
        """
        Add tokens to a model.

        Args:
            model: Name of the model.
            token_count: Integer >= 0. A negative one counts in `invalid_values` only.

        Raises:
            TypeError: `model` is not a `str`, or the count not an integer.

        Thread-safety:
            Safe from any thread, signal handler or finalizer.
        """
        add_tokens(self, model, None, token_count)

    def record_task_completion(self, success, duration_ms, /):
        """
        Count one task of an agent.

        Args:
            success: Whether it completed.
            duration_ms: Milliseconds, as any real number, or a `timedelta`. NaN,
                infinite or negative: the task counts, its duration is unknown.

        Raises:
            TypeError: The duration is not a number; nothing counts.

        Thread-safety:
            Safe from any thread, signal handler or finalizer.
        """
        cdef om_core *c = self.c
        cdef bint completed = bool(success)
        cdef double ms
        if isinstance(duration_ms, timedelta):
            ms = duration_ms.total_seconds() * 1e3
        else:
            ms = number_of(duration_ms, "a task's duration is a number of milliseconds")
        cdef int reason = reason_of(ms)
        cdef int64_t now = wall(self)
        om_mutex_acquire(&c.lock)
        if completed:
            c.totals.tasks_completed += 1
        else:
            c.totals.tasks_failed += 1
        c.totals.task_updated_ns = now
        if reason == VALID:
            locked_add_seconds(&c.totals.task_sum_ns, ms / 1e3, &c.totals.saturated)
            c.totals.task_min_ms = min(c.totals.task_min_ms, ms)
            c.totals.task_max_ms = max(c.totals.task_max_ms, ms)
        else:
            c.totals.tasks_unknown += 1
            c.totals.invalid[reason] += 1
            ms = NAN
        locked_emit(&c.ring, EVENT_TASK, completed, 0, ms, now)
        om_mutex_release(&c.lock)
        if reason != VALID:
            self.reject("(task duration)", reason)

    def update_resource_metrics(self, memory_mb, cpu_percent, goroutine_count, /):
        """
        Tell what the process uses now.

        Args:
            memory_mb: Memory in MB.
            cpu_percent: CPU in percent of one core.
            goroutine_count: Concurrent units of work: threads and asyncio tasks.

        Raises:
            TypeError: An argument is not a number.

        A NaN, infinite or negative argument counts in `invalid_values`, and what was
        told before stays.

        Thread-safety:
            Safe from any thread, signal handler or finalizer.
        """
        cdef om_core *c = self.c
        cdef double memory = number_of(memory_mb, "memory is a number of MB")
        cdef double cpu = number_of(cpu_percent, "CPU is a number of percent")
        cdef double units = number_of(goroutine_count, "goroutines are a number")
        cdef int64_t now = wall(self)
        cdef int reason = VALID
        cdef double value
        for value in (memory, cpu, units):
            if reason == VALID:
                reason = reason_of(value)
        if reason == VALID and units >= 9.2e18:
            reason = INFINITE
        om_mutex_acquire(&c.lock)
        if reason == VALID:
            c.totals.memory_mb = memory
            c.totals.cpu_percent = cpu
            c.totals.goroutines = <int64_t> units
            c.totals.resources_ns = now
            locked_emit_resources(&c.ring, memory, cpu, <int64_t> units, now)
        else:
            c.totals.invalid[reason] += 1
        om_mutex_release(&c.lock)
        if reason != VALID:
            self.reject("(resources)", reason)

    def model(self, name, /):
        """
        A recorder bound to one model, some nanoseconds faster a record.

        Returns:
            `ModelRecorder`; it stays valid across resets, removal and forks.

        Raises:
            TypeError: `name` is not a `str`.
        """
        return ModelRecorder(self, name)

    def time(self, model, /):
        """
        Time a block or a function: success records the elapsed monotonic time, an
        exception records the error and passes through unchanged.

        Returns:
            `Timer`: a context manager for `with` and `async with`, and a decorator of
            functions, coroutine functions and generators. One block at a time each.

        Raises:
            TypeError: `model` is not a `str`.
        """
        return Timer(self, model)

    # --- reading ---------------------------------------------------------------------

    def take(self, bint reset, /):
        """
        Everything, at one instant; with `reset`, moved out instead of copied.

        Returns:
            `(packed records, totals, running calls)` for `unpack` and the snapshot.

        Raises:
            MemoryError: No room for the copy; with `reset`, nothing was cleared.
        """
        cdef om_copy copy
        cdef uint64_t generation
        cdef dict _owner        # keeps alive what the table points to
        cdef int status = OUTDATED
        self.begin_copy(&copy)
        while status == OUTDATED:
            with cython.critical_section(self):
                self.restart()
                _owner = self.slots
                generation = self.generation
            with nogil:
                status = copy_all(self.c, reset, generation, &copy)
        if reset and status == COPIED:
            with cython.critical_section(self):
                self.restart()
        return self.read_copy(&copy, status)

    def take_model(self, model, /):
        """
        One model's records, at one instant of their own.

        Returns:
            As `take`; `None` for a name that is not known.
        """
        cdef om_copy copy
        cdef om_record *records[1 + MAX_OPERATIONS]
        cdef int n = 0
        cdef int status
        cdef Slot slot
        cdef list slots         # keeps the records alive
        cdef str name = mended(model)
        with cython.critical_section(self):
            slot = self.slots.get(name)
        if slot is None:
            return None
        slots = [slot, *(slot.calls or ())]
        for slot in slots:
            if slot is not None:
                records[n] = slot.record
                n += 1
        self.begin_copy(&copy)
        with nogil:
            status = copy_model(self.c, records, n, &copy)
        return self.read_copy(&copy, status)

    cdef int begin_copy(self, om_copy *copy) except -1:
        memset(copy, 0, sizeof(copy[0]))
        if self.clock is not None:
            copy.wall_ns = precise_wall(self)
            copy.monotonic_ns = monotonic(self)
        return 0

    cdef tuple read_copy(self, om_copy *copy, int status):
        """What `take` returns, of a copy that is freed here."""
        cdef bytes packed
        cdef char *to
        try:
            if status == NO_MEMORY:
                raise MemoryError(f"no memory for a snapshot of {copy.room} bytes")
            packed = PyBytes_FromStringAndSize(NULL, copy.used)
            to = PyBytes_AS_STRING(packed)
            if copy.used:       # else there may be no buffer either
                with nogil:     # megabytes
                    memcpy(to, copy.packed, copy.used)
            return packed, totals_dict(copy), running_calls(self.names, copy)
        finally:
            free_copy(copy)

    def codes_table(self):
        """Code of each id; only ever grows."""
        return self.codes

    def discard(self, model, /):
        """
        Forget a model.

        Returns:
            Whether it had a record.
        """
        cdef om_core *c = self.c
        cdef int found
        cdef str name = mended(model)
        cdef Slot slot
        with cython.critical_section(self):
            slot = self.slots.get(name)
        if slot is None:
            return False
        cdef om_record *record = slot.record
        with nogil:
            found = retire(c, record)
        with cython.critical_section(self):
            if self.slots.get(name) is slot:
                del self.slots[name]
        return found > 0

    @property
    def forks(self):
        """How many forks lie between the creation of this core and now."""
        return self.c.forks


cdef dict totals_dict(om_copy *copy):
    """The totals under the names that `unpacking` knows."""
    cdef om_totals *t = &copy.totals
    cdef int i
    return {
        "start_wall_ns": t.start_wall_ns,
        "wall_ns": copy.wall_ns,
        "uptime_ns": max(copy.monotonic_ns - t.start_monotonic_ns, 0),
        "tasks_completed": t.tasks_completed,
        "tasks_failed": t.tasks_failed,
        "tasks_unknown": t.tasks_unknown,
        "task_sum_ns": t.task_sum_ns,
        "task_min_ms": t.task_min_ms if t.task_min_ms <= t.task_max_ms else None,
        "task_max_ms": t.task_max_ms if t.task_min_ms <= t.task_max_ms else None,
        "task_updated_ns": t.task_updated_ns,
        "memory_mb": t.memory_mb,
        "cpu_percent": t.cpu_percent,
        "goroutines": t.goroutines,
        "resources_ns": t.resources_ns,
        "invalid_values": {
            INVALID[i]: t.invalid[i] for i in range(INVALID_REASONS) if t.invalid[i]
        },
        "truncated_names": t.truncated_names,
        "saturated": t.saturated,
        "internal_errors": t.internal_errors,
        "events_emitted": copy.events_emitted,
        "events_dropped": copy.events_dropped,
    }

cdef list running_calls(dict names, om_copy *copy):
    """`(model, operation, age in seconds)` of each running call, oldest first."""
    cdef uint32_t i
    return [
        (
            names.get(copy.calls[i].name_id, OVERFLOW),
            copy.calls[i].operation,
            max(copy.monotonic_ns - copy.calls[i].start_ns, 0) / 1e9,
        )
        for i in range(copy.n_calls)
    ]


# --- bound to a model ----------------------------------------------------------------

@cython.final
cdef class ModelRecorder:
    """
    Records for one model; made by `MetricsCollector.model(name)`.

    Thread-safety:
        Like the collector's methods.
    """
    cdef Core core
    cdef Slot slot
    cdef readonly object name

    def __cinit__(self, Core core not None, name):
        mended(name)
        self.core = core
        self.name = name

    def __reduce__(self):
        return self.core.__reduce__()

    def __copy__(self):
        return self.core.__reduce__()

    def __deepcopy__(self, memo):
        return self.core.__reduce__()

    def __repr__(self):
        return f"<ModelRecorder {self.name!r}>"

    cdef inline Slot current(self):
        """The slot, or None: before the first record, for a name that is not kept as it
        stands, and after a reset, removal or fork has made the old one stale."""
        with cython.critical_section(self):
            if (
                self.slot is None
                or om_load(&self.slot.record.generation)
                != om_load(&self.core.c.generation)
            ):
                self.slot = self.core.known_slot(self.name)
            return self.slot

    def record_latency(self, latency, /):
        """Count one successful request; see `MetricsCollector.record_latency`."""
        add_latency(self.core, self.name, self.current(), latency)

    def record_latencies(self, values, /):
        """Count a batch; see `MetricsCollector.record_latencies`."""
        add_batch(self.core, self.name, self.current(), values)

    def record_error(self, error, /):
        """Count one failed request; see `MetricsCollector.record_error`."""
        add_error(self.core, self.name, self.current(), error)

    def record_tokens(self, token_count, /):
        """Add tokens; see `MetricsCollector.record_tokens`."""
        add_tokens(self.core, self.name, self.current(), token_count)

    def time(self):
        """Time a block or a function; see `MetricsCollector.time`."""
        return Timer(self.core, self.name)


@cython.final
@cython.freelist(64)
cdef class Timer:
    """
    One timed block of a model; made by `time()`.

    Thread-safety:
        One block at a time; as a decorator, each call gets a timer of its own.
    """
    cdef Core core
    cdef object name
    cdef int64_t start_ns

    def __cinit__(self, Core core not None, name):
        if not isinstance(name, str):
            mended(name)
        self.core = core
        self.name = name

    def __reduce__(self):
        return self.core.__reduce__()

    def __enter__(self):
        self.start_ns = monotonic(self.core)
        return self

    def __exit__(self, kind, error, trace):
        cdef int64_t elapsed
        if kind is None:
            elapsed = monotonic(self.core) - self.start_ns
            add_latency(self.core, self.name, None, elapsed / 1e9)
        else:
            add_error(self.core, self.name, None, kind if error is None else error)
        return False

    async def __aenter__(self):
        return self.__enter__()

    async def __aexit__(self, kind, error, trace):
        return self.__exit__(kind, error, trace)

    def __call__(self, function, /):
        """Decorate a function, coroutine function or generator function."""
        from ometrics.timing import timed
        return timed(function, self.core, self.name)
