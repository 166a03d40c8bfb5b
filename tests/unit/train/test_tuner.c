/* test_tuner.c: a step gets the threads that it is fastest with, also when that changes; trials are few.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/tuner.h"

/* Steps that take base + work / n + barrier (n - 1) on n threads; returns how many were taken with other than `want`. */
static int run(struct bp_tuner *tuner, int steps, double work, double barrier, int want)
{
    int others = 0;

    for (int i = 0; i < steps; i++) {
        int n = bp_tuner_threads(tuner);
        assert_in_range(n, 1, tuner->most);
        others += n != want;
        bp_tuner_took(tuner, bp_tuner_listens(tuner) ? 1e-6 + work / n + barrier * (n - 1) : 0.0);
    }
    return others;
}

static void test_barriers_that_cost_nothing(void **state)
{
    (void)state;
    for (int most = 1; most <= 9; most++) {
        struct bp_tuner tuner;
        bp_tuner_begin(&tuner, most);
        assert_in_range(run(&tuner, 100000, 30e-6, 0.0, most), 0, most == 1 ? 0 : 1500);
        assert_int_equal(tuner.best, most);
    }
}

static void test_barriers_that_cost_more_than_they_save(void **state)
{
    (void)state;
    for (int most = 1; most <= 9; most++) {
        struct bp_tuner tuner;
        bp_tuner_begin(&tuner, most);
        run(&tuner, 5000, 30e-6, 40e-6, 1); /* from 8 threads it takes three trials downwards, and others upwards */
        assert_in_range(run(&tuner, 100000, 30e-6, 40e-6, 1), 0, most == 1 ? 0 : 1500);
    }
}

static void test_a_best_number_between(void **state)
{
    struct bp_tuner tuner;

    (void)state;
    bp_tuner_begin(&tuner, 8); /* 1 thread 30 us, 2 threads 17, 4 threads 13.5, 8 threads 17.75 */
    run(&tuner, 5000, 30e-6, 2e-6, 4);
    assert_in_range(run(&tuner, 100000, 30e-6, 2e-6, 4), 0, 1500);
}

static void test_neighbours_that_come_and_go(void **state)
{
    struct bp_tuner tuner;

    (void)state;
    bp_tuner_begin(&tuner, 2);
    for (int i = 0; i < 3; i++) {
        run(&tuner, 40000, 30e-6, 0.0, 2);
        assert_int_equal(tuner.best, 2);
        run(&tuner, 40000, 30e-6, 200e-6, 1);
        assert_int_equal(tuner.best, 1);
    }
}

/* A step of 1 ms would be lost for 1 ms more on trial: a few of them must do. */
static void test_trials_of_longer_steps_are_short(void **state)
{
    struct bp_tuner tuner;

    (void)state;
    bp_tuner_begin(&tuner, 2);
    assert_in_range(run(&tuner, 2000, 2e-3, 0.0, 2), 4, 16);
    assert_int_equal(tuner.best, 2);
    run(&tuner, 40000, 1e-3, 1e-3, 1);
    assert_int_equal(tuner.best, 1);
}

static void test_long_steps_have_no_trials(void **state)
{
    struct bp_tuner tuner;

    (void)state;
    bp_tuner_begin(&tuner, 4);
    assert_int_equal(run(&tuner, 20000, 40e-3, 0.0, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_barriers_that_cost_nothing),
        cmocka_unit_test(test_barriers_that_cost_more_than_they_save),
        cmocka_unit_test(test_a_best_number_between),
        cmocka_unit_test(test_neighbours_that_come_and_go),
        cmocka_unit_test(test_trials_of_longer_steps_are_short),
        cmocka_unit_test(test_long_steps_have_no_trials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
