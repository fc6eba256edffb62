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

from ometrics._arguments cimport seconds_of
from ometrics._buckets cimport cell_of
from ometrics._events cimport EVENT_ERROR, EVENT_LATENCY, locked_emit
from ometrics._fields cimport *
from ometrics._histogram cimport Layout
from ometrics._journal cimport keep, om_journal
from ometrics._record cimport (
    TOKEN_SECONDS,
    cells_at,
    histogram_at,
    locked_add_code,
    locked_add_kept,
    locked_count,
    locked_widen_range,
    om_histogram,
    om_record,
)
from ometrics._state cimport (
    CURRENT,
    FULL,
    NEGATIVE,
    VALID,
    commit,
    locked_list,
    locked_make_current,
    locked_show,
    locked_unlist,
    om_call,
    om_core,
    om_monotonic_ns,
    om_mutex_acquire,
    om_mutex_release,
    om_published,
    om_running,
    om_store,
    om_wall_ns,
    reason_of,
)
from ometrics._table cimport Slot, Table, monotonic, slot_of, wall

cimport cython

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1

# 73 years of nanoseconds: so that sums of a few such numbers fit 64 bits.
cdef int64_t TOO_LARGE = 1 << 61

cdef enum:
    SUCCESS
    FAILURE
    CANCELLED
    PENDING = 64                # times between chunks that wait in a call
    UNKNOWN = -1

cdef str OLLAMA = "ollama"
cdef dict OUTCOMES = {"success": SUCCESS, "failure": FAILURE, "cancelled": CANCELLED}
cdef dict OPERATION_NUMBERS = {"chat": 1, "text_completion": 2, "embeddings": 3}

# What is known of one call beside its own clock: nanoseconds and tokens, or UNKNOWN.
cdef struct om_answer:
    int64_t connect             # what the client needed before it could ask
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
    uint32_t done_reason
    bint has_done_reason
    int is_retry                # or UNKNOWN
    int impossible              # server times that contradict each other
    int64_t wall_ns
    int64_t elapsed             # from start to end, or UNKNOWN
    int64_t ns[CALL_HISTOGRAMS]     # UNKNOWN: nothing to add
    om_answer answer

cdef inline int64_t number_or_unknown(object value) except? -2:
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
    om_core *c, om_record *record, int which, int64_t ns, om_journal *journal
) noexcept nogil:
    """Add one duration; the sum keeps the exact nanoseconds."""
    locked_add_to(
        c, histogram_at(c.layout, record, which), ns / 1e9, ns, journal
    )

cdef inline void locked_add_tokens(
    om_core *c, om_record *record, int which, int64_t tokens,
    om_journal *journal,
) noexcept nogil:
    """Add the tokens of one call to their histogram; see `TokenHistogram`."""
    locked_add_to(
        c, histogram_at(c.layout, record, which), tokens * TOKEN_SECONDS, tokens,
        journal,
    )

cdef inline void locked_add_to(
    om_core *c, om_histogram *h, double seconds, int64_t amount, om_journal *journal
) noexcept nogil:
    cdef uint64_t *cell = &cells_at(h)[cell_of(c.layout, seconds)]
    keep(journal, cell, &h.sum_ns)
    cell[0] += 1
    locked_add_kept(
        &h.sum_ns, <uint64_t> amount, &c.totals.counters[SNAPSHOT_SATURATED]
    )
    locked_widen_range(h, seconds, seconds, journal)

cdef inline void locked_count_both(
    uint64_t *one, uint64_t *other, om_journal *journal
) noexcept nogil:
    keep(journal, one, other)
    one[0] += 1
    other[0] += 1

