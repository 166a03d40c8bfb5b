/* support.h: what the tests of the kernels share: the tables that this CPU has, awkward numbers, and hashes. */
#ifndef BP_TEST_KERNELS_SUPPORT_H
#define BP_TEST_KERNELS_SUPPORT_H

#include "base/random.h"
#include "kernels/tables.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The generic table first, then those that the CPU has. */
static inline int tables_here(const struct bp_kernels *tables[3])
{
    int n = 0;
    tables[n++] = &bp_kernels_generic;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[n++] = &bp_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        tables[n++] = &bp_kernels_avx512;
#elif defined(__aarch64__)
    tables[n++] = &bp_kernels_neon;
#endif
    return n;
}

/* Number i of series `seed`: about normal in size, in [-4, 4). */
static inline float plain(uint32_t seed, size_t i)
{
    uint32_t w[4];
    bp_random(seed, 0, 0, i / 4, w);
    return bp_random_unit(w[i % 4]) * 8 - 4;
}

/* The same, but every seventh is a number that makes trouble; finite ones only, unless `wild`. */
static inline float awkward(uint32_t seed, size_t i, bool wild)
{
    static const float trouble[] = {0.0f,     -0.0f,  0x1p-149f, -0x1p-140f, 0x1p-126f, 3.0f,   -3.0f,
                                    6.0f,     88.7f,  -103.9f,   1e30f,      -1e30f,    1e-30f, 20.0f,
                                    0x1p127f, -16.5f, INFINITY,  -INFINITY,  NAN};
    size_t n = sizeof trouble / sizeof *trouble - (wild ? 0 : 3);
    uint32_t w[4];
    bp_random(seed, 1, 0, i, w);
    return w[0] % 7 ? plain(seed, i) * (w[1] % 5 ? 1.0f : 10.0f) : trouble[w[2] % n];
}

/* Bit for bit the same; where one is NaN, the other must be too, whatever its bits. */
static inline bool same_bits(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

static inline uint64_t hash_floats(uint64_t hash, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t word = 0x7fc00000; /* any NaN */
        if (!isnan(x[i]))
            memcpy(&word, x + i, sizeof word);
        for (int b = 0; b < 32; b += 8)
            hash = (hash ^ (word >> b & 0xff)) * 0x100000001b3;
    }
    return hash;
}
#define HASH_START 0xcbf29ce484222325u

/* Error of got in units of the last place of the float nearest to want. */
static inline double ulps(float got, double want)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got) ? 0 : INFINITY;
    if ((double)got == want || (float)want == got)
        return fabs((double)got - want) == 0 || isinf(got) ? 0 : 0.5;
    if (isinf(got))
        return (double)fabsf(got) - fabs(want) > 0x1p128 ? INFINITY : fabs(want) >= 0x1.fffffep127 ? 1 : INFINITY;
    double size = fabs(want), unit = size < 0x1p-126 ? 0x1p-149 : exp2(floor(log2(size)) - 23);
    return fabs((double)got - want) / unit;
}

#endif
