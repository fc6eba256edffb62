# SPDX-License-Identifier: MIT
"""What is known of the running calls of one operation, whosever they are.

Pure: no lock, no shared state.
"""

from libc.stdint cimport int64_t

cimport cython

# The fields of `CallMetrics` that follow, in the order of `of_running`.
RUNNING = (
    *("in_flight", "oldest_in_flight_seconds", "oldest_silence_seconds"),
    *("longest_silence_seconds", "silent_in_flight_seconds"),
    *("longest_wait_seconds", "newest_chunk_seconds"),
)


@cython.final
cdef class Running:
    """The running calls of one operation, in nanoseconds; below 0 there is none."""

    def __cinit__(self):
        self.oldest = self.oldest_silence = self.silence = self.silent = -1
        self.wait = self.newest = -1

    cdef void add(self, int64_t age, int64_t last) noexcept:
        """A call, and its last chunk since its start; the oldest call comes first."""
        cdef int64_t silence = -1 if last < 0 else age - last
        if self.calls == 0:
            self.oldest = age
            self.oldest_silence = silence
        self.calls += 1
        if silence < 0:
            self.wait = max(self.wait, age)
            return
        if silence > self.silence:
            self.silence = silence
            self.silent = age
        if self.newest < 0 or silence < self.newest:
            self.newest = silence


cdef tuple of_running(Running running):
    """The values of `RUNNING`; `None`: no call runs."""
    if running is None:
        return (0, None, None, None, None, None, None)
    return (
        running.calls, seconds(running.oldest), seconds(running.oldest_silence),
        seconds(running.silence), seconds(running.silent), seconds(running.wait),
        seconds(running.newest),
    )


cdef object seconds(int64_t ns):
    return None if ns < 0 else ns / 1e9
