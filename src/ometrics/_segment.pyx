# SPDX-License-Identifier: MIT
"""The segment of one process: memory for records in a file that others can read.

Allocation runs with the GIL, outside of the core's mutex: system calls belong here, and
the hot path finds its record where it was. See `_segment.pxd` for what is in the file
and `_journal.pxd` for why a reader finds it whole.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ometrics._forks cimport forks_of_process
from ometrics._histogram cimport Layout
from ometrics._journal cimport om_change, om_marks
from ometrics._segment cimport *
from ometrics._state cimport (
    om_barrier,
    is_in,
    om_close,
    om_core,
    om_mutex_acquire,
    om_mutex_release,
    om_running,
    om_totals,
)
from ometrics._table cimport Memory

cimport cython

cdef extern from "_mapping.h":
    void *om_map(int file, size_t size, size_t offset) nogil
    void om_unmap(void *address, size_t size) nogil
    bint OM_HAS_MAPPINGS

cdef enum:
    PAGE = 1 << 16              # a multiple of every system's page size
    FIRST_CHUNK = 1 << 19
    LARGEST_CHUNK = 1 << 25

HAS_SEGMENTS = bool(OM_HAS_MAPPINGS)    # whether this system can have them


cdef size_t padded(size_t size, size_t to):
    return (size + to - 1) // to * to


@cython.final
cdef class Segment(Memory):
    """
    A file of records, mapped for writing.

    Args:
        file: Its descriptor, empty and open for reading and writing; closed with it.
        lock: Another one, of a file description of its own, by whose lock others know
            that the process lives; closed with it. A description that is mapped lives
            as long as any fork of the process, and so would its lock.
        layout: The cells of the histograms.
        bounds: The collector's bucket bounds in seconds.
        identity: What the header says of the process: `id`, `fields`, `boot`,
            `program` as bytes, `pid`, `pid_namespace`, `process_start`, `created_ns`
            and `own_clock` as integers.

    Raises:
        OSError: No room on the disk, or the file may not be that large.
        MemoryError: It cannot be mapped.

    Thread-safety:
        Any thread. In a forked child it is the parent's: nothing is written.
    """
    cdef om_header *header
    cdef uint64_t forks         # of the process that it belongs to
    cdef size_t size            # of the file
    cdef size_t at              # where the next block goes, in the last chunk
    cdef bint growing
    cdef dict given_back        # (size, kind) -> addresses
    cdef set codes              # ids of those that are in the file
    cdef uint32_t n_running     # places for running calls, free or not

    def __cinit__(
        self, int file, int lock, Layout layout not None, tuple bounds, dict identity
    ):
        cdef om_header h
        cdef uint64_t n_changes = FIRST_CHANGES
        cdef double bound
        cdef double *to
        self.forks = forks_of_process()
        self.file = file
        self.lock = lock
        self.given_back = {}
        self.codes = set()
        memset(&h, 0, sizeof(h))
        while n_changes < <uint64_t> (4 * layout.c.n_cells):    # a batch fits thrice
            n_changes *= 2
        memcpy(h.magic, b"OMETRICS", 8)
        h.version = VERSION
        h.header_size = sizeof(h)
        put_text(h.fields, ID_BYTES, identity["fields"])
        put_text(h.id, ID_BYTES, identity["id"])
        put_text(h.boot, ID_BYTES, identity["boot"])
        put_text(h.program, PROGRAM_BYTES, identity["program"])
        h.pid_namespace = identity["pid_namespace"]
        h.pid = identity["pid"]
        h.process_start = identity["process_start"]
        h.created_ns = identity["created_ns"]
        h.own_clock = identity["own_clock"]
        h.n_bounds = len(bounds)
        h.n_cells = layout.c.n_cells
        h.n_changes = n_changes
        h.journal_at = padded(sizeof(h), 64)
        h.totals_at = padded(h.journal_at + journal_size(n_changes), 64)
        h.bounds_at = padded(h.totals_at + sizeof(om_totals), 64)
        h.blocks_at = padded(h.bounds_at + len(bounds) * sizeof(double), 64)
        h.used = h.blocks_at
        base = <char *> self.map_chunk(padded(h.blocks_at, PAGE) + FIRST_CHUNK)
        h.n_chunks = 1
        h.chunks[0].address = <uint64_t> base
        h.chunks[0].size = self.size
        memcpy(base, &h, sizeof(h))
        self.header = <om_header *> base
        self.at = h.used
        self.journal.marks = <om_marks *> (base + h.journal_at)
        self.journal.changes = <om_change *> (
            base + h.journal_at + sizeof(om_marks)
        )
        self.journal.mask = n_changes - 1
        self.totals = <om_totals *> (base + h.totals_at)
        to = <double *> (base + h.bounds_at)
        for i, bound in enumerate(bounds):
            to[i] = bound

    def __dealloc__(self):
        cdef uint64_t i
        cdef om_header h
        free(self.free_running)
        if self.header == NULL:     # whoever opened the file still has it
            return
        if self.is_own():           # a forked child has closed its copies
            om_close(self.file)
            om_close(self.lock)
        h = self.header[0]
        for i in range(min(h.n_chunks, <uint64_t> MAX_CHUNKS)):
            om_unmap(<void *> h.chunks[i].address, h.chunks[i].size)

    cdef bint is_own(self):
        """Whether this is the process that the segment belongs to."""
        return self.forks == forks_of_process()

    def is_of_this_process(self):
        """Whether this is the process that the segment belongs to, not a fork of it."""
        return self.is_own()

    def descriptor(self):
        """The file's descriptor, open as long as this is."""
        return self.file

    cdef void *map_chunk(self, size_t size) except NULL:
        """Reserve and map `size` more bytes at the end of the file."""
        cdef void *address
        cdef size_t start = self.size
        if self.growing:
            # Another thread, or a finalizer in this one, is at it.
            raise MemoryError("the segment is growing already")
        self.growing = True
        try:
            reserve(self.file, start, size)
            address = om_map(self.file, size, start)
            if address == NULL:
                raise MemoryError(f"no address space for {size} bytes of a segment")
            self.size = start + size
            return address
        finally:
            self.growing = False

    cdef int grow(self, size_t size) except -1:
        """Make room for one block of this size."""
        cdef om_header *h = self.header
        cdef om_chunk *last = &h.chunks[h.n_chunks - 1]
        cdef om_block *rest
        cdef size_t left
        cdef size_t more = max(self.size, <size_t> FIRST_CHUNK)
        if h.n_chunks >= MAX_CHUNKS:
            raise MemoryError(f"a segment has no more than {MAX_CHUNKS} chunks")
        more = max(min(more, <size_t> LARGEST_CHUNK), padded(size, PAGE))
        address = self.map_chunk(more)
        left = last.offset + last.size - self.at
        if left:
            rest = <om_block *> (last.address + self.at - last.offset)
            rest.size = left
        h.chunks[h.n_chunks].address = <uint64_t> address
        h.chunks[h.n_chunks].offset = self.size - more
        h.chunks[h.n_chunks].size = more
        om_barrier()
        h.n_chunks += 1
        self.at = self.size - more
        om_barrier()
        h.used = self.at
        return 0

    cdef void *take(self, size_t size, uint32_t kind) except NULL:
        cdef om_header *h = self.header
        cdef om_chunk *last
        cdef om_block *block
        if not self.is_own():
            raise OSError("the segment is another process's")
        size = padded(size + sizeof(om_block), 16)
        with cython.critical_section(self):
            free_blocks = self.given_back.get((size, kind))
            if free_blocks:
                block = <om_block *> <uint64_t> free_blocks.pop()
                h.reuses += 1       # who copied it meanwhile begins again
                om_barrier()
                memset(block + 1, 0, size - sizeof(om_block))
                return block + 1
            while True:
                last = &h.chunks[h.n_chunks - 1]
                if last.offset + last.size - self.at >= size:
                    break
                self.grow(size)
            block = <om_block *> (last.address + self.at - last.offset)
            block.size = size
            block.kind = kind
            om_barrier()
            self.at += size
            h.used = self.at
            return block + 1

    cdef int give_back(self, void *block) except -1:
        """Let a block be used again; in the file nothing changes by it."""
        cdef om_block *b = <om_block *> block - 1
        if not self.is_own():
            return 0
        with cython.critical_section(self):
            self.given_back.setdefault((b.size, b.kind), []).append(<uint64_t> b)
        return 0

    cdef int add_code(self, uint32_t id, str code) except -1:
        cdef bytes text
        cdef om_code *to
        if id in self.codes:
            return 0
        text = code.encode()[:CODE_BYTES]
        to = <om_code *> self.take(sizeof(om_code), CODE)
        self.codes.add(id)
        to.id = id
        memcpy(to.text, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        om_barrier()
        to.length = PyBytes_GET_SIZE(text)
        return 0

    cdef int add_running(self, om_core *c) except -1:
        cdef om_running *block = <om_running *> self.take(
            RUNNING_AT_ONCE * sizeof(om_running), RUNNING
        )
        cdef om_running **old
        cdef om_running **places
        cdef int i
        self.n_running += RUNNING_AT_ONCE
        places = <om_running **> malloc(self.n_running * sizeof(om_running *))
        if places == NULL:
            raise MemoryError(f"no memory for {self.n_running} running calls")
        om_mutex_acquire(&c.lock)
        if is_in(c, &self.journal):     # which has counted on since
            self.n_free_running = c.n_free_running
        old = self.free_running
        if self.n_free_running:
            memcpy(places, old, self.n_free_running * sizeof(om_running *))
        for i in range(RUNNING_AT_ONCE):
            places[self.n_free_running + i] = &block[i]
        self.n_free_running += RUNNING_AT_ONCE
        self.free_running = places
        if is_in(c, &self.journal):
            c.free_running = places
            c.n_free_running = self.n_free_running
        om_mutex_release(&c.lock)
        free(old)
        return 0


cdef int put_text(char *to, size_t room, bytes text) except -1:
    memcpy(to, PyBytes_AS_STRING(text), min(room, <size_t> PyBytes_GET_SIZE(text)))
    return 0


def reserve(file, start, size, /):
    """
    Have room on the disk for a part of a file, before it is mapped.

    Raises:
        OSError: There is none, or the file may not be that large.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, size)
        return
    written = 0
    while written < size:       # macOS: what is written has its place
        piece = bytes(min(size - written, 1 << 20))
        written += os.pwrite(file, piece, start + written)
