/* v16.h: sixteen lanes, the one width that all kernels are written in.
 *
 * A v16 is one AVX-512 register, two AVX2 registers, or an array of 16 numbers in portable C. Each operation does
 * the same IEEE operation in every lane, on all three; a kernel written with them gives the same bits on all three.
 * Included by kernels_generic.c, kernels_avx2.c and kernels_avx512.c; the latter two define BP_V16_AVX2 or
 * BP_V16_AVX512 first. The double build has the portable form only, with 16 doubles.
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
/* --- AVX-512: one register --------------------------------------------------------------------------------------- */
#include <immintrin.h>

typedef __m512 v16;
typedef __m512i v16i;
typedef __mmask16 v16m;

V16_INLINE v16 v16_set(float x)
{
    return _mm512_set1_ps(x);
}

V16_INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

V16_INLINE void v16_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}

V16_INLINE v16 v16_load_some(const float *p, int n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

V16_INLINE v16 v16_load_from(v16 a, const float *p, int first) /* a, lanes from `first` on taken from p[lane] */
{
    return _mm512_mask_loadu_ps(a, (__mmask16)(0xffffu << first), p);
}

V16_INLINE void v16_store_some(float *p, v16 a, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}

#define V16_BINARY(name, op)                                                                                         \
    V16_INLINE v16 name(v16 a, v16 b)                                                                                \
    {                                                                                                                \
        return op##_ps(a, b);                                                                                        \
    }
V16_BINARY(v16_add, _mm512_add)
V16_BINARY(v16_sub, _mm512_sub)
V16_BINARY(v16_mul, _mm512_mul)
V16_BINARY(v16_div, _mm512_div)
V16_BINARY(v16_max, _mm512_max)
V16_BINARY(v16_min, _mm512_min)
#undef V16_BINARY

V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) /* a b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}

V16_INLINE v16 v16_sqrt(v16 a)
{
    return _mm512_sqrt_ps(a);
}

V16_INLINE v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}

V16_INLINE v16m v16_less(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

V16_INLINE v16m v16_at_most(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}

V16_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}

V16_INLINE v16m v16_first(int n) /* the first n lanes */
{
    return (__mmask16)((1u << n) - 1);
}

V16_INLINE float v16_lane0(v16 a)
{
    return _mm512_cvtss_f32(a);
}

V16_INLINE float v16_sum(v16 a) /* the tree 8-4-2-1 */
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

V16_INLINE v16i v16_bits(v16 a)
{
    return _mm512_castps_si512(a);
}

V16_INLINE v16 v16_of_bits(v16i a)
{
    return _mm512_castsi512_ps(a);
}

V16_INLINE v16i v16i_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}

V16_INLINE v16i v16i_add(v16i a, v16i b)
{
    return _mm512_add_epi32(a, b);
}

V16_INLINE v16i v16i_sub(v16i a, v16i b)
{
    return _mm512_sub_epi32(a, b);
}

#define v16i_left(a, n) _mm512_slli_epi32(a, n)
#define v16i_right(a, n) _mm512_srai_epi32(a, n)

V16_INLINE v16 v16_even(v16 a, v16 b) /* a0 a2 … a14 b0 b2 … b14 */
{
    const v16i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, lanes, b);
}

V16_INLINE v16 v16_odd(v16 a, v16 b)
{
    const v16i lanes = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, lanes, b);
}

V16_INLINE v16 v16_zip_low(v16 a, v16 b) /* a0 b0 a1 b1 … a7 b7 */
{
    const v16i lanes = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, lanes, b);
}

V16_INLINE v16 v16_zip_high(v16 a, v16 b)
{
    const v16i lanes = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, lanes, b);
}

