/* scalar.c: exp, log, cospi and powers of doubles from + - * / and fma alone.
 *
 * The series are the Taylor series of the textbooks, cut where the next term is below 1e-18 of the sum: the
 * reductions make the arguments small enough for that, so no fitted coefficients are needed. Argument reductions by
 * two-part constants are Cody and Waite's ("Software Manual for the Elementary Functions", 1980).
 */
#include "base/scalar.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const double log2_e = 0x1.71547652b82fep+0;
static const double ln2_high = 0x1.62e42fefa3800p-1; /* 42 bits: times an exponent it is exact */
static const double ln2_low = 0x1.ef35793c76730p-45;
static const double round_magic = 0x1.8p52; /* added and taken away: rounds to the nearest integer */

static double power_of_two(int n) /* -1022 <= n <= 1023 */
{
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* sum of c[i] x^i, i < n */
static double polynomial(const double *c, int n, double x)
{
    double sum = c[n - 1];
    for (int i = n - 2; i >= 0; i--)
        sum = fma(sum, x, c[i]);
    return sum;
}

/* e^(x + tail), tail a rounding error of x. */
static double exp_of_sum(double x, double tail)
{
    static const double inverse_factorial[] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0,
    };
    if (x != x)
        return x;
    if (x > 709.8)
        return (double)INFINITY;
    if (x < -746)
        return 0;
    /* e^x = 2^n e^r with |r| <= ln 2 / 2; the 14th term is then below 5e-18 */
    double n = (x * log2_e + round_magic) - round_magic;
    double r = fma(n, -ln2_high, x);
    r = fma(n, -ln2_low, r) + tail;
    double p = polynomial(inverse_factorial, sizeof inverse_factorial / sizeof *inverse_factorial, r);
    /* two factors, because 2^n alone may be no normal number */
    int half = (int)n / 2;
    return p * power_of_two(half) * power_of_two((int)n - half);
}

double bp_exp(double x)
{
    return exp_of_sum(x, 0);
}

/* log x = *high + *low with some 60 correct bits, for finite x > 0. */
static void log_parts(double x, double *high, double *low)
{
    static const double series[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                                    1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
    uint64_t bits;
    int exponent = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        exponent = -54;
    }
    memcpy(&bits, &x, sizeof bits);
    /* x = 2^exponent m with m in [sqrt(1/2), sqrt(2)) */
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcd;
    exponent += (int)((int64_t)(bits - sqrt_half) >> 52);
    bits -= (uint64_t)((int64_t)(bits - sqrt_half) >> 52) << 52;
    double m;
    memcpy(&m, &bits, sizeof m);

    /* log m = 2 artanh s = 2 s + 2 s^3 / 3 + ..., s = (m - 1) / (m + 1), |s| < 0.172; s with its rounding error */
    double f = m - 1, sum = m + 1, sum_error = f - (sum - 2);
    double s = f / sum;
    double s_error = (fma(-s, sum, f) - s * sum_error) / sum;
    double z = s * s;
    double tail = 2 * s * z * polynomial(series, sizeof series / sizeof *series, z) + 2 * s_error;

    double main = exponent * ln2_high; /* exact */
    double h = main + 2 * s;
    double h_error = exponent ? 2 * s - (h - main) : 0; /* exact: |main| > |2 s| unless exponent is 0 */
    double rest = h_error + (tail + exponent * ln2_low);
    *high = h + rest;
    *low = rest - (*high - h); /* |h| > |rest|, so this is exact */
}

double bp_ln(double x)
{
    if (!(x > 0))
        return x == 0 ? -(double)INFINITY : (double)NAN;
    if (x > 0x1.fffffffffffffp1023)
        return x;
    double high, low;
    log_parts(x, &high, &low);
    return high; /* the rounded sum of both */
}

double bp_cospi(double x)
{
    static const double pi = 0x1.921fb54442d18p+1, pi_low = 0x1.1a62633145c07p-53;
    static const double cos_series[] = {1.0,
                                        -1.0 / 2,
                                        1.0 / 24,
                                        -1.0 / 720,
                                        1.0 / 40320,
                                        -1.0 / 3628800,
                                        1.0 / 479001600,
                                        -1.0 / 87178291200.0,
                                        1.0 / 20922789888000.0};
    static const double sin_series[] = {1.0,
                                        -1.0 / 6,
                                        1.0 / 120,
                                        -1.0 / 5040,
                                        1.0 / 362880,
                                        -1.0 / 39916800,
                                        1.0 / 6227020800.0,
                                        -1.0 / 1307674368000.0,
                                        1.0 / 355687428096000.0};
    double a = fabs(x);
    if (!(a < 0x1p52))
        return a < (double)INFINITY ? 1.0 : (double)NAN; /* from 2^53 on every double is even */
    /* a = quarter / 2 + r, |r| <= 1/4, exactly: the angle left over is at most pi / 4 */
    double quarter = floor(2 * a + 0.5);
    double r = a - 0.5 * quarter;
    double angle = fma(r, pi, r * pi_low), z = angle * angle;
    unsigned turn = (unsigned)((uint64_t)quarter & 3);
    double value = turn & 1 ? angle * polynomial(sin_series, 9, z) : polynomial(cos_series, 9, z);
    return turn == 1 || turn == 2 ? -value : value;
}

/* (*high + *low) *= (b_high + b_low), to some 100 bits. */
static void multiply_pair(double *high, double *low, double b_high, double b_low)
{
    double product = *high * b_high;
    double error = fma(*high, b_high, -product) + (*high * b_low + *low * b_high);
    bool plain = !(fabs(product) < (double)INFINITY) || fabs(product) < 0x1p-900; /* no room for an error term */
    *high = plain ? product : product + error;
    *low = plain ? 0 : error - (*high - product);
}

double bp_powi(double base, uint64_t n)
{
    /* In pairs, because every squaring doubles the relative error of its operand. */
    double high = 1, low = 0, base_low = 0;
    for (; n > 0; n >>= 1) {
        if (n & 1)
            multiply_pair(&high, &low, base, base_low);
        multiply_pair(&base, &base_low, base, base_low);
    }
    return high;
}

double bp_pow(double base, double power)
{
    if (power == 0 || base == 1)
        return 1;
    double log_base = bp_ln(base);
    if (!(fabs(log_base) < (double)INFINITY) || !(fabs(power) < (double)INFINITY))
        return bp_exp(power * log_base);
    /* The product carries its rounding error along: an error of the exponent is a relative error of the result. */
    double high, low;
    log_parts(base, &high, &low);
    double product = power * high;
    if (!(fabs(product) < 1000))
        return bp_exp(product);
    return exp_of_sum(product, fma(power, high, -product) + power * low);
}
