# SPDX-License-Identifier: MIT
"""Methods that do nothing, with the signatures of the core's: what CPython's call costs.

Built with the directives of setup.py, so that the difference to the real method is the
work and nothing else.
"""

from ometrics._record cimport om_histogram, om_record

cimport cython


cdef class EmptyCore:
    """What `MetricsCollector` is to `Core`, `operations.Empty` is to this."""

    def record_latency(self, model, latency, /):
        pass

    def record_error(self, model, error, /):
        pass

    def record_tokens(self, model, token_count, /):
        pass


@cython.final
cdef class EmptyRecorder:
    def record_latency(self, latency, /):
        pass


@cython.final
cdef class EmptyCall:
    def chunk(self, bint answer, /):
        pass

    def end(
        self, int outcome, error, total, load, prefill, decode,
        prompt_tokens, cached_tokens, completion_tokens, done_reason, /,
    ):
        return True


def mark():
    """Where `callgrind.py` cuts its profile."""


def sizes():
    """Bytes of a record without its histograms, and of a histogram without its cells."""
    return sizeof(om_record), sizeof(om_histogram)
