# SPDX-License-Identifier: MIT
"""What a segment says of its process: the mirror's records as a snapshot.

The records are copied from the mirror by what copies those of the process itself, and
become read types in the same way; but here each is checked first.
"""

from time import monotonic_ns, time_ns

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc, qsort
from libc.string cimport memset

from ometrics._copy cimport free_copy, om_copy
from ometrics._fields cimport CALL_HISTOGRAMS, CODES, MODEL_HISTOGRAMS
from ometrics._mirror cimport Mirror
from ometrics._reading cimport snapshot_of
from ometrics._record cimport (
    MAX_CODES,
    MAX_OPERATIONS,
    NAME_BYTES,
    NOT_A_CALL,
    OM_NEVER,
    locked_pack,
    om_codes,
    om_record,
    packed_limit,
)
from ometrics._segment cimport (
    ID_BYTES,
    PROGRAM_BYTES,
    RUNNING_AT_ONCE,
    om_header,
)
from ometrics._state cimport VALID, om_call, om_running, om_totals, reason_of

from ometrics._mirror import BadSegment

cdef int64_t FOREVER = 1 << 61      # 73 years: sums of a few fit 64 bits


cdef int by_start(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<const om_call *> a).start_ns
    cdef int64_t y = (<const om_call *> b).start_ns
    return -1 if x < y else x > y


