/* test_schedule.c: the rates are PyTorch's to the last digits of a double, have the same bits everywhere, and stay sound
 * where a formula could divide by zero.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "train/schedule.h"

#include "golden/schedules.h"

static double rate(const struct bp_schedule *s, int64_t epochs, int64_t steps, int64_t step, double plateau)
{
    struct bp_schedule_at at = {
        .epoch = step / steps, .epochs = epochs, .step = step, .steps_per_epoch = steps, .plateau_lr = plateau};

    return bp_schedule_rate(s, GOLDEN_LR, &at);
}

static void test_rates(void **state)
{
    double worst = 0.0;

    (void)state;
    for (size_t c = 0; c < sizeof golden_schedules / sizeof golden_schedules[0]; c++) {
        const struct bp_schedule *s = &golden_schedules[c].schedule;
        struct bp_plateau plateau = {.lr = GOLDEN_LR};

        for (int64_t e = 0; e < GOLDEN_EPOCHS; e++) {
            double got = rate(s, GOLDEN_EPOCHS, GOLDEN_STEPS, (e + 1) * GOLDEN_STEPS - 1, plateau.lr);
            double error = fabs(got / golden_schedules[c].rates[e] - 1.0);

            worst = error > worst ? error : worst;
            if (!(error < 1e-11)) { /* PyTorch's own recursion over the epochs rounds at each of them */
                fail_msg("%s, epoch %d: %.17g, not %.17g", golden_schedules[c].name, (int)e, got,
                         golden_schedules[c].rates[e]);
            }
            bp_plateau_epoch(s, &plateau, golden_loss[e], false);
        }
    }
    print_message("largest relative difference %.1e\n", worst);
}

/* A maximized monitor is the mirror image of a minimized one. */
static void test_plateau_upwards(void **state)
{
    struct bp_schedule s = {.kind = BP_SCHEDULE_PLATEAU, .gamma = 0.5, .patience = 1};
    struct bp_plateau up = {.lr = 1.0}, down = {.lr = 1.0};
    static const double values[] = {0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 0.3, 0.2};

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        bp_plateau_epoch(&s, &up, values[i], true);
        bp_plateau_epoch(&s, &down, -values[i], false);
        assert_true(up.lr == down.lr && up.bad == down.bad);
    }
    assert_true(up.lr == 0.125); /* after the 4th, the 7th and the 9th value */
}

static void test_warm_up(void **state)
{
    struct bp_schedule s = {.kind = BP_SCHEDULE_CONSTANT, .warmup_epochs = 1.5};

    (void)state;
    assert_true(bp_schedule_varies(&s));
    for (int64_t step = 0; step < 30; step++) {
        double factor = step + 1 < 15 ? (double)(step + 1) / 15.0 : 1.0;
        assert_true(rate(&s, 9, 10, step, 0.0) == GOLDEN_LR * factor);
    }
    s.warmup_epochs = 0.0;
    assert_false(bp_schedule_varies(&s));
    assert_true(rate(&s, 9, 10, 0, 0.0) == GOLDEN_LR);
}

/* One epoch, one step, shares of 0 and 1: every rate is a finite number from 0 to the highest. */
static void test_edges(void **state)
{
    (void)state;
    for (int kind = 0; kind < BP_SCHEDULE_COUNT; kind++) {
        for (int64_t epochs = 1; epochs <= 3; epochs++) {
            for (int64_t steps = 1; steps <= 3; steps++) {
                for (double start = 0.0; start <= 1.0; start += 0.25) {
                    struct bp_schedule s = {.kind = (enum bp_schedule_kind)kind,
                                            .gamma = 0.5,
                                            .step_size = 1,
                                            .power = 0.5,
                                            .period = 1,
                                            .growth = 2,
                                            .pct_start = start};
                    for (int64_t step = 0; step <= epochs * steps; step++) {
                        double r = rate(&s, epochs, steps, step, GOLDEN_LR);
                        assert_true(r >= 0.0 && r <= GOLDEN_LR);
                    }
                }
            }
        }
    }
}

/* Millions of epochs in: restarts that no longer grow, powers that are 0. */
static void test_far_out(void **state)
{
    struct bp_schedule s = {.kind = BP_SCHEDULE_COSINE_RESTARTS, .period = 1, .growth = 100};

    (void)state;
    assert_true(rate(&s, INT64_C(1) << 46, 1, INT64_C(1) << 46, 0.0) >= 0.0);
    s.kind = BP_SCHEDULE_EXPONENTIAL;
    s.gamma = 0.9;
    assert_true(rate(&s, INT64_C(1) << 46, 1, INT64_C(1) << 46, 0.0) == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates), cmocka_unit_test(test_plateau_upwards), cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_edges), cmocka_unit_test(test_far_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