/* Row i of a becomes column i: pairs, fours, then the four quarters of the registers. */
V16_INLINE void v16_transpose(v16 a[LANES])
{
    __m512 b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        for (int h = 0; h < 2; h++) { /* a[i + c], quarter q: column 4 q + c of rows i .. i + 3 */
            __m512d x = _mm512_castps_pd(b[i + h]), y = _mm512_castps_pd(b[i + h + 2]);
            a[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            a[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    }
    for (int c = 0; c < 4; c++) {
        __m512 even_low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x88),
               odd_low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xdd);
        __m512 even_high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x88);
        __m512 odd_high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xdd);
        b[c] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        b[c + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        b[c + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        b[c + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
    for (int i = 0; i < LANES; i++)
        a[i] = b[i];
}

typedef struct {
    __m512d low, high;
} v16d; /* 16 doubles */

V16_INLINE v16d v16d_zero(void)
{
    return (v16d){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

V16_INLINE v16d v16d_add_squares(v16d sum, v16 x)
{
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    return (v16d){_mm512_fmadd_pd(low, low, sum.low), _mm512_fmadd_pd(high, high, sum.high)};
}

V16_INLINE double v16d_sum(v16d a)
{
    __m512d o = _mm512_add_pd(a.low, a.high);
    __m256d q = _mm256_add_pd(_mm512_castpd512_pd256(o), _mm512_extractf64x4_pd(o, 1));
    __m128d p = _mm_add_pd(_mm256_castpd256_pd128(q), _mm256_extractf128_pd(q, 1));
    return _mm_cvtsd_f64(_mm_add_sd(p, _mm_unpackhi_pd(p, p)));
}

#elif defined(BP_V16_AVX2)
/* --- AVX2 with FMA: two registers -------------------------------------------------------------------------------- */
#include <immintrin.h>

typedef struct {
    __m256 low, high;
} v16;
typedef struct {
    __m256i low, high;
} v16i;
typedef v16 v16m; /* all bits of a lane set, or none */

V16_INLINE v16 v16_set(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

V16_INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

V16_INLINE void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}

V16_INLINE v16i v16_mask_words(int n) /* the first n words -1 */
{
    static const int32_t words[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const int32_t *p = words + LANES - n;
    return (v16i){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8))};
}

V16_INLINE v16 v16_load_some(const float *p, int n)
{
    v16i m = v16_mask_words(n);
    v16 a = {_mm256_maskload_ps(p, m.low), _mm256_setzero_ps()};
    if (n > 8)
        a.high = _mm256_maskload_ps(p + 8, m.high);
    return a;
}

V16_INLINE v16 v16_load_from(v16 a, const float *p, int first) /* a, lanes from `first` on taken from p[lane] */
{
    v16i m = v16_mask_words(first);
    __m256i all = _mm256_set1_epi32(-1);
    __m256 low = _mm256_maskload_ps(p, _mm256_xor_si256(m.low, all));
    __m256 high = _mm256_maskload_ps(p + 8, _mm256_xor_si256(m.high, all));
    return (v16){_mm256_blendv_ps(low, a.low, _mm256_castsi256_ps(m.low)),
                 _mm256_blendv_ps(high, a.high, _mm256_castsi256_ps(m.high))};
}

V16_INLINE void v16_store_some(float *p, v16 a, int n)
{
    v16i m = v16_mask_words(n);
    _mm256_maskstore_ps(p, m.low, a.low);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, m.high, a.high);
}

#define V16_BINARY(name, op)                                                                                         \
    V16_INLINE v16 name(v16 a, v16 b)                                                                                \
    {                                                                                                                \
        return (v16){op##_ps(a.low, b.low), op##_ps(a.high, b.high)};                                                \
    }
V16_BINARY(v16_add, _mm256_add)
V16_BINARY(v16_sub, _mm256_sub)
V16_BINARY(v16_mul, _mm256_mul)
V16_BINARY(v16_div, _mm256_div)
V16_BINARY(v16_max, _mm256_max)
V16_BINARY(v16_min, _mm256_min)
#undef V16_BINARY

V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

V16_INLINE v16 v16_sqrt(v16 a)
{
    return (v16){_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)};
}

V16_INLINE v16 v16_abs(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

V16_INLINE v16m v16_less(v16 a, v16 b)
{
    return (v16m){_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)};
}

V16_INLINE v16m v16_at_most(v16 a, v16 b)
{
    return (v16m){_mm256_cmp_ps(a.low, b.low, _CMP_LE_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_LE_OQ)};
}

V16_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
    return (v16){_mm256_blendv_ps(no.low, yes.low, m.low), _mm256_blendv_ps(no.high, yes.high, m.high)};
}

V16_INLINE v16m v16_first(int n)
{
    v16i m = v16_mask_words(n);
    return (v16m){_mm256_castsi256_ps(m.low), _mm256_castsi256_ps(m.high)};
}

V16_INLINE float v16_lane0(v16 a)
{
    return _mm256_cvtss_f32(a.low);
}

V16_INLINE float v16_sum(v16 a)
{
    __m256 h = _mm256_add_ps(a.low, a.high);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

V16_INLINE v16i v16_bits(v16 a)
{
    return (v16i){_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
}

V16_INLINE v16 v16_of_bits(v16i a)
{
    return (v16){_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)};
}

V16_INLINE v16i v16i_set(int32_t x)
{
    return (v16i){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

V16_INLINE v16i v16i_add(v16i a, v16i b)
{
    return (v16i){_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}

V16_INLINE v16i v16i_sub(v16i a, v16i b)
{
    return (v16i){_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}

#define v16i_left(a, n) ((v16i){_mm256_slli_epi32((a).low, n), _mm256_slli_epi32((a).high, n)})
#define v16i_right(a, n) ((v16i){_mm256_srai_epi32((a).low, n), _mm256_srai_epi32((a).high, n)})

V16_INLINE __m256 v16_evens8(__m256 a, __m256 b, const int odd)
{
    __m256 x = odd ? _mm256_shuffle_ps(a, b, 0xdd) : _mm256_shuffle_ps(a, b, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}

V16_INLINE v16 v16_even(v16 a, v16 b) /* a0 a2 … a14 b0 b2 … b14 */
{
    return (v16){v16_evens8(a.low, a.high, 0), v16_evens8(b.low, b.high, 0)};
}

V16_INLINE v16 v16_odd(v16 a, v16 b)
{
    return (v16){v16_evens8(a.low, a.high, 1), v16_evens8(b.low, b.high, 1)};
}

V16_INLINE v16 v16_zip8(__m256 a, __m256 b)
{
    __m256 x = _mm256_unpacklo_ps(a, b), y = _mm256_unpackhi_ps(a, b);
    return (v16){_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31)};
}

V16_INLINE v16 v16_zip_low(v16 a, v16 b) /* a0 b0 a1 b1 … a7 b7 */
{
    return v16_zip8(a.low, b.low);
}

V16_INLINE v16 v16_zip_high(v16 a, v16 b)
{
    return v16_zip8(a.high, b.high);
}

V16_INLINE void v16_transpose8(__m256 a[8])
{
    __m256 b[8], c[8];
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int h = 0; h < 2; h++) {
            c[i + 2 * h] = _mm256_shuffle_ps(b[i + h], b[i + h + 2], 0x44);
            c[i + 2 * h + 1] = _mm256_shuffle_ps(b[i + h], b[i + h + 2], 0xee);
        }
    }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm256_permute2f128_ps(c[i], c[i + 4], 0x20);
        a[i + 4] = _mm256_permute2f128_ps(c[i], c[i + 4], 0x31);
    }
}

/* Row i of a becomes column i: the four 8 x 8 blocks each by itself, and two of them change places. */
V16_INLINE void v16_transpose(v16 a[LANES])
{
    for (int i = 0; i < LANES; i += 8) {
        __m256 low[8], high[8];
        for (int r = 0; r < 8; r++) {
            low[r] = a[i + r].low;
            high[r] = a[i + r].high;
        }
        v16_transpose8(low);
        v16_transpose8(high);
        for (int r = 0; r < 8; r++)
            a[i + r] = (v16){low[r], high[r]};
    }
    for (int r = 0; r < 8; r++) {
        __m256 corner = a[r].high;
        a[r].high = a[r + 8].low;
        a[r + 8].low = corner;
    }
}

typedef struct {
    __m256d quarter[4];
} v16d;

V16_INLINE v16d v16d_zero(void)
{
    __m256d zero = _mm256_setzero_pd();
    return (v16d){{zero, zero, zero, zero}};
}

V16_INLINE v16d v16d_add_squares(v16d sum, v16 x)
{
    __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(x.low)), b = _mm256_cvtps_pd(_mm256_extractf128_ps(x.low, 1));
    __m256d c = _mm256_cvtps_pd(_mm256_castps256_ps128(x.high)),
            d = _mm256_cvtps_pd(_mm256_extractf128_ps(x.high, 1));
    return (v16d){{_mm256_fmadd_pd(a, a, sum.quarter[0]), _mm256_fmadd_pd(b, b, sum.quarter[1]),
                   _mm256_fmadd_pd(c, c, sum.quarter[2]), _mm256_fmadd_pd(d, d, sum.quarter[3])}};
}

V16_INLINE double v16d_sum(v16d a)
{
    __m256d low = _mm256_add_pd(a.quarter[0], a.quarter[2]), high = _mm256_add_pd(a.quarter[1], a.quarter[3]);
    __m256d q = _mm256_add_pd(low, high);
    __m128d p = _mm_add_pd(_mm256_castpd256_pd128(q), _mm256_extractf128_pd(q, 1));
    return _mm_cvtsd_f64(_mm_add_sd(p, _mm_unpackhi_pd(p, p)));
}

#else
/* --- portable C: an array ---------------------------------------------------------------------------------------- */
typedef struct {
    bp_real lane[LANES];
} v16;
typedef struct {
    int32_t lane[LANES];
} v16i;
typedef struct {
    bool lane[LANES];
} v16m;

/* Lane i of the result is `expr`. */
#define V16_EACH(type, expr)                                                                                         \
    type ret;                                                                                                        \
    for (int i = 0; i < LANES; i++)                                                                                  \
        ret.lane[i] = (expr);                                                                                        \
    return ret

V16_INLINE v16 v16_set(bp_real x)
{
    V16_EACH(v16, x);
}

V16_INLINE v16 v16_load(const bp_real *p)
{
    V16_EACH(v16, p[i]);
}

V16_INLINE void v16_store(bp_real *p, v16 a)
{
    memcpy(p, a.lane, sizeof a.lane);
}

V16_INLINE v16 v16_load_some(const bp_real *p, int n)
{
    V16_EACH(v16, i < n ? p[i] : 0);
}

V16_INLINE v16 v16_load_from(v16 a, const bp_real *p, int first) /* a, lanes from `first` on taken from p[lane] */
{
    V16_EACH(v16, i < first ? a.lane[i] : p[i]);
}

V16_INLINE void v16_store_some(bp_real *p, v16 a, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = a.lane[i];
}

V16_INLINE v16 v16_add(v16 a, v16 b)
{
    V16_EACH(v16, a.lane[i] + b.lane[i]);
}

V16_INLINE v16 v16_sub(v16 a, v16 b)
{
    V16_EACH(v16, a.lane[i] - b.lane[i]);
}

V16_INLINE v16 v16_mul(v16 a, v16 b)
{
    V16_EACH(v16, a.lane[i] * b.lane[i]);
}

V16_INLINE v16 v16_div(v16 a, v16 b)
{
    V16_EACH(v16, a.lane[i] / b.lane[i]);
}

V16_INLINE v16 v16_max(v16 a, v16 b)
{
    V16_EACH(v16, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]);
}

V16_INLINE v16 v16_min(v16 a, v16 b)
{
    V16_EACH(v16, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]);
}

