/* v16_neon.h: v16.h's sixteen lanes as four NEON registers; included by v16.h alone.
 *
 * NEON has no masked loads: what is less than a register is taken lane by lane, so that nothing outside is touched.
 * Its own maximum and minimum prefer NaN, and +0 to -0; v16's do not, so these compare and choose.
 */
#ifndef BP_KERNELS_V16_NEON_H
#define BP_KERNELS_V16_NEON_H

#include <arm_neon.h>

typedef struct {
    float32x4_t a, b, c, d;
} v16;
typedef struct {
    int32x4_t a, b, c, d;
} v16i;
typedef struct {
    uint32x4_t a, b, c, d; /* all bits of a lane set, or none */
} v16m;

V16_INLINE v16 v16_set(float x)
{
    float32x4_t all = vdupq_n_f32(x);
    return (v16){all, all, all, all};
}

V16_INLINE v16 v16_load(const float *p)
{
    return (v16){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}

V16_INLINE void v16_store(float *p, v16 x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}

/* The first n lanes of a register from p, n <= 0 for none; 0 in the others. */
V16_INLINE float32x4_t v16_load4(const float *p, int n)
{
    float32x4_t x = vdupq_n_f32(0);
    if (n >= 4)
        return vld1q_f32(p);
    if (n >= 1)
        x = vld1q_lane_f32(p, x, 0);
    if (n >= 2)
        x = vld1q_lane_f32(p + 1, x, 1);
    if (n >= 3)
        x = vld1q_lane_f32(p + 2, x, 2);
    return x;
}

V16_INLINE v16 v16_load_some(const float *p, int n)
{
    return (v16){v16_load4(p, n), v16_load4(p + 4, n - 4), v16_load4(p + 8, n - 8), v16_load4(p + 12, n - 12)};
}

/* x, lanes from `first` on taken from p; first <= 0 for all. */
V16_INLINE float32x4_t v16_load4_from(float32x4_t x, const float *p, int first)
{
    if (first <= 0)
        return vld1q_f32(p);
    if (first <= 1)
        x = vld1q_lane_f32(p + 1, x, 1);
    if (first <= 2)
        x = vld1q_lane_f32(p + 2, x, 2);
    if (first <= 3)
        x = vld1q_lane_f32(p + 3, x, 3);
    return x;
}

V16_INLINE v16 v16_load_from(v16 x, const float *p, int first) /* x, lanes from `first` on taken from p[lane] */
{
    return (v16){v16_load4_from(x.a, p, first), v16_load4_from(x.b, p + 4, first - 4),
                 v16_load4_from(x.c, p + 8, first - 8), v16_load4_from(x.d, p + 12, first - 12)};
}

V16_INLINE void v16_store4(float *p, float32x4_t x, int n)
{
    if (n >= 4) {
        vst1q_f32(p, x);
        return;
    }
    if (n >= 1)
        vst1q_lane_f32(p, x, 0);
    if (n >= 2)
        vst1q_lane_f32(p + 1, x, 1);
    if (n >= 3)
        vst1q_lane_f32(p + 2, x, 2);
}

V16_INLINE void v16_store_some(float *p, v16 x, int n)
{
    v16_store4(p, x.a, n);
    v16_store4(p + 4, x.b, n - 4);
    v16_store4(p + 8, x.c, n - 8);
    v16_store4(p + 12, x.d, n - 12);
}

/* The same instruction on each of the four registers, of one operand or of two. */
#define V16_ONE(type, op, x) ((type){op((x).a), op((x).b), op((x).c), op((x).d)})
#define V16_TWO(type, op, x, y) ((type){op((x).a, (y).a), op((x).b, (y).b), op((x).c, (y).c), op((x).d, (y).d)})

V16_INLINE v16 v16_add(v16 x, v16 y)
{
    return V16_TWO(v16, vaddq_f32, x, y);
}

V16_INLINE v16 v16_sub(v16 x, v16 y)
{
    return V16_TWO(v16, vsubq_f32, x, y);
}

V16_INLINE v16 v16_mul(v16 x, v16 y)
{
    return V16_TWO(v16, vmulq_f32, x, y);
}

V16_INLINE v16 v16_div(v16 x, v16 y)
{
    return V16_TWO(v16, vdivq_f32, x, y);
}

V16_INLINE v16 v16_fma(v16 x, v16 y, v16 z) /* x y + z */
{
    return (v16){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                 vfmaq_f32(z.d, x.d, y.d)};
}

V16_INLINE v16 v16_sqrt(v16 x)
{
    return V16_ONE(v16, vsqrtq_f32, x);
}

V16_INLINE v16 v16_abs(v16 x)
{
    return V16_ONE(v16, vabsq_f32, x);
}

V16_INLINE v16m v16_less(v16 x, v16 y)
{
    return V16_TWO(v16m, vcltq_f32, x, y);
}

V16_INLINE v16m v16_at_most(v16 x, v16 y)
{
    return V16_TWO(v16m, vcleq_f32, x, y);
}

V16_INLINE v16 v16_select(v16m m, v16 yes, v16 no)
{
#ifdef __clang__ /* which would make of "0 > x ? 0 : x" a maximum, +0 for -0, if it knew what the mask is */
    __asm__("" : "+w"(m.a), "+w"(m.b), "+w"(m.c), "+w"(m.d));
#endif
    return (v16){vbslq_f32(m.a, yes.a, no.a), vbslq_f32(m.b, yes.b, no.b), vbslq_f32(m.c, yes.c, no.c),
                 vbslq_f32(m.d, yes.d, no.d)};
}

V16_INLINE v16 v16_max(v16 x, v16 y)
{
    return v16_select(v16_less(y, x), x, y);
}

V16_INLINE v16 v16_min(v16 x, v16 y)
{
    return v16_select(v16_less(x, y), x, y);
}

V16_INLINE v16m v16_first(int n) /* the first n lanes */
{
    static const int32_t lane[4] = {0, 1, 2, 3};
    int32x4_t i = vld1q_s32(lane);
    return (v16m){vcltq_s32(i, vdupq_n_s32(n)), vcltq_s32(i, vdupq_n_s32(n - 4)), vcltq_s32(i, vdupq_n_s32(n - 8)),
                  vcltq_s32(i, vdupq_n_s32(n - 12))};
}

V16_INLINE uint16_t v16_mask_bits(v16m m) /* bit i: lane i */
{
    static const uint32_t bit[4] = {1, 2, 4, 8};
    uint32x4_t b = vld1q_u32(bit);
    return (uint16_t)(vaddvq_u32(vandq_u32(m.a, b)) | vaddvq_u32(vandq_u32(m.b, b)) << 4 |
                      vaddvq_u32(vandq_u32(m.c, b)) << 8 | vaddvq_u32(vandq_u32(m.d, b)) << 12);
}

V16_INLINE v16m v16_mask_of(uint16_t bits)
{
    static const uint32_t bit[4] = {1, 2, 4, 8};
    uint32x4_t b = vld1q_u32(bit), all = vdupq_n_u32(bits);
    return (v16m){vtstq_u32(all, b), vtstq_u32(vshrq_n_u32(all, 4), b), vtstq_u32(vshrq_n_u32(all, 8), b),
                  vtstq_u32(vshrq_n_u32(all, 12), b)};
}

V16_INLINE float v16_lane0(v16 x)
{
    return vgetq_lane_f32(x.a, 0);
}

V16_INLINE float v16_sum(v16 x) /* the tree 8-4-2-1 */
{
    float32x4_t q = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t pair = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(pair, 0) + vget_lane_f32(pair, 1);
}

V16_INLINE v16i v16_bits(v16 x)
{
    return V16_ONE(v16i, vreinterpretq_s32_f32, x);
}

V16_INLINE v16 v16_of_bits(v16i x)
{
    return V16_ONE(v16, vreinterpretq_f32_s32, x);
}

V16_INLINE v16i v16i_set(int32_t x)
{
    int32x4_t all = vdupq_n_s32(x);
    return (v16i){all, all, all, all};
}

V16_INLINE v16i v16i_add(v16i x, v16i y)
{
    return V16_TWO(v16i, vaddq_s32, x, y);
}

V16_INLINE v16i v16i_sub(v16i x, v16i y)
{
    return V16_TWO(v16i, vsubq_s32, x, y);
}

#define V16_SHIFT(op, x, n) ((v16i){op((x).a, n), op((x).b, n), op((x).c, n), op((x).d, n)})
#define v16i_left(x, n) V16_SHIFT(vshlq_n_s32, x, n)
#define v16i_right(x, n) V16_SHIFT(vshrq_n_s32, x, n) /* keeps the sign */

V16_INLINE v16 v16_even(v16 x, v16 y) /* x0 x2 … x14 y0 y2 … y14 */
{
    return (v16){vuzp1q_f32(x.a, x.b), vuzp1q_f32(x.c, x.d), vuzp1q_f32(y.a, y.b), vuzp1q_f32(y.c, y.d)};
}

V16_INLINE v16 v16_odd(v16 x, v16 y)
{
    return (v16){vuzp2q_f32(x.a, x.b), vuzp2q_f32(x.c, x.d), vuzp2q_f32(y.a, y.b), vuzp2q_f32(y.c, y.d)};
}

V16_INLINE v16 v16_zip_low(v16 x, v16 y) /* x0 y0 x1 y1 … x7 y7 */
{
    return (v16){vzip1q_f32(x.a, y.a), vzip2q_f32(x.a, y.a), vzip1q_f32(x.b, y.b), vzip2q_f32(x.b, y.b)};
}

V16_INLINE v16 v16_zip_high(v16 x, v16 y)
{
    return (v16){vzip1q_f32(x.c, y.c), vzip2q_f32(x.c, y.c), vzip1q_f32(x.d, y.d), vzip2q_f32(x.d, y.d)};
}

/* The 4 x 4 block of four registers, each a row, becomes its transpose. */
V16_INLINE void v16_transpose4(float32x4_t *w, float32x4_t *x, float32x4_t *y, float32x4_t *z)
{
    float64x2_t even_low = vreinterpretq_f64_f32(vtrn1q_f32(*w, *x)); /* w0 x0 w2 x2 */
    float64x2_t odd_low = vreinterpretq_f64_f32(vtrn2q_f32(*w, *x));
    float64x2_t even_high = vreinterpretq_f64_f32(vtrn1q_f32(*y, *z));
    float64x2_t odd_high = vreinterpretq_f64_f32(vtrn2q_f32(*y, *z));
    *w = vreinterpretq_f32_f64(vtrn1q_f64(even_low, even_high));
    *x = vreinterpretq_f32_f64(vtrn1q_f64(odd_low, odd_high));
    *y = vreinterpretq_f32_f64(vtrn2q_f64(even_low, even_high));
    *z = vreinterpretq_f32_f64(vtrn2q_f64(odd_low, odd_high));
}

#define V16_SWAP(x, y)                                                                                               \
    do {                                                                                                             \
        float32x4_t kept = x;                                                                                        \
        x = y;                                                                                                       \
        y = kept;                                                                                                    \
    } while (0)

/* Row i of x becomes column i: each block of 4 x 4 by itself, and those off the diagonal change places. */
V16_INLINE void v16_transpose(v16 x[LANES])
{
    for (int i = 0; i < LANES; i += 4) {
        v16_transpose4(&x[i].a, &x[i + 1].a, &x[i + 2].a, &x[i + 3].a);
        v16_transpose4(&x[i].b, &x[i + 1].b, &x[i + 2].b, &x[i + 3].b);
        v16_transpose4(&x[i].c, &x[i + 1].c, &x[i + 2].c, &x[i + 3].c);
        v16_transpose4(&x[i].d, &x[i + 1].d, &x[i + 2].d, &x[i + 3].d);
    }
    for (int r = 0; r < 4; r++) {
        V16_SWAP(x[r].b, x[r + 4].a);
        V16_SWAP(x[r].c, x[r + 8].a);
        V16_SWAP(x[r].d, x[r + 12].a);
        V16_SWAP(x[r + 4].c, x[r + 8].b);
        V16_SWAP(x[r + 4].d, x[r + 12].b);
        V16_SWAP(x[r + 8].d, x[r + 12].c);
    }
}
#undef V16_SWAP

V16_INLINE float32x4_t v16_standardize4(float32x4_t x, float64x2_t shift, float64x2_t scale)
{
    float64x2_t low = vcvt_f64_f32(vget_low_f32(x)), high = vcvt_high_f64_f32(x);
    low = vmulq_f64(vsubq_f64(low, shift), scale);
    high = vmulq_f64(vsubq_f64(high, shift), scale);
    return vcvt_high_f32_f64(vcvt_f32_f64(low), high);
}

V16_INLINE v16 v16_standardize(v16 x, double shift, double scale) /* (x - shift) scale in double, rounded once */
{
    float64x2_t away = vdupq_n_f64(shift), factor = vdupq_n_f64(scale);
    return (v16){v16_standardize4(x.a, away, factor), v16_standardize4(x.b, away, factor),
                 v16_standardize4(x.c, away, factor), v16_standardize4(x.d, away, factor)};
}

typedef struct {
    float64x2_t pair[LANES / 2];
} v16d; /* 16 doubles */

V16_INLINE v16d v16d_zero(void)
{
    float64x2_t zero = vdupq_n_f64(0);
    return (v16d){{zero, zero, zero, zero, zero, zero, zero, zero}};
}

/* Adds the squares of four lanes to two pairs. */
V16_INLINE void v16d_add_squares4(float64x2_t pair[2], float32x4_t x)
{
    float64x2_t low = vcvt_f64_f32(vget_low_f32(x)), high = vcvt_high_f64_f32(x);
    pair[0] = vfmaq_f64(pair[0], low, low);
    pair[1] = vfmaq_f64(pair[1], high, high);
}

V16_INLINE v16d v16d_add_squares(v16d sum, v16 x)
{
    v16d_add_squares4(sum.pair, x.a);
    v16d_add_squares4(sum.pair + 2, x.b);
    v16d_add_squares4(sum.pair + 4, x.c);
    v16d_add_squares4(sum.pair + 6, x.d);
    return sum;
}

V16_INLINE double v16d_sum(v16d x)
{
    const float64x2_t *p = x.pair;
    float64x2_t even = vaddq_f64(vaddq_f64(p[0], p[4]), vaddq_f64(p[2], p[6]));
    float64x2_t odd = vaddq_f64(vaddq_f64(p[1], p[5]), vaddq_f64(p[3], p[7]));
    float64x2_t last = vaddq_f64(even, odd);
    return vgetq_lane_f64(last, 0) + vgetq_lane_f64(last, 1);
}

#endif
