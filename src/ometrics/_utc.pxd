# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t

cdef object utc_of(int64_t ns)
