/* test_losses.c: each loss and its gradient are PyTorch's, the metrics by class are their definitions (golden values of
 * scripts/golden_losses.py), weights come in as they should, and an open epoch's counts survive a checkpoint.
 *
 * PyTorch computed in float64 from the same float32 numbers; we compute in float32. A loss of up to 21 terms of a size
 * of about 1 to 10, each rounded a few times by 2^-24 of it, is within 40 * 2^-24 = 2.4e-6 of its size; an element of a
 * gradient is a few roundings of numbers up to 1 / sum(weights). So: 3e-6 max(1, |expected|) for losses, 1e-6 for
 * gradients; a wrong formula is off by 1e-2 and more.
 */
#include "fixture.h"
#include "train/batch.h"
#include "train/scores.h"

#include "golden/losses.h"

#define LOSS_ERROR 3e-6
#define GRADIENT_ERROR 1e-6

/* input (n) -> the same numbers, through a layer with the identity as its weights -> a loss */
static struct bp_graph *identity(int n, enum bp_loss loss, double parameter)
{
    struct bp_graph *graph = graph_new(n);
    struct bp_node node = {.kind = BP_OP_DENSE, .trainable = true};
    float *weights = calloc((size_t)n * (size_t)n, sizeof *weights);
    struct bp_error err;

    assert_non_null(weights);
    for (int i = 0; i < n; i++) {
        weights[i * n + i] = 1.0f;
    }
    node.u.dense = (struct bp_dense_config){.units = n, .weights = weights};
    int at = add_node(graph, node, 0, "same");
    struct bp_head head = {.node = at, .loss = loss, .weight = 1.0, .parameter = parameter};
    assert_int_equal(bp_graph_add_output(graph, &head, &err), BP_OK);
    free(weights);
    return graph;
}

static struct bp_model *model;

static struct bp_exec *execution(struct bp_graph *graph, int rows, bool training)
{
    struct bp_exec_options options = {
        .capacity = rows, .training = training, .input_gradient = training, .threads = 1};
    struct bp_exec *exec = NULL;
    struct bp_error err;

    assert_int_equal(bp_model_new(graph, training, 0, &model, &err), BP_OK);
    assert_int_equal(bp_initialize(model, 0, &err), BP_OK);
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_OK);
    return exec;
}

static void near(const char *name, double value, double expect, double error)
{
    if (!(fabs(value - expect) <= error * (fabs(expect) > 1.0 ? fabs(expect) : 1.0))) {
        fail_msg("%s: %.9g instead of %.9g", name, value, expect);
    }
}

static void test_losses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden_losses / sizeof golden_losses[0]; i++) {
        int n = golden_losses[i].outputs;
        struct bp_graph *graph = identity(n, golden_losses[i].loss, golden_losses[i].parameter);
        struct bp_exec *exec = execution(graph, GOLDEN_ROWS, true);
        const struct bp_targets *targets = bp_exec_targets(exec, 0);

        memcpy(bp_exec_input(exec), golden_losses[i].x, GOLDEN_ROWS * (size_t)n * sizeof(float));
        for (int r = 0; r < GOLDEN_ROWS; r++) {
            targets->weight[r] = golden_losses[i].weight[r];
            for (int j = 0; j < (golden_losses[i].labels ? 0 : n); j++) {
                targets->value[r * n + j] = golden_losses[i].target[r * n + j];
            }
            if (golden_losses[i].labels) {
                targets->label[r] = (int32_t)golden_losses[i].target[r];
            }
        }
        near(golden_losses[i].name, bp_exec_pass(exec, NULL, GOLDEN_ROWS, true, 0, 0), golden_losses[i].total,
             LOSS_ERROR);
        for (int r = 0; r < GOLDEN_ROWS; r++) {
            near(golden_losses[i].name, (double)bp_exec_row_losses(exec, 0)[r], golden_losses[i].rows[r], LOSS_ERROR);
        }
        for (int e = 0; e < GOLDEN_ROWS * n; e++) {
            near(golden_losses[i].name, (double)bp_exec_input_gradient(exec)[e], golden_losses[i].gradient[e],
                 GRADIENT_ERROR);
        }
        bp_exec_free(exec);
        bp_model_free(model);
        bp_graph_free(graph);
    }
}

