# SPDX-License-Identifier: MIT
"""Recorders that are bound to one model: `ModelRecorder`, and `Timer` for a block."""

from ometrics._arguments cimport model_name
from ometrics._recording cimport add_batch, add_error, add_latency, add_tokens
from ometrics._state cimport om_load
from ometrics._table cimport Slot, Table, monotonic

cimport cython


@cython.final
cdef class ModelRecorder:
    """
    Records for one model; made by `MetricsCollector.model(name)`.

    Thread-safety:
        Like the collector's methods.
    """
    def __cinit__(self, Table table not None, name):
        model_name(name)
        self.table = table
        self.name = name

    def __reduce__(self):
        return self.table.__reduce__()

    def __copy__(self):
        return self.table.__reduce__()

    def __deepcopy__(self, memo):
        return self.table.__reduce__()

    def __repr__(self):
        return f"<ModelRecorder {self.name!r}>"

    cdef inline Slot current(self):
        """The slot, or None: before the first record, for a name that is not kept as it
        stands, and after a reset, removal or fork has made the old one stale."""
        with cython.critical_section(self):
            if (
                self.slot is None
                or om_load(&self.slot.record.generation)
                != om_load(&self.table.c.generation)
            ):
                self.slot = self.table.known_slot(self.name)
            return self.slot

    def record_latency(self, latency, /):
        """Count one successful request; see `MetricsCollector.record_latency`."""
        add_latency(self.table, self.name, self.current(), latency)

    def record_latencies(self, values, /):
        """Count a batch; see `MetricsCollector.record_latencies`."""
        add_batch(self.table, self.name, self.current(), values)

    def record_error(self, error, /, latency=None):
        """Count one failed request; see `MetricsCollector.record_error`."""
        add_error(self.table, self.name, self.current(), error, latency)

    def record_tokens(self, token_count, /):
        """Add tokens; see `MetricsCollector.record_tokens`."""
        add_tokens(self.table, self.name, self.current(), token_count)

    def time(self):
        """Time a block or a function; see `MetricsCollector.time`."""
        return Timer(self.table, self.name)


@cython.final
@cython.freelist(64)
cdef class Timer:
    """
    One timed block of a model; made by `time()`.

    Thread-safety:
        One block at a time; as a decorator, each call gets a timer of its own.
    """
    def __cinit__(self, Table table not None, name):
        if not isinstance(name, str):
            model_name(name)
        self.table = table
        self.name = name

    def __reduce__(self):
        return self.table.__reduce__()

    def __enter__(self):
        self.start_ns = monotonic(self.table)
        return self

    def __exit__(self, kind, error, trace):
        cdef double elapsed = (monotonic(self.table) - self.start_ns) / 1e9
        if kind is None:
            add_latency(self.table, self.name, None, elapsed)
        else:
            error = kind if error is None else error
            add_error(self.table, self.name, None, error, elapsed)
        return False

    async def __aenter__(self):
        return self.__enter__()

    async def __aexit__(self, kind, error, trace):
        return self.__exit__(kind, error, trace)

    def __call__(self, function, /):
        """Decorate a function, coroutine function or generator function."""
        from ometrics.timing import timed
        return timed(function, self.table, self.name)
