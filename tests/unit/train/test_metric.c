/* test_metric.c: metrics against their definitions, for any batch size, and networks with several heads. */
#include "fixture.h"

/* Two heads over one body: a class and two values. */
static struct bp_graph *two_heads(void)
{
    struct bp_graph *graph = graph_new(4);
    struct bp_error err;
    int body = add_dense(graph, 0, "body", 7, 0.0);
    int a = add_dense(graph, body, "class", 3, 0.0), b = add_dense(graph, body, "values", 2, 0.0);

    assert_int_equal(bp_graph_add_head(graph, a, BP_LOSS_CROSS_ENTROPY, 1.0, &err), BP_OK);
    assert_int_equal(bp_graph_add_head(graph, b, BP_LOSS_MSE, 0.5, &err), BP_OK);
    return graph;
}

static struct data data;
static struct bp_target targets[2];
static struct bp_graph *graph;

static int setup(void **state)
{
    (void)state;
    graph = two_heads();
    data_init(&data, 101, 4, 3, 2);
    data_fill(&data, 3);
    data_split(&data, 0.3);
    targets[0] = data.target;
    targets[1] =
        (struct bp_target){.type = BP_F32, .offset = 5 * sizeof(float), .count = 2, .shift = 3.0, .scale = 1.0 / 8.0};
    data.source.targets = targets;
    data.source.ntargets = 2;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bp_graph_free(graph);
    data_done(&data);
    return 0;
}

/* What the definitions say, from the outputs that the visitor sees. */
struct sums {
    double rows, right, loss, squared, absolute, sum, outputs;
    double values[400];
};

static bool visit(void *ctx, struct bp_exec *exec, const uint32_t *rows, int n)
{
    struct sums *s = ctx;
    const float *x = bp_exec_output(exec, 0), *y = bp_exec_output(exec, 1);

    for (int r = 0; r < n; r++) {
        int32_t label = *data_label(&data, (int)rows[r]);
        double total = 0.0;
        int best = 0;

        for (int j = 0; j < 3; j++) {
            total += exp((double)x[3 * r + j]);
            best = x[3 * r + j] > x[3 * r + best] ? j : best;
        }
        s->rows += 1.0;
        s->right += best == label;
        s->loss += log(total) - (double)x[3 * r + label];
        for (int j = 0; j < 2; j++) {
            double t = (double)data_value(&data, (int)rows[r])[j];
            double e = (double)y[2 * r + j] * 8.0 + 3.0 - t;

            s->squared += e * e;
            s->absolute += fabs(e);
            s->sum += t;
            s->values[(int)s->outputs] = t;
            s->outputs += 1.0;
        }
    }
    return true;
}

static bool stop(void *ctx, struct bp_exec *exec, const uint32_t *rows, int n)
{
    (void)exec;
    (void)rows;
    (void)n;
    return --*(int *)ctx > 0;
}

static bool close_to(double a, double b)
{
    return fabs(a - b) < 1e-5 * (fabs(b) + 1.0);
}