/* Huber's delta is in the target's unit, whatever the targets are scaled by. */
static void test_delta_has_the_unit_of_the_target(void **state)
{
    struct bp_graph *graph = identity(1, BP_LOSS_HUBER, 2.0);
    struct bp_exec *exec = execution(graph, 2, true);
    const struct bp_targets *targets = bp_exec_targets(exec, 0);

    (void)state;
    memcpy(bp_exec_input(exec), (float[]){0.3f, 3.0f}, 2 * sizeof(float));
    targets->value[0] = targets->value[1] = 0.0f;
    bp_exec_target_scale(exec, 0, 0.25); /* delta is 0.5 in the scaled unit */
    bp_exec_pass(exec, NULL, 2, true, 0, 0);
    near("inside", (double)bp_exec_row_losses(exec, 0)[0], 0.045, 1e-7);
    near("beyond", (double)bp_exec_row_losses(exec, 0)[1], 0.5 * (3.0 - 0.25), 1e-7);
    assert_true(bp_loss_unit(BP_LOSS_HUBER, 4.0) == 16.0 && bp_loss_unit(BP_LOSS_QUANTILE, 4.0) == 4.0);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void test_parameters_are_checked(void **state)
{
    static const struct {
        enum bp_loss loss;
        double bad;
    } cases[] = {{BP_LOSS_CROSS_ENTROPY, 1.0}, {BP_LOSS_BCE, -0.1}, {BP_LOSS_HUBER, 0.0},
                 {BP_LOSS_QUANTILE, 1.0},      {BP_LOSS_MSE, 0.5},  {BP_LOSS_HUBER, INFINITY}};
    struct bp_graph *graph = graph_new(3);
    struct bp_error err;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_head head = {.loss = cases[i].loss, .weight = 1.0, .parameter = cases[i].bad};
        assert_int_equal(bp_graph_add_output(graph, &head, &err), BP_INVALID);
    }
    bp_graph_free(graph);
}

/* --- metrics by class ----------------------------------------------------------------------------------------------- */

/* The scores of golden case i, in batches of `batch` rows. */
static struct bp_scores *score(size_t i, int batch)
{
    int n = golden_metrics[i].outputs, rows = golden_metrics[i].rows;
    struct bp_graph *graph = identity(n, golden_metrics[i].loss, 0.0);
    struct bp_exec *exec = execution(graph, batch, false);
    const struct bp_targets *targets = bp_exec_targets(exec, 0);
    struct bp_scores *scores = NULL;
    struct bp_error err;

    assert_int_equal(bp_scores_new(&graph->heads[0], ~0u, golden_metrics[i].k, (uint64_t)rows, &scores, &err), BP_OK);
    for (int first = 0; first < rows; first += batch) {
        int some = rows - first < batch ? rows - first : batch;

        memcpy(bp_exec_input(exec), golden_metrics[i].x + first * n, (size_t)(some * n) * sizeof(float));
        for (int r = 0; r < some; r++) {
            if (targets->label != NULL) {
                targets->label[r] = golden_metrics[i].label[first + r];
            } else {
                targets->value[r] = (float)golden_metrics[i].label[first + r];
            }
        }
        bp_exec_pass(exec, NULL, some, false, 0, 0);
        bp_scores_add(scores, exec, 0, some);
    }
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
    return scores;
}

static void test_scores(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden_metrics / sizeof golden_metrics[0]; i++) {
        for (int batch = 1; batch < 200; batch += 61) {
            struct bp_scores *s = score(i, batch);
            const char *name = golden_metrics[i].name;

            near(name, bp_scores_value(s, BP_METRIC_PRECISION_MACRO), golden_metrics[i].precision, 1e-14);
            near(name, bp_scores_value(s, BP_METRIC_RECALL_MACRO), golden_metrics[i].recall, 1e-14);
            near(name, bp_scores_value(s, BP_METRIC_F1_MACRO), golden_metrics[i].f1, 1e-14);
            /* several classes are ranked by probabilities, whose last bit may make or break a tie */
            near(name, bp_scores_value(s, BP_METRIC_AUC), golden_metrics[i].auc,
                 golden_metrics[i].outputs > 2 ? 2e-3 : 1e-14);
            if (!isnan(golden_metrics[i].top_k)) {
                near(name, bp_scores_value(s, BP_METRIC_TOP_K), golden_metrics[i].top_k, 1e-14);
            }
            bp_scores_reset(s);
            assert_true(isnan(bp_scores_value(s, BP_METRIC_F1_MACRO)) && isnan(bp_scores_value(s, BP_METRIC_AUC)));
            bp_scores_free(s);
        }
    }
}

static void test_scores_have_limits(void **state)
{
    struct bp_head head = {.loss = BP_LOSS_CROSS_ENTROPY, .outputs = 1000};
    struct bp_scores *s = NULL;
    struct bp_error err;

    (void)state;
    assert_int_equal(bp_scores_new(&head, ~0u, 5, 5000, &s, &err), BP_LIMIT);
    for (int64_t n = 0; n < 3; n++) {
        bp_alloc_fail_after(n);
        assert_int_equal(bp_scores_new(&head, ~0u, 5, 10, &s, &err), BP_NOMEM);
    }
    bp_alloc_fail_after(-1);
    assert_int_equal(bp_scores_new(&head, ~0u, 5, 10, &s, &err), BP_OK);
    bp_scores_free(s);
}

/* --- a training run ------------------------------------------------------------------------------------------------- */

struct host {
    int64_t pause_at;
    struct bp_trainer *trainer;
    double f1[8], loss;
    int n;
};

static enum bp_command command(void *ctx, int *threads)
{
    struct host *h = ctx;

    (void)threads;
    return h->trainer != NULL && h->trainer->at.step == h->pause_at ? BP_PAUSE : BP_GO_ON;
}

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    struct host *h = ctx;

    (void)epoch, (void)step;
    if (strcmp(name, "f1_macro") == 0 && h->n < 8) {
        h->f1[h->n++] = value;
    }
    if (strcmp(name, "loss") == 0) {
        h->loss = value;
    }
}

