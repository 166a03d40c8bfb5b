/* peak.c: chains of independent FMAs that stay in registers, and sweeps over memory: the roofs of the roofline.
 *
 * The FMAs are written in assembly: a compiler that sees through them would leave some out.
 */
#include "peak.h"

#include "base/clock.h"
#include "base/memory.h"

#include <omp.h>
#include <stdbool.h>
#include <string.h>

#define ROUNDS 100000 /* of one call: a few tenths of a millisecond */

/* --- FMA units -------------------------------------------------------------------------------------------------- */

/* Chains must be at least the latency of an FMA times the pipes that do one a cycle: 8 to 12 with two pipes, 16 with the
 * four of large aarch64 cores. So 24 of them where there are 32 registers, else the 12 that fit into 16.
 */
#define CHAINS_12(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define CHAINS_24(DO)                                                                                                \
    CHAINS_12(DO) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)

/* One function for each width: the instruction FMA, c = c * a + b, in so many registers of type TYPE. */
#define DECLARE(i) c##i = a,
#define STEP(i) __asm__ volatile(FMA : "+" REGISTER(c##i) : REGISTER(a), REGISTER(b));
#define PEAK_KERNEL(NAME, TARGET, TYPE, CHAINS)                                                                      \
    TARGET static void NAME(void)                                                                                    \
    {                                                                                                                \
        TYPE a = {0}, CHAINS_##CHAINS(DECLARE) b = a;                                                                \
        for (int r = 0; r < ROUNDS; r++) {                                                                           \
            CHAINS_##CHAINS(STEP)                                                                                    \
        }                                                                                                            \
    }

typedef float lanes1 __attribute__((vector_size(16))); /* one lane of it is used */
typedef float lanes4 __attribute__((vector_size(16)));
typedef float lanes8 __attribute__((vector_size(32)));
typedef float lanes16 __attribute__((vector_size(64)));

struct unit {
    const char *simd;
    int lanes, chains;
    void (*run)(void);
};

#if defined(__x86_64__)
#define REGISTER(x) "v"(x)
#define FMA "vfmadd213ps %2, %1, %0"
PEAK_KERNEL(fma16, __attribute__((target("avx512f"))), lanes16, 24)
#undef REGISTER
#define REGISTER(x) "x"(x)
PEAK_KERNEL(fma8, __attribute__((target("avx,fma"))), lanes8, 12)
#undef FMA
#define FMA "vfmadd213ss %2, %1, %0"
PEAK_KERNEL(fma1, __attribute__((target("avx,fma"))), lanes1, 12)

static const struct unit units[] = {{"avx512", 16, 24, fma16}, {"avx2", 8, 12, fma8}, {"generic", 1, 12, fma1}};

static bool present(const struct unit *unit)
{
    return unit->lanes == 16 ? __builtin_cpu_supports("avx512f") : __builtin_cpu_supports("fma");
}
#elif defined(__aarch64__)
#define REGISTER(x) "w"(x)
#define FMA "fmla %0.4s, %1.4s, %2.4s"
PEAK_KERNEL(fma4, , lanes4, 24)
#undef FMA
#define FMA "fmadd %s0, %s1, %s2, %s0"
PEAK_KERNEL(fma1, , lanes1, 24)

static const struct unit units[] = {{"neon", 4, 24, fma4}, {"generic", 1, 24, fma1}};

static bool present(const struct unit *unit)
{
    (void)unit;
    return true;
}
#else
static const struct unit units[] = {{"none", 0, 0, NULL}};

static bool present(const struct unit *unit)
{
    (void)unit;
    return false;
}
#endif

static const struct unit *find(const char *simd)
{
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (present(&units[i]) && (simd == NULL || !strcmp(simd, units[i].simd)))
            return &units[i];
    return NULL;
}

double bp_peak_gflops(const char *simd, int threads, double seconds)
{
    const struct unit *unit = find(simd);
    double best = 0, end = bp_clock() + seconds;
    if (unit == NULL)
        return 0;
    do {
        double begin = bp_clock();
#pragma omp parallel num_threads(threads)
        unit->run();
        double gflops = 2e-9 * unit->lanes * unit->chains * ROUNDS * threads / (bp_clock() - begin);
        best = gflops > best ? gflops : best;
    } while (bp_clock() < end);
    return best;
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* Adds one to each float of a range: a read and a write of each cache line, as an update does. */
static void sweep(float *x, size_t n)
{
    for (size_t i = 0; i + 16 <= n; i += 16) {
        lanes16 v;
        memcpy(&v, x + i, sizeof v);
        v += 1.0f;
        memcpy(x + i, &v, sizeof v);
    }
}

double bp_peak_bandwidth(size_t bytes, int threads, double seconds)
{
    size_t share = bytes / sizeof(float) / (size_t)threads / 16 * 16;
    float *x = bp_alloc(share * (size_t)threads * sizeof *x + 64);
    double best = 0, end = bp_clock() + seconds;
    if (x == NULL || share == 0)
        return bp_free(x), 0;
    int sweeps = (int)((8u << 20) / share) + 1; /* so many that opening the threads does not show */
    do {
        double begin = bp_clock();
#pragma omp parallel num_threads(threads)
        for (int s = 0; s < sweeps; s++)
            sweep(x + (size_t)omp_get_thread_num() * share, share);
        double gb = 2e-9 * (double)(share * (size_t)threads * sizeof *x) * sweeps / (bp_clock() - begin);
        best = gb > best ? gb : best;
    } while (bp_clock() < end);
    bp_free(x);
    return best;
}
