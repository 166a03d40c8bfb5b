/* vmath.h: exp, log and their relations in every lane of a v16.
 *
 * Float: polynomials on explicit fma, no table, no libm. The arguments are reduced as by Cody and Waite, by
 * constants in two parts. The coefficients are minimax ones of our own (Remez's exchange with 40 digits, then
 * rounded to float); each comment states the function, the interval and the error of the polynomial itself.
 * Double: libm, lane by lane; nothing is compared bit for bit with it.
 *
 * Errors against the exact value, over all floats (the tests assert them): exp, log, log1p, expm1, sigmoid, tanh
 * below 2.5 ULP, normal_below and normal_density below 5 ULP. Infinities and NaN go through as in libm.
 */
#ifndef BP_KERNELS_VMATH_H
#define BP_KERNELS_VMATH_H

#include "kernels/v16.h"

#ifdef BP_DOUBLE

#define VMATH_BY_LANE(name, expr)                                                                                    \
    V16_INLINE v16 name(v16 a)                                                                                       \
    {                                                                                                                \
        v16 ret;                                                                                                     \
        for (int i = 0; i < LANES; i++) {                                                                            \
            double x = a.lane[i];                                                                                    \
            ret.lane[i] = (expr);                                                                                    \
        }                                                                                                            \
        return ret;                                                                                                  \
    }
VMATH_BY_LANE(v16_exp, exp(x))
VMATH_BY_LANE(v16_expm1, expm1(x))
VMATH_BY_LANE(v16_log, log(x))
VMATH_BY_LANE(v16_log1p_unit, log1p(x))
VMATH_BY_LANE(v16_tanh, tanh(x))
VMATH_BY_LANE(v16_normal_below, 0.5 * erfc(-x * 0.70710678118654752440))
VMATH_BY_LANE(v16_normal_density, exp(-0.5 * x * x) * 0.39894228040143267794)
#undef VMATH_BY_LANE

#else

/* c0 + c1 x + c2 x^2 + ... by Horner's rule; the arguments from the highest power down. */
#define POLY(x, high, ...) v16_poly(x, (const float[]){high, __VA_ARGS__}, sizeof((float[]){high, __VA_ARGS__}) / 4)

V16_INLINE v16 v16_poly(v16 x, const float *c, size_t n)
{
    v16 sum = v16_set(c[0]);
    for (size_t i = 1; i < n; i++)
        sum = v16_fma(sum, x, v16_set(c[i]));
    return sum;
}

/* 2^n for an integer vector n in [-126, 127]. */
V16_INLINE v16 v16_power_of_two(v16i n)
{
    return v16_of_bits(v16i_left(v16i_add(n, v16i_set(127)), 23));
}

/* Added to a float it leaves the nearest integer in the low bits; as bits it is that integer's zero. */
#define ROUND_MAGIC 0x1.8p23f
#define ROUND_MAGIC_BITS 0x4B400000

#define LOG2_E 0x1.715476p+0f
#define LN2_HIGH 0x1.62e4p-1f /* 15 bits, so a product with an exponent is exact */
#define LN2_LOW 0x1.7f7d1cp-20f

/* x = n ln 2 + r with |r| <= ln 2 / 2; e^r - 1 goes to *ret_m1. */
V16_INLINE v16i v16_exp_parts(v16 x, v16 *ret_m1)
{
    v16 shifted = v16_fma(x, v16_set(LOG2_E), v16_set(ROUND_MAGIC));
    v16 n = v16_sub(shifted, v16_set(ROUND_MAGIC));
    v16 r = v16_fma(n, v16_set(-LN2_HIGH), x);
    r = v16_fma(n, v16_set(-LN2_LOW), r);
    /* (e^r - 1 - r) / r^2 on |r| <= 0.3469, absolute error 6.3e-8, so 7.5e-9 of e^r */
    v16 q = POLY(r, 0x1.6d75ecp-10f, 0x1.120be8p-7f, 0x1.5554b8p-5f, 0x1.5554dcp-3f, 0x1.000000p-1f);
    *ret_m1 = v16_fma(v16_mul(r, r), q, r);
    return v16i_sub(v16_bits(shifted), v16i_set(ROUND_MAGIC_BITS));
}

/* x held within [low, high]; NaN stays. */
V16_INLINE v16 v16_clamp(v16 x, float low, float high)
{
    return v16_max(v16_set(low), v16_min(v16_set(high), x));
}

/* e^x: denormals are rounded once; 0 below -103.98, infinite above 88.72. */
V16_INLINE v16 v16_exp(v16 x)
{
    v16 m1;
    v16i n = v16_exp_parts(v16_clamp(x, -104, 89), &m1);
    v16 p = v16_add(v16_set(1), m1);
    v16i half = v16i_right(n, 1); /* in two factors: 2^n may be no normal number */
    return v16_mul(v16_mul(p, v16_power_of_two(half)), v16_power_of_two(v16i_sub(n, half)));
}

/* e^x - 1 without cancellation, for x <= 88 (larger ones give e^88). */
V16_INLINE v16 v16_expm1(v16 x)
{
    v16 m1;
    v16i n = v16_exp_parts(v16_clamp(x, -80, 88), &m1);
    v16 power = v16_power_of_two(n);
    return v16_fma(power, m1, v16_sub(power, v16_set(1)));
}

