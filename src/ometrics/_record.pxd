# SPDX-License-Identifier: MIT
"""One model's record: a flat C struct, and the only functions that write one.

Flat means fixed size and no pointers, the name inside: such a record can live in a file
that other processes read. What changes one notes each word before it does (see
`_journal.pxd`; a journal of NULL is private memory, where nothing is noted). Every
`locked_*` function runs while the core's mutex is held (or on a record that no other
thread can reach) and is `noexcept nogil` for that reason: no Python object, no
allocation, no raise, no change of the GIL (law 1).
"""

from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ometrics._buckets cimport cell_of, om_layout
from ometrics._fields cimport CODES, COUNTERS
from ometrics._journal cimport keep, om_journal

cdef enum:
    MAX_CODES = 32          # distinct error codes or done reasons a record keeps apart
    NAME_BYTES = 1024       # 256 characters of at most 4 bytes
    MAX_OPERATIONS = 3      # chat, text_completion, embeddings
    NOT_A_CALL = 0          # `operation` of a model's own record; calls count from 1

# A time that never came. Not 0, which a clock of the user's may well show.
cdef extern from *:
    """
    #define OM_NEVER INT64_MIN
    #define OM_TOKEN_SECONDS 0x1p-14
    """
    const int64_t OM_NEVER
    const double TOKEN_SECONDS "OM_TOKEN_SECONDS"   # see `TokenHistogram`

cdef struct om_codes:
    uint32_t n
    uint32_t ids[MAX_CODES]
    uint64_t counts[MAX_CODES + 1]      # the last one: _OTHER

cdef struct om_record:
    uint64_t epoch          # of the last snapshot that copied this state; see _core.pyx
    uint64_t generation     # of the table that it belongs in
    uint64_t published      # whether it is there: it is from its first record on
    uint64_t family         # shared by a model's own record and those of its calls
    uint32_t name_id
    uint32_t order          # position by first record
    uint32_t operation
    uint32_t provider       # id of a code; of a call's record only
    uint32_t n_histograms
    uint32_t moved          # whether this is what a move left behind
    int64_t updated_ns      # wall clock, or OM_NEVER
    uint64_t counters[COUNTERS]     # places: `_fields.pxd`
    om_codes codes[CODES]           # likewise
    uint64_t name_length    # 64 bits: no padding, the name begins where the rest ends
    char name[NAME_BYTES]   # UTF-8; last, so that a copy can stop at its end
    # n_histograms times om_histogram, each followed by the layout's cells

cdef struct om_histogram:
    uint64_t sum_ns
    double min              # inf of nothing
    double max              # -inf of nothing

# The same, as it travels in a snapshot: only the cells between minimum and maximum.
cdef struct om_packed_histogram:
    om_histogram h
    uint32_t first
    uint32_t n_cells

cdef inline size_t histogram_size(const om_layout *layout) noexcept nogil:
    return sizeof(om_histogram) + layout.n_cells * sizeof(uint64_t)

cdef inline size_t record_size(
    const om_layout *layout, int n_histograms
) noexcept nogil:
    return sizeof(om_record) + n_histograms * histogram_size(layout)

cdef inline om_histogram *histogram_at(
    const om_layout *layout, om_record *record, int i
) noexcept nogil:
    return <om_histogram *> (
        <char *> record + sizeof(om_record) + i * histogram_size(layout)
    )

cdef inline uint64_t *cells_at(om_histogram *h) noexcept nogil:
    return <uint64_t *> (<char *> h + sizeof(om_histogram))

cdef inline uint64_t nanoseconds(double seconds) noexcept nogil:
    """Rounded; 2^64 - 1 past 584 years."""
    if seconds < 9.2e9:
        return <uint64_t> <int64_t> (seconds * 1e9 + 0.5)   # one instruction
    if seconds < 1.8446744073e10:
        return <uint64_t> (seconds * 1e9)
    return UINT64_MAX

cdef inline void locked_count(uint64_t *counter, om_journal *journal) noexcept nogil:
    """Add one: at one a nanosecond, a counter needs 584 years to its limit."""
    keep(journal, counter)
    counter[0] += 1

cdef inline void locked_add(
    uint64_t *counter, uint64_t n, uint64_t *saturated, om_journal *journal
) noexcept nogil:
    """Add, and stop at 2^64 - 1 instead of wrapping."""
    keep(journal, counter)
    locked_add_kept(counter, n, saturated)

cdef inline void locked_add_kept(
    uint64_t *counter, uint64_t n, uint64_t *saturated
) noexcept nogil:
    """The same of a counter that was noted before."""
    if n <= UINT64_MAX - counter[0]:
        counter[0] += n
    else:
        counter[0] = UINT64_MAX
        saturated[0] += 1

