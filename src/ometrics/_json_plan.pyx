# SPDX-License-Identifier: MIT
"""What a JSON document shows of each read type, and what its histograms share.

Pure: no lock, no shared state.
"""

from libc.math cimport log2, rint
from libc.stdlib cimport free, malloc

from ometrics._buckets cimport EXP_CELLS, OCTAVE
from ometrics._json_numbers cimport DIGITS

cimport cython

cdef dict FACTS = {"mean": MEAN, "min": LEAST, "max": MOST, "total": TOTAL}


@cython.final
cdef class Ratio:
    """
    A quotient of sums of fields; 0.0 of nothing.

    Args:
        over: Names of the fields whose sum is divided.
        under: Names of those whose sum divides it.
        percent: Multiply by 100.
    """

    def __cinit__(self, tuple over, tuple under, bint percent=False):
        self.over = over
        self.under = under
        self.percent = percent


@cython.final
cdef class Places:
    """Some fields of a read type, by their places."""

    def __cinit__(self, tuple fields, tuple names):
        if len(names) > MAX_SUM:
            raise ValueError(f"{names}: a sum of more than {MAX_SUM} fields")
        self.n = len(names)
        for i, name in enumerate(names):
            self.places[<int> i] = fields.index(name)

    cdef object sum_of(self, tuple values):
        cdef int i
        result = values[self.places[0]]
        for i in range(1, self.n):
            result = result + values[self.places[i]]
        return result


@cython.final
cdef class Key:
    """
    A key of an object of the document, and where its value comes from.

    Args:
        name: The key.
        fields: Names of the owner's fields, in order.
        source: Name of a field or property of the owner, several fields for the sum of
            these, a `Ratio`, or a function of the owner.
        fact: `mean`, `min`, `max` or `total` of the histogram that the field is.
        duration: Write the fact as Go writes a duration, `0s` for an unknown mean.
    """

    def __cinit__(
        self, str name, tuple fields, source, str fact=None, bint duration=False
    ):
        self.name = name
        self.lines = lines_of(f'"{name}": ')
        self.source = source
        self.shows = COMPUTED
        if isinstance(source, str):
            self.shows = FIELD if source in fields else PROPERTY
            self.place = fields.index(source) if source in fields else 0
        elif isinstance(source, tuple):
            self.shows = SUM
            self.over = Places(fields, source)
        elif isinstance(source, Ratio):
            self.shows = RATIO
            self.over = Places(fields, (<Ratio> source).over)
            self.under = Places(fields, (<Ratio> source).under)
            self.percent = (<Ratio> source).percent
        if fact is not None:
            self.shows = FACTS[fact] + (AS_DURATION if duration else 0)

    cdef object ratio_of(self, tuple values):
        under = self.under.sum_of(values)
        if not under:
            return 0.0
        over = self.over.sum_of(values)
        return 100.0 * over / under if self.percent else over / under


cdef list lines_of(str text):
    """What begins a line, at each depth."""
    return [f"\n{' ' * INDENT * depth}{text}".encode() for depth in range(MAX_DEPTH)]


@cython.final
cdef class Unit:
    """
    The names in a histogram's object.

    Args:
        sum_field: The field that holds the sum of the values.
        suffix: What follows the keys of values: `_seconds`, or nothing.
        seconds: What the value 1 is among the cells, in seconds.
        labels: Buckets -> their labels, or `None` to show none.
    """

    def __cinit__(self, str sum_field, str suffix, double seconds, labels):
        self.sum_field = sum_field
        self.suffix = suffix
        self.seconds = seconds
        self.labels = labels


@cython.final
cdef class Shape:
    """What all histograms of one unit and one layout have in common, as text."""

    def __cinit__(self, owner, tuple buckets, Unit unit, Layout layout, encode):
        cdef int i
        self.owner = owner
        self.buckets = buckets
        self.unit = unit
        self.layout = layout
        bounds = [bound / unit.seconds for bound in layout.bounds]
        self.bucket_bounds = encode(buckets)
        self.bounds = encode(bounds)
        self.shift = <int> rint(-log2(unit.seconds) * OCTAVE)
        suffix = unit.suffix
        self.sum_line = lines_of(f'"{unit.sum_field}": ')
        self.total_line = lines_of(f'"total{suffix}": ') if suffix else None
        self.mean_line = lines_of(f'"mean{suffix}": ')
        self.min_line = lines_of(f'"min{suffix}": ')
        self.max_line = lines_of(f'"max{suffix}": ')
        self.percentiles_line = lines_of(f'"percentiles{suffix}": {{')
        self.bounds_line = lines_of(f'"bounds{suffix}": ')
        self.empty = [None] * MAX_DEPTH
        self.bucket_ends = <int *> malloc(len(buckets) * sizeof(int))
        if self.bucket_ends == NULL:
            raise MemoryError
        for i in range(len(buckets) - 1):
            self.bucket_ends[i] = layout.bounds.index(buckets[i]) + 1
        self.bucket_ends[len(buckets) - 1] = layout.n_bounds + 1
        self.labels = []
        if unit.labels is not None:
            self.labels = [lines_of(f'"{label}": ') for label in unit.labels(buckets)]
        self.room = (
            4096 + len(self.bucket_bounds) + len(self.bounds)
            + (DIGITS + 1) * (EXP_CELLS + 2 + layout.n_bounds)
            + sum([len(label[0]) + DIGITS + ROOM for label in self.labels])
        )

    def __dealloc__(self):
        free(self.bucket_ends)