cdef inline void locked_end_noted(
    om_core *c, om_record *model, om_record *call, om_ending *e, om_journal *journal
) noexcept nogil:
    """Count the end of a call in both records."""
    cdef int i
    if e.impossible:
        keep(journal, &c.totals.invalid[NEGATIVE])
        c.totals.invalid[NEGATIVE] += e.impossible
    model.updated_ns = e.wall_ns
    call.updated_ns = e.wall_ns
    if e.outcome == SUCCESS:
        locked_count_both(
            &model.counters[MODEL_SUCCESSFUL_REQS],
            &call.counters[CALL_SUCCESSFUL_REQS], journal,
        )
        if e.elapsed == UNKNOWN:
            locked_count(&model.counters[MODEL_LATENCY_UNKNOWN], journal)
        else:
            locked_add_ns(c, model, MODEL_LATENCY_HIST, e.elapsed, journal)
        locked_emit(
            &c.ring, EVENT_LATENCY, 1, model.name_id,
            NAN if e.elapsed == UNKNOWN else e.elapsed / 1e9, e.wall_ns,
        )
    elif e.outcome == FAILURE:
        locked_count_both(
            &model.counters[MODEL_FAILED_REQS],
            &call.counters[CALL_FAILED_REQS], journal,
        )
        locked_add_code(&model.codes[MODEL_ERRORS], e.code, journal)
        locked_add_code(&call.codes[CALL_ERRORS], e.code, journal)
        if e.elapsed != UNKNOWN:
            locked_add_ns(c, model, MODEL_FAILED_LATENCY_HIST, e.elapsed, journal)
        locked_emit(&c.ring, EVENT_ERROR, 0, model.name_id, e.code, e.wall_ns)
    else:
        locked_count_both(
            &model.counters[MODEL_CANCELLED_REQS],
            &call.counters[CALL_CANCELLED_REQS], journal,
        )
    for i in range(CALL_HISTOGRAMS):
        if e.ns[i] != UNKNOWN:
            locked_add_ns(c, call, i, e.ns[i], journal)
    if e.has_done_reason:
        locked_add_code(&call.codes[CALL_DONE_REASONS], e.done_reason, journal)
    if e.is_retry != UNKNOWN:
        locked_count(&call.counters[CALL_RETRIES_KNOWN], journal)
        if e.is_retry:
            locked_count(&call.counters[CALL_RETRIES], journal)
    locked_end_tokens(c, model, call, &e.answer, journal)

cdef inline void locked_end_tokens(
    om_core *c, om_record *model, om_record *call, om_answer *a, om_journal *journal
) noexcept nogil:
    """Count the tokens of a call that ends, as far as they are known."""
    cdef uint64_t *counters = call.counters
    cdef uint64_t *all_tokens = &model.counters[MODEL_TOKENS_PROCESSED]
    cdef uint64_t *saturated = &c.totals.counters[SNAPSHOT_SATURATED]
    if a.prompt_tokens != UNKNOWN:
        keep(
            journal, &counters[CALL_PROMPT_TOKENS_KNOWN], &counters[CALL_PROMPT_TOKENS],
            all_tokens,
        )
        counters[CALL_PROMPT_TOKENS_KNOWN] += 1
        locked_add_kept(&counters[CALL_PROMPT_TOKENS], a.prompt_tokens, saturated)
        locked_add_kept(all_tokens, a.prompt_tokens, saturated)
        locked_add_tokens(c, call, CALL_PROMPT_TOKENS_HIST, a.prompt_tokens, journal)
    if a.cached_tokens != UNKNOWN:
        keep(
            journal, &counters[CALL_CACHED_TOKENS_KNOWN], &counters[CALL_CACHED_TOKENS]
        )
        counters[CALL_CACHED_TOKENS_KNOWN] += 1
        locked_add_kept(&counters[CALL_CACHED_TOKENS], a.cached_tokens, saturated)
    if a.completion_tokens != UNKNOWN:
        keep(
            journal, &counters[CALL_COMPLETION_TOKENS_KNOWN],
            &counters[CALL_COMPLETION_TOKENS], all_tokens,
        )
        counters[CALL_COMPLETION_TOKENS_KNOWN] += 1
        locked_add_kept(
            &counters[CALL_COMPLETION_TOKENS], a.completion_tokens, saturated
        )
        locked_add_kept(all_tokens, a.completion_tokens, saturated)
        locked_add_tokens(
            c, call, CALL_COMPLETION_TOKENS_HIST, a.completion_tokens, journal
        )
        if a.decode > 0:
            keep(journal, &counters[CALL_DECODE_TOKENS], &counters[CALL_DECODE_NS])
            locked_add_kept(
                &counters[CALL_DECODE_TOKENS], a.completion_tokens, saturated
            )
            locked_add_kept(&counters[CALL_DECODE_NS], a.decode, saturated)
    # The prefill duration covers the uncached tokens only, so without a known cache
    # share there is no honest rate.
    if (
        a.prompt_tokens != UNKNOWN
        and a.cached_tokens != UNKNOWN
        and a.prefill > 0
        and a.prompt_tokens > a.cached_tokens
    ):
        keep(journal, &counters[CALL_PREFILL_TOKENS], &counters[CALL_PREFILL_NS])
        locked_add_kept(
            &counters[CALL_PREFILL_TOKENS], a.prompt_tokens - a.cached_tokens, saturated
        )
        locked_add_kept(&counters[CALL_PREFILL_NS], a.prefill, saturated)

