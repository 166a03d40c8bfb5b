/* v16_avx512.h: v16.h's sixteen lanes as one AVX-512 register; included by v16.h alone. */
#ifndef BP_KERNELS_V16_AVX512_H
#define BP_KERNELS_V16_AVX512_H

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

#define V16_STREAMS

V16_INLINE void v16_stream(float *p, v16 a)
{
    _mm512_stream_ps(p, a);
}

V16_INLINE void v16_stream_end(void)
{
    _mm_sfence();
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

V16_INLINE uint16_t v16_mask_bits(v16m m) /* bit i: lane i */
{
    return (uint16_t)m;
}

V16_INLINE v16m v16_mask_of(uint16_t bits)
{
    return (__mmask16)bits;
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

V16_INLINE v16 v16_standardize(v16 x, double shift, double scale) /* (x - shift) scale in double, rounded once */
{
    __m512d away = _mm512_set1_pd(shift), factor = _mm512_set1_pd(scale);
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    __m256 a = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(low, away), factor));
    __m256 b = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(high, away), factor));
    return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
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

#endif
