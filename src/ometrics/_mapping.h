/* SPDX-License-Identifier: MIT
 *
 * Mapping a part of a file, where there is such a thing.
 */
#ifndef OMETRICS_MAPPING_H
#define OMETRICS_MAPPING_H

#include <stddef.h>

#if defined(_WIN32)
#define OM_HAS_MAPPINGS 0
static inline void *om_map(int file, size_t size, size_t offset) {
    (void)file; (void)size; (void)offset;
    return NULL;
}
static inline void om_unmap(void *address, size_t size) { (void)address; (void)size; }
static inline int om_read(int file, void *to, size_t size, size_t at) {
    (void)file; (void)to; (void)size; (void)at;
    return 0;
}
#else
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#define OM_HAS_MAPPINGS 1

/* For writing, shared with whoever reads the file; NULL if it cannot be had. */
static inline void *om_map(int file, size_t size, size_t offset) {
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                         (off_t)offset);
    return address == MAP_FAILED ? NULL : address;
}
static inline void om_unmap(void *address, size_t size) { munmap(address, size); }

/* Whether the file has all of it. What is read later is loaded later, also where the
 * processor is free to choose: the writer's stores are in order. */
static inline int om_read(int file, void *to, size_t size, size_t at) {
    while (size > 0) {
        ssize_t n = pread(file, to, size, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        to = (char *)to + n;
        at += (size_t)n;
        size -= (size_t)n;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return 1;
}
#endif

#endif
