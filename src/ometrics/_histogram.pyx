# SPDX-License-Identifier: MIT
"""Immutable layouts of cells, and all arithmetic over cells.

Compiled because a snapshot of a thousand models reads a million cells. Pure: no lock,
no shared state but a cache of layouts; every function may be called from any thread.
Cells travel as `bytes` of native unsigned 64-bit counts together with the index of the
first one, trimmed so that neither end is zero: equal histograms are equal bytes. All
counts of a histogram add up to at most 2^64 - 1, so no sum of cells can wrap.
"""

from ometrics import bounds as explicit_bounds

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.object cimport PyObject
from libc.math cimport INFINITY, NAN, ceil, exp2, isnan, ldexp
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from ometrics._buckets cimport (
    EXP_CELLS,
    MIN_EXPONENT,
    OCTAVE,
    SLICE_BITS,
    SLICES,
    cell_of,
)

cimport cython

cdef enum:
    MAX_LAYOUTS = 64            # kept; a process has one or two
    COUNT_SIZE = sizeof(uint64_t)

cdef double TWO_TO_64 = ldexp(1.0, 64)

cdef inline const uint64_t *counts_of(bytes cells) noexcept:
    return <const uint64_t *> <void *> PyBytes_AS_STRING(cells)

cdef inline Py_ssize_t length(bytes cells) noexcept:
    return PyBytes_GET_SIZE(cells) // COUNT_SIZE

cdef bytes new_cells(Py_ssize_t n):
    cdef bytes cells = PyBytes_FromStringAndSize(NULL, n * COUNT_SIZE)
    memset(PyBytes_AS_STRING(cells), 0, n * COUNT_SIZE)
    return cells

cdef tuple trimmed(int first, const uint64_t *c, int n):
    """`(first, cells)` without the zeros at either end."""
    while n > 0 and c[n - 1] == 0:
        n -= 1
    while n > 0 and c[0] == 0:
        c += 1
        n -= 1
        first += 1
    if n == 0:
        return 0, b""
    return first, PyBytes_FromStringAndSize(<const char *> c, n * COUNT_SIZE)

cdef uint64_t sum_of(const uint64_t *c, Py_ssize_t n, bint *over) noexcept nogil:
    """Sum, and whether it stopped at 2^64 - 1."""
    cdef uint64_t result = 0
    cdef uint64_t bits = 0
    cdef Py_ssize_t i
    over[0] = False
    for i in range(n):          # without a branch
        result += c[i]
        bits |= c[i]
    if bits < (<uint64_t> 1) << 48 and n < 1 << 16:
        return result
    result = 0
    for i in range(n):
        result += c[i]
        if result < c[i]:
            over[0] = True
            return UINT64_MAX
    return result

cdef uint64_t read_counts(
    list counts, uint64_t *into, uint64_t total
) except? 0:
    """Python's integers as counts; returns `total` and their sum."""
    cdef Py_ssize_t i
    cdef uint64_t count
    try:
        for i in range(len(counts)):
            count = counts[i]
            into[i] = count
            total += count
            if total < count:
                raise OverflowError
    except OverflowError:
        raise ValueError(
            f"counts are negative, or add up to more than the {UINT64_MAX} that a"
            " histogram holds"
        ) from None
    return total

