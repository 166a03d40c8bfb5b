/* v16_generic.h: v16.h's sixteen lanes as an array in portable C; included by v16.h alone.
 *
 * What the others must match bit for bit; and the double build's only form.
 */
#ifndef BP_KERNELS_V16_GENERIC_H
#define BP_KERNELS_V16_GENERIC_H

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

/* clang for aarch64 makes of "0 > x ? 0 : x" its maximum, which is +0 for -0: it must not know the zero. */
#if defined(__clang__) && defined(__aarch64__)
#define V16_HIDE(a) __asm__("" : "+m"(a))
#else
#define V16_HIDE(a) (void)0
#endif

V16_INLINE v16 v16_max(v16 a, v16 b)
{
    V16_HIDE(a);
    V16_EACH(v16, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]);
}

V16_INLINE v16 v16_min(v16 a, v16 b)
{
    V16_HIDE(a);
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

V16_INLINE uint16_t v16_mask_bits(v16m m) /* bit i: lane i */
{
    unsigned bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (unsigned)(m.lane[i] != 0) << i;
    return (uint16_t)bits;
}

V16_INLINE v16m v16_mask_of(uint16_t bits)
{
    V16_EACH(v16m, bits >> i & 1);
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

V16_INLINE v16 v16_standardize(v16 x, double shift, double scale) /* (x - shift) scale in double, rounded once */
{
    V16_EACH(v16, (bp_real)(((double)x.lane[i] - shift) * scale));
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
