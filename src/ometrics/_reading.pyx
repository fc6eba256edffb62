# SPDX-License-Identifier: MIT
"""From the core to the read types: once, when somebody reads.

A `Copy` owns the packed records of one instant; `Models` makes read types of them when
it is first looked at. Which field of a read type stands where in a record follows from
the declarations: `_fields.pxd` has the places and a `Plan` the names, in one order.

The read types are imported with the first collector, not with the package.

Thread-safety: a core's mutex is taken inside `copy_all` and the like only; what was
copied does not change.
"""

from collections.abc import Mapping
from operator import itemgetter

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_New
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from ometrics._copy cimport (
    NO_MEMORY,
    OUTDATED,
    copy_all,
    copy_model,
    copy_totals,
    free_copy,
    om_copy,
)
from ometrics._fields cimport (
    CALL_CODES,
    CALL_COUNTERS,
    CALL_HISTOGRAMS,
    MODEL_CODES,
    MODEL_COUNTERS,
    MODEL_HISTOGRAMS,
    SNAPSHOT_COUNTERS,
    TASK_COUNTERS,
)
from ometrics._plan cimport Plan, called, fill
from ometrics._record cimport (
    MAX_CODES,
    MAX_OPERATIONS,
    NAME_BYTES,
    NOT_A_CALL,
    OM_NEVER,
    om_codes,
    om_packed_histogram,
    om_record,
)
from ometrics._state cimport INVALID_REASONS, om_totals
from ometrics._arguments cimport model_name
from ometrics._running cimport Running, of_running
from ometrics._table cimport Slot, Table, monotonic, precise_wall
from ometrics._utc cimport utc_of

cimport cython

from ometrics._table import INVALID, OVERFLOW

cdef enum:
    HEADER = sizeof(om_record) - NAME_BYTES
    MAX_RECORDS = 64            # of one model: its own and those of its calls
    MAX_EMPTY = 64              # sets of buckets whose empty histograms are kept

# id of buckets -> them, and the histograms of nothing: of latencies and of tokens.
cdef dict EMPTY = {}

# Keywords of histograms.
cdef tuple LATENCIES = ("bucket_bounds", "min", "max", "first_cell", "cells", "sum_ns")
cdef tuple TOKENS = (*LATENCIES[:5], "total")

# Filled by load().
cdef object LatencyHistogram = None
cdef object TokenHistogram = None
cdef object ReadOnlyDict = None
cdef object NO_ITEMS = None
cdef object ResourceMetrics = None
cdef double TOKEN_SECONDS = 0
cdef tuple OPERATIONS = ()
cdef object OLLAMA = None
cdef Plan MODEL_PLAN = None
cdef Plan CALL_PLAN = None
cdef Plan TASK_PLAN = None
cdef Plan SNAPSHOT_PLAN = None


cdef int load() except -1:
    """Import the read types."""
    global LatencyHistogram, TokenHistogram, ReadOnlyDict, NO_ITEMS
    global ResourceMetrics, TOKEN_SECONDS, OPERATIONS, OLLAMA
    global MODEL_PLAN, CALL_PLAN, TASK_PLAN, SNAPSHOT_PLAN
    from ometrics import fields, histogram, models, snapshot
    from ometrics._running import RUNNING

    LatencyHistogram = histogram.LatencyHistogram
    TokenHistogram = histogram.TokenHistogram
    TOKEN_SECONDS = histogram.TOKEN_SECONDS
    ReadOnlyDict = fields.ReadOnlyDict
    NO_ITEMS = fields.NO_ITEMS
    ResourceMetrics = snapshot.ResourceMetrics
    OPERATIONS = models.OPERATIONS
    OLLAMA = models.OLLAMA
    MODEL_PLAN = Plan(
        models.PerformanceMetrics, MODEL_COUNTERS, MODEL_CODES, MODEL_HISTOGRAMS,
        ("model", "last_updated", "uptime_seconds", "calls"),
    )
    CALL_PLAN = Plan(
        models.CallMetrics, CALL_COUNTERS, CALL_CODES, CALL_HISTOGRAMS,
        ("operation", "provider", *RUNNING),
    )
    TASK_PLAN = Plan(
        snapshot.TaskStatistics, TASK_COUNTERS, 0, 0,
        ("min_completion_ms", "max_completion_ms", "last_updated"),
    )
    # Last: whoever finds it finds all.
    SNAPSHOT_PLAN = Plan(
        snapshot.Snapshot, SNAPSHOT_COUNTERS, 0, 0,
        (
            *("instance_id", "start_time", "collection_time", "uptime_seconds"),
            *("models", "task_statistics", "resource_metrics", "invalid_values"),
            *("events_emitted", "events_dropped"),
        ),
    )
    return 0