cdef void locked_end(
    om_core *c, om_record *model, om_record *call, om_ending *e
) noexcept nogil:
    """Count the end of a call in both records."""
    if c.journal == NULL:       # compiled twice: private memory asks only once
        locked_end_noted(c, model, call, e, NULL)
    else:
        locked_end_noted(c, model, call, e, &c.own_journal)

cdef int operation_number(object operation) except -1:
    number = OPERATION_NUMBERS.get(operation)
    if number is None:
        raise ValueError(
            f"operation {operation!r} is none of {', '.join(OPERATION_NUMBERS)}"
        )
    return number

cdef void split(om_ending *e) noexcept:
    """
    The phases of a call; notes how many of its server's times were impossible.

    Latency is connect, network and the server's total; the total is load, prefill,
    decode and residual. What was not given apart stays in the residual or the network,
    so the parts of a successful call always add up.
    """
    cdef om_answer *a = &e.answer
    cdef int64_t rest
    e.ns[CALL_CONNECT] = a.connect
    e.ns[CALL_LOAD] = a.load
    e.ns[CALL_PREFILL] = a.prefill
    e.ns[CALL_DECODE] = a.decode
    if a.total == UNKNOWN:
        return
    rest = a.total - max(a.load, 0) - max(a.prefill, 0) - max(a.decode, 0)
    if rest >= 0:
        e.ns[CALL_RESIDUAL] = rest
    else:
        e.impossible += 1
    if e.ns[CALL_LATENCY] != UNKNOWN:
        rest = e.ns[CALL_LATENCY] - a.total
        if rest < 0 or a.connect > e.ns[CALL_LATENCY]:
            e.impossible += 1
            return
        # A client may see its connection late, when the server's clock already runs
        # (httpx says so between the headers and the body): it was there by then.
        if a.connect > rest:
            e.ns[CALL_CONNECT] = rest
        e.ns[CALL_NETWORK] = rest - max(e.ns[CALL_CONNECT], 0)

cdef void begin_ending(om_ending *e, int outcome, int is_retry) noexcept nogil:
    """An end of which nothing is known but how it went, and what its start told."""
    cdef int i
    for i in range(CALL_HISTOGRAMS):
        e.ns[i] = UNKNOWN
    e.outcome = outcome
    e.code = 0
    e.done_reason = 0
    e.has_done_reason = False
    e.is_retry = is_retry
    e.impossible = 0
    e.elapsed = UNKNOWN
    e.answer.connect = UNKNOWN
    e.answer.total = e.answer.load = e.answer.prefill = e.answer.decode = UNKNOWN
    e.answer.prompt_tokens = e.answer.cached_tokens = UNKNOWN
    e.answer.completion_tokens = UNKNOWN

