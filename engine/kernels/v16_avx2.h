/* v16_avx2.h: v16.h's sixteen lanes as two AVX2 registers, with FMA; included by v16.h alone. */
#ifndef BP_KERNELS_V16_AVX2_H
#define BP_KERNELS_V16_AVX2_H

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

#define V16_STREAMS

V16_INLINE void v16_stream(float *p, v16 a)
{
    _mm256_stream_ps(p, a.low);
    _mm256_stream_ps(p + 8, a.high);
}

V16_INLINE void v16_stream_end(void)
{
    _mm_sfence();
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

V16_INLINE uint16_t v16_mask_bits(v16m m) /* bit i: lane i */
{
    return (uint16_t)(_mm256_movemask_ps(m.low) | _mm256_movemask_ps(m.high) << 8);
}

V16_INLINE v16m v16_mask_of(uint16_t bits)
{
    const __m256i low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), high = _mm256_slli_epi32(low, 8);
    __m256i all = _mm256_set1_epi32(bits);
    return (v16m){_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, low), low)),
                  _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, high), high))};
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

V16_INLINE __m256 v16_standardize8(__m256 x, __m256d shift, __m256d scale)
{
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    __m128 a = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(low, shift), scale));
    __m128 b = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(high, shift), scale));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1);
}

V16_INLINE v16 v16_standardize(v16 x, double shift, double scale) /* (x - shift) scale in double, rounded once */
{
    __m256d away = _mm256_set1_pd(shift), factor = _mm256_set1_pd(scale);
    return (v16){v16_standardize8(x.low, away, factor), v16_standardize8(x.high, away, factor)};
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

#endif
