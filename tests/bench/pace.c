/* pace.c: medians of the time of steps. */
#include "pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void pace_step(struct pace *pace)
{
    int *n = &pace->n[pace->sampled];
    pace->seconds[pace->sampled][*n % PACE_MAX] = now() - pace->last;
    (*n)++;
    pace->sampled = false;
    pace->last = now();
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *seconds, int n)
{
    n = n < PACE_MAX ? n : PACE_MAX;
    qsort(seconds, (size_t)n, sizeof *seconds, ascending);
    return n ? seconds[n / 2] : 0;
}

void pace_print(struct pace *pace, const char *workload)
{
    double plain = median(pace->seconds[0], pace->n[0]), sampled = median(pace->seconds[1], pace->n[1]);
    printf("{\"workload\":\"%s\",\"step_us\":%.2f,\"sampled_step_us\":%.2f,\"interval\":%lld,"
           "\"layer_stats_percent\":%.2f}\n",
           workload, 1e6 * plain, 1e6 * sampled, (long long)pace->interval,
           100 * (sampled - plain) / (plain * (double)(pace->interval > 0 ? pace->interval : 1)));
}
