/* pace.h: what sampling the layers costs a run: how long steps take, those with a sample apart from the others, as
 * medians, so that a step that the machine took away from us does not matter. Not in CPU time: the kernel adds what a
 * thread spent when it sleeps, so that of several threads the sampled steps would pay for the others. */
#ifndef BP_BENCH_PACE_H
#define BP_BENCH_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_MAX 4096 /* durations kept of each kind of step */

struct pace {
    bool sampled; /* the step going on */
    double last;
    int n[2];
    double seconds[2][PACE_MAX];
    int64_t interval; /* steps between samples, once the first are over */
};

/* A step is over. */
void pace_step(struct pace *pace);

/* One JSON line on stdout: the cost once the first steps are over, where samples are at powers of two. */
void pace_print(struct pace *pace, const char *workload);

#endif
