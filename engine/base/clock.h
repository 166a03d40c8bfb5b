/* clock.h: the steady clock in seconds, for pacing and for figures of speed. Nothing that a training computes may depend
 * on it.
 *
 * Threads: pure function.
 */
#ifndef BP_BASE_CLOCK_H
#define BP_BASE_CLOCK_H

#include <time.h>

static inline double bp_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
