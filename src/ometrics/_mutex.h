/* SPDX-License-Identifier: MIT
 *
 * The one lock of the recording core, and what a fork does to it.
 *
 *   om_mutex_acquire   from a thread that holds the GIL; gives it up while it waits
 *   om_mutex_lock      from a thread that does not hold the GIL
 *   om_mutex_release   from either
 *
 * CPython 3.13+ has PyMutex: one byte, 3 ns, and it detaches the thread while it waits.
 * Below that the platform's mutex is used; Cython's own fallback, PyThread_type_lock, is
 * a semaphore there and costs 26 ns more for each record.
 *
 * Invariant: nobody waits for the GIL while holding the mutex. Otherwise a daemon thread
 * that is stopped at interpreter exit could take the mutex with it. That is why acquire
 * drops the mutex that it waited for and tries again once it has the GIL back.
 */
#ifndef OMETRICS_MUTEX_H
#define OMETRICS_MUTEX_H

#include "Python.h"

#ifndef Py_NO_INLINE /* CPython 3.10 */
#define Py_NO_INLINE
#endif

#if defined(OMETRICS_WITHOUT_LOCK) /* the guard removed: fault tests must then fail */

typedef int om_mutex;
static inline void om_mutex_init(om_mutex *m) { (void)m; }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline void om_mutex_acquire(om_mutex *m) { (void)m; }
static inline void om_mutex_lock(om_mutex *m) { (void)m; }
static inline void om_mutex_release(om_mutex *m) { (void)m; }

#elif PY_VERSION_HEX >= 0x030D0000

/* Its first bit says "locked" (Include/cpython/pylock.h); there is no public way to try. */
typedef PyMutex om_mutex;
static inline void om_mutex_init(om_mutex *m) { memset(m, 0, sizeof *m); }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline void om_mutex_lock(om_mutex *m) { PyMutex_Lock(m); }
static inline void om_mutex_release(om_mutex *m) { PyMutex_Unlock(m); }
static inline int om_mutex_try(om_mutex *m) {
    uint8_t seen = _Py_atomic_load_uint8_relaxed(&m->_bits);
    return !(seen & 1) && _Py_atomic_compare_exchange_uint8(&m->_bits, &seen, seen | 1);
}

#else

#if defined(_WIN32)
#include <windows.h>
typedef SRWLOCK om_mutex;
static inline void om_mutex_init(om_mutex *m) { InitializeSRWLock(m); }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline int om_mutex_try(om_mutex *m) { return TryAcquireSRWLockExclusive(m); }
static inline void om_mutex_lock(om_mutex *m) { AcquireSRWLockExclusive(m); }
static inline void om_mutex_release(om_mutex *m) { ReleaseSRWLockExclusive(m); }
#else
#include <pthread.h>
typedef pthread_mutex_t om_mutex;
static inline void om_mutex_init(om_mutex *m) { pthread_mutex_init(m, NULL); }
static inline void om_mutex_destroy(om_mutex *m) { pthread_mutex_destroy(m); }
static inline int om_mutex_try(om_mutex *m) { return pthread_mutex_trylock(m) == 0; }
static inline void om_mutex_lock(om_mutex *m) { pthread_mutex_lock(m); }
static inline void om_mutex_release(om_mutex *m) { pthread_mutex_unlock(m); }
#endif

#endif

#if !defined(OMETRICS_WITHOUT_LOCK)
static Py_NO_INLINE void om_mutex_wait(om_mutex *m) {
    do {
        Py_BEGIN_ALLOW_THREADS
        om_mutex_lock(m);
        om_mutex_release(m);
        Py_END_ALLOW_THREADS
    } while (!om_mutex_try(m));
}

static inline void om_mutex_acquire(om_mutex *m) {
    if (!om_mutex_try(m)) om_mutex_wait(m);
}
#endif

/* Runs `child` in every forked child, also of a fork() made in C, which Python's own
 * os.register_at_fork does not see (uWSGI). There is no prepare handler: the child
 * discards all state that another thread may have left half made, so the parent need
 * not stop its recorders to fork. */
#if defined(_WIN32) || defined(OMETRICS_WITHOUT_ATFORK)
static inline int om_at_fork(void (*child)(void)) { (void)child; return 0; }
#else
#include <pthread.h>
static inline int om_at_fork(void (*child)(void)) {
    return pthread_atfork(NULL, NULL, child);
}
#endif

/* Stores a link of the list that the forked child follows: not before what it leads to. */
static inline void om_publish(void **place, void *value) {
#if defined(_WIN32)
    *place = value;
#else
    __atomic_store_n(place, value, __ATOMIC_RELEASE);
#endif
}

/* What is stored before it is stored before what follows, for a fork in between. */
static inline void om_barrier(void) {
#if !defined(_WIN32)
    __atomic_thread_fence(__ATOMIC_RELEASE);
#endif
}

/* Whether one thread at a time runs Python: then a one-entry cache needs no lock. */
#if defined(Py_GIL_DISABLED)
#define OM_HAS_GIL 0
#else
#define OM_HAS_GIL 1
#endif

/* Clocks, in nanoseconds. "Last updated" and event times need no more than 1 to 4 ms:
 * the coarse clock costs 3 ns where the precise one costs 22. */
#if defined(_WIN32)
#include <windows.h>
static inline int64_t om_precise_wall_ns(void) {
    FILETIME t; /* 100 ns since 1601 */
    GetSystemTimePreciseAsFileTime(&t);
    int64_t ticks = ((int64_t)t.dwHighDateTime << 32) | t.dwLowDateTime;
    return (ticks - 116444736000000000LL) * 100;
}
static inline int64_t om_wall_ns(void) {
    FILETIME t;
    GetSystemTimeAsFileTime(&t);
    int64_t ticks = ((int64_t)t.dwHighDateTime << 32) | t.dwLowDateTime;
    return (ticks - 116444736000000000LL) * 100;
}
static inline int64_t om_monotonic_ns(void) {
    LARGE_INTEGER now, frequency;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&frequency);
    return now.QuadPart / frequency.QuadPart * 1000000000
         + now.QuadPart % frequency.QuadPart * 1000000000 / frequency.QuadPart;
}
#else
#include <time.h>
static inline int64_t om_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
#if defined(CLOCK_REALTIME_COARSE)
static inline int64_t om_wall_ns(void) { return om_clock(CLOCK_REALTIME_COARSE); }
#else
static inline int64_t om_wall_ns(void) { return om_clock(CLOCK_REALTIME); }
#endif
static inline int64_t om_precise_wall_ns(void) { return om_clock(CLOCK_REALTIME); }
static inline int64_t om_monotonic_ns(void) { return om_clock(CLOCK_MONOTONIC); }
#endif

#endif
