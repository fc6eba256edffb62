# SPDX-License-Identifier: MIT
"""Lines of a stream, looked at without being decoded.

Compiled because most of what an instrumented stream costs is to see, for each of its
lines, that it is one more piece of text and nothing else.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp


def count_texts(bytes data not None, bint events, /):
    """
    How many chunks of text these are, if they are nothing else.

    Args:
        data: Some lines of a stream, as servers write them: compact JSON.
        events: Whether they are server-sent events of OpenAI's, or lines of Ollama's.

    Returns:
        The number of lines, each of which holds text of the answer, no error, and is
        not the last one; 0 where that is not certain, so that they must be decoded.
    """
    cdef const char *at = PyBytes_AS_STRING(data)
    cdef const char *end = at + PyBytes_GET_SIZE(data)
    cdef const char *stop
    cdef int count = 0
    if at == end or (end - 1)[0] != c"\n":
        return 0
    while at != end:
        stop = <const char *> memchr(at, c"\n", end - at)
        if events and stop == at:
            at += 1
            continue
        if events:
            if stop - at < 6 or memcmp(at, b"data:", 5) != 0:
                return 0
        if not is_text(at, stop, events):
            return 0
        count += 1
        at = stop + 1
    return count


cdef inline bint begins(
    const char *at, const char *end, const char *what, Py_ssize_t size
) noexcept nogil:
    return end - at > size and memcmp(at, what, size) == 0


cdef bint is_text(const char *at, const char *end, bint events) noexcept nogil:
    # A quote within a string of JSON is escaped, so no text of an answer looks like one
    # of these fields.
    cdef bint has_text = False, is_not_last = False
    while True:
        at = <const char *> memchr(at, c'"', end - at)
        if at == NULL:
            return has_text and is_not_last
        at += 1
        if begins(at, end, b'content":"', 10):
            at += 10
            has_text |= at[0] != c'"'
        elif begins(at, end, b'response":"', 11):
            at += 11
            has_text |= at[0] != c'"'
        elif events:
            if begins(at, end, b'finish_reason":null', 19):
                is_not_last = True
            elif begins(at, end, b'usage":{', 8) or begins(at, end, b'error":', 7):
                return False
        elif begins(at, end, b'done":false', 11):
            is_not_last = True
