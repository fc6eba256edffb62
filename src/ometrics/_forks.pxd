# SPDX-License-Identifier: MIT
from libc.stdint cimport uint64_t

from ometrics._state cimport om_core

cdef void link(om_core *c) noexcept
cdef void unlink(om_core *c) noexcept
cdef uint64_t forks_of_process() noexcept
