# SPDX-License-Identifier: MIT
from ometrics._table cimport Table

cdef class Core(Table):
    pass
