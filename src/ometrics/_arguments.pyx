# SPDX-License-Identifier: MIT
"""What a caller hands over -> what the core counts.

All of it runs before the mutex is taken: conversion may run the caller's code.
"""

from ometrics.text import valid

from cpython.datetime cimport import_datetime, timedelta
from cpython.unicode cimport PyUnicode_FromObject
from libc.math cimport INFINITY, NAN

import_datetime()

cdef extern from "Python.h":
    double PyFloat_AsDouble(object) except? -1

MAX_NAME = 256          # characters of a model name or code


cdef double number_of(object value, str what) except? -1.0:
    """
    The float of any real number.

    Raises:
        TypeError: Not a number; strings are not parsed.
    """
    try:
        return PyFloat_AsDouble(value)
    except OverflowError:
        return INFINITY if value > 0 else -INFINITY
    except ValueError:          # a signalling NaN of decimal
        return NAN
    except TypeError:
        raise TypeError(f"{what}, not {type(value).__name__}") from None


cdef double seconds_of(object latency) except? -1.0:
    """Seconds of any real number or `timedelta`."""
    if isinstance(latency, timedelta):
        return latency.total_seconds()
    return number_of(latency, "a latency is a number of seconds or a timedelta")


cdef str model_name(object model):
    """
    A name as it may leave the process: at most 256 characters, valid Unicode.

    Raises:
        TypeError: Not a string.
    """
    if not isinstance(model, str):
        raise TypeError(f"a model is named by a str, not {type(model).__name__}")
    cdef str name = PyUnicode_FromObject(model)     # str() would name an Enum's member
    return valid(name[:MAX_NAME] if len(name) > MAX_NAME else name)