cdef double exponential_bound(int i) noexcept:
    """2^(MIN_EXPONENT + i / OCTAVE), exact where it is a power of two."""
    return ldexp(exp2((i % OCTAVE) / <double> OCTAVE), MIN_EXPONENT + i // OCTAVE)


@cython.final
cdef class Layout:
    """
    How values become cells, for one set of explicit bounds.

    Args:
        bounds: Explicit upper bounds in seconds, inclusive; finite, positive, strictly
            ascending, at most 1,024.

    Raises:
        ValueError: A bound breaks these rules; the message names it.

    Thread-safety:
        Immutable.
    """

    def __cinit__(self, bounds):
        cdef int i, cell, n_explicit
        cdef double previous = 0.0
        cdef double bound, edge
        self.bounds = tuple([float(b) for b in bounds])
        n_explicit = len(self.bounds)
        if n_explicit > MAX_BOUNDS:
            raise ValueError(
                f"{n_explicit} bucket bounds, at most {MAX_BOUNDS} are kept"
            )
        for bound in self.bounds:
            if not previous < bound < INFINITY:
                raise ValueError(
                    f"bucket bound {bound!r} must be finite and above {previous!r}"
                )
            previous = bound

        self.n_bounds = n_explicit
        self._ends = {}
        self._ends_of = {}
        self.exp_end = <int *> malloc((EXP_CELLS + 1) * sizeof(int))
        self.bucket_of = <int *> malloc((EXP_CELLS + 2 + n_explicit) * sizeof(int))
        self.bound_end = <int *> malloc((n_explicit + 1) * sizeof(int))
        self.c.upper = <double *> malloc(
            (EXP_CELLS + 2 + n_explicit) * sizeof(double)
        )
        if (
            self.exp_end == NULL or self.bucket_of == NULL
            or self.bound_end == NULL or self.c.upper == NULL
        ):
            raise MemoryError
        cell = 0
        i = 0
        cdef int e = 0
        while i < n_explicit or e <= EXP_CELLS:
            edge = exponential_bound(e) if e <= EXP_CELLS else INFINITY
            bound = self.bounds[i] if i < n_explicit else INFINITY
            self.c.upper[cell] = min(edge, bound)
            self.bucket_of[cell] = e - 1
            if bound <= edge:
                self._ends[bound] = cell
                self.bound_end[i] = cell
                i += 1
            if edge <= bound:
                self.exp_end[e] = cell
                if e % OCTAVE == 0:
                    self._ends[edge] = cell     # as exact as an explicit bound
                e += 1
            cell += 1
        self.c.upper[cell] = INFINITY
        self.bucket_of[cell] = EXP_CELLS
        self.c.n_cells = cell + 1
        self.c.overflow_start = self.exp_end[EXP_CELLS]

        cell = 0
        for i in range(SLICES):
            edge = ldexp(
                1.0 + (i % (1 << SLICE_BITS)) / <double> (1 << SLICE_BITS),
                MIN_EXPONENT + (i >> SLICE_BITS),
            )
            while edge > self.c.upper[cell]:
                cell += 1
            self.c.guess[i] = cell

    def __dealloc__(self):
        free(self.exp_end)
        free(self.bucket_of)
        free(self.bound_end)
        free(self.c.upper)

    def __reduce__(self):
        return Layout, (self.bounds,)

    @property
    def n_cells(self):
        """Number of cells, both outer ones included."""
        return self.c.n_cells

    cdef om_cells cells_of(self, int first, bytes cells) except *:
        """The cells as C reads them; refuses what is not this layout's."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(cells)
        cdef Py_ssize_t n = size // COUNT_SIZE
        if first < 0 or n > self.c.n_cells - first or size % COUNT_SIZE:
            raise ValueError(
                f"{size} bytes of cells from {first} on are not within the"
                f" {self.c.n_cells} of 8 bytes of this layout"
            )
        return om_cells(counts=counts_of(cells), first=first, n=<int> n)

    def cell(self, double value, /):
        """Index of the cell of `value`, in seconds, finite and >= 0."""
        if not 0.0 <= value < INFINITY:
            raise ValueError(f"{value!r} has no cell: it must be finite and >= 0")
        return cell_of(&self.c, value)

    def upper(self, int cell, /):
        """Inclusive upper bound of a cell in seconds; `inf` for the last one."""
        if not 0 <= cell < self.c.n_cells:
            raise IndexError(f"cell {cell} of {self.c.n_cells}")
        return self.c.upper[cell]

    # --- Views

    cdef uint64_t explicit_counts(
        self, const om_cells *cells, uint64_t *counts
    ) noexcept nogil:
        """The count of each explicit bound and of what is above; returns their sum."""
        cdef uint64_t total = 0
        cdef int i = 0
        cdef int bound, end
        cdef uint64_t count
        for bound in range(self.n_bounds + 1):
            end = cells.n
            if bound < self.n_bounds:
                end = min(self.bound_end[bound] + 1 - cells.first, end)
            count = 0
            while i < end:
                count += cells.counts[i]
                i += 1
            counts[bound] = count
            total += count
        return total

    cdef void exponential_counts(
        self, const om_cells *cells, om_exponential *view
    ) noexcept nogil:
        cdef const uint64_t *c = cells.counts
        cdef const int *end = self.exp_end
        cdef const int *bucket = self.bucket_of + cells.first
        cdef int first = cells.first
        cdef int n = cells.n
        cdef int i = 0
        cdef int low
        view.first = view.n = 0
        view.underflow = view.overflow = 0
        while i < n and first + i <= end[0]:
            view.underflow += c[i]
            i += 1
        while n > i and first + n - 1 > end[EXP_CELLS]:
            n -= 1
            view.overflow += c[n]
        # The cells between may begin or end with zeros when there are outer ones.
        while i < n and c[i] == 0:
            i += 1
        while n > i and c[n - 1] == 0:
            n -= 1
        if i == n:
            return
        low = bucket[i]
        view.first = low
        view.n = bucket[n - 1] - low + 1
        memset(view.counts, 0, view.n * COUNT_SIZE)
        while i < n:
            view.counts[bucket[i] - low] += c[i]
            i += 1

    cdef void quantiles_of(
        self, const om_cells *cells, uint64_t count, double low, double high,
        const double *q, int n, double *values,
    ) noexcept nogil:
        """
        Nearest-rank estimates of the `n` ascending quantiles `q`, in one pass.

        `count` is the sum of the cells, above 0; an extreme that is not known is NaN.
        """
        cdef const double *upper = self.c.upper
        cdef uint64_t rank
        cdef uint64_t seen = cells.counts[0]
        cdef int i
        cdef int cell = 0
        cdef int at
        cdef double real_rank, value
        for i in range(n):
            real_rank = ceil(q[i] * <double> count)
            rank = <uint64_t> real_rank if real_rank < TWO_TO_64 else count
            rank = min(max(rank, <uint64_t> 1), count)
            if rank == 1 and not isnan(low):
                values[i] = low
                continue
            if rank == count and not isnan(high):
                values[i] = high
                continue
            while seen < rank and cell < cells.n - 1:
                cell += 1
                seen += cells.counts[cell]
            at = cells.first + cell
            if at <= self.exp_end[0]:
                value = upper[at]
            elif at > self.exp_end[EXP_CELLS]:
                value = upper[at - 1]
            else:
                value = 2.0 * upper[at - 1] * upper[at] / (upper[at - 1] + upper[at])
            if value > high:
                value = high
            if value < low:
                value = low
            values[i] = value

    cdef bytes ends_of(self, tuple bounds):
        """
        The last cell at or below each of these bounds, as C integers.

        Raises:
            ValueError: One is no bound of this layout.
        """
        cdef object key = <size_t> <PyObject *> bounds  # the hash of floats is dear
        cdef bytes ends
        cdef int i
        entry = self._ends_of.get(key)
        if entry is None:
            ends = PyBytes_FromStringAndSize(NULL, len(bounds) * sizeof(int))
            for i in range(<int> len(bounds)):
                end = self._ends.get(bounds[i])
                if end is None:
                    raise ValueError(f"{bounds[i]!r} is not a bound of this histogram")
                (<int *> <void *> PyBytes_AS_STRING(ends))[i] = end
            if len(self._ends_of) >= MAX_LAYOUTS:
                self._ends_of.clear()
            # Holds the bounds, so that their id stays their own.
            entry = self._ends_of[key] = (bounds, ends)
        return <bytes> (<tuple> entry)[1]

    def cumulative(self, tuple bounds not None, int first, bytes cells not None, /):
        """
        Exact number of values at or below each of `bounds`, and in all.

        Args:
            bounds: Ascending explicit bounds of this layout.
            first: Index of the first cell.
            cells: The counts.

        Returns:
            Native unsigned 64-bit counts.

        Raises:
            ValueError: A bound is not one of this layout's, so no exact count exists.
        """
        cdef om_cells c = self.cells_of(first, cells)
        cdef bytes ends = self.ends_of(bounds)
        cdef const int *end = <const int *> <void *> PyBytes_AS_STRING(ends)
        cdef int n = <int> len(bounds)
        cdef bytes result = new_cells(n + 1)
        cdef uint64_t *below = <uint64_t *> counts_of(result)
        cdef uint64_t seen = 0
        cdef int i = 0
        cdef int k
        for k in range(n):
            while i < c.n and first + i <= end[k]:
                seen += c.counts[i]
                i += 1
            below[k] = seen
        while i < c.n:
            seen += c.counts[i]
            i += 1
        below[n] = seen
        return result

    def exponential(self, int first, bytes cells not None, /):
        """
        The base-2 exponential view, trimmed.

        Returns:
            `(offset, counts, underflow, overflow)`; `offset` is OpenTelemetry's index
            of the first of the native unsigned 64-bit counts, whose bucket is
            `(base^offset, base^(offset+1)]`.
        """
        cdef om_cells c = self.cells_of(first, cells)
        cdef om_exponential view
        self.exponential_counts(&c, &view)
        return (
            view.first + MIN_EXPONENT * OCTAVE if view.n else 0,
            PyBytes_FromStringAndSize(<char *> view.counts, view.n * COUNT_SIZE),
            view.underflow,
            view.overflow,
        )

    def quantile(self, int first, bytes cells not None, double q, low, high, /):
        """
        The `q`-quantile in seconds, by nearest rank; `None` of nothing.

        The harmonic midpoint `2ab / (a + b)` of the cell `(a, b]` has the least
        relative error for any value in it: (base - 1) / (base + 1) = 1.08 % at scale 5
        (DDSketch, Masson et al. 2019, section 2.1). The two open cells give their
        bound; the first and the last rank are the extremes, where they are known, and
        no estimate leaves these.

        Args:
            first: Index of the first cell.
            cells: The counts.
            q: 0 to 1.
            low: The minimum in seconds, or `None`.
            high: The maximum in seconds, or `None`.
        """
        cdef om_cells c = self.cells_of(first, cells)
        cdef bint over
        cdef uint64_t count = sum_of(c.counts, c.n, &over)
        cdef double value
        if count == 0:
            return None
        self.quantiles_of(
            &c, count, NAN if low is None else low, NAN if high is None else high,
            &q, 1, &value,
        )
        return value

    # --- Algebra

    def add(self, list sets not None, /):
        """
        Cell by cell sum of pairs `(first, cells)`, none empty; returns such a pair.

        Of more than 2^64 - 1 values the fullest cell loses what is too much, so that
        every view still adds up to one count.
        """
        cdef int first = self.c.n_cells, end = 0, i
        cdef om_cells few
        cdef uint64_t values, in_all = 0
        cdef uint64_t *c
        cdef bint over, too_many = False
        for begin, cells in sets:
            few = self.cells_of(begin, cells)
            first = min(first, few.first)
            end = max(end, few.first + few.n)
        cdef bytes added = new_cells(end - first)
        for begin, cells in sets:
            few = self.cells_of(begin, cells)
            values = sum_of(few.counts, few.n, &over)
            too_many = too_many or over or values > UINT64_MAX - in_all
            in_all += values
            c = <uint64_t *> counts_of(added) + few.first - first
            for i in range(few.n):
                c[i] += min(few.counts[i], UINT64_MAX - c[i])
        if too_many:
            cap(<uint64_t *> counts_of(added), end - first)
        return first, added

    def subtract(
        self, int first_a, bytes a not None, int first_b, bytes b not None, /
    ):
        """
        Cell by cell difference `a - b`; returns `(first, cells)`.

        Raises:
            ValueError: A count of `b` is above that of `a`: `b` is not an earlier part
                of it.
        """
        cdef om_cells ca = self.cells_of(first_a, a)
        cdef om_cells cb = self.cells_of(first_b, b)
        if cb.n == 0:
            return first_a, a
        cdef bytes cells = PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(a), ca.n * COUNT_SIZE
        )
        cdef uint64_t *c = <uint64_t *> counts_of(cells)
        cdef int shift = first_b - first_a
        cdef int i
        for i in range(cb.n):
            if cb.counts[i] == 0:
                continue
            if not 0 <= i + shift < ca.n or c[i + shift] < cb.counts[i]:
                raise ValueError(
                    "not an earlier part of this histogram: a count went back"
                )
            c[i + shift] -= cb.counts[i]
        return trimmed(first_a, c, ca.n)

    def assemble(
        self,
        int offset,
        list counts not None,
        object underflow,
        object overflow,
        list explicit not None,
        /,
    ):
        """
        The cells, from the exponential view and the counts at `self.bounds`.

        Within one exponential bucket the explicit counts say how it splits, so the two
        views determine every cell.

        Args:
            offset: OpenTelemetry's index of the first of `counts`.
            counts: The exponential buckets.
            underflow: What is below them.
            overflow: What is above them.
            explicit: A count for each bound, not cumulative, and one for the rest.

        Returns:
            `(first, cells)`.

        Raises:
            ValueError: The views contradict each other.
        """
        cdef uint64_t exponential[EXP_CELLS + 2]        # the outer two as well
        cdef uint64_t explicits[MAX_BOUNDS + 1]
        cdef int start = offset - MIN_EXPONENT * OCTAVE
        if counts and (start < 0 or start > EXP_CELLS - len(counts)):
            raise ValueError(
                f"exponential offset {offset} with {len(counts)} counts leaves the"
                " range"
            )
        if len(explicit) != self.n_bounds + 1:
            raise ValueError(
                f"{len(explicit)} explicit counts instead of {self.n_bounds + 1}"
            )
        memset(exponential, 0, sizeof(exponential))
        cdef uint64_t total = read_counts([underflow], exponential, 0)
        if counts:
            total = read_counts(counts, exponential + 1 + start, total)
        total = read_counts([overflow], exponential + EXP_CELLS + 1, total)
        cdef uint64_t explicit_total = read_counts(explicit, explicits, 0)
        if explicit_total != total:
            raise ValueError(
                f"explicit and exponential counts add up to {explicit_total} and"
                f" {total}"
            )
        cdef int n = self.c.n_cells
        cdef bytes cells = new_cells(n)
        cdef uint64_t *c = <uint64_t *> counts_of(cells)
        cdef uint64_t exp_seen = exponential[0]         # up to the next end of each
        cdef uint64_t explicit_seen = explicits[0]
        cdef uint64_t before = 0
        cdef uint64_t below
        cdef int e = 0
        cdef int b = 0
        cdef int i
        for i in range(n):
            if b < self.n_bounds and self.bound_end[b] == i:
                below = explicit_seen
                b += 1
                explicit_seen += explicits[b]
                if e <= EXP_CELLS and self.exp_end[e] == i:
                    if exp_seen != below:
                        raise difference(self, i)
                    e += 1
                    exp_seen += exponential[e]
            elif e <= EXP_CELLS:
                below = exp_seen
                e += 1
                exp_seen += exponential[e]
            else:
                below = total
            if below < before:
                raise difference(self, i)
            c[i] = below - before
            before = below
        return trimmed(0, c, n)


cdef object difference(Layout layout, int cell):
    return ValueError(
        f"explicit and exponential counts differ near {layout.c.upper[cell]!r} s"
    )


cdef void cap(uint64_t *c, int n) noexcept nogil:
    """Make the sum 2^64 - 1; the fullest cells lose what is too much."""
    cdef int fullest
    cdef int i
    cdef uint64_t before
    cdef bint over
    while True:
        fullest = 0
        for i in range(n):
            if c[i] > c[fullest]:
                fullest = i
        before = c[fullest]
        c[fullest] = 0
        c[fullest] = UINT64_MAX - sum_of(c, n, &over)
        if not over and c[fullest] > 0:
            return
        c[fullest] = before // 2


def total(bytes cells not None, /):
    """Sum of all counts, saturating at 2^64 - 1."""
    cdef bint over
    return sum_of(counts_of(cells), length(cells), &over)


# --- Layouts of histograms

cdef dict LAYOUTS = {}          # buckets -> Layout
# id -> (buckets, Layout): the hash of eleven floats costs as much as all of `check`.
cdef dict BY_IDENTITY = {}


def layout_of(tuple buckets not None, /):
    """
    The cells for the user's `buckets` and every standard bound beside them.

    Raises:
        ValueError: `buckets` is empty or too long, not ascending, or has a bound that
            is not a positive finite number of seconds or has its neighbour's label.
    """
    return layout_for(buckets)


cdef Layout layout_for(tuple buckets):
    """`layout_of`, at once for a tuple that was seen before."""
    cdef object key = <size_t> <PyObject *> buckets
    entry = BY_IDENTITY.get(key)
    if entry is None:
        entry = buckets, equal_layout(buckets)  # kept, so that its id stays its own
        if len(BY_IDENTITY) >= MAX_LAYOUTS:
            BY_IDENTITY.clear()
        BY_IDENTITY[key] = entry
    return <Layout> (<tuple> entry)[1]


cdef Layout equal_layout(tuple buckets):
    """The one layout of all equal tuples."""
    layout = LAYOUTS.get(buckets)
    if layout is None:
        Layout(buckets)         # names a bad bound before sorting would hide it
        explicit_bounds.check_buckets(buckets)
        every = explicit_bounds.STANDARD_BOUNDS.union(buckets)
        layout = Layout(tuple(sorted(every)))
        if len(LAYOUTS) >= MAX_LAYOUTS:
            LAYOUTS.clear()
        LAYOUTS[buckets] = layout
    return layout
