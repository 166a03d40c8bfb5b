/* test_learn.c: networks really learn: problems that a straight line cannot solve, in a moment. */
#include "fixture.h"

#include <time.h>

struct last {
    double loss, accuracy, val_loss, val_accuracy, r2, val_r2, val_mae, mse, rmse;
    int64_t epoch;
};

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    struct last *last = ctx;
    const struct {
        const char *name;
        double *to;
    } table[] = {{"loss", &last->loss},
                 {"accuracy", &last->accuracy},
                 {"val_loss", &last->val_loss},
                 {"val_accuracy", &last->val_accuracy},
                 {"r2", &last->r2},
                 {"val_r2", &last->val_r2},
                 {"val_mae", &last->val_mae},
                 {"mse", &last->mse},
                 {"rmse", &last->rmse}};

    (void)step;
    last->epoch = epoch;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(name, table[i].name) == 0) {
            *table[i].to = value;
        }
    }
}

static struct last run(struct bp_trainer *trainer)
{
    struct last last = {0};
    struct bp_train_hooks hooks = {.ctx = &last, .metric = on_metric};
    struct bp_error err = {0};

    if (bp_trainer_run(trainer, &hooks, &err) != BP_RUN_FINISHED) {
        fail_msg("%s: %s", err.where, err.message);
    }
    return last;
}

static void test_xor(void **state)
{
    static const int hidden[] = {8};
    struct bp_train_config config = config_default();
    struct bp_graph *graph = mlp(2, hidden, 1, BP_TANH, 0.0, 2, BP_LOSS_CROSS_ENTROPY);
    struct bp_trainer *trainer;
    struct data d;
    struct last last;

    (void)state;
    data_init(&d, 4, 2, 2, 0);
    for (int r = 0; r < 4; r++) {
        data_x(&d, r)[0] = (float)(r & 1);
        data_x(&d, r)[1] = (float)(r >> 1);
        *data_label(&d, r) = (r & 1) ^ (r >> 1);
    }
    data_split(&d, 0.0);
    config.epochs = 500;
    config.batch_size = 4;
    config.optimizer.lr = 0.05;
    trainer = trainer_new(&config, graph, &d);
    last = run(trainer);
    assert_true(last.accuracy == 1.0);
    assert_true(last.loss < 0.01);
    assert_int_equal(last.epoch, 500);
    bp_trainer_free(trainer);
    bp_graph_free(graph);
    data_done(&d);
}

static void test_two_spirals(void **state)
{
    static const int hidden[] = {32, 32};
    struct bp_train_config config = config_default();
    struct bp_graph *graph = mlp(2, hidden, 2, BP_TANH, 0.0, 2, BP_LOSS_CROSS_ENTROPY);
    struct bp_trainer *trainer;
    struct timespec a, b;
    struct data d;
    struct last last;
    double seconds;

    (void)state;
    data_init(&d, 400, 2, 2, 0);
    for (int r = 0; r < 400; r++) {
        double t = 0.5 + 9.5 * (r / 2) / 200.0, side = r % 2 ? 1.0 : -1.0;

        data_x(&d, r)[0] = (float)(side * t * cos(t) / 5.0);
        data_x(&d, r)[1] = (float)(side * t * sin(t) / 5.0);
        *data_label(&d, r) = r % 2;
    }
    data_split(&d, 0.2);
    config.epochs = 400;
    config.batch_size = 20;
    config.optimizer.lr = 0.01;
    trainer = trainer_new(&config, graph, &d);
    clock_gettime(CLOCK_MONOTONIC, &a);
    last = run(trainer);
    clock_gettime(CLOCK_MONOTONIC, &b);
    seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    print_message("two spirals: accuracy %.4f, %.4f on validation, %.2f s, %.0f steps/s\n", last.accuracy,
                  last.val_accuracy, seconds, 400 * 16 / seconds);
    assert_true(last.accuracy > 0.98 && last.val_accuracy > 0.98);
    assert_true(UNHURRIED || seconds < 2.0);
    bp_trainer_free(trainer);
    bp_graph_free(graph);
    data_done(&d);
}

/* y = 200 + 50 sin(3 x), learned standardized, judged in its own units. */
static void test_regression(void **state)
{
    static const int hidden[] = {32};
    struct bp_train_config config = config_default();
    struct bp_graph *graph = mlp(1, hidden, 1, BP_TANH, 0.0, 1, BP_LOSS_MSE);
    struct bp_trainer *trainer;
    struct data d;
    struct last last;

    (void)state;
    data_init(&d, 300, 1, 0, 1);
    for (int r = 0; r < 300; r++) {
        data_x(&d, r)[0] = (float)(r / 150.0 - 1.0);
        data_value(&d, r)[0] = (float)(200.0 + 50.0 * sin(3.0 * (r / 150.0 - 1.0)));
    }
    d.target.shift = 200.0;
    d.target.scale = 1.0 / 40.0;
    data_split(&d, 0.2);
    config.epochs = 300;
    config.optimizer.lr = 0.01;
    trainer = trainer_new(&config, graph, &d);
    last = run(trainer);
    print_message("regression: r2 %.5f, mean error %.3f of 50, loss %.4f\n", last.val_r2, last.val_mae,
                  last.val_loss);
    assert_true(last.r2 > 0.999 && last.val_r2 > 0.999);
    assert_true(last.val_mae < 1.5);
    assert_true(fabs(last.loss - last.mse) < 1e-5 * last.mse); /* the loss is in the target's units too */
    assert_true(fabs(last.rmse * last.rmse - last.mse) < 1e-9 * last.mse);
    bp_trainer_free(trainer);
    bp_graph_free(graph);
    data_done(&d);
}

/* Several sides of lines at once: one bce output each. */
static void test_labels(void **state)
{
    static const int hidden[] = {16};
    struct bp_train_config config = config_default();
    struct bp_graph *graph = mlp(5, hidden, 1, BP_RELU, 0.0, 3, BP_LOSS_BCE);
    struct bp_trainer *trainer;
    struct data d;
    struct last last;

    (void)state;
    data_init(&d, 600, 5, 0, 3);
    data_fill(&d, 0);
    for (int r = 0; r < 600; r++) {
        for (int j = 0; j < 3; j++) {
            data_value(&d, r)[j] = data_value(&d, r)[j] > 0.0f ? 1.0f : 0.0f;
        }
    }
    data_split(&d, 0.2);
    config.epochs = 60;
    config.optimizer.lr = 0.01;
    trainer = trainer_new(&config, graph, &d);
    last = run(trainer);
    assert_true(last.accuracy > 0.97 && last.val_accuracy > 0.93);
    bp_trainer_free(trainer);
    bp_graph_free(graph);
    data_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xor),
        cmocka_unit_test(test_two_spirals),
        cmocka_unit_test(test_regression),
        cmocka_unit_test(test_labels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