V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
#ifdef BP_DOUBLE
    V16_EACH(v16, a.lane[i] * b.lane[i] + c.lane[i]); /* nothing is compared bit for bit with it: the faster form */
#else
    V16_EACH(v16, fmaf(a.lane[i], b.lane[i], c.lane[i]));
#endif
}

V16_INLINE v16 v16_sqrt(v16 a)
{
#ifdef BP_DOUBLE
    V16_EACH(v16, sqrt(a.lane[i]));
#else
    V16_EACH(v16, sqrtf(a.lane[i]));
#endif
}

V16_INLINE v16 v16_abs(v16 a)
{
#ifdef BP_DOUBLE
    V16_EACH(v16, fabs(a.lane[i]));
#else
    V16_EACH(v16, fabsf(a.lane[i]));
#endif
}

V16_INLINE v16m v16_less(v16 a, v16 b)
{
    V16_EACH(v16m, a.lane[i] < b.lane[i]);
}

V16_INLINE v16m v16_at_most(v16 a, v16 b)
{
    V16_EACH(v16m, a.lane[i] <= b.lane[i]);
}

V16_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
    V16_EACH(v16, m.lane[i] ? yes.lane[i] : no.lane[i]);
}

V16_INLINE v16m v16_first(int n)
{
    V16_EACH(v16m, i < n);
}

