# SPDX-License-Identifier: MIT
"""The recording core: the hot path as Python sees it.

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
instant. Each record carries the epoch in which it was last copied or changed. The
snapshot then visits the records one by one, each under the mutex for a microsecond; a
recorder that comes to a record not yet copied first copies it for the snapshot
(`locked_make_current`), then changes it. The price on the hot path is one comparison,
which also notices that a record is no longer in the table: removed, cleared by a reset,
or the parent's after a fork. (Rejected: two halves that writers switch between, as in
client_golang: a writer that a fork cuts off in the old half is waited for in the child
for ever.)

Lock order: `copying` (see _copy.pxd), then `lock`. The GIL is never waited for while
holding either, so a daemon thread that is stopped at exit takes neither with it.
Without a GIL, look-ups also use CPython's critical sections, and those a thread that is
stopped may keep: there, a finalizer that runs after `atexit` may hang if such threads
record.
"""

from cpython.datetime cimport timedelta
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint64_t

from ometrics._arguments cimport number_of
from ometrics._events cimport EVENT_TASK, locked_emit, locked_emit_resources
from ometrics._fields cimport (
    SNAPSHOT_SATURATED,
    TASK_COMPLETED_TASKS,
    TASK_DURATION_UNKNOWN,
    TASK_FAILED_TASKS,
    TASK_SUM_NS,
)
from ometrics._journal cimport keep, keep_all
from ometrics._record cimport locked_add_seconds, locked_count
from ometrics._recorders cimport ModelRecorder, Timer
from ometrics._recording cimport add_batch, add_error, add_latency, add_tokens
from ometrics._state cimport (
    INFINITE,
    VALID,
    commit,
    om_core,
    om_mutex_acquire,
    om_totals,
    reason_of,
)
from ometrics._table cimport wall


cdef class Core(Table):
    """
    Counters of one collector. `MetricsCollector` is its public face.

    Thread-safety:
        Every method may be called from any thread, signal handler or finalizer.
    """

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

    def record_error(self, model, error, /, latency=None):
        """
        Count one failed request.

        Args:
            model: Name of the model.
            error: An exception, its class, or a code. `OllamaError` counts under its
                code, any other exception under its class name, never its message.
            latency: How long it took to fail, as of `record_latency`; `None` if that is
                unknown. It is kept apart from the latencies of successes.

        Raises:
            TypeError: `model` is not a `str`, `error` none of these, or `latency` not a
                number; nothing counts.

        Thread-safety:
            Safe from any thread, signal handler or finalizer.
        """
        add_error(self, model, None, error, latency)

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
        cdef om_totals *t
        if c.unplaced:
            self.place()
        om_mutex_acquire(&c.lock)
        t = c.totals
        task = TASK_COMPLETED_TASKS if completed else TASK_FAILED_TASKS
        locked_count(&t.tasks[task], c.journal)
        t.task_updated_ns = now
        if reason == VALID:
            locked_add_seconds(
                &t.tasks[TASK_SUM_NS], ms / 1e3, &t.counters[SNAPSHOT_SATURATED],
                c.journal,
            )
            if ms < t.task_min_ms:
                keep(c.journal, &t.task_min_ms)
                t.task_min_ms = ms
            if ms > t.task_max_ms:
                keep(c.journal, &t.task_max_ms)
                t.task_max_ms = ms
        else:
            locked_count(&t.tasks[TASK_DURATION_UNKNOWN], c.journal)
            locked_count(&t.invalid[reason], c.journal)
        locked_emit(
            &c.ring, EVENT_TASK, completed, 0, ms if reason == VALID else NAN, now
        )
        commit(c)
        if reason != VALID:
            self.reject(None, f"task duration {ms} ms", reason)

    def update_resource_metrics(self, memory_mb, cpu_percent, goroutine_count, /):
        """
        Say what the process uses now.

        Args:
            memory_mb: Memory in MB.
            cpu_percent: CPU in percent of one core.
            goroutine_count: Concurrent units of work: threads and asyncio tasks.

        Raises:
            TypeError: An argument is not a number.

        A NaN, infinite or negative argument counts in `invalid_values`, and what was
        known before stays.

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
        if c.unplaced:
            self.place()
        om_mutex_acquire(&c.lock)
        if reason == VALID:
            keep_all(c.journal, &c.totals.memory_mb, 4 * sizeof(uint64_t))
            c.totals.memory_mb = memory
            c.totals.cpu_percent = cpu
            c.totals.goroutines = <int64_t> units
            c.totals.resources_ns = now
            locked_emit_resources(&c.ring, memory, cpu, <int64_t> units, now)
        else:
            locked_count(&c.totals.invalid[reason], c.journal)
        commit(c)
        if reason != VALID:
            self.reject(
                None, f"one of memory {memory} MB, CPU {cpu} %, {units} units", reason
            )

    def remove_model(self, name, /):
        """
        Forget a model: its counts, and those of its calls, are gone.

        Returns:
            Whether something was recorded for it.

        Raises:
            TypeError: `name` is not a `str`.
        """
        return self.remove(name)

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
