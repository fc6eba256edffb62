# SPDX-License-Identifier: MIT
from ometrics._state cimport om_core

cdef void link(om_core *c) noexcept
cdef void unlink(om_core *c) noexcept
