# SPDX-License-Identifier: MIT
"""Numbers and histograms as rows of a database; compiled, because a day has many."""

from libc.math cimport NAN, rint
from libc.stdint cimport int64_t, uint64_t

from ometrics._histogram cimport Layout, layout_for, om_cells, sum_of

cimport cython

from ometrics._cells import pack, unpack

cdef enum:
    FIGURES = 7         # columns of a histogram

cdef uint64_t MOST_COUNT = (<uint64_t> 1 << 63) - 1


cdef struct om_unit:
    double per_second       # of the cells' seconds, how many of the values' unit
    double per_extreme      # of the values' unit, how many of a column's
    double per_quantile


cdef om_unit *unit_of(bint tokens) noexcept:
    return &TOKENS if tokens else &SECONDS


cdef om_unit SECONDS = om_unit(per_second=1.0, per_extreme=1e9, per_quantile=1e6)
cdef om_unit TOKENS = om_unit(per_second=16384.0, per_extreme=1.0, per_quantile=1.0)
cdef double[3] QUANTILES = [0.5, 0.95, 0.99]
cdef tuple NOTHING = (None,) * FIGURES


cdef object whole(double value):
    """A whole number as both databases hold it."""
    return <int64_t> rint(value) if value < 9.2e18 else MOST_COUNT


@cython.final
cdef class Rows:
    """
    How numbers and histograms become a row of a database, and a row those.

    Args:
        numbers: Names of numbers, the first columns that are read.
        counts: Names of mappings of counts, the next columns.
        histograms: Names of histograms: of each the sum, minimum and maximum, and the
            blob of all come last.
        tags: Of each histogram in the blob.
        kinds: `LatencyHistogram` or `TokenHistogram` each.

    Thread-safety:
        Immutable.
    """
    cdef tuple numbers, counts, histograms
    cdef list tags
    cdef list kinds
    cdef list of_tokens
    cdef dict places        # by tag

    def __init__(self, numbers, counts, histograms, tags, kinds):
        self.numbers = tuple(numbers)
        self.counts = tuple(counts)
        self.histograms = tuple(histograms)
        self.tags = list(tags)
        self.kinds = list(kinds)
        self.of_tokens = [kind._SUM == "total" for kind in kinds]
        self.places = {tag: place for place, tag in enumerate(tags)}

    def write(self, tuple histograms not None, /):
        """
        Columns for people, and the blob.

        Returns:
            `(columns, blob)`: of each histogram count, sum, minimum, maximum, and the
            quantiles 0.5, 0.95 and 0.99, all `None` of an empty one; `None` as blob if
            all are.
        """
        cdef list columns = []
        cdef list packed = []
        cdef Py_ssize_t place
        for place in range(len(histograms)):
            histogram = histograms[place]
            cells = histogram.cells
            if not cells:
                columns += NOTHING
                continue
            columns += figures(histogram, cells, self.of_tokens[place])
            packed.append((self.tags[place], histogram.first_cell, cells))
        return columns, pack(packed) if packed else None

    def read(self, tuple row not None, Py_ssize_t at, tuple bounds not None, /):
        """
        What is known of a row, by name: neither NULL nor a histogram of nothing.

        Args:
            row: Has the columns from `at` on.
            at: Place in the row.
            bounds: The latency buckets.

        Returns:
            A new dictionary. Counts are as they are in the row.

        Raises:
            ValueError: A number is none or negative, or the blob cannot be read or
                contradicts the columns.
        """
        cdef dict known = {}
        for name in self.numbers:
            value = row[at]
            at += 1
            if value is not None:
                if type(value) not in (int, float) or value < 0:
                    raise ValueError(f"{name} is {value!r}")
                known[name] = value
        for name in self.counts:
            value = row[at]
            at += 1
            if value is not None:
                known[name] = value
        if self.histograms:
            data = row[at + 3 * len(self.histograms)]
            if data is not None:
                self.read_histograms(known, row, at, data, bounds)
        return known

    cdef int read_histograms(
        self, dict known, tuple row, Py_ssize_t at, data, tuple bounds
    ) except -1:
        cdef Py_ssize_t place, here
        cdef bint tokens
        cdef double unit
        if type(data) is not bytes:
            raise ValueError("histograms are no bytes")
        for tag, first, cells in unpack(data):
            found = self.places.get(tag)
            if found is None:
                continue
            place = found
            here = at + 3 * place
            kind = self.kinds[place]
            tokens = self.of_tokens[place]
            unit = unit_of(tokens).per_extreme
            sum_, low, high = row[here], row[here + 1], row[here + 2]
            name = self.histograms[place]
            try:
                known[name] = histogram_of(
                    kind, tokens, bounds, first, cells, sum_, low, high, unit
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from None
        return 0


cdef object histogram_of(
    kind, bint tokens, tuple bounds, first, cells, sum_, low, high, double unit
):
    if low is not None and high is not None:
        try:
            return made(
                kind, tokens, bounds, first, cells, sum_, low / unit, high / unit
            )
        except ValueError:
            pass    # on the edge of its cell and rounded across it: unknown
    return made(kind, tokens, bounds, first, cells, sum_, None, None)


cdef object made(
    object kind, bint tokens, bounds, first, cells, sum_, low, high
):
    if tokens:
        return kind(
            bucket_bounds=bounds, min=low, max=high, first_cell=first, cells=cells,
            total=sum_,
        )
    return kind(
        bucket_bounds=bounds, min=low, max=high, first_cell=first, cells=cells,
        sum_ns=sum_,
    )


cdef tuple figures(histogram, bytes cells, bint tokens):
    """The columns of a histogram that has values."""
    cdef Layout layout = layout_for(histogram.bucket_bounds)
    cdef om_cells c = layout.cells_of(histogram.first_cell, cells)
    cdef om_unit *unit = unit_of(tokens)
    cdef double values[3]
    cdef bint over
    cdef uint64_t count = sum_of(c.counts, c.n, &over)
    cdef uint64_t sum_ = histogram.total if tokens else histogram.sum_ns
    low, high = histogram.min, histogram.max
    layout.quantiles_of(
        &c, count,
        NAN if low is None else <double> low / unit.per_second,
        NAN if high is None else <double> high / unit.per_second,
        QUANTILES, 3, values,
    )
    return (
        min(count, MOST_COUNT),
        min(sum_, MOST_COUNT),
        None if low is None else whole(<double> low * unit.per_extreme),
        None if high is None else whole(<double> high * unit.per_extreme),
        whole(values[0] * unit.per_second * unit.per_quantile),
        whole(values[1] * unit.per_second * unit.per_quantile),
        whole(values[2] * unit.per_second * unit.per_quantile),
    )
