# SPDX-License-Identifier: MIT
"""What a segment is made of: one file a process, read by others while it is written.

    header | journal: marks, ring of changes | totals | bounds | blocks ...

A block is a record, a code's name or room for running calls; it never moves. The file
grows in chunks, each mapped on its own and reserved on the disk before it is: a full
disk is an error of the allocation, never a signal at a store. All numbers are the
machine's own: a segment is read where it was written, by the version that wrote it
(`fields` says which records it knows).

The header changes at four places only, each one word: `used` and `n_chunks` when what
they count is filled, `reuses` before a block is used again, and the journal's marks.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ometrics._journal cimport om_change, om_marks

cdef enum:
    VERSION = 2
    MAX_CHUNKS = 64
    ID_BYTES = 32
    PROGRAM_BYTES = 256
    CODE_BYTES = 1024       # 256 characters of at most 4 bytes
    FIRST_CHANGES = 8192    # changes that the ring holds at least: some 2,500 records
    RUNNING_AT_ONCE = 256   # places for running calls in a block

cdef enum:  # kinds of block; a record's is the number of its histograms
    FREE = 0
    CODE = 1 << 16
    RUNNING = 2 << 16

cdef struct om_chunk:
    uint64_t address        # in the process that writes
    uint64_t offset         # in the file
    uint64_t size

cdef struct om_header:
    char magic[8]
    uint32_t version
    uint32_t header_size
    char fields[ID_BYTES]   # digest of the declared fields
    char id[ID_BYTES]       # of this process's collector, random
    char boot[ID_BYTES]     # of the machine's boot; zeroes: unknown
    char program[PROGRAM_BYTES]
    uint64_t pid_namespace  # 0: unknown
    int64_t pid
    int64_t process_start   # in ticks since boot; 0: unknown
    int64_t created_ns      # wall clock
    uint64_t own_clock      # whether the times are of a clock of the user's
    uint64_t n_bounds
    uint64_t n_cells
    uint64_t n_changes
    uint64_t journal_at     # offsets in the file
    uint64_t totals_at
    uint64_t bounds_at
    uint64_t blocks_at
    uint64_t used
    uint64_t reuses
    uint64_t n_chunks
    om_chunk chunks[MAX_CHUNKS]

cdef struct om_block:
    uint64_t size           # with this header; a multiple of 16
    uint64_t kind

cdef struct om_code:
    uint64_t id
    uint64_t length
    char text[CODE_BYTES]

cdef inline size_t journal_size(uint64_t n_changes) noexcept nogil:
    return sizeof(om_marks) + n_changes * sizeof(om_change)