/* log(1 + f) - f for f in [sqrt(1/2) - 1, sqrt(2) - 1] */
V16_INLINE v16 v16_log1p_tail(v16 f)
{
    /* (log(1 + f) - f + f^2 / 2) / f^3, error 7.7e-10 of 1 / f^2 */
    v16 p = POLY(f, 0x1.1b7ff2p-4f, -0x1.e2b6c4p-4f, 0x1.e6146cp-4f, -0x1.fb4a20p-4f, 0x1.23382ep-3f, -0x1.5562cep-3f,
                 0x1.99a4eep-3f, -0x1.ffffeep-3f, 0x1.555546p-2f);
    return v16_mul(v16_mul(f, f), v16_fma(f, p, v16_set(-0.5f)));
}

V16_INLINE v16 v16_log(v16 x)
{
    v16 zero = v16_zero(), infinity = v16_set((float)INFINITY);
    v16m tiny = v16_less(x, v16_set(0x1p-126f));
    v16i bits = v16_bits(v16_select(tiny, v16_mul(x, v16_set(0x1p23f)), x));
    /* x = 2^e m with m in [sqrt(1/2), sqrt(2)) */
    v16i e = v16i_right(v16i_sub(bits, v16i_set(0x3f3504f3)), 23);
    v16 f = v16_sub(v16_of_bits(v16i_sub(bits, v16i_left(e, 23))), v16_set(1));
    v16 n = v16_sub(v16_of_bits(v16i_add(e, v16i_set(ROUND_MAGIC_BITS))), v16_set(ROUND_MAGIC));
    n = v16_sub(n, v16_select(tiny, v16_set(23), zero));
    v16 tail = v16_fma(n, v16_set(LN2_LOW), v16_log1p_tail(f));
    v16 y = v16_fma(n, v16_set(LN2_HIGH), v16_add(f, tail));
    y = v16_select(v16_less(x, infinity), y, x); /* +inf and NaN */
    y = v16_select(v16_less(zero, x), y, v16_select(v16_less(x, zero), v16_set((float)NAN), y));
    return v16_select(v16_at_most(v16_abs(x), zero), v16_neg(infinity), y);
}

/* log(1 + z) for z in [0, 1], as the tail of a softplus has it. */
V16_INLINE v16 v16_log1p_unit(v16 z)
{
    /* 1 + z = 2 (1 + f) above sqrt(2) - 1 */
    v16m upper = v16_less(v16_set(0x1.a8279ap-2f), z);
    v16 f = v16_select(upper, v16_mul(v16_sub(z, v16_set(1)), v16_set(0.5f)), z);
    v16 low = v16_select(upper, v16_set(LN2_LOW), v16_zero()),
        high = v16_select(upper, v16_set(LN2_HIGH), v16_zero());
    return v16_add(high, v16_add(f, v16_add(low, v16_log1p_tail(f))));
}

/* tanh x = -t / (2 + t) with t = e^(-2 |x|) - 1, and the sign of x. */
V16_INLINE v16 v16_tanh(v16 x)
{
    v16 t = v16_expm1(v16_mul(v16_abs(x), v16_set(-2)));
    v16 y = v16_div(t, v16_add(v16_set(2), t)); /* -tanh |x| */
    y = v16_select(v16_less(x, v16_zero()), y, v16_neg(y));
    return v16_select(v16_at_most(v16_abs(x), v16_zero()), x, y); /* -0 */
}

/* e^(-x^2 / 2), with the rounding error of x^2 put back. */
V16_INLINE v16 v16_exp_half_square(v16 x)
{
    v16 a = v16_clamp(v16_abs(x), 0, 16);
    v16 square = v16_mul(a, a), error = v16_fma(a, a, v16_neg(square));
    v16 e = v16_exp(v16_mul(square, v16_set(-0.5f)));
    return v16_fma(v16_mul(e, error), v16_set(-0.5f), e);
}

/* Phi(x), the standard normal distribution: Phi(-a) = e^(-a^2 / 2) W(t) / (a + 3) with t = (a - 3) / (a + 3). */
V16_INLINE v16 v16_normal_below(v16 x)
{
    v16 a = v16_clamp(v16_abs(x), 0, 16);
    v16 inverse = v16_div(v16_set(1), v16_add(a, v16_set(3)));
    v16 t = v16_mul(v16_sub(a, v16_set(3)), inverse);
    /* W on [-1, 0.66], relative error 9.4e-10 */
    v16 w = POLY(t, 0x1.c8decap-15f, 0x1.134c40p-13f, -0x1.00a326p-12f, -0x1.0eac4cp-10f, 0x1.0ca39ap-10f,
                 0x1.c8bd86p-8f, -0x1.56d5f8p-7f, -0x1.832d0ap-5f, 0x1.d71386p-3f, -0x1.04c72ap-1f, 0x1.754a76p-1f);
    v16 below = v16_mul(v16_exp_half_square(a), v16_mul(w, inverse));
    return v16_select(v16_less(x, v16_zero()), below, v16_sub(v16_set(1), below));
}

/* phi(x), its density. */
V16_INLINE v16 v16_normal_density(v16 x)
{
    return v16_mul(v16_exp_half_square(x), v16_set(0x1.988454p-2f));
}

#endif

/* 1 / (1 + e^-x), accurate in both tails. */
V16_INLINE v16 v16_sigmoid(v16 x)
{
    v16 e = v16_exp(v16_neg(v16_abs(x))), one = v16_set(1);
    return v16_div(v16_select(v16_less(x, v16_zero()), e, one), v16_add(one, e));
}

/* log(1 + e^x) */
V16_INLINE v16 v16_softplus(v16 x)
{
    return v16_add(v16_max(v16_zero(), x), v16_log1p_unit(v16_exp(v16_neg(v16_abs(x)))));
}

#endif
