/* peak.c: chains of independent FMAs that stay in registers: the roof of the roofline. */
#include "peak.h"

#include <omp.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define CHAINS 12     /* more than latency times throughput of any FMA unit so far */
#define ROUNDS 200000 /* of one call: about 1 ms */

/* One function for each width: CHAINS accumulators of LANES floats. */
#define PEAK_KERNEL(NAME, TARGET, LANES)                                                                             \
    typedef float NAME##_v __attribute__((vector_size(4 * LANES)));                                                  \
    __attribute__((target(TARGET), noinline, optimize("O3", "fp-contract=fast"))) static float NAME(float seed)      \
    {                                                                                                                \
        NAME##_v c[CHAINS], a, b;                                                                                    \
        for (int l = 0; l < LANES; l++) {                                                                            \
            a[l] = seed;                                                                                             \
            b[l] = 1e-9f * seed;                                                                                     \
        }                                                                                                            \
        for (int i = 0; i < CHAINS; i++)                                                                             \
            c[i] = a + (float)i;                                                                                     \
        for (int r = 0; r < ROUNDS; r++)                                                                             \
            for (int i = 0; i < CHAINS; i++) {                                                                       \
                c[i] = c[i] * a + b;                                                                                 \
                __asm__ volatile("" : "+v"(c[i]));                                                                   \
            }                                                                                                        \
        for (int i = 1; i < CHAINS; i++)                                                                             \
            c[0] += c[i];                                                                                            \
        return c[0][0];                                                                                              \
    }

#if defined(__x86_64__) && !defined(__clang__)
PEAK_KERNEL(peak_avx512, "avx512f,fma", 16)
PEAK_KERNEL(peak_avx2, "avx2,fma", 8)

double bp_peak_gflops(int threads, double seconds)
{
    int lanes = __builtin_cpu_supports("avx512f") ? 16 : __builtin_cpu_supports("fma") ? 8 : 0;
    if (!lanes)
        return 0;
    float (*kernel)(float) = lanes == 16 ? peak_avx512 : peak_avx2;
    double best = 0, end = now() + seconds;
    do {
        volatile float sink = 0;
        double begin = now();
#pragma omp parallel num_threads(threads)
        {
            float value = kernel(0.999f);
#pragma omp critical
            sink = sink + value;
        }
        double took = now() - begin;
        double flops = 2.0 * lanes * CHAINS * ROUNDS * threads;
        if (flops / took > best)
            best = flops / took;
    } while (now() < end);
    return best * 1e-9;
}
#else
double bp_peak_gflops(int threads, double seconds)
{
    (void)threads;
    (void)seconds;
    return 0;
}
#endif
