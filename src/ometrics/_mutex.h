/* SPDX-License-Identifier: MIT
 *
 * The one lock of the recording core, and what a fork does to it.
 *
 *   om_mutex_acquire   from a thread that holds the GIL; gives it up while it waits
 *   om_mutex_lock      from a thread that does not hold the GIL
 *   om_mutex_release   from either
 *
 * Whoever holds it runs a few C statements, at most the copy of one record: a microsecond.
 * So a waiter first looks again and again for about as long, and only then, when the
 * holder must have been preempted, sleeps 20 us at a time.
 *
 * CPython 3.13+ has PyMutex, one byte that the interpreter knows. Below that it is one
 * atomic word: taken by an exchange, given back by a store. (Rejected: pthread_mutex_t,
 * two atomic read-modify-writes and two calls, 4 ns of a record's 30, and unfair: a copy
 * that takes it a thousand times in a row starves the recorder that sleeps in it.
 * PyThread_type_lock, Cython's own fallback, is a semaphore and costs 26 ns more.)
 *
 * Invariant: nobody waits for the GIL while holding the mutex. Otherwise a daemon thread
 * that is stopped at interpreter exit could take the mutex with it.
 */
#ifndef OMETRICS_MUTEX_H
#define OMETRICS_MUTEX_H

#include "Python.h"

#ifndef Py_NO_INLINE /* CPython 3.10 */
#define Py_NO_INLINE
#endif

#if defined(_WIN32)
#include <windows.h>
#else
#include <time.h>
#endif

static inline void om_pause(void) { /* tells the processor that this is a waiting loop */
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static inline void om_sleep(void) {
#if defined(_WIN32)
    SwitchToThread();
#else
    struct timespec t = {0, 20000};
    nanosleep(&t, NULL);
#endif
}

#if defined(OMETRICS_WITHOUT_LOCK) /* the guard removed: fault tests must then fail */

typedef int om_mutex;
static inline void om_mutex_init(om_mutex *m) { (void)m; }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline int om_mutex_try(om_mutex *m) { (void)m; return 1; }
static inline void om_mutex_release(om_mutex *m) { (void)m; }

#elif PY_VERSION_HEX >= 0x030D0000

/* Its first bit says "locked" (Include/cpython/pylock.h); there is no public way to try. */
typedef PyMutex om_mutex;
static inline void om_mutex_init(om_mutex *m) { memset(m, 0, sizeof *m); }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline int om_mutex_try(om_mutex *m) {
    uint8_t seen = _Py_atomic_load_uint8_relaxed(&m->_bits);
    return !(seen & 1) && _Py_atomic_compare_exchange_uint8(&m->_bits, &seen, seen | 1);
}
static inline void om_mutex_release(om_mutex *m) { PyMutex_Unlock(m); }

#elif defined(_WIN32)

typedef SRWLOCK om_mutex;
static inline void om_mutex_init(om_mutex *m) { InitializeSRWLock(m); }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline int om_mutex_try(om_mutex *m) { return TryAcquireSRWLockExclusive(m); }
static inline void om_mutex_release(om_mutex *m) { ReleaseSRWLockExclusive(m); }

#else

typedef int om_mutex;
static inline void om_mutex_init(om_mutex *m) { *m = 0; }
static inline void om_mutex_destroy(om_mutex *m) { (void)m; }
static inline int om_mutex_try(om_mutex *m) {
    return !__atomic_exchange_n(m, 1, __ATOMIC_ACQUIRE);
}
static inline void om_mutex_release(om_mutex *m) {
    __atomic_store_n(m, 0, __ATOMIC_RELEASE);
}

#endif

#if !defined(Py_NO_INLINE) /* CPython 3.10 */
#define Py_NO_INLINE
#endif

/* About as long as anybody holds it. */
static Py_NO_INLINE int om_mutex_spin(om_mutex *m) {
    for (int i = 0; i < 100; i++) {
        om_pause();
        if (om_mutex_try(m)) return 1;
    }
    return 0;
}

static Py_NO_INLINE void om_mutex_wait(om_mutex *m) {
    while (!om_mutex_spin(m)) {
        Py_BEGIN_ALLOW_THREADS
        om_sleep();
        Py_END_ALLOW_THREADS
    }
}

static inline void om_mutex_acquire(om_mutex *m) {
    if (!om_mutex_try(m)) om_mutex_wait(m);
}

static inline void om_mutex_lock(om_mutex *m) {
    while (!om_mutex_try(m) && !om_mutex_spin(m)) om_sleep();
}

/* Between two holds in a row: lets in who has been waiting. */
static inline void om_mutex_yield(void) {
    for (int i = 0; i < 4; i++) om_pause();
}

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

/* close() may be called in a forked child whatever the parent's threads were doing. */
#if defined(_WIN32)
static inline void om_close(int file) { (void)file; }
#else
#include <unistd.h>
static inline void om_close(int file) { close(file); }
#endif

/* Stores a link of the list that the forked child follows: not before what it leads to. */
static inline void om_publish(void **place, void *value) {
#if defined(_WIN32)
    *place = value;
#else
    __atomic_store_n(place, value, __ATOMIC_RELEASE);
#endif
}

/* What was published there last, for who only writes where it leads. */
static inline void *om_published(void **place) {
#if defined(_WIN32)
    return *(void *volatile *)place;
#else
    return __atomic_load_n(place, __ATOMIC_RELAXED);
#endif
}

/* What is stored before it is stored before what follows, for a fork in between. */
static inline void om_barrier(void) {
#if !defined(_WIN32)
    __atomic_thread_fence(__ATOMIC_RELEASE);
#endif
}

/* A number that is changed under a mutex and may be looked at without it: whoever does
 * looks again under the mutex before it matters. */
static inline uint64_t om_load(const uint64_t *place) {
#if defined(_WIN32)
    return *(volatile const uint64_t *)place;
#else
    return __atomic_load_n(place, __ATOMIC_RELAXED);
#endif
}
static inline void om_store(uint64_t *place, uint64_t value) {
#if defined(_WIN32)
    *(volatile uint64_t *)place = value;
#else
    __atomic_store_n(place, value, __ATOMIC_RELAXED);
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