static void test_definitions(void **state)
{
    struct bp_exec_options options = {.capacity = 13, .threads = 1};
    struct bp_accumulator accs[2], other[2];
    struct bp_model *model;
    struct bp_exec *exec;
    struct bp_error err;
    struct sums s = {0};
    double deviation = 0.0;

    (void)state;
    assert_int_equal(bp_model_new(graph, false, 0, &model, &err), BP_OK);
    assert_int_equal(bp_initialize(model, 3, &err), BP_OK);
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_OK);
    bp_evaluate(exec, 13, NULL, graph, &data.source, data.split.rows[0], data.split.count[0], accs, visit, &s);
    bp_exec_free(exec);
    for (int i = 0; i < (int)s.outputs; i++) {
        deviation += (s.values[i] - s.sum / s.outputs) * (s.values[i] - s.sum / s.outputs);
    }
    assert_true(s.rows == (double)data.split.count[0] && accs[0].rows == s.rows);
    assert_true(close_to(bp_accumulator_value(&accs[0], BP_METRIC_LOSS), s.loss / s.rows));
    assert_true(bp_accumulator_value(&accs[0], BP_METRIC_ACCURACY) == s.right / s.rows);
    assert_true(close_to(bp_accumulator_value(&accs[1], BP_METRIC_MSE), s.squared / s.outputs));
    assert_true(close_to(bp_accumulator_value(&accs[1], BP_METRIC_LOSS), s.squared / s.outputs));
    assert_true(close_to(bp_accumulator_value(&accs[1], BP_METRIC_RMSE), sqrt(s.squared / s.outputs)));
    assert_true(close_to(bp_accumulator_value(&accs[1], BP_METRIC_MAE), s.absolute / s.outputs));
    assert_true(close_to(bp_accumulator_value(&accs[1], BP_METRIC_R2), 1.0 - s.squared / deviation));

    options.capacity = 64; /* other batches, the same bits */
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_OK);
    bp_evaluate(exec, 64, NULL, graph, &data.source, data.split.rows[0], data.split.count[0], other, NULL, NULL);
    assert_memory_equal(accs, other, sizeof accs);

    int batches = 2;
    bp_evaluate(exec, 10, NULL, graph, &data.source, data.split.rows[0], data.split.count[0], other, stop, &batches);
    assert_true(batches == 0 && other[0].rows == 0 && isnan(bp_accumulator_value(&other[1], BP_METRIC_LOSS)));
    bp_exec_free(exec);
    bp_model_free(model);
}

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    char *names = ctx;

    (void)step;
    assert_true(isfinite(value));
    if (epoch == 1) {
        strcat(strcat(names, name), " ");
    }
}

static void test_several_heads(void **state)
{
    struct bp_train_config c = config_default();
    char names[400] = "";
    struct bp_train_hooks hooks = {.ctx = names, .metric = on_metric};
    struct bp_trainer *t;
    struct bp_error err;

    (void)state;
    c.epochs = 30;
    c.optimizer.lr = 0.01;
    c.monitor.metric = BP_METRIC_R2;
    c.log_every_steps = 1000;
    t = trainer_new(&c, graph, &data);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_string_equal(names,
                        "loss loss_0 accuracy_0 loss_1 mse_1 rmse_1 mae_1 r2_1 "
                        "val_loss val_loss_0 val_accuracy_0 val_loss_1 val_mse_1 val_rmse_1 val_mae_1 val_r2_1 ");
    assert_true(t->at.best.value > 0.5);
    bp_trainer_free(t);
}

static void test_empty_and_constant(void **state)
{
    struct bp_accumulator a;

    (void)state;
    bp_accumulator_reset(&a);
    for (int m = 0; m < BP_METRIC_COUNT; m++) {
        assert_true(isnan(bp_accumulator_value(&a, (enum bp_metric)m)));
    }
    a.rows = a.outputs = 3.0;
    a.squared = 1.0;
    assert_true(isnan(bp_accumulator_value(&a, BP_METRIC_R2)));
}

static void test_table(void **state)
{
    (void)state;
    assert_string_equal(bp_metric_name(BP_METRIC_RMSE), "rmse");
    assert_true(bp_metric_maximized(BP_METRIC_ACCURACY) && bp_metric_maximized(BP_METRIC_R2));
    assert_false(bp_metric_maximized(BP_METRIC_LOSS) || bp_metric_maximized(BP_METRIC_MAE));
    assert_true(bp_metric_applies(BP_METRIC_ACCURACY, BP_LOSS_BCE));
    assert_false(bp_metric_applies(BP_METRIC_ACCURACY, BP_LOSS_MSE));
    assert_false(bp_metric_applies(BP_METRIC_R2, BP_LOSS_CROSS_ENTROPY));
    assert_true(bp_loss_unit(BP_LOSS_MSE, 8.0) == 64.0 && bp_loss_unit(BP_LOSS_BCE, 8.0) == 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definitions),
        cmocka_unit_test(test_several_heads),
        cmocka_unit_test(test_empty_and_constant),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
