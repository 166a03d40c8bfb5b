/* random.c: Philox 4x32-10, the normal quantile and the shuffle.
 *
 * Everything is integer arithmetic, or + - * / sqrt and bp_ln on doubles: the same bits on every machine.
 */
#include "base/random.h"

#include "base/scalar.h"

#include <math.h>

void bp_random(uint64_t seed, uint32_t stream, uint64_t step, uint64_t index, uint32_t ret[4])
{
    uint32_t c0 = (uint32_t)index;
    uint32_t c1 = (uint32_t)(index >> 32 & 0xffff) | (uint32_t)(step >> 32 & 0xffff) << 16;
    uint32_t c2 = (uint32_t)step;
    uint32_t c3 = stream;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)BP_PHILOX_M0 * c0, p1 = (uint64_t)BP_PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += BP_PHILOX_W0;
        k1 += BP_PHILOX_W1;
    }
    ret[0] = c0;
    ret[1] = c1;
    ret[2] = c2;
    ret[3] = c3;
}

/* c[0] + c[1] x + ... + c[7] x^7 */
static double polynomial7(const double c[8], double x)
{
    double sum = c[7];
    for (int i = 6; i >= 0; i--)
        sum = fma(sum, x, c[i]);
    return sum;
}

/* The rational functions of AS 241: numerators first. Centre |u - 1/2| <= 0.425, then two ranges of the tail. */
static const double centre[2][8] = {
    {3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
     4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3},
    {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3, 2.1213794301586595867e+4,
     3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3}};
static const double middle[2][8] = {
    {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
static const double far[2][8] = {
    {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
    {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};

double bp_random_normal(double unit)
{
    double q = unit - 0.5;
    if (fabs(q) <= 0.425) {
        double r = 0.180625 - q * q;
        return q * polynomial7(centre[0], r) / polynomial7(centre[1], r);
    }
    double r = sqrt(-bp_ln(q < 0 ? unit : 1 - unit));
    const double(*tail)[8] = r <= 5 ? middle : far;
    r -= r <= 5 ? 1.6 : 5;
    double z = polynomial7(tail[0], r) / polynomial7(tail[1], r);
    return q < 0 ? -z : z;
}

void bp_random_shuffle(uint64_t seed, uint32_t stream, uint64_t step, uint32_t *order, uint64_t n)
{
    bp_random_shuffle_inline(seed, stream, step, order, n);
}
