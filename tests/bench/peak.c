/* peak.c: chains of independent FMAs that stay in registers: the roof of the roofline. */
#include "peak.h"

#include <omp.h>
#include <time.h>

#define CHAINS 12     /* more than latency times throughput of any FMA unit so far */
#define ROUNDS 200000 /* of one call: about 1 ms */

/* One function for each width: CHAINS accumulators of LANES floats. The empty asm keeps the compiler from folding the
 * rounds together. */
#define STEP(i)                                                                                                      \
    c##i = c##i * a + b;                                                                                             \
    __asm__ volatile("" : "+v"(c##i));
#define PEAK_KERNEL(NAME, TARGET, LANES)                                                                             \
    typedef float NAME##_v __attribute__((vector_size(4 * LANES)));                                                  \
    __attribute__((target(TARGET), noinline, optimize("O3", "fp-contract=fast"))) static float NAME(float seed)      \
    {                                                                                                                \
        NAME##_v a = {0}, b = {0};                                                                                   \
        for (int l = 0; l < LANES; l++) {                                                                            \
            a[l] = seed;                                                                                             \
            b[l] = 1e-9f * seed;                                                                                     \
        }                                                                                                            \
        NAME##_v c0 = a, c1 = a, c2 = a, c3 = a, c4 = a, c5 = a, c6 = a, c7 = a, c8 = a, c9 = a, c10 = a, c11 = a;   \
        for (int r = 0; r < ROUNDS; r++) {                                                                           \
            STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)        \
        }                                                                                                            \
        return (c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11)[0];                                     \
    }

#if defined(__x86_64__) && !defined(__clang__)
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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
