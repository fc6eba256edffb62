# SPDX-License-Identifier: MIT
from ometrics._copy cimport om_copy

cdef object snapshot_of(
    om_copy *taken, list codes, tuple buckets, dict names, object instance_id
)
