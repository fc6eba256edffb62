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
from cpython.datetime cimport datetime_from_timestamp, import_datetime
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

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
from ometrics._table cimport Slot, Table, monotonic, precise_wall

cimport cython

from ometrics._table import INVALID, OVERFLOW

import_datetime()

cdef enum:
    HEADER = sizeof(om_record) - NAME_BYTES
    MAX_RECORDS = 64            # of one model: its own and those of its calls
    MAX_EMPTY = 64              # sets of buckets whose empty histograms are kept

cdef extern from "Python.h":
    PyObject **PySequence_Fast_ITEMS(list)
    object PyObject_Vectorcall(
        object callable, PyObject *const *args, size_t nargs, object keywords
    )

cdef dict EMPTY = {}            # buckets -> histograms of nothing

# Filled by load().
cdef object UTC = None
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


@cython.final
cdef class Plan:
    """
    The names under which an array of counters, of codes and of histograms becomes a
    read type, in the order of the places.

    Args:
        owner: The read type.
        n_counters: How many counters the core was compiled for.
        n_codes: How many mappings of codes.
        n_histograms: How many histograms.
        others: Fields that the caller gives, after these.

    Raises:
        ImportError: The declarations are not those that the core was compiled for.
    """
    cdef object owner
    cdef tuple keywords
    cdef int n_counters, n_codes, n_histograms
    cdef list known_by          # place of the counter that says if one is known, or -1
    cdef list of_tokens         # whether a histogram is one of tokens

    def __cinit__(self, owner, int n_counters, int n_codes, int n_histograms, others):
        from ometrics.fields import Counter, Counts, Histogram, fields_of, stored
        from ometrics.histogram import TokenHistogram
        counters = stored(owner, Counter)
        codes = stored(owner, Counts)
        histograms = stored(owner, Histogram)
        if (len(counters), len(codes), len(histograms)) != (
            n_counters, n_codes, n_histograms
        ):
            raise ImportError(
                f"{owner.__name__} has other fields than ometrics was compiled for:"
                " build it anew"
            )
        declared = {field.name: field for field in fields_of(owner)}
        self.owner = owner
        self.n_counters = n_counters
        self.n_codes = n_codes
        self.n_histograms = n_histograms
        self.keywords = (*counters, *codes, *histograms, *others)
        self.known_by = [
            counters.index(declared[name].known_by) if declared[name].known_by else -1
            for name in counters
        ]
        self.of_tokens = [
            declared[name].metric.unit == "{token}" for name in histograms
        ]

    cdef int add_counters(self, list values, const uint64_t *counters) except -1:
        cdef int i, known
        for i in range(self.n_counters):
            known = self.known_by[i]
            values.append(None if known >= 0 and counters[known] == 0 else counters[i])
        return 0

    cdef object make(self, list values):
        """The read type of values in the order of the keywords."""
        return PyObject_Vectorcall(
            self.owner, PySequence_Fast_ITEMS(values), 0, self.keywords
        )


