/* v16.h: sixteen lanes, the one width that all kernels are written in.
 *
 * A v16 is one AVX-512 register, two AVX2 registers, four NEON registers, or an array of 16 numbers in portable C.
 * Each operation does the same IEEE operation in every lane, in all four; a kernel written with them gives the same
 * bits in all four. Included by kernels_generic.c, kernels_avx2.c, kernels_avx512.c and kernels_neon.c, the last three
 * of which define BP_V16_AVX2, BP_V16_AVX512 or BP_V16_NEON first. The double build has the portable form only, with
 * 16 doubles.
 *
 *   v16     16 numbers          v16m    16 booleans         v16i   16 int32 (single precision only)
 *
 * v16_max(a, b) is a > b ? a : b and v16_min(a, b) is a < b ? a : b in each lane, so b where one of them is NaN.
 */
#ifndef BP_KERNELS_V16_H
#define BP_KERNELS_V16_H

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define LANES 16
#define V16_INLINE static inline __attribute__((always_inline))

#if defined(BP_V16_AVX512)
#include "kernels/v16_avx512.h"
#elif defined(BP_V16_AVX2)
#include "kernels/v16_avx2.h"
#elif defined(BP_V16_NEON)
#include "kernels/v16_neon.h"
#else
#define BP_V16_GENERIC
#include "kernels/v16_generic.h"
#endif

/* --- the same for all -------------------------------------------------------------------------------------------- */

/* A store past the caches, p aligned to 64 bytes; others may read only after an end by the same thread. Where there is
 * none it is a plain store. */
#ifndef V16_STREAMS
V16_INLINE void v16_stream(bp_real *p, v16 a)
{
    v16_store(p, a);
}

V16_INLINE void v16_stream_end(void)
{
}
#endif

/* Fetches the line `ahead` elements behind p, which may be past the end of the array, for loads; or for stores: these
 * leave one after another, each when its line has come, so that a few lines from the second-level cache hold up many. */
V16_INLINE void v16_load_soon(const bp_real *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead * sizeof *p));
}

V16_INLINE void v16_store_soon(bp_real *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead * sizeof *p), 1);
}

/* Elements i .. min(i + 16, n) of a range: how many lanes are in use. */
V16_INLINE int v16_count(size_t i, size_t n)
{
    return n - i < LANES ? (int)(n - i) : LANES;
}

/* Loads n lanes, 0 in the rest; stores n lanes. A whole vector, the usual case, takes the plain instruction. */
V16_INLINE v16 v16_load_n(const bp_real *p, int n)
{
    return n == LANES ? v16_load(p) : v16_load_some(p, n);
}

V16_INLINE void v16_store_n(bp_real *p, v16 a, int n)
{
    if (n == LANES)
        v16_store(p, a);
    else
        v16_store_some(p, a, n);
}

V16_INLINE v16 v16_zero(void)
{
    return v16_set(0);
}

V16_INLINE v16 v16_neg(v16 a)
{
    return v16_sub(v16_set(-(bp_real)0), a); /* -0 - a: the sign flips for zeros too */
}

/* The largest lane; lanes that are NaN do not count unless all are. */
V16_INLINE bp_real v16_max_lane(v16 a)
{
    bp_real lane[LANES], max = -(bp_real)INFINITY;
    v16_store(lane, a);
    for (int i = 0; i < LANES; i++)
        max = lane[i] > max ? lane[i] : max;
    return max;
}

#endif
