# SPDX-License-Identifier: MIT
"""A segment as it was at one instant, read by another process.

What was read lies in a mirror: memory of our own with everything at its offset in the
file, of which only the parts that were needed are ever filled. Then the journal's old
values are put back into it (`_journal.pxd`), and the records are copied from it by what
copies those of the process itself.

The file is read, never mapped: whoever can write it could cut it short, and a mapping
would then kill us. Nothing in it is believed before it was checked; all that is
allocated is bounded by the size of the file.
"""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcmp

from ometrics._buckets cimport cell_of, om_layout
from ometrics._fields cimport CALL_HISTOGRAMS, MODEL_HISTOGRAMS
from ometrics._histogram cimport MAX_BOUNDS, layout_for
from ometrics._journal cimport NOTED_AT_ONCE, om_change, om_marks
from ometrics._record cimport (
    cells_at,
    histogram_at,
    om_histogram,
    om_record,
    record_size,
)
from ometrics._segment cimport *
from ometrics._state cimport om_running, om_totals

cdef extern from "_mapping.h":
    bint om_read(int file, void *to, size_t size, size_t at) nogil

cdef enum:
    TRIES = 3               # to have the whole process at one instant
    MODEL_TRIES = 1000      # to have one model
    MOST_CODES = 1 << 16

cdef enum:  # how reading a part went
    DONE
    MOVED_ON                # the ring went round meanwhile, or a block was used again
    CUT_SHORT
    DAMAGED


class BadSegment(ValueError):
    """
    A file that is no segment to be read; the rest of the directory is served.

    Attributes:
        reason: One word to count it by.
    """

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


cdef int by_family(const void *a, const void *b) noexcept nogil:
    cdef const om_place *x = <const om_place *> a
    cdef const om_place *y = <const om_place *> b
    if x.family != y.family:
        return -1 if x.family < y.family else 1
    return -1 if x.offset < y.offset else x.offset > y.offset

cdef int add_place(om_places *to, uint64_t offset, uint64_t family) except -1:
    cdef om_place *larger
    if to.n == to.room:
        larger = <om_place *> realloc(to.places, (2 * to.n + 64) * sizeof(om_place))
        if larger == NULL:
            raise MemoryError("no memory for a list of records")
        to.places = larger
        to.room = 2 * to.n + 64
    to.places[to.n].offset = offset
    to.places[to.n].family = family
    to.n += 1
    return 0