cdef int read_answer(
    Table table, om_ending *e, object connect,
    object total, object load, object prefill, object decode,
    object prompt_tokens, object cached_tokens, object completion_tokens,
    object done_reason,
) except -1:
    """Take over what the answer said, as far as it makes sense."""
    e.has_done_reason = isinstance(done_reason, str) and done_reason != ""
    e.done_reason = table.code_id(done_reason) if e.has_done_reason else 0
    e.answer.connect = number_or_unknown(connect)
    e.answer.total = number_or_unknown(total)
    e.answer.load = number_or_unknown(load)
    e.answer.prefill = number_or_unknown(prefill)
    e.answer.decode = number_or_unknown(decode)
    e.answer.prompt_tokens = number_or_unknown(prompt_tokens)
    e.answer.cached_tokens = number_or_unknown(cached_tokens)
    e.answer.completion_tokens = number_or_unknown(completion_tokens)
    e.wall_ns = wall(table)
    return 0

cdef void put_elapsed(om_ending *e, int64_t elapsed) noexcept nogil:
    """How long the call took, in the histogram of its outcome: a call that failed or
    was cancelled must not improve the latencies of those that succeeded."""
    e.elapsed = elapsed
    if e.outcome == SUCCESS:
        e.ns[CALL_LATENCY] = elapsed
    elif e.outcome == FAILURE:
        e.ns[CALL_FAILED_LATENCY] = elapsed
    else:
        e.ns[CALL_CANCELLED_LATENCY] = elapsed


