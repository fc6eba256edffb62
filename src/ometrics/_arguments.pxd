# SPDX-License-Identifier: MIT
cdef double number_of(object value, str what) except? -1.0
cdef double seconds_of(object latency) except? -1.0
cdef str model_name(object model)
