/* Seeded faults that a sanitizer must report, each with its repaired twin.
 *
 * A sanitizer run that reports nothing proves something only if it would have reported a
 * fault: tools/sanitize.sh runs these first, with the flags and the environment of the
 * real run. Everything is volatile, or the compiler folds the fault away (a racy loop
 * becomes one store, and ThreadSanitizer stays silent).
 */
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile long counter;
static int arrived;

/* Called by two threads: unsynchronised additions to one counter. */
long data_race(int repaired)
{
    /* Both threads must be here at once, for the interpreter's lock would order one after
     * the other. Relaxed, so that meeting does not order them either. */
    __atomic_fetch_add(&arrived, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&arrived, __ATOMIC_RELAXED) < 2) { }

    for (int i = 0; i < 10000; i++) {
        if (repaired) pthread_mutex_lock(&mutex);
        counter = counter + 1;
        if (repaired) pthread_mutex_unlock(&mutex);
    }
    return 0;
}

long heap_overflow(int repaired)
{
    volatile char *block = malloc(16);
    volatile int last = repaired ? 15 : 16;

    block[last] = 1;
    free((void *)block);
    return 0;
}

long use_after_free(int repaired)
{
    char *block = malloc(16);
    volatile char *volatile alias = block;

    if (!repaired) free(block);
    alias[0] = 1;
    if (repaired) free(block);
    return 0;
}

long signed_overflow(int repaired)
{
    volatile long total = repaired ? 0 : LONG_MAX;

    total = total + 1;
    return total;
}

/* The core turns seconds into an index and into nanoseconds: never from NaN. */
long float_cast(int repaired)
{
    volatile double seconds = repaired ? 1.0 : NAN;

    return (long)seconds;
}
