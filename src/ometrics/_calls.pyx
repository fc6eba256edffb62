# SPDX-License-Identifier: MIT
"""The life of one call: from request to last chunk, recorded exactly once.

Compiled because a stream calls it for every chunk. A call in flight is listed in the
core; its end, whatever way it comes, is one critical section that counts it in the
model's record and in the record of the model's operation. Times between chunks wait in
the call and are added 64 at a time, so a stream of any length takes the same memory.
"""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from libc.math cimport NAN
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ometrics._buckets cimport cell_of
from ometrics._core cimport *
from ometrics._events cimport EVENT_ERROR, EVENT_LATENCY, locked_emit
from ometrics._histogram cimport Layout
from ometrics._record cimport *
from ometrics._state cimport *

cimport cython

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1

SUCCESS, FAILURE, CANCELLED = 0, 1, 2

# 73 years of nanoseconds: so that sums of a few such numbers fit 64 bits.
cdef int64_t TOO_LARGE = 1 << 61

cdef enum:
    ENDED_WELL
    ENDED_BADLY
    GIVEN_UP
    PENDING = 64                # times between chunks that wait in a call
    UNKNOWN = -1

cdef enum:                      # in the order of `snapshot.CALL_HISTOGRAMS`
    LATENCY
    FIRST_CHUNK
    FIRST_ANSWER
    PER_CHUNK
    LOAD
    PREFILL
    DECODE
    RESIDUAL
    NETWORK

cdef dict OPERATION_NUMBERS = {"chat": 1, "text_completion": 2, "embeddings": 3}

# What the server told of one call: nanoseconds and tokens, UNKNOWN where it did not.
cdef struct om_told:
    int64_t total
    int64_t load
    int64_t prefill
    int64_t decode
    int64_t prompt_tokens
    int64_t cached_tokens
    int64_t completion_tokens

# Everything that the end of a call adds, gathered before the mutex is taken.
cdef struct om_ending:
    int outcome
    uint32_t code
    uint32_t reason             # done_reason; 0: none
    bint has_reason
    int impossible              # server times that contradict each other
    int64_t wall_ns
    int64_t ns[CALL_HISTOGRAMS]     # UNKNOWN: nothing to add
    om_told told

cdef int64_t told(object value) except? -2:
    """A number that a server sent; what is not a sensible one is unknown."""
    cdef int overflow = 0
    cdef long long number
    if value is None:
        return UNKNOWN
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return number if overflow == 0 and 0 <= number < TOO_LARGE else UNKNOWN
    if PyFloat_CheckExact(value) and 0.0 <= PyFloat_AS_DOUBLE(value) < TOO_LARGE:
        return <int64_t> PyFloat_AS_DOUBLE(value)
    return UNKNOWN

cdef inline void locked_add_ns(
    om_core *c, om_record *record, int which, int64_t ns
) noexcept nogil:
    """Add one duration; the sum keeps the exact nanoseconds."""
    cdef om_histogram *h = histogram_at(c.layout, record, which)
    cdef double seconds = ns / 1e9
    cells_at(h)[cell_of(c.layout, seconds)] += 1
    locked_add(&h.sum_ns, <uint64_t> ns, &c.totals.saturated)
    if seconds < h.min:
        h.min = seconds
    if seconds > h.max:
        h.max = seconds

