/* test_random.c: the known answers of Philox, the normal quantile and the shuffle. */
#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The vectors for philox4x32-10 published with Random123 (kat_vectors): counter, key, result. */
static const uint32_t known[][10] = {
    {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
    {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
     0x6d5451fd},
    {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
     0x24126ea1},
};

static void test_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *k = known[i];
        uint64_t index = k[0] | (uint64_t)(k[1] & 0xffff) << 32, step = k[2] | (uint64_t)(k[1] >> 16) << 32;
        uint32_t words[4];
        bp_random(k[4] | (uint64_t)k[5] << 32, k[3], step, index, words);
        assert_memory_equal(words, k + 6, sizeof words);
    }
}

static void test_each_argument_matters(void **state)
{
    (void)state;
    uint32_t base[4], other[4];
    bp_random(1, 2, 3, 4, base);
    const uint64_t arguments[][4] = {
        {2, 2, 3, 4},          {1, 3, 3, 4},         {1, 2, 4, 4}, {1, 2, 3, 5}, {1ull << 32 | 1, 2, 3, 4},
        {1, 2, 1ull << 47, 4}, {1, 2, 3, 1ull << 47}};
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
        const uint64_t *a = arguments[i];
        bp_random(a[0], (uint32_t)a[1], a[2], a[3], other);
        assert_memory_not_equal(base, other, sizeof base);
    }
    assert_int_equal(bp_stream(BP_STREAM_DROPOUT, 5), 0x04000005);
}

static void test_units_stay_inside(void **state)
{
    (void)state;
    assert_true(bp_random_unit(0) == 0.0f);
    assert_true(bp_random_unit(UINT32_MAX) < 1.0f);
    assert_true(bp_random_unit_d(0, 0) > 0.0);
    assert_true(bp_random_unit_d(UINT32_MAX, UINT32_MAX) < 1.0);
    assert_int_equal(bp_random_below(0, 0, 10), 0);
    assert_int_equal(bp_random_below(UINT32_MAX, UINT32_MAX, 10), 9);
    assert_int_equal(bp_random_below(0x80000000, 0, 10), 5);
}

static void test_normal_inverts_the_distribution(void **state)
{
    (void)state;
    assert_true(bp_random_normal(0.5) == 0.0);
    /* the ten first probabilities whose quantiles AS 241 gives as checks, and far tails by erfc */
    assert_true(fabs(bp_random_normal(0.25) - -0.67448975019608171) < 1e-15);
    assert_true(fabs(bp_random_normal(0.001) - -3.0902323061678132) < 1e-14);
    assert_true(fabs(bp_random_normal(1e-20) - -9.2623400897984292) < 1e-13);
    for (double u = 1e-300; u < 0.5; u *= 1.7) {
        double z = bp_random_normal(u), back = 0.5 * erfc(-z * 0.70710678118654752);
        assert_true(fabs(back / u - 1) < 1e-12 * (1 + z * z)); /* the condition of the tail is z^2 */
        if (u > 1e-10)
            assert_true(fabs(bp_random_normal(1 - u) + z) < 1e-5);
    }
}

static void test_normal_has_its_moments(void **state)
{
    (void)state;
    double sum = 0, square = 0, fourth = 0;
    const int n = 200000;
    for (int i = 0; i < n; i++) {
        uint32_t w[4];
        bp_random(7, bp_stream(BP_STREAM_INIT, 0), 0, (uint64_t)i, w);
        double z = bp_random_normal(bp_random_unit_d(w[0], w[1]));
        sum += z;
        square += z * z;
        fourth += z * z * z * z;
    }
    assert_true(fabs(sum / n) < 0.01);
    assert_true(fabs(square / n - 1) < 0.02);
    assert_true(fabs(fourth / n - 3) < 0.1);
}

static void test_shuffle_is_a_permutation_and_repeatable(void **state)
{
    (void)state;
    enum { N = 1001 };
    static uint32_t a[N], b[N];
    static int seen[N];
    for (uint32_t i = 0; i < N; i++)
        a[i] = b[i] = i;
    bp_random_shuffle(1, bp_stream(BP_STREAM_SHUFFLE, 0), 3, a, N);
    bp_random_shuffle(1, bp_stream(BP_STREAM_SHUFFLE, 0), 3, b, N);
    assert_memory_equal(a, b, sizeof a);
    int moved = 0;
    for (uint32_t i = 0; i < N; i++) {
        assert_true(a[i] < N);
        assert_int_equal(seen[a[i]]++, 0);
        moved += a[i] != i;
    }
    assert_true(moved > N - 10);
    for (uint32_t i = 0; i < N; i++)
        b[i] = i;
    bp_random_shuffle(1, bp_stream(BP_STREAM_SHUFFLE, 0), 4, b, N);
    assert_memory_not_equal(a, b, sizeof a);
    bp_random_shuffle(1, 0, 0, b, 0);
    uint32_t single = 9;
    bp_random_shuffle(1, 0, 0, &single, 1);
    assert_int_equal(single, 9);
}

static void test_shuffle_is_even(void **state)
{
    (void)state;
    int count[24] = {0};
    const int trials = 24000;
    for (int t = 0; t < trials; t++) {
        uint32_t order[4] = {0, 1, 2, 3};
        bp_random_shuffle(5, 0, (uint64_t)t, order, 4);
        int code = 0; /* rank of the permutation */
        for (int i = 0; i < 4; i++) {
            int less = 0;
            for (int j = i + 1; j < 4; j++)
                less += order[j] < order[i];
            code = code * (4 - i) + less;
        }
        count[code]++;
    }
    double chi = 0;
    for (int i = 0; i < 24; i++)
        chi += (count[i] - 1000.0) * (count[i] - 1000.0) / 1000.0;
    assert_true(chi < 52); /* 23 degrees of freedom, p = 0.0005 */
}

/* The order of the rows is part of a job's result: it must never change. */
static void test_shuffle_stays_as_it_is(void **state)
{
    (void)state;
    static const uint32_t want[8] = {0, 1, 5, 4, 3, 7, 2, 6};
    uint32_t order[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    bp_random_shuffle(42, bp_stream(BP_STREAM_SHUFFLE, 0), 1, order, 8);
    assert_memory_equal(order, want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),          cmocka_unit_test(test_each_argument_matters),
        cmocka_unit_test(test_units_stay_inside),      cmocka_unit_test(test_normal_inverts_the_distribution),
        cmocka_unit_test(test_normal_has_its_moments), cmocka_unit_test(test_shuffle_is_a_permutation_and_repeatable),
        cmocka_unit_test(test_shuffle_is_even),        cmocka_unit_test(test_shuffle_stays_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