cdef inline void locked_add_seconds(
    uint64_t *sum_ns, double seconds, uint64_t *saturated, om_journal *journal
) noexcept nogil:
    """Add a duration to a sum of nanoseconds."""
    keep(journal, sum_ns)
    locked_add_seconds_kept(sum_ns, seconds, saturated)

cdef inline void locked_add_seconds_kept(
    uint64_t *sum_ns, double seconds, uint64_t *saturated
) noexcept nogil:
    """The same of a sum that was noted before."""
    cdef uint64_t ns = nanoseconds(seconds)
    if ns != UINT64_MAX:
        locked_add_kept(sum_ns, ns, saturated)
    else:
        sum_ns[0] = UINT64_MAX
        saturated[0] += 1

cdef inline void locked_add_value(
    om_histogram *h, int cell, double seconds, uint64_t *saturated, om_journal *journal
) noexcept nogil:
    keep(journal, &cells_at(h)[cell], &h.sum_ns)
    locked_add_value_kept(h, cell, seconds, saturated, journal)

cdef inline void locked_add_value_kept(
    om_histogram *h, int cell, double seconds, uint64_t *saturated, om_journal *journal
) noexcept nogil:
    """The same when its cell and its sum were noted before."""
    cells_at(h)[cell] += 1
    locked_add_seconds_kept(&h.sum_ns, seconds, saturated)
    locked_widen_range(h, seconds, seconds, journal)

cdef inline void locked_widen_range(
    om_histogram *h, double low, double high, om_journal *journal
) noexcept nogil:
    if low < h.min:
        keep(journal, &h.min)
        h.min = low
    if high > h.max:
        keep(journal, &h.max)
        h.max = high

cdef inline void locked_add_code(
    om_codes *codes, uint32_t id, om_journal *journal
) noexcept nogil:
    """Count code `id`; 0 is `_OTHER`, which also takes what is past the limit."""
    cdef uint32_t i
    if id != 0:
        for i in range(codes.n):
            if codes.ids[i] == id:
                locked_count(&codes.counts[i], journal)
                return
        if codes.n < MAX_CODES:
            keep(journal, codes)        # the word of `n`; past `n` nobody looks
            codes.ids[codes.n] = id
            codes.counts[codes.n] = 1
            codes.n += 1
            return
    locked_count(&codes.counts[MAX_CODES], journal)

cdef inline void locked_merge_histogram(
    const om_layout *layout, om_histogram *into, om_histogram *other,
    uint64_t *saturated, om_journal *journal,
) noexcept nogil:
    """Add a histogram of the same layout; only the cells between its extremes."""
    cdef uint64_t *a
    cdef uint64_t *b
    cdef int i
    if other.min > other.max:
        return
    a = cells_at(into)
    b = cells_at(other)
    for i in range(cell_of(layout, other.min), cell_of(layout, other.max) + 1):
        if journal != NULL and b[i] != 0:
            keep(journal, &a[i])
        a[i] += b[i]
    locked_add(&into.sum_ns, other.sum_ns, saturated, journal)
    locked_widen_range(into, other.min, other.max, journal)

cdef inline size_t packed_limit(
    const om_layout *layout, int n_histograms
) noexcept nogil:
    """The most bytes that `locked_pack` writes for such a record."""
    return sizeof(om_record) + 8 + n_histograms * (
        sizeof(om_packed_histogram) + layout.n_cells * sizeof(uint64_t)
    )

cdef inline size_t locked_pack(
    const om_layout *layout, om_record *record, char *to
) noexcept nogil:
    """Copy a record without its empty cells; returns the bytes written."""
    cdef size_t at = sizeof(om_record) - NAME_BYTES + record.name_length
    cdef om_histogram *h
    cdef om_packed_histogram packed
    cdef uint32_t i
    memcpy(to, record, at)
    at = (at + 7) & ~(<size_t> 7)
    for i in range(record.n_histograms):
        h = histogram_at(layout, record, i)
        packed.h = h[0]
        packed.first = 0
        packed.n_cells = 0
        if h.min <= h.max:
            packed.first = cell_of(layout, h.min)
            packed.n_cells = cell_of(layout, h.max) - packed.first + 1
        memcpy(to + at, &packed, sizeof(packed))
        at += sizeof(packed)
        memcpy(
            to + at, cells_at(h) + packed.first, packed.n_cells * sizeof(uint64_t)
        )
        at += packed.n_cells * sizeof(uint64_t)
    return at