cdef class SegmentReader(Mirror):
    """
    One reading of one segment's file; its arguments are `Mirror`'s.

    Raises:
        BadSegment: It is none that can be read.
        MemoryError: There is no room for as much as the file's size.

    Thread-safety:
        One thread at a time.
    """

    def read(self, bint alive, /):
        """
        Everything that was recorded.

        Args:
            alive: Whether the process still runs. Of one that does not there are no
                running calls and no resources, and its time ended with its last record.

        Returns:
            `Snapshot`, with the segment's id as its instance.

        Raises:
            BadSegment: It is damaged; or it changes too fast to be read.
        """
        cdef om_copy copy
        cdef dict names = {}
        cdef list codes
        memset(&copy, 0, sizeof(copy))
        self.walk()
        self.read_all(alive)
        codes = ["_OTHER"] * (max(self.codes) + 1)
        for number, code in self.codes.items():
            codes[number] = code
        try:
            self.pack(&copy)
            if alive:
                self.add_running(&copy, names)
            self.set_clocks(&copy, alive)
            snapshot = snapshot_of(
                &copy, codes, self.bounds, names, self.identity()["id"]
            )
        finally:
            free_copy(&copy)
        try:
            len(snapshot.models)    # makes them, which checks them
        except (ValueError, OverflowError) as error:
            raise BadSegment("damaged", str(error)) from None
        return snapshot

    cdef int pack(self, om_copy *copy) except -1:
        """Copy the live records, each checked."""
        cdef om_totals *totals = <om_totals *> (self.data + self.h.totals_at)
        cdef om_record *record
        cdef uint32_t i
        cdef int k
        self.check_numbers(totals)
        copy.totals = totals[0]
        for i in range(self.records.n):
            copy.room += packed_limit(
                &self.layout.c, self.block_at(self.records.places[i].offset).kind
            )
        copy.packed = <char *> malloc(copy.room + 1)
        if copy.packed == NULL:
            raise MemoryError(f"no memory for a copy of {copy.room} bytes")
        for i in range(self.records.n):
            record = <om_record *> (self.data + self.records.places[i].offset)
            if not record.published or record.generation != totals.generation:
                continue
            if not self.record_is_sound(record):
                raise BadSegment("damaged", "a record contradicts itself")
            for k in range(CODES):
                self.check_codes(&record.codes[k])
            copy.used += locked_pack(
                &self.layout.c, record, copy.packed + copy.used
            )
        return 0

    cdef int check_numbers(self, om_totals *t) except -1:
        """What no collector counts is damage: infinite, negative or no numbers."""
        cdef bint is_sound = t.task_min_ms > t.task_max_ms or (
            reason_of(t.task_min_ms) == VALID and reason_of(t.task_max_ms) == VALID
        )
        if t.resources_ns != OM_NEVER:
            is_sound = is_sound and t.goroutines >= 0 and (
                reason_of(t.memory_mb) == VALID and reason_of(t.cpu_percent) == VALID
            )
        if not is_sound:
            raise BadSegment("damaged", "durations of tasks or resources")
        return 0

    cdef bint record_is_sound(self, om_record *record):
        cdef uint64_t kind = self.block_at(<char *> record - self.data).kind
        if record.operation == NOT_A_CALL:
            kind -= MODEL_HISTOGRAMS
        else:
            kind -= CALL_HISTOGRAMS
        if record.provider not in self.codes:
            record.provider = 0
        return (
            kind == 0
            and record.n_histograms == self.block_at(<char *> record - self.data).kind
            and record.operation <= MAX_OPERATIONS
            and record.name_length <= NAME_BYTES
        )

    cdef int check_codes(self, om_codes *codes) except -1:
        """What has no name here (the disk was full when it got one) is `_OTHER`."""
        cdef uint32_t i, n
        n = codes.n
        if n > MAX_CODES:
            raise BadSegment("damaged", f"{n} codes of a record")
        codes.n = 0
        for i in range(n):
            if codes.ids[i] in self.codes and codes.ids[i] != 0:
                codes.ids[codes.n] = codes.ids[i]
                codes.counts[codes.n] = codes.counts[i]
                codes.n += 1
            else:
                codes.counts[MAX_CODES] += codes.counts[i]
        return 0

    cdef int add_running(self, om_copy *copy, dict names) except -1:
        """The running calls, each with the name of its record's model."""
        cdef om_running *running
        cdef om_record *record
        cdef om_call *call
        cdef uint64_t at
        cdef uint32_t i
        cdef int k
        cdef set known = {
            self.records.places[i].offset for i in range(self.records.n)
        }
        copy.calls = <om_call *> calloc(
            self.running.n * RUNNING_AT_ONCE + 1, sizeof(om_call)
        )
        if copy.calls == NULL:
            raise MemoryError("no memory for the running calls")
        for i in range(self.running.n):
            running = <om_running *> (self.data + self.running.places[i].offset)
            for k in range(RUNNING_AT_ONCE):
                if running[k].record == 0:
                    continue
                at = self.offset_of(running[k].record)
                if at not in known:
                    continue        # of a chunk that came later
                record = <om_record *> (self.data + at)
                if not self.record_is_sound(record) or record.operation == NOT_A_CALL:
                    raise BadSegment("damaged", "a running call has no record")
                call = &copy.calls[copy.n_calls]
                call.start_ns = running[k].start_ns
                call.last_ns = running[k].last_ns
                call.operation = record.operation
                call.provider = record.provider
                call.name_id = i * RUNNING_AT_ONCE + k + 1
                names[call.name_id] = self.text(record.name, record.name_length)
                copy.n_calls += 1
        qsort(copy.calls, copy.n_calls, sizeof(om_call), by_start)
        return 0

    cdef int set_clocks(self, om_copy *copy, bint alive) except -1:
        """Say when the instant was, on the clocks that the process used."""
        cdef om_totals *t = &copy.totals
        cdef int64_t elapsed
        copy.wall_ns = time_ns() if alive else self.last_heard()
        if alive and not self.h.own_clock:
            copy.monotonic_ns = monotonic_ns()
            return 0
        if not alive:
            t.resources_ns = OM_NEVER
        # As far as that can be known: its monotonic clock was another boot's, or is the
        # user's.
        elapsed = min(max(copy.wall_ns - t.start_wall_ns, 0), FOREVER)
        copy.monotonic_ns = min(max(t.start_monotonic_ns, -FOREVER), FOREVER) + elapsed
        return 0

    cdef int64_t last_heard(self):
        """When the newest record was made; the start, if there is none."""
        cdef om_totals *t = <om_totals *> (self.data + self.h.totals_at)
        cdef int64_t last = max(t.start_wall_ns, t.task_updated_ns, t.resources_ns)
        cdef om_record *record
        cdef uint32_t i
        for i in range(self.records.n):
            record = <om_record *> (self.data + self.records.places[i].offset)
            if record.published:
                last = max(last, record.updated_ns)
        return last

    def last_heard_ns(self):
        """Wall clock of the newest record; of the start, before the first. After
        `read()`."""
        return self.last_heard()

    def identity(self):
        """
        Whose segment it is.

        Returns:
            `id`, `boot` and `program` as text, `pid`, `pid_namespace`, `process_start`
            and `created_ns` as integers.
        """
        cdef om_header *h = &self.h
        return {
            "id": text_of(h.id, ID_BYTES),
            "boot": text_of(h.boot, ID_BYTES),
            "program": text_of(h.program, PROGRAM_BYTES),
            "pid": h.pid,
            "pid_namespace": h.pid_namespace,
            "process_start": h.process_start,
            "created_ns": h.created_ns,
        }


cdef str text_of(const char *data, size_t room):
    return data[:room].rstrip(b"\0").decode(errors="replace")