cdef void locked_end(
    om_core *c, om_record *model, om_record *call, om_ending *e
) noexcept nogil:
    """Count the end of a call in both records."""
    cdef int i
    cdef om_told *t = &e.told
    cdef uint64_t *saturated = &c.totals.saturated
    c.totals.invalid[NEGATIVE] += e.impossible
    model.updated_ns = e.wall_ns
    call.updated_ns = e.wall_ns
    if e.outcome == ENDED_WELL:
        model.successes += 1
        call.successes += 1
        if e.ns[LATENCY] == UNKNOWN:
            model.latency_unknown += 1
            locked_emit(&c.ring, EVENT_LATENCY, 1, model.name_id, NAN, e.wall_ns)
        else:
            locked_add_ns(c, model, LATENCY, e.ns[LATENCY])
            locked_emit(
                &c.ring, EVENT_LATENCY, 1, model.name_id, e.ns[LATENCY] / 1e9, e.wall_ns
            )
    elif e.outcome == ENDED_BADLY:
        model.failures += 1
        call.failures += 1
        locked_add_code(&model.errors, e.code)
        locked_add_code(&call.errors, e.code)
        locked_emit(&c.ring, EVENT_ERROR, 0, model.name_id, e.code, e.wall_ns)
    else:
        model.cancelled += 1
        call.cancelled += 1
    for i in range(CALL_HISTOGRAMS):
        if e.ns[i] != UNKNOWN:
            locked_add_ns(c, call, i, e.ns[i])
    if e.has_reason:
        locked_add_code(&call.done_reasons, e.reason)
    if t.prompt_tokens != UNKNOWN:
        call.told |= TOLD_PROMPT
        locked_add(&call.prompt_tokens, t.prompt_tokens, saturated)
        locked_add(&model.tokens, t.prompt_tokens, saturated)
    if t.cached_tokens != UNKNOWN:
        call.told |= TOLD_CACHED
        locked_add(&call.cached_tokens, t.cached_tokens, saturated)
    if t.completion_tokens != UNKNOWN:
        call.told |= TOLD_COMPLETION
        locked_add(&call.completion_tokens, t.completion_tokens, saturated)
        locked_add(&model.tokens, t.completion_tokens, saturated)
        if t.decode > 0:
            locked_add(&call.decode_tokens, t.completion_tokens, saturated)
            locked_add(&call.decode_ns, t.decode, saturated)
    # The prefill duration covers the uncached tokens only, so without a told cache
    # share there is no honest rate.
    if (
        t.prompt_tokens != UNKNOWN
        and t.cached_tokens != UNKNOWN
        and t.prefill > 0
        and t.prompt_tokens > t.cached_tokens
    ):
        locked_add(
            &call.prefill_tokens, t.prompt_tokens - t.cached_tokens, saturated
        )
        locked_add(&call.prefill_ns, t.prefill, saturated)

cdef int operation_number(object operation) except -1:
    number = OPERATION_NUMBERS.get(operation)
    if number is None:
        raise ValueError(
            f"operation {operation!r} is none of {', '.join(OPERATION_NUMBERS)}"
        )
    return number

cdef void split(om_ending *e) noexcept:
    """Server times of a call that told a total; notes how many were impossible."""
    cdef om_told *t = &e.told
    cdef int64_t rest
    e.ns[LOAD] = t.load
    e.ns[PREFILL] = t.prefill
    e.ns[DECODE] = t.decode
    if t.total == UNKNOWN:
        return
    # What was not told apart stays in the residual, so the parts always add up.
    rest = t.total - max(t.load, 0) - max(t.prefill, 0) - max(t.decode, 0)
    if rest >= 0:
        e.ns[RESIDUAL] = rest
    else:
        e.impossible += 1
    if e.ns[LATENCY] != UNKNOWN:
        if e.ns[LATENCY] >= t.total:
            e.ns[NETWORK] = e.ns[LATENCY] - t.total
        else:
            e.impossible += 1

cdef int fill_ending(
    Core core, om_ending *e, int outcome, object error,
    object total, object load, object prefill, object decode,
    object prompt_tokens, object cached_tokens, object completion_tokens,
    object done_reason,
) except -1:
    cdef int i
    for i in range(CALL_HISTOGRAMS):
        e.ns[i] = UNKNOWN
    if not ENDED_WELL <= outcome <= GIVEN_UP:
        raise ValueError(f"outcome {outcome} is none of 0, 1, 2")
    e.outcome = outcome
    e.impossible = 0
    e.code = core.code_id(error) if outcome == ENDED_BADLY else 0
    e.has_reason = isinstance(done_reason, str) and done_reason != ""
    e.reason = core.code_id(done_reason) if e.has_reason else 0
    e.told.total = told(total)
    e.told.load = told(load)
    e.told.prefill = told(prefill)
    e.told.decode = told(decode)
    e.told.prompt_tokens = told(prompt_tokens)
    e.told.cached_tokens = told(cached_tokens)
    e.told.completion_tokens = told(completion_tokens)
    e.wall_ns = wall(core)
    return 0