static struct bp_train_config three_epochs(void)
{
    struct bp_train_config c = config_default();

    c.epochs = 3;
    c.metrics |= 1u << BP_METRIC_F1_MACRO | 1u << BP_METRIC_AUC;
    c.monitor = (struct bp_monitor){BP_METRIC_AUC, true, 0};
    return c;
}

static void test_counts_survive_a_checkpoint(void **state)
{
    static const int hidden[] = {5};
    struct bp_graph *graph = mlp(3, hidden, 1, BP_TANH, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config c = three_epochs();
    struct host straight = {.pause_at = -1}, broken = {.pause_at = 5};
    struct bp_train_hooks hooks = {.ctx = &straight, .command = command, .metric = on_metric};
    struct data d;
    struct bp_trainer *t, *later;
    bool exact = false;
    size_t size;

    (void)state;
    data_init(&d, 125, 3, 3, 0);
    data_fill(&d, 3);
    data_split(&d, 0.2);
    t = trainer_new(&c, graph, &d);
    assert_int_equal(bp_trainer_run(t, &hooks, NULL), BP_RUN_FINISHED);
    assert_int_equal(straight.n, 3);
    assert_true(t->at.best.any && t->at.best.value > 0.5);
    bp_trainer_free(t);

    t = broken.trainer = trainer_new(&c, graph, &d);
    hooks.ctx = &broken;
    assert_int_equal(bp_trainer_run(t, &hooks, NULL), BP_RUN_PAUSED);
    assert_int_not_equal(t->at.epoch_step, 0);
    uint8_t *bytes = malloc(bp_checkpoint_size(t));
    assert_non_null(bytes);
    assert_int_equal(bp_checkpoint_encode(t, bytes, bp_checkpoint_size(t), &size, NULL), BP_OK);
    later = trainer_new(&c, graph, &d);
    assert_int_equal(bp_checkpoint_restore(later, bytes, size, &exact, NULL), BP_OK);
    broken.trainer = NULL;
    assert_int_equal(bp_trainer_run(later, &hooks, NULL), BP_RUN_FINISHED);
    assert_int_equal(broken.n, 3);
    assert_memory_equal(broken.f1, straight.f1, sizeof straight.f1);
    bp_trainer_free(t);
    bp_trainer_free(later);
    free(bytes);
    data_done(&d);
    bp_graph_free(graph);
}

/* Class weights and a column of weights multiply; a row of weight 0 has no influence on any bit. */
static void test_weights_of_rows(void **state)
{
    static const int hidden[] = {5};
    static const double class_weights[] = {1.0, 0.5, 4.0};
    struct bp_graph *graph = mlp(3, hidden, 1, BP_TANH, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config c = config_default();
    struct host host = {.pause_at = -1};
    struct bp_train_hooks hooks = {.ctx = &host, .metric = on_metric};
    float *params[2] = {NULL, NULL}, weight[3];
    struct data d;

    (void)state;
    c.epochs = 2;
    data_init(&d, 125, 3, 3, 1);
    data_fill(&d, 3);
    data_split(&d, 0.0);
    d.source.ntargets = 1;
    d.source.weighted = true; /* the value column */
    d.source.weight_type = BP_F32;
    d.source.weight_offset = (size_t)((const uint8_t *)data_value(&d, 0) - d.source.rows);
    d.target.class_weights = class_weights;
    d.source.targets = &d.target;
    for (int r = 0; r < 125; r++) {
        *data_value(&d, r) = (float)(r % 3);
    }
    bp_source_gather_weights(&d.source, 0, (uint32_t[]){0, 1, 5}, 3, weight);
    assert_true((double)weight[0] == 0.0 && (double)weight[1] == class_weights[*data_label(&d, 1)] &&
                (double)weight[2] == 2.0 * class_weights[*data_label(&d, 5)]);
    for (int run = 0; run < 2; run++) {
        struct bp_trainer *t = trainer_new(&c, graph, &d);
        assert_int_equal(bp_trainer_run(t, &hooks, NULL), BP_RUN_FINISHED);
        params[run] = malloc(graph->nparams * sizeof(float));
        assert_non_null(params[run]);
        memcpy(params[run], t->model->params, graph->nparams * sizeof(float));
        bp_trainer_free(t);
        for (int r = 0; r < 125; r += 3) { /* other classes and inputs, where the weight is 0 */
            *data_label(&d, r) = (*data_label(&d, r) + 1) % 3;
            data_x(&d, r)[1] = 7.0f;
        }
    }
    assert_memory_equal(params[0], params[1], graph->nparams * sizeof(float));
    free(params[0]);
    free(params[1]);
    data_done(&d);
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_delta_has_the_unit_of_the_target),
        cmocka_unit_test(test_parameters_are_checked),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_scores_have_limits),
        cmocka_unit_test(test_counts_survive_a_checkpoint),
        cmocka_unit_test(test_weights_of_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
