# SPDX-License-Identifier: MIT
"""The packed records of a snapshot, as read types.

Compiled because a snapshot of a thousand models is a megabyte. Pure: no lock, no core.
"""

from datetime import timezone
from operator import itemgetter

from ometrics.histogram import LatencyHistogram
from ometrics.snapshot import OPERATIONS, CallMetrics, PerformanceMetrics

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.datetime cimport datetime_from_timestamp, import_datetime
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ometrics._record cimport *

import_datetime()

cdef object UTC = timezone.utc

cdef enum:
    HEADER = sizeof(om_record) - NAME_BYTES


cdef dict codes_dict(om_codes *codes, list names):
    cdef uint32_t i
    cdef dict result = {}
    for i in range(codes.n):
        result[names[codes.ids[i]]] = codes.counts[i]
    if codes.counts[MAX_CODES]:
        result["_OTHER"] = codes.counts[MAX_CODES]
    return result


cdef object time_of(int64_t ns):
    """UTC to the microsecond; None for never."""
    if ns == 0:
        return None
    return datetime_from_timestamp(ns // 1000 / 1e6, tz=UTC)


cdef list histograms_of(
    const char *data, Py_ssize_t *at, uint32_t n, tuple buckets
):
    cdef om_packed_histogram h
    cdef Py_ssize_t size
    cdef list result = []
    for _ in range(n):
        memcpy(&h, data + at[0], sizeof(h))
        at[0] += sizeof(h)
        size = h.n_cells * sizeof(uint64_t)
        result.append(LatencyHistogram(
            bucket_bounds=buckets,
            sum_ns=h.h.sum_ns,
            min=h.h.min if h.n_cells else None,
            max=h.h.max if h.n_cells else None,
            first_cell=h.first,
            cells=PyBytes_FromStringAndSize(data + at[0], size),
        ))
        at[0] += size
    return result


cdef object model_of(
    om_record *r, str name, list codes, list histograms, double uptime
):
    return PerformanceMetrics(
        model=name,
        successful_reqs=r.successes,
        failed_reqs=r.failures,
        cancelled_reqs=r.cancelled,
        latency_unknown=r.latency_unknown,
        tokens_processed=r.tokens,
        errors=codes_dict(&r.errors, codes),
        last_updated=time_of(r.updated_ns),
        latency_hist=histograms[0],
        uptime_seconds=uptime,
        calls={},
    )


cdef object call_of(om_record *r, list codes, list histograms):
    """In the order of `CALL_HISTOGRAMS`."""
    return CallMetrics(
        operation=OPERATIONS[r.operation - 1],
        successful_reqs=r.successes,
        failed_reqs=r.failures,
        cancelled_reqs=r.cancelled,
        latency=histograms[0],
        time_to_first_chunk=histograms[1],
        time_to_first_answer=histograms[2],
        time_per_output_chunk=histograms[3],
        load=histograms[4],
        prefill=histograms[5],
        decode=histograms[6],
        residual=histograms[7],
        network=histograms[8],
        prompt_tokens=r.prompt_tokens if r.told & TOLD_PROMPT else None,
        cached_tokens=r.cached_tokens if r.told & TOLD_CACHED else None,
        completion_tokens=r.completion_tokens if r.told & TOLD_COMPLETION else None,
        decode_tokens=r.decode_tokens,
        decode_ns=r.decode_ns,
        prefill_tokens=r.prefill_tokens,
        prefill_ns=r.prefill_ns,
        done_reasons=codes_dict(&r.done_reasons, codes),
        errors=codes_dict(&r.errors, codes),
    )


def unpack(
    bytes packed not None, list codes not None, tuple buckets not None,
    double uptime, /,
):
    """
    The models of `Core.take`.

    Args:
        packed: The records.
        codes: Code of each id.
        buckets: The collector's bucket bounds in seconds.
        uptime: Length of the window in seconds.

    Returns:
        Name -> `PerformanceMetrics`, by order of first record, with the calls in place.
    """
    cdef const char *data = PyBytes_AS_STRING(packed)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(packed)
    cdef Py_ssize_t at = 0
    cdef om_record record
    cdef uint32_t last = 0
    cdef bint ordered = True
    cdef list models = []
    cdef list calls = []
    cdef dict result = {}
    while at < end:
        memcpy(&record, data + at, HEADER)
        at += HEADER
        name = PyUnicode_DecodeUTF8(data + at, record.name_length, NULL)
        at = (at + <Py_ssize_t> record.name_length + 7) & ~(<Py_ssize_t> 7)
        histograms = histograms_of(data, &at, record.n_histograms, buckets)
        if record.operation == NOT_A_CALL:
            ordered = ordered and record.order >= last
            last = record.order
            models.append((
                record.order, name, model_of(&record, name, codes, histograms, uptime)
            ))
        else:
            calls.append((name, call_of(&record, codes, histograms)))
    if not ordered:     # recorders put their models in before the snapshot got there
        models.sort(key=itemgetter(0))
    for _, name, model in models:
        result[name] = model
    for name, call in calls:
        result[name].calls[call.operation] = call
    return result