@cython.final
@cython.no_gc_clear     # __dealloc__ still needs the core
@cython.freelist(64)
cdef class Call:
    """
    One call to a model, from its start to its one end.

    Args:
        core: The collector.
        model: Name of the model.
        operation: `chat`, `text_completion` or `embeddings`.

    Raises:
        TypeError: `model` is not a `str`.
        ValueError: The operation is unknown.

    A call that is dropped without `end()` counts as cancelled. A forked child inherits
    no calls: those that run are the parent's, and ending one in the child does nothing.

    Thread-safety:
        One thread at a time; the core may be used by all others meanwhile.
    """
    cdef Core core
    cdef Layout layout      # outlives the core's own reference in a garbage collection
    cdef Slot slot
    cdef Slot call_slot
    cdef readonly object model
    cdef int operation
    cdef om_call node
    cdef uint64_t forks
    cdef readonly bint ended
    cdef int64_t first_ns           # since start; UNKNOWN before
    cdef int64_t first_answer_ns
    cdef int64_t last_ns
    cdef int n_pending
    cdef int64_t pending[PENDING]

    def __cinit__(self, Core core not None, model, operation):
        cdef om_core *c = core.c
        self.ended = True       # until it is listed, what fails here is no call
        self.operation = operation_number(operation)
        self.core = core
        self.model = model
        self.slot = slot_of(core, model)
        self.call_slot = core.call_slot(self.slot, self.operation)
        self.first_ns = UNKNOWN
        self.first_answer_ns = UNKNOWN
        self.n_pending = 0
        self.forks = c.forks
        self.layout = core.layout
        self.node.name_id = self.slot.record.name_id
        self.node.operation = self.operation
        self.node.start_ns = monotonic(core)
        om_mutex_acquire(&c.lock)
        locked_list(c, &self.node)
        om_mutex_release(&c.lock)
        self.ended = False

    def __dealloc__(self):
        # The last resort; whoever instruments a client ends its calls. A record that
        # has become stale meanwhile is let go: nothing may be looked up from here.
        cdef om_core *c
        cdef om_ending e
        cdef int i
        if self.core is None or self.ended or self.forks != self.core.c.forks:
            return
        c = self.core.c
        for i in range(CALL_HISTOGRAMS):
            e.ns[i] = UNKNOWN
        set_untold(&e.told)
        e.outcome = GIVEN_UP
        e.has_reason = False
        e.impossible = 0
        e.ns[FIRST_CHUNK] = self.first_ns
        e.ns[FIRST_ANSWER] = self.first_answer_ns
        e.wall_ns = om_wall_ns()
        om_mutex_acquire(&c.lock)
        if self.node.listed:
            locked_unlist(c, &self.node)
        if self.locked_settle_both() == SETTLED:
            self.locked_flush()
            locked_end(c, self.slot.record, self.call_slot.record, &e)
        else:
            c.totals.internal_errors += 1
        om_mutex_release(&c.lock)

    def __reduce__(self):
        return self.core.__reduce__()

    cdef int locked_settle_both(self) noexcept nogil:
        cdef om_core *c = self.core.c
        cdef om_record *record = self.slot.record
        cdef int status = SETTLED
        if record.epoch != c.epoch:
            status = locked_settle(c, record)
        record = self.call_slot.record
        if status == SETTLED and record.epoch != c.epoch:
            status = locked_settle(c, record)
        return status

    cdef int renew(self, int status) except -1:
        """After `locked_settle_both` refused: other records, or room for these."""
        if status == FULL:
            self.core.grow()
        else:
            self.slot = self.core.renew(self.model, self.slot.record)
            self.call_slot = self.core.call_slot(self.slot, self.operation)
        return 0

    cdef void locked_flush(self) noexcept nogil:
        cdef int i
        for i in range(self.n_pending):
            locked_add_ns(
                self.core.c, self.call_slot.record, PER_CHUNK, self.pending[i]
            )
        self.n_pending = 0

    cdef int add(self, om_ending *e) except -1:
        """Count the times between chunks that wait here; and the end, if it is one."""
        cdef om_core *c = self.core.c
        cdef int status
        om_mutex_acquire(&c.lock)
        status = self.locked_settle_both()
        while status != SETTLED:
            om_mutex_release(&c.lock)
            self.renew(status)
            om_mutex_acquire(&c.lock)
            status = self.locked_settle_both()
        self.locked_flush()
        if e != NULL:
            locked_end(c, self.slot.record, self.call_slot.record, e)
            if self.node.listed:
                locked_unlist(c, &self.node)
        om_mutex_release(&c.lock)
        return 0

    def chunk(self, bint answer, /):
        """
        One chunk with output has arrived.

        Args:
            answer: Whether it is part of the answer; `False` for thinking.
        """
        cdef int64_t now
        if self.ended or self.forks != self.core.c.forks:
            return
        now = monotonic(self.core) - self.node.start_ns
        if self.first_ns == UNKNOWN:
            self.first_ns = max(now, 0)
        else:
            if self.n_pending == PENDING:
                self.add(NULL)
            self.pending[self.n_pending] = max(now - self.last_ns, 0)
            self.n_pending += 1
        self.last_ns = now
        if answer and self.first_answer_ns == UNKNOWN:
            self.first_answer_ns = max(now, 0)

    def discard(self):
        """This was no request after all (the answer to `load` or `unload`)."""
        cdef om_core *c = self.core.c
        if self.ended or self.forks != c.forks:
            return
        self.ended = True
        om_mutex_acquire(&c.lock)
        locked_unlist(c, &self.node)
        om_mutex_release(&c.lock)

    def end(
        self, int outcome, error, total, load, prefill, decode,
        prompt_tokens, cached_tokens, completion_tokens, done_reason, /,
    ):
        """
        The call is over. Only the first end counts.

        Args:
            outcome: `SUCCESS`, `FAILURE` or `CANCELLED`.
            error: Of a failure: an exception, its class, or a code.
            total: The server's total duration in nanoseconds; `None` where it told
                none, and so for all that follow.
            load: Waiting for a slot and loading.
            prefill: Evaluating the prompt.
            decode: Generating.
            prompt_tokens: Cached ones included.
            cached_tokens: Part of these that came from the cache.
            completion_tokens: Thinking included.
            done_reason: As the server sent it.

        Returns:
            Whether this was the first end.

        Raises:
            ValueError: The outcome is unknown.
            TypeError: `error` is not an error.
        """
        cdef om_ending e
        cdef om_core *c = self.core.c
        cdef int64_t now = monotonic(self.core)
        if self.ended or self.forks != c.forks:
            return False
        fill_ending(
            self.core, &e, outcome, error, total, load, prefill, decode,
            prompt_tokens, cached_tokens, completion_tokens, done_reason,
        )
        if outcome == ENDED_WELL:
            e.ns[LATENCY] = max(now - self.node.start_ns, 0)
        e.ns[FIRST_CHUNK] = self.first_ns
        e.ns[FIRST_ANSWER] = self.first_answer_ns
        split(&e)
        self.finish(&e)
        return True

    cdef int finish(self, om_ending *e) except -1:
        self.add(e)
        self.ended = True
        if e.impossible:
            self.core.reject(self.model, NEGATIVE)
        return 0