cdef class Mirror:
    """
    What a segment's file says.

    Args:
        file: Its descriptor, open for reading.
        size: Of the file in bytes.
        fields: The digest of the fields that this version knows.

    Raises:
        BadSegment: It is none that can be read.
        MemoryError: There is no room for as much as the file's size.

    Thread-safety:
        One thread at a time.
    """
    def __cinit__(self, int file, size_t size, bytes fields not None):
        cdef om_header *h = &self.h
        self.file = file
        self.size = size
        if size == 0:
            raise BadSegment("empty", "the file is empty")
        if size < sizeof(om_header):
            raise BadSegment("truncated", f"only {size} bytes")
        self.check(om_read(file, h, sizeof(om_header), 0))
        if memcmp(h.magic, b"OMETRICS", 8) != 0:
            raise BadSegment("foreign", "it is no segment")
        if (
            h.version != VERSION
            or h.header_size != sizeof(om_header)
            or h.fields[:ID_BYTES] != fields
        ):
            raise BadSegment("version", "another version of ometrics wrote it")
        if not self.header_is_sound():
            raise BadSegment("damaged", "its header contradicts itself")
        self.data = <char *> calloc(1, size)
        if self.data == NULL:
            raise MemoryError(f"no memory for a segment of {size} bytes")
        self.read_bounds()

    def __dealloc__(self):
        free(self.data)
        free(self.records.places)
        free(self.running.places)

    cdef int check(self, bint was_read) except -1:
        if not was_read:
            raise BadSegment("truncated", "it was cut short")
        return 0

    cdef bint header_is_sound(self):
        """Whether the parts are within the file, in their order and aligned."""
        cdef om_header *h = &self.h
        cdef uint64_t i
        cdef uint64_t at = 0
        if (
            h.n_changes == 0
            or h.n_changes > self.size
            or h.n_changes & (h.n_changes - 1)
            or h.n_bounds > MAX_BOUNDS
            or h.n_chunks == 0
            or h.n_chunks > MAX_CHUNKS
            or (h.journal_at | h.totals_at | h.bounds_at | h.blocks_at | h.used) % 16
        ):
            return False
        for i in (h.journal_at, h.totals_at, h.bounds_at, h.blocks_at, h.used):
            if i > self.size:       # so that no sum below overflows
                return False
        if (
            h.journal_at < sizeof(om_header)
            or h.totals_at < h.journal_at + journal_size(h.n_changes)
            or h.bounds_at < h.totals_at + sizeof(om_totals)
            or h.blocks_at < h.bounds_at + h.n_bounds * sizeof(double)
            or h.used < h.blocks_at
        ):
            return False
        for i in range(h.n_chunks):
            if h.chunks[i].offset != at or h.chunks[i].size > self.size - at:
                return False
            at += h.chunks[i].size
        return h.used <= at

    cdef int read_bounds(self) except -1:
        cdef uint64_t i
        cdef double *bounds = <double *> (self.data + self.h.bounds_at)
        self.check(self.fill(self.h.bounds_at, self.h.n_bounds * sizeof(double)))
        self.bounds = tuple([bounds[i] for i in range(self.h.n_bounds)])
        try:
            self.layout = layout_for(self.bounds)
        except ValueError as error:
            raise BadSegment("damaged", str(error)) from None
        if self.h.n_cells != <uint64_t> self.layout.c.n_cells:
            raise BadSegment("damaged", "its cells are not those of its buckets")
        return 0

    cdef bint fill(self, uint64_t offset, size_t size) noexcept nogil:
        """Read a part into the mirror; whether the file still has it."""
        if offset > self.size or size > self.size - offset:
            return False
        return size == 0 or om_read(self.file, self.data + offset, size, offset)

    # --- what blocks there are -------------------------------------------------------

    cdef int walk(self) except -1:
        """Find the blocks: records, codes and places of running calls."""
        cdef uint64_t at = self.h.blocks_at
        cdef om_block *block
        cdef uint64_t size, kind, left
        self.codes = {0: "_OTHER"}
        while at < self.h.used:
            left = self.h.used - at
            self.check(left >= sizeof(om_block) and self.fill(at, sizeof(om_block)))
            block = <om_block *> (self.data + at)
            size = block.size
            kind = block.kind
            if size < sizeof(om_block) or size % 16 or size > left:
                raise BadSegment("damaged", f"a block of {size} bytes at {at}")
            at += sizeof(om_block)
            size -= sizeof(om_block)
            if kind == CODE and size >= sizeof(om_code):
                self.read_code(at)
            elif kind == RUNNING and size >= RUNNING_AT_ONCE * sizeof(om_running):
                add_place(&self.running, at, 0)
            elif kind == MODEL_HISTOGRAMS or kind == CALL_HISTOGRAMS:
                if size < record_size(&self.layout.c, kind):
                    raise BadSegment("damaged", f"a record of {size} bytes at {at}")
                # The family does not change while a block is used.
                self.check(self.fill(at, sizeof(om_record)))
                add_place(
                    &self.records, at, (<om_record *> (self.data + at)).family
                )
            elif kind != FREE:
                raise BadSegment("damaged", f"a block of kind {kind} at {at}")
            at += size
        qsort(self.records.places, self.records.n, sizeof(om_place), by_family)
        return 0

    cdef int read_code(self, uint64_t at) except -1:
        cdef om_code *code = <om_code *> (self.data + at)
        self.check(self.fill(at, sizeof(om_code)))
        if code.length > CODE_BYTES or code.id >= MOST_CODES:
            raise BadSegment("damaged", f"no code is at {at}")
        if code.length:
            self.codes[code.id] = self.text(code.text, code.length)
        return 0

    cdef str text(self, const char *data, size_t length):
        try:
            return PyUnicode_DecodeUTF8(data, length, NULL)
        except UnicodeDecodeError:
            raise BadSegment("damaged", "a name is no text") from None

    # --- one instant -----------------------------------------------------------------

    cdef int read_part(self, om_place *records, uint32_t n, bint rest) noexcept nogil:
        """
        Have some records as they were at one instant, which lies within this call.

        Args:
            rest: Whether to have the totals and the running calls too.
        """
        cdef om_marks marks
        cdef uint64_t done, begun, reuses, reuses_later
        cdef uint32_t i
        if not self.read_marks(&marks, &reuses):
            return CUT_SHORT
        done = marks.done       # the instant
        if rest and not self.fill(self.h.totals_at, sizeof(om_totals)):
            return CUT_SHORT
        for i in range(n):
            if not self.read_record(&records[i]):
                return CUT_SHORT
        if rest:
            for i in range(self.running.n):
                if not self.fill(
                    self.running.places[i].offset, RUNNING_AT_ONCE * sizeof(om_running)
                ):
                    return CUT_SHORT
        if not self.read_marks(&marks, &reuses_later):
            return CUT_SHORT
        begun = marks.begun
        if not (
            self.read_changes(done, begun) and self.read_marks(&marks, &reuses_later)
        ):
            return CUT_SHORT
        if begun < done or marks.begun < begun:
            return DAMAGED
        # Changes are written to the ring before `begun` says so, three at most.
        if (
            reuses != reuses_later
            or marks.begun + NOTED_AT_ONCE - done > self.h.n_changes
        ):
            return MOVED_ON
        return self.put_back(done, begun, records, n, rest)

    cdef bint read_marks(self, om_marks *marks, uint64_t *reuses) noexcept nogil:
        return om_read(
            self.file, marks, sizeof(om_marks), self.h.journal_at
        ) and om_read(
            self.file, reuses, sizeof(uint64_t),
            <char *> &self.h.reuses - <char *> &self.h,
        )

    cdef bint read_record(self, om_place *place) noexcept nogil:
        """Read a record; of its cells those from minimum to maximum, which only ever
        move apart, so they hold all that was counted at the instant."""
        cdef om_layout *layout = &self.layout.c
        cdef om_record *record = <om_record *> (self.data + place.offset)
        cdef om_histogram *h
        cdef uint64_t *cells
        cdef uint64_t i
        cdef int first, last
        if not self.fill(place.offset, sizeof(om_record)):
            return False
        for i in range(self.block_at(place.offset).kind):
            h = histogram_at(layout, record, i)
            if not self.fill(<char *> h - self.data, sizeof(om_histogram)):
                return False
            if h.min <= h.max:
                cells = cells_at(h)
                first = cell_of(layout, h.min)
                last = cell_of(layout, h.max)
                if last < first or not self.fill(
                    <char *> (cells + first) - self.data,
                    (last + 1 - first) * sizeof(uint64_t),
                ):
                    return False
        return True

    cdef bint read_changes(self, uint64_t done, uint64_t begun) noexcept nogil:
        """Read the changes from `done` to `begun`, as far as the ring can have them."""
        cdef uint64_t at = self.h.journal_at + sizeof(om_marks)
        cdef uint64_t first = done & (self.h.n_changes - 1)
        cdef uint64_t n = begun - done
        cdef uint64_t before_end = self.h.n_changes - first
        if n > self.h.n_changes:
            return True     # it is of no use any more
        if n <= before_end:
            return self.fill(at + first * sizeof(om_change), n * sizeof(om_change))
        return self.fill(
            at + first * sizeof(om_change), before_end * sizeof(om_change)
        ) and self.fill(at, (n - before_end) * sizeof(om_change))

    cdef int put_back(
        self, uint64_t done, uint64_t begun, om_place *records, uint32_t n, bint rest
    ) noexcept nogil:
        """Undo in these parts of the mirror what was changed after the instant, newest
        first. Other parts stay: they are of an instant of their own."""
        cdef om_change *changes = <om_change *> (
            self.data + self.h.journal_at + sizeof(om_marks)
        )
        cdef om_change *change
        cdef uint64_t at
        while begun > done:
            begun -= 1
            change = &changes[begun & (self.h.n_changes - 1)]
            at = self.offset_of(change.place)
            if at == 0:
                continue    # of a chunk that came later
            if at % sizeof(uint64_t) or at < self.h.totals_at:
                return DAMAGED
            if self.is_part(at, records, n, rest):
                (<uint64_t *> (self.data + at))[0] = change.old
        return DONE

    cdef bint is_part(
        self, uint64_t at, om_place *records, uint32_t n, bint rest
    ) noexcept nogil:
        cdef uint32_t i
        if rest and n == self.records.n:    # everything
            return True
        for i in range(n):
            if records[i].offset <= at < records[i].offset + self.block_at(
                records[i].offset
            ).size:
                return True
        if rest:
            if at < self.h.bounds_at:
                return True
            for i in range(self.running.n):
                if self.running.places[i].offset <= at < (
                    self.running.places[i].offset
                    + RUNNING_AT_ONCE * sizeof(om_running)
                ):
                    return True
        return False

    cdef om_block *block_at(self, uint64_t offset) noexcept nogil:
        """The header of the block whose contents are there; the walk has checked it,
        and what lies in the mirror does not change."""
        return <om_block *> (self.data + offset) - 1

    cdef uint64_t offset_of(self, uint64_t address) noexcept nogil:
        """Where in the file a word of the process is; 0 if it is not."""
        cdef om_chunk *chunk
        cdef uint64_t i
        for i in range(self.h.n_chunks):
            chunk = &self.h.chunks[i]
            if (
                address >= chunk.address
                and address - chunk.address < chunk.size
                and chunk.size - (address - chunk.address) >= sizeof(uint64_t)
            ):
                return chunk.offset + (address - chunk.address)
        return 0

    def has_grown(self):
        """
        Whether the segment has more blocks by now than were read.

        A model's first call has a record of its own in one: it may be missing in what
        was read, although the model counts that call already.
        """
        cdef om_header now
        self.check(om_read(self.file, &now, sizeof(now), 0))
        return now.used != self.h.used

    cdef int read_all(self, bint alive) except -1:
        """
        Have everything at one instant; of a process that records faster than all of it
        can be read, each model at one.
        """
        cdef int status = MOVED_ON
        cdef int _try
        for _try in range(TRIES):
            with nogil:
                status = self.read_part(self.records.places, self.records.n, True)
            if status != MOVED_ON:
                break
        self.one_instant = status == DONE
        if status == MOVED_ON and not alive:
            status = DAMAGED        # for nobody writes it
        if status == MOVED_ON:
            with nogil:
                status = self.read_by_model()
        if status == MOVED_ON:
            raise BadSegment("busy", "it changes faster than it can be read")
        if status == DAMAGED:
            raise BadSegment("damaged", "its journal contradicts itself")
        self.check(status == DONE)
        return 0

    cdef int read_by_model(self) noexcept nogil:
        cdef uint64_t generation
        cdef om_totals *totals = <om_totals *> (self.data + self.h.totals_at)
        cdef om_place *places = self.records.places
        cdef uint32_t first = 0
        cdef uint32_t end
        cdef int status = self.read_patiently(NULL, 0, True)
        while status == DONE and first < self.records.n:
            end = first + 1
            while end < self.records.n and places[end].family == places[first].family:
                end += 1
            status = self.read_patiently(places + first, end - first, False)
            first = end
        if status != DONE:
            return status
        generation = totals.generation
        if not self.fill(self.h.totals_at, sizeof(om_totals)):
            return CUT_SHORT
        return DONE if totals.generation == generation else MOVED_ON

    cdef int read_patiently(
        self, om_place *records, uint32_t n, bint rest
    ) noexcept nogil:
        cdef int status = MOVED_ON
        cdef int _try
        for _try in range(MODEL_TRIES):
            status = self.read_part(records, n, rest)
            if status != MOVED_ON:
                break
        return status
