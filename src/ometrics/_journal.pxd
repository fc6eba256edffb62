# SPDX-License-Identifier: MIT
"""What makes records in a file whole, whenever the process is killed or read.

Before a word of the file is changed, its address and its value go into a ring of the
last changes, also in the file; when a record is complete, `done` is set to `begun`. So:

- Killed at any instruction, a process leaves at most one record incomplete: the changes
  from `done` to `begun`. Whoever reads puts the old values back, newest first, and has
  the state after the last record that returned. A kill reveals stores in the order of
  the program, so it is enough that the compiler keeps it: a fence is between the old
  value, `begun` and the change.
- A reader of a living process notes `done`, copies what it wants, then looks at
  `begun`: what changed meanwhile is in the ring, unless it went round. Putting the old
  values back gives the state at the instant of `done`. It writes nothing, waits for
  nobody and holds nobody up. A word that was torn by the copy changed meanwhile, so it
  is put back too.

(Rejected: a version number around each record, since a reader of a busy one would never
find it even; a log of whole records to replay, twice the stores; msync and a checksum,
a system call a record.)

Not kept, because no law depends on them: `updated_ns`, which may be one record ahead; a
record's epoch and order, which only the process itself reads; and the last chunk of a
running call, which may be ahead of the instant: chunks are many and take no mutex.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from "_mutex.h":
    void om_barrier() noexcept nogil

cdef enum:
    NOTED_AT_ONCE = 3       # changes in the ring before `begun` counts them

# One word before it was changed.
cdef struct om_change:
    uint64_t place          # its address in the process that changed it
    uint64_t old

# In the file: how many changes were begun, and how many belong to complete records.
cdef struct om_marks:
    uint64_t begun
    uint64_t done

cdef struct om_journal:
    om_marks *marks
    om_change *changes
    uint64_t mask           # how many the ring holds, a power of two, less one
    uint64_t begun          # as in the file

cdef inline void note(om_journal *journal, uint64_t number, void *word) noexcept nogil:
    cdef om_change *change = &journal.changes[number & journal.mask]
    change.place = <uint64_t> word
    memcpy(&change.old, word, sizeof(uint64_t))

cdef inline void keep(
    om_journal *journal, void *word, void *second=NULL, void *third=NULL
) noexcept nogil:
    """
    Note up to three words of 8 bytes before they change; NULL is private memory.

    Three at once, because each look at `begun` waits for the store before it.
    """
    cdef uint64_t begun
    if journal == NULL:
        return
    begun = journal.begun
    note(journal, begun, word)
    begun += 1
    if second != NULL:
        note(journal, begun, second)
        begun += 1
    if third != NULL:
        note(journal, begun, third)
        begun += 1
    journal.begun = begun
    om_barrier()
    journal.marks.begun = begun
    om_barrier()

cdef inline void keep_all(om_journal *journal, void *words, size_t size) noexcept nogil:
    """Note each word of a struct."""
    cdef size_t i
    if journal != NULL:
        for i in range(size // sizeof(uint64_t)):
            keep(journal, <uint64_t *> words + i)

cdef inline void record_is_complete(om_journal *journal) noexcept nogil:
    """All that was noted so far has been changed."""
    if journal != NULL:
        om_barrier()
        journal.marks.done = journal.begun
