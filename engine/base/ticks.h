/* ticks.h: the processor's own clock, for profiling: some 10 ns a reading, no system call, constant in rate on every
 * machine of the last fifteen years. Its rate is not known here: who counts ticks compares with a clock once.
 *
 * Nothing that a training computes may depend on it, and nothing reads it unless somebody profiles.
 *
 * Threads: pure function.
 */
#ifndef BP_BASE_TICKS_H
#define BP_BASE_TICKS_H

#include <stdint.h>
#include <time.h>

static inline uint64_t bp_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
}

#endif