V16_INLINE bp_real v16_lane0(v16 a)
{
    return a.lane[0];
}

V16_INLINE bp_real v16_sum(v16 a)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.lane[i] += a.lane[i + half];
    return a.lane[0];
}

#ifndef BP_DOUBLE
V16_INLINE v16i v16_bits(v16 a)
{
    v16i ret;
    memcpy(&ret, &a, sizeof ret);
    return ret;
}

V16_INLINE v16 v16_of_bits(v16i a)
{
    v16 ret;
    memcpy(&ret, &a, sizeof ret);
    return ret;
}

V16_INLINE v16i v16i_set(int32_t x)
{
    V16_EACH(v16i, x);
}

V16_INLINE v16i v16i_add(v16i a, v16i b) /* modulo 2^32, as the registers do */
{
    V16_EACH(v16i, (int32_t)((uint32_t)a.lane[i] + (uint32_t)b.lane[i]));
}

V16_INLINE v16i v16i_sub(v16i a, v16i b)
{
    V16_EACH(v16i, (int32_t)((uint32_t)a.lane[i] - (uint32_t)b.lane[i]));
}

V16_INLINE v16i v16i_left(v16i a, int n)
{
    V16_EACH(v16i, (int32_t)((uint32_t)a.lane[i] << n));
}