cdef void set_untold(om_told *t) noexcept nogil:
    t.total = t.load = t.prefill = t.decode = UNKNOWN
    t.prompt_tokens = t.cached_tokens = t.completion_tokens = UNKNOWN


def record_call(
    Core core not None, model, operation, latency, total, load, prefill, decode,
    prompt_tokens, cached_tokens, completion_tokens, done_reason, /,
):
    """
    Count a call that succeeded and that somebody else has timed.

    Args:
        core: The collector.
        model: Name of the model.
        operation: `chat`, `text_completion` or `embeddings`.
        latency: Seconds from call to last byte; one that is not a number or negative is
            counted by reason. `None`: what the server told as its total, and the
            network's share stays unknown.
        total: As in `Call.end`, and so what follows.

    Raises:
        TypeError: `model` is not a `str` or `latency` no number; nothing is counted.
        ValueError: The operation is unknown.
    """
    cdef om_ending e
    cdef om_core *c = core.c
    cdef double seconds = 0.0 if latency is None else latency
    cdef int reason = reason_of(seconds)
    cdef Call call = Call(core, model, operation)
    fill_ending(
        core, &e, ENDED_WELL, None, total, load, prefill, decode,
        prompt_tokens, cached_tokens, completion_tokens, done_reason,
    )
    if latency is not None and reason == VALID:
        e.ns[LATENCY] = <int64_t> min(seconds * 1e9, <double> TOO_LARGE)
    split(&e)
    if latency is None:
        e.ns[LATENCY] = e.told.total
    call.finish(&e)
    if reason != VALID:
        om_mutex_acquire(&c.lock)
        c.totals.invalid[reason] += 1
        om_mutex_release(&c.lock)
        core.reject(model, reason)
