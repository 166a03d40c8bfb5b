/* test_split_whole.c: groups are never cut apart, time is never mixed, windows never reach over a cut. */
#include "fixture.h"

enum { ROWS = 1000 };

static struct bp_split make(const struct bp_split_config *config)
{
    struct bp_split split;
    struct bp_error err = {0};

    if (bp_split_make(config, &split, &err) != BP_OK) {
        fail_msg("%s", err.message);
    }
    return split;
}

/* The part of each row, 3 for none. */
static void parts_of(const struct bp_split *split, uint8_t *ret)
{
    memset(ret, 3, ROWS);
    for (int p = 0; p < 3; p++) {
        for (uint64_t i = 0; i < split->count[p]; i++) {
            assert_int_equal(ret[split->rows[p][i]], 3);
            ret[split->rows[p][i]] = (uint8_t)p;
        }
    }
}

static void test_groups_stay_together(void **state)
{
    static uint32_t group[ROWS];
    uint8_t part[ROWS], part_of_group[64];
    uint64_t fingerprint[2] = {0};

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        group[i] = i * 7919 % 40; /* 25 rows each */
    }
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct bp_split_config config = {
            .seed = seed, .validation = 0.2, .test = 0.1, .group = group, .nrows = ROWS, .test_first = ROWS};
        struct bp_split split = make(&config), again = make(&config);

        assert_int_equal(split.count[BP_VALIDATION], 200);
        assert_int_equal(split.count[BP_TEST], 100);
        assert_int_equal(split.count[BP_TRAIN], 700);
        assert_true(bp_split_fingerprint(&split) == bp_split_fingerprint(&again));
        fingerprint[seed % 2] = bp_split_fingerprint(&split);
        assert_true(fingerprint[0] != fingerprint[1]);
        parts_of(&split, part);
        memset(part_of_group, 9, sizeof part_of_group);
        for (int i = 0; i < ROWS; i++) {
            uint8_t *of = &part_of_group[group[i]];
            assert_true(*of == 9 || *of == part[i]);
            *of = part[i];
        }
        bp_split_done(&split);
        bp_split_done(&again);
    }
}

/* Few and uneven groups: every part gets one where it can, and training always has one. */
static void test_few_groups(void **state)
{
    static uint32_t group[ROWS];

    (void)state;
    for (int ngroups = 1; ngroups < 6; ngroups++) {
        for (uint32_t i = 0; i < ROWS; i++) {
            group[i] = i < 600 ? 0 : i % (uint32_t)ngroups; /* the first one is large */
        }
        struct bp_split_config config = {
            .seed = 1, .validation = 0.2, .test = 0.1, .group = group, .nrows = ROWS, .test_first = ROWS};
        struct bp_split split = make(&config);

        assert_true(split.count[BP_TRAIN] > 0);
        assert_int_equal(split.count[BP_TEST] > 0, ngroups > 1);
        assert_int_equal(split.count[BP_VALIDATION] > 0, ngroups > 2);
        assert_int_equal(split.count[0] + split.count[1] + split.count[2], ROWS);
        bp_split_done(&split);
    }
}

static void test_time(void **state)
{
    static uint32_t rank[ROWS];
    static uint8_t exclude[ROWS];
    uint8_t part[ROWS];

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        rank[i] = i * 333 % ROWS / 4; /* four rows at a time */
        exclude[i] = i % 10 == 3;
    }
    struct bp_split_config config = {.validation = 0.2,
                                     .test = 0.1,
                                     .first = rank,
                                     .last = rank,
                                     .exclude = exclude,
                                     .nrows = ROWS,
                                     .test_first = ROWS};
    struct bp_split split = make(&config);
    uint32_t low[3] = {ROWS, ROWS, ROWS}, high[3] = {0};

    parts_of(&split, part);
    for (int i = 0; i < ROWS; i++) {
        assert_int_equal(part[i] == 3, exclude[i]);
        if (part[i] < 3) {
            low[part[i]] = rank[i] < low[part[i]] ? rank[i] : low[part[i]];
            high[part[i]] = rank[i] > high[part[i]] ? rank[i] : high[part[i]];
        }
    }
    assert_true(high[BP_TRAIN] < low[BP_VALIDATION] && high[BP_VALIDATION] < low[BP_TEST]);
    assert_in_range(split.count[BP_VALIDATION], 176, 184);
    assert_in_range(split.count[BP_TEST], 86, 94);
    bp_split_done(&split);
}

/* Windows of 20 consecutive rows, one ending at each row: no row is seen from two parts. */
static void test_windows_in_time(void **state)
{
    static uint32_t first[ROWS], last[ROWS];
    static uint8_t exclude[ROWS];
    uint8_t part[ROWS], seen[ROWS];

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        exclude[i] = i < 19;
        first[i] = i < 19 ? 0 : i - 19;
        last[i] = i;
    }
    struct bp_split_config config = {.validation = 0.2,
                                     .test = 0.1,
                                     .first = first,
                                     .last = last,
                                     .exclude = exclude,
                                     .nrows = ROWS,
                                     .test_first = ROWS};
    struct bp_split split = make(&config);

    parts_of(&split, part);
    memset(seen, 9, sizeof seen);
    for (uint32_t i = 19; i < ROWS; i++) {
        for (uint32_t r = first[i]; r <= i && part[i] < 3; r++) {
            assert_true(seen[r] == 9 || seen[r] == part[i]);
            seen[r] = part[i];
        }
    }
    assert_int_equal(split.count[BP_TEST], 98);
    assert_int_equal(split.count[BP_VALIDATION], 196);
    assert_int_equal(split.count[0] + split.count[1] + split.count[2], 981 - 2 * 19);
    bp_split_done(&split);
}

static void test_own_test_rows(void **state)
{
    static uint32_t group[ROWS];

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        group[i] = i / 10;
    }
    struct bp_split_config config = {.validation = 0.25, .group = group, .nrows = ROWS, .test_first = 800};
    struct bp_split split = make(&config);
    assert_int_equal(split.count[BP_TEST], 200);
    assert_int_equal(split.rows[BP_TEST][0], 800);
    assert_int_equal(split.count[BP_VALIDATION], 200);
    bp_split_done(&split);
}

static void test_refused(void **state)
{
    static uint32_t group[10] = {0}, high[10] = {11};
    static int32_t classes[10];
    struct bp_split_config config = {.validation = 0.2, .group = group, .nrows = 10, .test_first = 10};
    struct bp_split split;
    struct bp_error err;

    (void)state;
    config.classes = classes;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    config.classes = NULL;
    config.group = high;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    config.group = NULL;
    config.first = group;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    config.last = high;
    assert_int_equal(bp_split_make(&config, &split, &err), BP_INVALID);
    for (int form = 0; form < 2; form++) {
        bp_status status = BP_NOMEM;
        config = (struct bp_split_config){.validation = 0.2, .nrows = 10, .test_first = 10};
        config.group = form ? group : NULL;
        config.first = config.last = form ? NULL : group;
        for (int n = 0; status == BP_NOMEM; n++) {
            bp_alloc_fail_after(n);
            status = bp_split_make(&config, &split, &err);
            bp_alloc_fail_after(-1);
        }
        assert_int_equal(status, BP_OK);
        bp_split_done(&split);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_stay_together),
        cmocka_unit_test(test_few_groups),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_windows_in_time),
        cmocka_unit_test(test_own_test_rows),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
