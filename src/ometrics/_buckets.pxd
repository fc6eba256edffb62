# SPDX-License-Identifier: MIT
"""Value -> cell index, and nothing else.

The cells are the pieces into which all bounds together cut the positive axis: the 1,025
bounds of the base-2 exponential histogram (scale 5, 2^-20 s to 2^12 s, OpenTelemetry's
MapToIndex with inclusive upper bounds) and the explicit decimal bounds beside them.
Every view (exponential, labels, GenAI bounds) is a sum of neighbouring cells, so one
count per value serves them all and no view can disagree with another.
"""

from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    SCALE = 5
    MIN_EXPONENT = -20                  # 0.95 us
    MAX_EXPONENT = 12                   # 68 min
    OCTAVE = 1 << SCALE                 # buckets between two powers of two
    EXP_CELLS = (MAX_EXPONENT - MIN_EXPONENT) * OCTAVE
    # The guess table is indexed by the exponent and this many leading mantissa bits: a
    # slice is then at most 1/128 wide, narrower than the narrowest bucket
    # (2^(1/32) - 1), so a guess is off by at most one exponential bound.
    SLICE_BITS = 7
    SLICE_SHIFT = 52 - SLICE_BITS
    SLICES = (MAX_EXPONENT - MIN_EXPONENT) << SLICE_BITS
    FIRST_SLICE = (1023 + MIN_EXPONENT) << SLICE_BITS

cdef struct om_layout:
    int n_cells
    int overflow_start          # the cell of 2^12 s: where larger values begin to look
    double *upper               # inclusive upper bound of each cell; the last is inf
    uint16_t guess[SLICES]      # cell of the smallest value of each slice

cdef inline int cell_of(const om_layout *layout, double value) noexcept nogil:
    """The cell of a finite value >= 0. No logarithm: the float's bits and a table."""
    cdef uint64_t bits
    cdef int cell
    memcpy(&bits, &value, sizeof(bits))
    bits = (bits >> SLICE_SHIFT) - FIRST_SLICE  # wraps below the range: then >= SLICES
    if bits < SLICES:
        cell = layout.guess[bits]
    elif value >= 1.0:
        cell = layout.overflow_start
    else:
        cell = 0
    while value > layout.upper[cell]:
        cell += 1
    return cell