@cython.final
@cython.no_gc_clear     # __dealloc__ still needs the table
@cython.freelist(64)
cdef class Call:
    """
    One call to a model, from its start to its one end; made by `start_call()`.

    Args:
        collector: Who counts it.
        model: Name of the model.
        operation: `chat`, `text_completion` or `embeddings`.
        provider: OpenTelemetry `gen_ai.provider.name` of the server.

    Raises:
        TypeError: `model` is not a `str`.
        ValueError: The operation is unknown.

    A call that is dropped without `end()` counts as cancelled. A forked child inherits
    no calls: those that run are the parent's, and ending one in the child does nothing.

    Thread-safety:
        One thread at a time; the collector may be used by all others meanwhile.
    """
    cdef Table table
    cdef Layout layout      # outlives the table's own reference in a garbage collection
    cdef Slot slot
    cdef Slot call_slot
    cdef readonly object model
    cdef uint32_t operation
    cdef uint32_t provider
    cdef om_call node
    cdef uint64_t forks
    cdef readonly bint ended
    cdef int64_t first_ns           # since start; UNKNOWN before
    cdef int64_t first_answer_ns
    cdef int is_retry
    cdef int n_pending
    cdef int64_t pending[PENDING]

    def __cinit__(self, Table collector not None, model, operation, provider=OLLAMA):
        cdef om_core *c = collector.c
        self.ended = True       # until it is listed, what fails here is no call
        self.operation = operation_number(operation)
        self.provider = collector.code_id(provider)
        self.table = collector
        self.model = model
        self.slot = slot_of(collector, model)
        self.call_slot = collector.call_slot(self.slot, self.operation, self.provider)
        self.first_ns = UNKNOWN
        self.first_answer_ns = UNKNOWN
        self.is_retry = UNKNOWN
        self.n_pending = 0
        self.forks = c.forks
        self.layout = collector.layout
        self.node.name_id = self.slot.record.name_id
        self.node.operation = self.operation
        self.node.provider = self.call_slot.record.provider
        self.node.start_ns = monotonic(collector)
        self.node.last_ns = UNKNOWN
        self.node.stalled = False
        if c.wants_file:
            collector.place_call()
        om_mutex_acquire(&c.lock)
        locked_list(c, &self.node, self.call_slot.record)
        self.slot.running += 1
        commit(c)
        self.ended = False

    def __dealloc__(self):
        # The last resort; whoever instruments a client ends its calls. A record that
        # has become stale meanwhile is let go: nothing may be looked up from here. Nor
        # may a clock of the user's be asked, so then the time that it took is unknown.
        cdef om_core *c
        cdef om_ending e
        if self.table is None or self.ended or self.forks != self.table.c.forks:
            return
        c = self.table.c
        begin_ending(&e, CANCELLED, self.is_retry)
        if not c.own_clock:
            put_elapsed(&e, max(om_monotonic_ns() - self.node.start_ns, 0))
        e.ns[CALL_TIME_TO_FIRST_CHUNK] = self.first_ns
        e.ns[CALL_TIME_TO_FIRST_ANSWER] = self.first_answer_ns
        e.wall_ns = om_wall_ns()
        om_mutex_acquire(&c.lock)
        self.locked_leave()
        if self.locked_make_both_current() == CURRENT:
            self.locked_flush()
            locked_end(c, self.slot.record, self.call_slot.record, &e)
        else:
            locked_count(&c.totals.counters[SNAPSHOT_INTERNAL_ERRORS], c.journal)
        commit(c)

    def __reduce__(self):
        return self.table.__reduce__()

    cdef int locked_make_both_current(self) noexcept nogil:
        cdef om_core *c = self.table.c
        cdef om_record *record = self.slot.record
        cdef int status = CURRENT
        if record.epoch != c.epoch:
            status = locked_make_current(c, record)
        record = self.call_slot.record
        if status == CURRENT and record.epoch != c.epoch:
            status = locked_make_current(c, record)
        return status

    cdef int renew(self, int status) except -1:
        """`locked_make_both_current` refused: other records, or room for these."""
        cdef om_core *c = self.table.c
        if status == FULL:
            return self.table.grow()
        self.slot = self.table.renew(self.model, self.slot)
        self.call_slot = self.table.call_slot(self.slot, self.operation, self.provider)
        om_mutex_acquire(&c.lock)
        self.slot.running += 1
        locked_show(c, &self.node, self.call_slot.record)
        commit(c)
        return 0

    cdef void locked_leave(self) noexcept nogil:
        if self.node.listed:
            locked_unlist(self.table.c, &self.node)
            self.slot.running -= 1

    cdef void locked_flush(self) noexcept nogil:
        cdef om_core *c = self.table.c
        cdef om_record *record = self.call_slot.record
        cdef int i
        for i in range(self.n_pending):
            locked_add_ns(
                c, record, CALL_TIME_PER_OUTPUT_CHUNK, self.pending[i], c.journal
            )
        self.n_pending = 0

    cdef int add(self, om_ending *e) except -1:
        """Count the times between chunks that wait here; and the end, if it is one."""
        cdef om_core *c = self.table.c
        cdef int status
        om_mutex_acquire(&c.lock)
        status = self.locked_make_both_current()
        while status != CURRENT:
            om_mutex_release(&c.lock)
            self.renew(status)
            om_mutex_acquire(&c.lock)
            status = self.locked_make_both_current()
        self.locked_flush()
        if e != NULL:
            locked_end(c, self.slot.record, self.call_slot.record, e)
            self.locked_leave()
        commit(c)
        return 0

    def chunk(self, bint answer=True, /):
        """
        One chunk with output has arrived.

        Args:
            answer: Whether it is part of the answer; `False` for thinking.
        """
        cdef int64_t now
        cdef om_running *shown
        if self.ended or self.forks != self.table.c.forks:
            return
        now = monotonic(self.table) - self.node.start_ns
        if self.first_ns == UNKNOWN:
            self.first_ns = max(now, 0)
        else:
            if self.n_pending == PENDING:
                self.add(NULL)
            self.pending[self.n_pending] = max(now - self.node.last_ns, 0)
            self.n_pending += 1
        om_store(<uint64_t *> &self.node.last_ns, <uint64_t> now)
        shown = <om_running *> om_published(<void **> &self.node.shown)
        if shown != NULL:
            om_store(<uint64_t *> &shown.last_ns, <uint64_t> now)
        if answer and self.first_answer_ns == UNKNOWN:
            self.first_answer_ns = max(now, 0)

    def retry(self, bint is_retry, /):
        """The client says whether it tries an earlier call again."""
        self.is_retry = is_retry

    def discard(self):
        """This was no request after all (the answer to `load` or `unload`)."""
        cdef om_core *c = self.table.c
        if self.ended or self.forks != c.forks:
            return
        self.ended = True
        om_mutex_acquire(&c.lock)
        self.locked_leave()
        commit(c)
        self.table.drop_unused(self.slot)

    def end(
        self, outcome, error=None, /, total=None, load=None, prefill=None, decode=None,
        prompt_tokens=None, cached_tokens=None, completion_tokens=None,
        done_reason=None, connect=None,
    ):
        """
        The call is over. Only the first end counts.

        Args:
            outcome: An `Outcome`: `success`, `failure` or `cancelled`.
            error: Of a failure: an exception, its class, or a code.
            total: The server's total duration in nanoseconds; `None` where it is
                unknown, and so for all that follow. What is not a sensible number is
                unknown, too.
            load: Waiting for a slot and loading, in nanoseconds.
            prefill: Evaluating the prompt, in nanoseconds.
            decode: Generating, in nanoseconds.
            prompt_tokens: Cached ones included.
            cached_tokens: Part of these that came from the cache.
            completion_tokens: Thinking included.
            done_reason: As the server sent it.
            connect: Waiting for the client's own pool, name resolution, connecting and
                TLS, in nanoseconds.

        Returns:
            Whether this was the first end.

        Raises:
            ValueError: The outcome is unknown.
            TypeError: `error` is not an error.
        """
        cdef om_ending e
        cdef om_core *c = self.table.c
        cdef int64_t now = monotonic(self.table)
        number = OUTCOMES.get(outcome)
        if number is None:
            raise ValueError(f"outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
        if self.ended or self.forks != c.forks:
            return False
        begin_ending(&e, number, self.is_retry)
        e.code = self.table.code_id(error) if e.outcome == FAILURE else 0
        read_answer(
            self.table, &e, connect, total, load, prefill, decode,
            prompt_tokens, cached_tokens, completion_tokens, done_reason,
        )
        put_elapsed(&e, max(now - self.node.start_ns, 0))
        e.ns[CALL_TIME_TO_FIRST_CHUNK] = self.first_ns
        e.ns[CALL_TIME_TO_FIRST_ANSWER] = self.first_answer_ns
        split(&e)
        self.finish(&e)
        return True

    cdef int finish(self, om_ending *e) except -1:
        self.add(e)
        self.ended = True
        if e.impossible:
            self.table.reject(
                self.model, "a duration or token count of the server", NEGATIVE
            )
        return 0


def record_call(
    Table collector not None, model, operation, latency=None, /, total=None, load=None,
    prefill=None, decode=None, prompt_tokens=None, cached_tokens=None,
    completion_tokens=None, done_reason=None, *, provider=OLLAMA,
):
    """
    Count a call that succeeded and that somebody else has timed.

    Args:
        collector: Who counts it.
        model: Name of the model.
        operation: `chat`, `text_completion` or `embeddings`.
        latency: Seconds from call to last byte; one that is not a number or negative is
            counted by reason. `None`: the server's total, and the network's share stays
            unknown.
        total: As in `Call.end`, and so what follows.
        provider: As in `Call`.

    Raises:
        TypeError: `model` is not a `str` or `latency` no number; nothing is counted.
        ValueError: The operation is unknown.
    """
    cdef om_ending e
    cdef om_core *c = collector.c
    cdef double seconds = 0.0 if latency is None else seconds_of(latency)
    cdef int reason = reason_of(seconds)
    cdef Call call = Call(collector, model, operation, provider)
    begin_ending(&e, SUCCESS, UNKNOWN)
    read_answer(
        collector, &e, None, total, load, prefill, decode,
        prompt_tokens, cached_tokens, completion_tokens, done_reason,
    )
    if latency is not None and reason == VALID:
        put_elapsed(&e, <int64_t> min(seconds * 1e9, <double> TOO_LARGE))
    split(&e)
    if latency is None:
        put_elapsed(&e, e.answer.total)
    call.finish(&e)
    if reason != VALID:
        om_mutex_acquire(&c.lock)
        locked_count(&c.totals.invalid[reason], c.journal)
        commit(c)
        collector.reject(model, f"latency {seconds} s", reason)