def load_read_types():
    """
    Import what reading needs, once.

    The maker of a collector does, in its own thread: an import that is under way in
    another thread when the process forks would be waited for in the child for ever.
    """
    if SNAPSHOT_PLAN is None:
        load()


# --- one copy ------------------------------------------------------------------------

@cython.final
cdef class Copy:
    """What was copied at one instant; owns its memory."""
    cdef om_copy c
    cdef list codes             # of the core; only ever grows
    cdef tuple buckets          # of the collector; None where no record is read
    cdef object no_latencies    # the histograms of nothing with these buckets
    cdef object no_tokens

    def __cinit__(self, Table table, tuple buckets):
        if SNAPSHOT_PLAN is None:
            load()
        memset(&self.c, 0, sizeof(self.c))
        self.buckets = buckets
        if buckets is not None:
            _, self.no_latencies, self.no_tokens = empty_histograms(buckets)
        if table is None:       # what was copied elsewhere is put in here
            return
        if table.clock is not None:
            self.c.wall_ns = precise_wall(table)
            self.c.monotonic_ns = monotonic(table)
            self.c.clocks_read = True
        self.codes = table.codes

    def __dealloc__(self):
        free_copy(&self.c)

    cdef double uptime(self):
        return max(self.c.monotonic_ns - self.c.totals.start_monotonic_ns, 0) / 1e9

    cdef dict running(self, dict names):
        """Name -> key of operation and provider -> `Running`."""
        cdef dict result = {}
        cdef Running running
        cdef int64_t age
        cdef uint32_t i
        for i in range(self.c.n_calls):     # oldest first
            call = &self.c.calls[i]
            keys = result.setdefault(names.get(call.name_id, OVERFLOW), {})
            key = call.provider * (MAX_OPERATIONS + 1) + call.operation
            running = keys.get(key)
            if running is None:
                running = keys[key] = Running()
            age = max(self.c.monotonic_ns - call.start_ns, 0)
            # A chunk may have come since the instant; in a file it may be anything.
            running.add(age, min(call.last_ns, age))
        return result

    cdef object codes_of(self, const om_codes *codes):
        cdef uint32_t i
        if codes.n == 0 and codes.counts[MAX_CODES] == 0:
            return NO_ITEMS
        result = ReadOnlyDict()
        for i in range(codes.n):
            PyDict_SetItem(result, self.codes[codes.ids[i]], codes.counts[i])
        if codes.counts[MAX_CODES]:
            PyDict_SetItem(result, "_OTHER", codes.counts[MAX_CODES])
        return result

    cdef object histogram_of(self, const om_packed_histogram *h, bint tokens):
        cdef list values
        if h.n_cells == 0:
            return self.no_tokens if tokens else self.no_latencies
        values = PyList_New(6)
        fill(values, 0, self.buckets)
        fill(values, 1, h.h.min / TOKEN_SECONDS if tokens else h.h.min)
        fill(values, 2, h.h.max / TOKEN_SECONDS if tokens else h.h.max)
        fill(values, 3, h.first)
        fill(values, 4, PyBytes_FromStringAndSize(
            <const char *> (h + 1), h.n_cells * sizeof(uint64_t)
        ))
        fill(values, 5, h.h.sum_ns)
        if tokens:
            return called(TokenHistogram, values, TOKENS)
        return called(LatencyHistogram, values, LATENCIES)

    cdef list values(self, Plan plan, const om_record *r, size_t *at):
        """
        What a packed record says, in the order of the plan.

        Args:
            at: Where its histograms begin; where they end, afterwards.
        """
        cdef const om_packed_histogram *h
        cdef list values = plan.values(r.counters)
        cdef int place = plan.n_counters
        cdef int i
        for i in range(plan.n_codes):
            fill(values, place, self.codes_of(&r.codes[i]))
            place += 1
        for i in range(plan.n_histograms):
            h = <const om_packed_histogram *> (self.c.packed + at[0])
            at[0] += sizeof(h[0]) + h.n_cells * sizeof(uint64_t)
            fill(values, place, self.histogram_of(h, plan.of_tokens[i]))
            place += 1
        return values

    cdef dict models(self, dict running, pace):
        """The models, by order of first record, with their calls in place."""
        cdef size_t at = 0
        cdef const om_record *r     # its name ends where its histograms begin
        cdef uint32_t last = 0
        cdef bint ordered = True
        cdef list models = []       # (order, name, values, time)
        cdef dict calls = {}        # name -> operation -> values of the plan
        cdef double uptime = self.uptime()
        cdef dict result = {}
        while at < self.c.used:
            r = <const om_record *> (self.c.packed + at)
            name = PyUnicode_DecodeUTF8(r.name, r.name_length, NULL)
            at = (at + HEADER + <size_t> r.name_length + 7) & ~(<size_t> 7)
            if r.operation == NOT_A_CALL:
                ordered = ordered and r.order >= last
                last = r.order
                models.append((
                    r.order, name, self.values(MODEL_PLAN, r, &at),
                    time_of(r.updated_ns),
                ))
            else:
                key = r.provider * (MAX_OPERATIONS + 1) + r.operation
                calls.setdefault(name, {})[key] = self.values(CALL_PLAN, r, &at)
            if pace is not None:
                pace()
        if not ordered:     # recorders came to their models before the snapshot did
            models.sort(key=itemgetter(0))
        for _, name, values, updated in models:
            of_calls = self.calls_of(calls.get(name), running.get(name))
            result[name] = MODEL_PLAN.make(values, (name, updated, uptime, of_calls))
        for name, keys in running.items():
            if name not in result:      # running, and nothing recorded yet
                others = (name, None, uptime, self.calls_of(None, keys))
                result[name] = MODEL_PLAN.make(self.nothing(MODEL_PLAN), others)
        return result

    cdef list nothing(self, Plan plan):
        """The values of a record that counted nothing."""
        cdef om_record r
        cdef list values
        cdef int i
        memset(&r, 0, HEADER)
        values = plan.values(r.counters)
        for i in range(plan.n_codes):
            fill(values, plan.n_counters + i, NO_ITEMS)
        for i in range(plan.n_histograms):
            fill(
                values, plan.n_counters + plan.n_codes + i,
                self.no_tokens if plan.of_tokens[i] else self.no_latencies,
            )
        return values

    cdef object calls_of(self, dict finished, dict running):
        """The calls of one model: those that finished, and those that run."""
        if finished is None and running is None:
            return NO_ITEMS
        result = ReadOnlyDict()
        finished = finished or {}
        running = running or {}
        for key in {**finished, **running} if running else finished:
            values = finished.get(key)
            if values is None:
                values = self.nothing(CALL_PLAN)
            operation = OPERATIONS[key % (MAX_OPERATIONS + 1) - 1]
            provider = self.codes[key // (MAX_OPERATIONS + 1)]
            name = operation if provider == OLLAMA else f"{operation}@{provider}"
            others = (operation, provider, *of_running(running.get(key)))
            PyDict_SetItem(result, name, CALL_PLAN.make(values, others))
        return result


cdef tuple empty_histograms(tuple buckets):
    """The buckets, and with these the histograms of no latencies and of no tokens."""
    cdef object key = <size_t> <PyObject *> buckets     # the hash of floats is dear
    entry = EMPTY.get(key)
    if entry is None:
        if len(EMPTY) >= MAX_EMPTY:
            EMPTY.clear()
        entry = EMPTY[key] = (     # holds the buckets, so that their id stays their own
            buckets,
            LatencyHistogram(bucket_bounds=buckets),
            TokenHistogram(bucket_bounds=buckets),
        )
    return entry


cdef inline object time_of(int64_t ns):
    """When that was; None for never."""
    return None if ns == OM_NEVER else utc_of(ns)


cdef object tasks_of(const om_totals *t):
    cdef bint known = t.task_min_ms <= t.task_max_ms
    return TASK_PLAN.make(TASK_PLAN.values(t.tasks), (
        t.task_min_ms if known else None,
        t.task_max_ms if known else None,
        time_of(t.task_updated_ns),
    ))


cdef object resources_of(const om_totals *t):
    if t.resources_ns == OM_NEVER:
        return None
    return ResourceMetrics(
        memory_usage_mb=t.memory_mb,
        cpu_usage_percent=t.cpu_percent,
        goroutine_count=t.goroutines,
        timestamp=time_of(t.resources_ns),
    )


@cython.final
cdef class Models:
    """
    The models of one snapshot, by name; made when first looked at.

    Thread-safety:
        Immutable; two threads that look at once make the same twice.
    """
    cdef Copy copy
    cdef dict running
    cdef dict made

    cdef dict all(self):
        if self.made is None:
            self.made = self.copy.models(self.running, None)
        return self.made

    def make(self, pace, /):
        """
        Make the models now.

        Args:
            pace: Called after each record; it may let other threads run.
        """
        if self.made is None:
            self.made = self.copy.models(self.running, pace)

    def __getitem__(self, name):
        return self.all()[name]

    def __iter__(self):
        return iter(self.all())

    def __len__(self):
        return len(self.all())

    def __contains__(self, name):
        return name in self.all()

    def __eq__(self, other):
        if isinstance(other, Models):
            return self.all() == (<Models> other).all()
        if isinstance(other, Mapping):
            return self.all() == dict(other)
        return NotImplemented

    def __repr__(self):
        return repr(self.all())

    def __reduce__(self):
        return ReadOnlyDict, (self.all(),)

    def get(self, name, default=None, /):
        """The model of this name, or `default`."""
        return self.all().get(name, default)

    def keys(self):
        """The names."""
        return self.all().keys()

    def values(self):
        """The models."""
        return self.all().values()

    def items(self):
        """Names and models."""
        return self.all().items()


Mapping.register(Models)


# --- reading a collector -------------------------------------------------------------

def snapshot(Table table not None, tuple buckets, instance_id, bint reset, /):
    """
    Everything, at one instant; with `reset`, moved out instead of copied.

    Args:
        table: The collector.
        buckets: Its bucket bounds in seconds.
        instance_id: Its identity in this process.
        reset: Whether to begin anew.

    Returns:
        `Snapshot`.

    Raises:
        MemoryError: No room for the copy; with `reset`, nothing was cleared.
    """
    cdef Copy copy = Copy(table, buckets)
    cdef uint64_t generation
    cdef dict _owner        # keeps alive what the table points to
    cdef int status = OUTDATED
    while status == OUTDATED:
        with cython.critical_section(table):
            table.restart()
            _owner = table.slots
            generation = table.generation
        with nogil:
            status = copy_all(table.c, reset, generation, &copy.c)
    if status == NO_MEMORY:
        raise MemoryError(f"no memory for a snapshot of {copy.c.room} bytes")
    if reset:
        with cython.critical_section(table):
            table.restart()
    return assembled(copy, table.names, instance_id)


cdef object snapshot_of(
    om_copy *taken, list codes, tuple buckets, dict names, object instance_id
):
    """The snapshot of what was copied elsewhere, whose memory becomes its own."""
    cdef Copy copy = Copy.__new__(Copy, None, buckets)
    copy.c = taken[0]
    memset(taken, 0, sizeof(om_copy))
    copy.codes = codes
    return assembled(copy, names, instance_id)


cdef object assembled(Copy copy, dict names, object instance_id):
    """A snapshot whose models are made when they are first looked at."""
    cdef const om_totals *t = &copy.c.totals
    cdef Models models = Models.__new__(Models)
    models.copy = copy
    models.running = copy.running(names)
    return SNAPSHOT_PLAN.make(SNAPSHOT_PLAN.values(t.counters), (
        instance_id, time_of(t.start_wall_ns), time_of(copy.c.wall_ns), copy.uptime(),
        models, tasks_of(t), resources_of(t), invalid_of(t),
        copy.c.events_emitted, copy.c.events_dropped,
    ))


cdef object invalid_of(const om_totals *t):
    cdef int i
    cdef dict result = {}
    for i in range(INVALID_REASONS):
        if t.invalid[i]:
            result[INVALID[i]] = t.invalid[i]
    return ReadOnlyDict(result) if result else NO_ITEMS


def model_metrics(Table table not None, model, tuple buckets, /):
    """
    One model's metrics, at one instant of their own.

    Returns:
        `PerformanceMetrics`; `None` if nothing was recorded for it.

    Raises:
        TypeError: `model` is not a `str`.
        MemoryError: No room for the copy.
    """
    cdef om_record *records[MAX_RECORDS]
    cdef int n = 0
    cdef int status
    cdef Copy copy
    cdef Slot slot, call
    cdef list calls         # keeps the records alive
    slot = table.known_slot(model)
    if slot is None:
        slot = table.known_slot(model_name(model))
        if slot is None:
            return None
    copy = Copy(table, buckets)
    records[0] = slot.record
    n = 1
    calls = list(slot.calls.values()) if slot.calls else []
    for call in calls[:MAX_RECORDS - 1]:
        records[n] = call.record
        n += 1
    with nogil:
        status = copy_model(table.c, records, n, &copy.c)
    if status == NO_MEMORY:
        raise MemoryError(f"no memory for a copy of {copy.c.room} bytes")
    for metrics in copy.models(copy.running(table.names), None).values():
        return metrics
    return None


def task_statistics(Table table not None, /):
    """How tasks went."""
    cdef Copy copy = Copy(table, None)
    copy_totals(table.c, &copy.c)
    return tasks_of(&copy.c.totals)


def resource_metrics(Table table not None, /):
    """What the process used when that was last reported; `None` before."""
    cdef Copy copy = Copy(table, None)
    copy_totals(table.c, &copy.c)
    return resources_of(&copy.c.totals)
