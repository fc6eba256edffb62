# SPDX-License-Identifier: MIT
"""The packed records of a snapshot, as Python numbers.

Compiled because a snapshot of a thousand models is a megabyte. Pure: no lock, no core.
"""

from operator import itemgetter

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from ometrics._record cimport *


cdef dict codes_dict(om_codes *codes, list names):
    cdef uint32_t i
    cdef dict result = {names[codes.ids[i]]: codes.counts[i] for i in range(codes.n)}
    if codes.counts[MAX_CODES]:
        result["_OTHER"] = codes.counts[MAX_CODES]
    return result

def unpack(bytes packed, list codes, /):
    """
    The records of `Core.take`, by order of first record.

    Returns:
        For each record a dictionary of its numbers; `histograms` are tuples
        `(sum_ns, min, max, first_cell, cells)`.
    """
    cdef const char *data = PyBytes_AS_STRING(packed)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(packed)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t size
    cdef om_record record
    cdef om_packed_histogram h
    cdef uint32_t i
    cdef bint some
    cdef list rows = []
    while at < end:
        memcpy(&record, data + at, sizeof(om_record) - NAME_BYTES)
        at += sizeof(om_record) - NAME_BYTES
        name = PyUnicode_DecodeUTF8(data + at, record.name_length, NULL)
        at = (at + record.name_length + 7) & ~(<Py_ssize_t> 7)
        histograms = []
        for i in range(record.n_histograms):
            memcpy(&h, data + at, sizeof(h))
            at += sizeof(h)
            size = h.n_cells * sizeof(uint64_t)
            some = h.n_cells > 0
            histograms.append((
                h.h.sum_ns,
                h.h.min if some else None,
                h.h.max if some else None,
                h.first,
                PyBytes_FromStringAndSize(data + at, size),
            ))
            at += size
        rows.append((record.order, {
            "name": name,
            "operation": record.operation,
            "updated_ns": record.updated_ns,
            "successes": record.successes,
            "failures": record.failures,
            "cancelled": record.cancelled,
            "latency_unknown": record.latency_unknown,
            "tokens": record.tokens,
            "prompt_tokens": (
                record.prompt_tokens if record.told & TOLD_PROMPT else None
            ),
            "cached_tokens": (
                record.cached_tokens if record.told & TOLD_CACHED else None
            ),
            "completion_tokens": (
                record.completion_tokens if record.told & TOLD_COMPLETION else None
            ),
            "decode_tokens": record.decode_tokens,
            "decode_ns": record.decode_ns,
            "prefill_tokens": record.prefill_tokens,
            "prefill_ns": record.prefill_ns,
            "errors": codes_dict(&record.errors, codes),
            "done_reasons": codes_dict(&record.done_reasons, codes),
            "histograms": histograms,
        }))
    rows.sort(key=itemgetter(0))
    return [row for _, row in rows]