cdef int load() except -1:
    """Import the read types."""
    global UTC, LatencyHistogram, TokenHistogram, ReadOnlyDict, NO_ITEMS
    global ResourceMetrics, TOKEN_SECONDS, OPERATIONS, OLLAMA
    global MODEL_PLAN, CALL_PLAN, TASK_PLAN, SNAPSHOT_PLAN
    from datetime import timezone

    from ometrics import fields, histogram, models, snapshot

    UTC = timezone.utc
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
        ("operation", "provider", "in_flight", "oldest_in_flight_seconds"),
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

    def __cinit__(self, Table table, tuple buckets):
        if SNAPSHOT_PLAN is None:
            load()
        memset(&self.c, 0, sizeof(self.c))
        self.buckets = buckets
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
        """Name -> key of operation and provider -> `[calls, age of the oldest]`."""
        cdef dict result = {}
        cdef uint32_t i
        for i in range(self.c.n_calls):     # oldest first
            call = &self.c.calls[i]
            keys = result.setdefault(names.get(call.name_id, OVERFLOW), {})
            key = call.provider * (MAX_OPERATIONS + 1) + call.operation
            entry = keys.setdefault(key, [0, None])
            entry[0] += 1
            if entry[1] is None:
                entry[1] = max(self.c.monotonic_ns - call.start_ns, 0) / 1e9
        return result

    cdef object codes_of(self, const om_codes *codes):
        cdef uint32_t i
        cdef dict result
        if codes.n == 0 and codes.counts[MAX_CODES] == 0:
            return NO_ITEMS
        result = {}
        for i in range(codes.n):
            result[self.codes[codes.ids[i]]] = codes.counts[i]
        if codes.counts[MAX_CODES]:
            result["_OTHER"] = codes.counts[MAX_CODES]
        return ReadOnlyDict(result)

    cdef int add_histograms(
        self, list values, Plan plan, const char *data, size_t *at
    ) except -1:
        cdef om_packed_histogram h
        cdef Py_ssize_t size
        cdef int i
        cdef bint tokens
        cdef tuple empty = empty_histograms(self.buckets)
        for i in range(plan.n_histograms):
            memcpy(&h, data + at[0], sizeof(h))
            at[0] += sizeof(h)
            size = h.n_cells * sizeof(uint64_t)
            tokens = plan.of_tokens[i]
            if size == 0:
                values.append(empty[tokens])
                continue
            cells = PyBytes_FromStringAndSize(data + at[0], size)
            at[0] += size
            if tokens:
                values.append(TokenHistogram(
                    bucket_bounds=self.buckets,
                    total=h.h.sum_ns,
                    min=h.h.min / TOKEN_SECONDS,
                    max=h.h.max / TOKEN_SECONDS,
                    first_cell=h.first,
                    cells=cells,
                ))
            else:
                values.append(LatencyHistogram(
                    bucket_bounds=self.buckets,
                    sum_ns=h.h.sum_ns,
                    min=h.h.min,
                    max=h.h.max,
                    first_cell=h.first,
                    cells=cells,
                ))
        return 0

    cdef dict models(self, dict running):
        """The models, by order of first record, with their calls in place."""
        cdef size_t at = 0
        cdef om_record r
        cdef uint32_t last = 0
        cdef bint ordered = True
        cdef list models = []       # (order, name, values of the plan)
        cdef dict calls = {}        # name -> operation -> values of the plan
        cdef double uptime = self.uptime()
        cdef dict result = {}
        cdef Plan plan
        cdef int i
        while at < self.c.used:
            memcpy(&r, self.c.packed + at, HEADER)
            at += HEADER
            name = PyUnicode_DecodeUTF8(self.c.packed + at, r.name_length, NULL)
            at = (at + <size_t> r.name_length + 7) & ~(<size_t> 7)
            plan = MODEL_PLAN if r.operation == NOT_A_CALL else CALL_PLAN
            values = []
            plan.add_counters(values, r.counters)
            for i in range(plan.n_codes):
                values.append(self.codes_of(&r.codes[i]))
            self.add_histograms(values, plan, self.c.packed, &at)
            if r.operation == NOT_A_CALL:
                ordered = ordered and r.order >= last
                last = r.order
                values += (name, time_of(r.updated_ns), uptime)
                models.append((r.order, name, values))
            else:
                key = r.provider * (MAX_OPERATIONS + 1) + r.operation
                calls.setdefault(name, {})[key] = values
        if not ordered:     # recorders came to their models before the snapshot did
            models.sort(key=itemgetter(0))
        for _, name, values in models:
            values.append(self.calls_of(calls.get(name), running.get(name)))
            result[name] = MODEL_PLAN.make(values)
        for name, keys in running.items():
            if name not in result:      # running, and nothing recorded yet
                values = self.nothing(MODEL_PLAN)
                values += (name, None, uptime, self.calls_of(None, keys))
                result[name] = MODEL_PLAN.make(values)
        return result

    cdef list nothing(self, Plan plan):
        """The values of a record that counted nothing."""
        cdef om_record r
        cdef list values = []
        cdef int i
        memset(&r, 0, HEADER)
        plan.add_counters(values, r.counters)
        values += [NO_ITEMS] * plan.n_codes
        empty = empty_histograms(self.buckets)
        for i in range(plan.n_histograms):
            values.append(empty[bool(plan.of_tokens[i])])
        return values

    cdef object calls_of(self, dict finished, dict running):
        """The calls of one model: those that finished, and those that run."""
        cdef dict result = {}
        if finished is None and running is None:
            return NO_ITEMS
        finished = finished or {}
        running = running or {}
        for key in {**finished, **running}:
            values = finished.get(key)
            if values is None:
                values = self.nothing(CALL_PLAN)
            operation = OPERATIONS[key % (MAX_OPERATIONS + 1) - 1]
            provider = self.codes[key // (MAX_OPERATIONS + 1)]
            values += (operation, provider, *running.get(key, (0, None)))
            name = operation if provider == OLLAMA else f"{operation}@{provider}"
            result[name] = CALL_PLAN.make(values)
        return ReadOnlyDict(result)


cdef tuple empty_histograms(tuple buckets):
    """Of latencies and of tokens: all histograms of nothing are the same two."""
    pair = EMPTY.get(buckets)
    if pair is None:
        if len(EMPTY) >= MAX_EMPTY:
            EMPTY.clear()
        pair = EMPTY[buckets] = (
            LatencyHistogram(bucket_bounds=buckets),
            TokenHistogram(bucket_bounds=buckets),
        )
    return pair


cdef object time_of(int64_t ns):
    """UTC to the microsecond; None for never."""
    if ns == OM_NEVER:
        return None
    return datetime_from_timestamp(ns // 1000 / 1e6, tz=UTC)


cdef object tasks_of(const om_totals *t):
    cdef list values = []
    TASK_PLAN.add_counters(values, t.tasks)
    if t.task_min_ms <= t.task_max_ms:
        values += (t.task_min_ms, t.task_max_ms)
    else:
        values += (None, None)
    values.append(time_of(t.task_updated_ns))
    return TASK_PLAN.make(values)


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
            self.made = self.copy.models(self.running)
        return self.made

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
    cdef list values = []
    models.copy = copy
    models.running = copy.running(names)
    SNAPSHOT_PLAN.add_counters(values, t.counters)
    values += (
        instance_id, time_of(t.start_wall_ns), time_of(copy.c.wall_ns), copy.uptime(),
        models, tasks_of(t), resources_of(t), invalid_of(t),
        copy.c.events_emitted, copy.c.events_dropped,
    )
    return SNAPSHOT_PLAN.make(values)


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
    for metrics in copy.models(copy.running(table.names)).values():
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
