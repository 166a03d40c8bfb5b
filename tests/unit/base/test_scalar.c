/* test_scalar.c: the double functions against long double, their special values, and their bits. */
#include "base/scalar.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOLERANCE 4e-15L

static void near(double got, long double want)
{
    long double error = want == 0 ? fabsl(got) : fabsl(got / want - 1);
    if (!(error <= TOLERANCE))
        fail_msg("got %.17g, want %.17Lg, error %.2Lg", got, want, error);
}

static void test_exp(void **state)
{
    (void)state;
    for (double x = -708; x < 709.7; x += 0.00731)
        near(bp_exp(x), expl(x));
    for (double x = 1e-20; x < 1; x *= 1.3) {
        near(bp_exp(x), expl(x));
        near(bp_exp(-x), expl(-x));
    }
    assert_true(bp_exp(0) == 1);
    assert_true(bp_exp(-746) == 0);
    assert_true(bp_exp(-740) > 0 && fabs(bp_exp(-740) - exp(-740)) <= 0x1p-1074);
    assert_true(bp_exp(709.9) == (double)INFINITY);
    assert_true(bp_exp((double)INFINITY) == (double)INFINITY);
    assert_true(bp_exp(-(double)INFINITY) == 0);
    assert_true(isnan(bp_exp((double)NAN)));
}

static void test_log(void **state)
{
    (void)state;
    for (double x = 0x1p-1068; x < 1e308; x *= 1.01)
        near(bp_ln(x), logl(x));
    for (double x = 0.5; x < 2; x += 0.000317)
        near(bp_ln(x), logl(x));
    for (double d = 0x1p-52; d < 0.1; d *= 1.9) {
        near(bp_ln(1 + d), logl(1 + d));
        near(bp_ln(1 - d), logl(1 - d));
    }
    assert_true(bp_ln(1) == 0);
    assert_true(bp_ln(0) == -(double)INFINITY);
    assert_true(bp_ln((double)INFINITY) == (double)INFINITY);
    assert_true(isnan(bp_ln(-1)));
    assert_true(isnan(bp_ln((double)NAN)));
}

static void test_cospi(void **state)
{
    (void)state;
    const long double pi = 3.14159265358979323846264338327950288L;
    for (double x = -5; x < 5; x += 0.000713)
        assert_true(fabsl(bp_cospi(x) - cosl(pi * x)) < 4e-16L);
    for (double n = 0; n < 20; n++) {
        assert_true(bp_cospi(n) == (fmod(n, 2) == 0 ? 1 : -1));
        assert_true(bp_cospi(n + 0.5) == 0);
    }
    /* near its zeros the relative error holds too */
    for (double d = 1e-15; d < 0.1; d *= 3)
        near(bp_cospi(0.5 + d), -sinl(pi * ((0.5 + d) - 0.5L)));
    assert_true(bp_cospi(0x1p50) == 1 && bp_cospi(0x1p50 + 1) == -1);
    assert_true(isnan(bp_cospi((double)INFINITY)));
}

static void test_powers(void **state)
{
    (void)state;
    const double bases[] = {0.9, 0.999, 0.5, 1.0001, 2, -1.5, 0.1, 1 - 0x1p-53};
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++)
        for (uint64_t n = 0; n < 3000000; n = n * 5 / 4 + 1) {
            long double want = powl(bases[b], n);
            if (fabsl(want) > 1e-270L && fabsl(want) < 1e300L)
                near(bp_powi(bases[b], n), want);
        }
    assert_true(bp_powi(0, 0) == 1 && bp_powi(0, 5) == 0);
    assert_true(bp_powi(2, 2000) == (double)INFINITY);
    assert_true(bp_powi(0.5, 1074) == 0x1p-1074 && bp_powi(0.5, 1100) == 0);
    assert_true(bp_powi(3, 7) == 2187);

    for (double x = 0.0007; x < 1e4; x *= 1.0137)
        for (double p = -70; p < 70; p += 1.937)
            near(bp_pow(x, p), powl(x, p));
    assert_true(bp_pow(5, 0) == 1);
    assert_true(bp_pow(1, 1e300) == 1);
    assert_true(bp_pow(10, 400) == (double)INFINITY);
    assert_true(bp_pow(10, -400) == 0);
    assert_true(bp_pow(0, 2) == 0);
}

/* FNV-1a over the bits of many results: the same on every machine, with any compiler, with and without FMA. */
static void test_bits(void **state)
{
    (void)state;
    uint64_t hash = 0xcbf29ce484222325;
    for (int i = 1; i < 20000; i++) {
        double x = (i - 10000) * 0.0697, y = i * 0.0123;
        const double results[] = {bp_exp(x), bp_ln(y), bp_cospi(x), bp_powi(1 - 1.0 / (i + 1), (uint64_t)i * 3),
                                  bp_pow(y, x / 100)};
        const unsigned char *bytes = (const unsigned char *)results;
        for (size_t b = 0; b < sizeof results; b++)
            hash = (hash ^ bytes[b]) * 0x100000001b3;
    }
    if (hash != 0xe5131723339f8ae5)
        fail_msg("hash %016llx", (unsigned long long)hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),    cmocka_unit_test(test_log),  cmocka_unit_test(test_cospi),
        cmocka_unit_test(test_powers), cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
