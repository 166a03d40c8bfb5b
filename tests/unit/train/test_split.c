/* test_split.c: the division of rows is complete, exact in its counts, stratified and repeatable. */
#include "fixture.h"

static struct bp_split make(const struct bp_split_config *config)
{
    struct bp_split split;
    struct bp_error err;

    assert_int_equal(bp_split_make(config, &split, &err), BP_OK);
    return split;
}

/* Each row once, each part ascending, excluded rows nowhere. */
static void check_complete(const struct bp_split *split, const struct bp_split_config *config)
{
    uint8_t *seen = calloc(config->nrows, 1);

    for (int p = 0; p < 3; p++) {
        for (uint64_t i = 0; i < split->count[p]; i++) {
            uint32_t row = split->rows[p][i];
            assert_true(row < config->nrows && seen[row] == 0);
            assert_true(i == 0 || split->rows[p][i - 1] < row);
            seen[row] = 1;
        }
    }
    for (uint64_t i = 0; i < config->nrows; i++) {
        assert_int_equal(seen[i], config->exclude == NULL || !config->exclude[i]);
    }
    free(seen);
}

static void test_counts(void **state)
{
    static const struct {
        uint64_t rows;
        double validation, test;
        uint64_t expect[3];
    } cases[] = {
        {150, 0.2, 0.0, {120, 30, 0}}, {100, 0.29, 0.0, {71, 29, 0}},      {10, 0.25, 0.25, {4, 3, 3}},
        {1, 0.9, 0.0, {1, 0, 0}},      {2, 0.9, 0.0, {1, 1, 0}},           {3, 0.0, 0.0, {3, 0, 0}},
        {2, 0.5, 0.4, {1, 0, 1}},      {1000, 0.1, 0.15, {750, 100, 150}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_split_config config = {.seed = 5,
                                         .validation = cases[i].validation,
                                         .test = cases[i].test,
                                         .nrows = cases[i].rows,
                                         .test_first = cases[i].rows};
        struct bp_split split = make(&config);

        check_complete(&split, &config);
        for (int p = 0; p < 3; p++) {
            assert_int_equal(split.count[p], cases[i].expect[p]);
        }
        bp_split_done(&split);
    }
}

static void test_stratified(void **state)
{
    enum { ROWS = 1009, CLASSES = 7 };
    int32_t classes[ROWS];
    int count[CLASSES] = {0}, part[CLASSES][3] = {{0}};
    struct bp_split_config config = {
        .seed = 9, .validation = 0.2, .test = 0.1, .classes = classes, .nrows = ROWS, .test_first = ROWS};
    struct bp_split split;

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        classes[i] = i == 17 ? 6 : i % 21 < 11 ? 0 : i % 21 % 5; /* uneven; class 6 has one row */
        count[classes[i]]++;
    }
    split = make(&config);
    check_complete(&split, &config);
    assert_int_equal(split.count[BP_VALIDATION], 202);
    assert_int_equal(split.count[BP_TEST], 101);
    for (int p = 0; p < 3; p++) {
        for (uint64_t i = 0; i < split.count[p]; i++) {
            part[classes[split.rows[p][i]]][p]++;
        }
    }
    for (int c = 0; c < CLASSES; c++) {
        assert_true(fabs(part[c][BP_VALIDATION] - 0.2 * count[c]) < 1.0);
        assert_true(fabs(part[c][BP_TEST] - 0.1 * count[c]) < 1.0);
        assert_true(count[c] == 0 || part[c][BP_TRAIN] > 0);
    }
    assert_int_equal(part[6][BP_TRAIN], 1);
    bp_split_done(&split);
}

static void test_own_test_rows_and_exclusions(void **state)
{
    uint8_t exclude[100] = {0};
    struct bp_split_config config = {
        .seed = 1, .validation = 0.25, .exclude = exclude, .nrows = 100, .test_first = 80};
    struct bp_split split;
    struct bp_error err;

    (void)state;
    exclude[0] = exclude[40] = exclude[79] = exclude[80] = 1;
    split = make(&config);
    check_complete(&split, &config);
    assert_int_equal(split.count[BP_TEST], 19);
    assert_int_equal(split.rows[BP_TEST][0], 81);
    assert_int_equal(split.count[BP_VALIDATION], 19);
    bp_split_done(&split);
    config.test = 0.1;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    config.test = 0.0;
    memset(exclude, 1, sizeof exclude);
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    config.exclude = NULL;
    config.validation = 1.0;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    config.validation = NAN;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
}

static void test_repeatable(void **state)
{
    struct bp_split_config config = {.seed = 2, .salt = 77, .validation = 0.3, .nrows = 200, .test_first = 200};
    struct bp_split a = make(&config), b = make(&config), c, d;

    (void)state;
    config.salt = 78;
    c = make(&config);
    config.salt = 77;
    config.seed = 3;
    d = make(&config);
    assert_int_equal(bp_split_fingerprint(&a), bp_split_fingerprint(&b));
    assert_int_not_equal(bp_split_fingerprint(&a), bp_split_fingerprint(&c));
    assert_int_not_equal(bp_split_fingerprint(&a), bp_split_fingerprint(&d));
    b.rows[BP_VALIDATION][3]++;
    assert_int_not_equal(bp_split_fingerprint(&a), bp_split_fingerprint(&b));
    bp_split_done(&a);
    bp_split_done(&b);
    bp_split_done(&c);
    bp_split_done(&d);
    bp_split_done(&d);
}

static void test_no_memory(void **state)
{
    struct bp_split_config config = {.validation = 0.3, .nrows = 200, .test_first = 200};
    bp_status status = BP_NOMEM;
    int64_t n = 0;

    (void)state;
    for (; status == BP_NOMEM; n++) {
        struct bp_split split;
        bp_alloc_fail_after(n);
        status = bp_split_make(&config, &split, NULL);
        bp_alloc_fail_after(-1);
        if (status == BP_OK) {
            bp_split_done(&split);
        }
    }
    assert_int_equal(status, BP_OK);
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_stratified),
        cmocka_unit_test(test_own_test_rows_and_exclusions),
        cmocka_unit_test(test_repeatable),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