V16_INLINE v16i v16i_right(v16i a, int n) /* keeps the sign */
{
    V16_EACH(v16i, a.lane[i] >> n);
}
#endif

V16_INLINE v16 v16_even(v16 a, v16 b) /* a0 a2 … a14 b0 b2 … b14 */
{
    V16_EACH(v16, i < LANES / 2 ? a.lane[2 * i] : b.lane[2 * i - LANES]);
}

V16_INLINE v16 v16_odd(v16 a, v16 b)
{
    V16_EACH(v16, i < LANES / 2 ? a.lane[2 * i + 1] : b.lane[2 * i + 1 - LANES]);
}

V16_INLINE v16 v16_zip_low(v16 a, v16 b) /* a0 b0 a1 b1 … a7 b7 */
{
    V16_EACH(v16, i % 2 ? b.lane[i / 2] : a.lane[i / 2]);
}

V16_INLINE v16 v16_zip_high(v16 a, v16 b)
{
    V16_EACH(v16, i % 2 ? b.lane[LANES / 2 + i / 2] : a.lane[LANES / 2 + i / 2]);
}

V16_INLINE void v16_transpose(v16 a[LANES]) /* row i becomes column i */
{
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            bp_real kept = a[i].lane[j];
            a[i].lane[j] = a[j].lane[i];
            a[j].lane[i] = kept;
        }
}

typedef struct {
    double lane[LANES];
} v16d;

V16_INLINE v16d v16d_zero(void)
{
    V16_EACH(v16d, 0);
}

V16_INLINE v16d v16d_add_squares(v16d sum,
                                 v16 x) /* the square of a float is exact in double: fma or not is the same */
{
    V16_EACH(v16d, (double)x.lane[i] * (double)x.lane[i] + sum.lane[i]);
}

V16_INLINE double v16d_sum(v16d a)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.lane[i] += a.lane[i + half];
    return a.lane[0];
}
#endif

/* --- the same for all -------------------------------------------------------------------------------------------- */

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
