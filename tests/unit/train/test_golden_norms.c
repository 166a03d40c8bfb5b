/* test_golden_norms.c: 100 steps of normalized and attending networks end where PyTorch's end.
 *
 * PyTorch computed in float64 (scripts/golden_norms.py), we compute in float32. As in test_golden.c: 100 steps round a
 * parameter by 6e-6 at most, unless training amplifies it; a normalization divides by deviations below 1, and a step's
 * gradient is a difference of larger numbers. So: 2e-5 max(1, |p|). A biased running variance, a momentum the other way
 * round or a scale outside the square root is off by 1e-3 and more.
 */
#include "fixture.h"

#include "golden/norms.h"

static double losses[GOLDEN_EPOCHS];
static int nlosses;

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    (void)ctx, (void)epoch, (void)step;
    if (strcmp(name, "loss") == 0 && nlosses < GOLDEN_EPOCHS)
        losses[nlosses++] = value;
}

enum body { VECTOR, WHOLE, RESIDUAL }; /* dense, the layer, tanh; the layer alone; the input plus the layer */

static const struct {
    const char *name;
    struct bp_shape input;
    enum body body;
    enum bp_op_kind kind;
    struct bp_norm_config norm;
    struct bp_attention_config attention;
} cases[] = {
    {"batch_norm", {1, {48}}, VECTOR, BP_OP_BATCH_NORM, {1e-5, 0.1, 0, true}, {0, 0, false, 0}},
    {"batch_norm_plain", {1, {48}}, VECTOR, BP_OP_BATCH_NORM, {1e-3, 0.3, 0, false}, {0, 0, false, 0}},
    {"batch_norm_2d", {3, {4, 3, 4}}, WHOLE, BP_OP_BATCH_NORM, {1e-5, 0.1, 0, true}, {0, 0, false, 0}},
    {"layer_norm", {1, {48}}, VECTOR, BP_OP_LAYER_NORM, {1e-5, 0, 0, true}, {0, 0, false, 0}},
    {"layer_norm_steps", {2, {6, 8}}, WHOLE, BP_OP_LAYER_NORM, {1e-5, 0, 0, true}, {0, 0, false, 0}},
    {"group_norm", {1, {48}}, VECTOR, BP_OP_GROUP_NORM, {1e-5, 0, 2, true}, {0, 0, false, 0}},
    {"group_norm_2d", {3, {4, 3, 4}}, WHOLE, BP_OP_GROUP_NORM, {1e-5, 0, 2, true}, {0, 0, false, 0}},
    {"attention", {2, {6, 8}}, RESIDUAL, BP_OP_MULTI_HEAD_ATTENTION, {0, 0, 0, false}, {2, 0, false, 0}},
    {"attention_causal", {2, {6, 8}}, RESIDUAL, BP_OP_MULTI_HEAD_ATTENTION, {0, 0, 0, false}, {4, 0, true, 0}},
};
enum { CASES = sizeof cases / sizeof cases[0], INPUTS = GOLDEN_STEPS * GOLDEN_FEATURES };

static struct bp_graph *network(size_t i)
{
    struct bp_node node = {.kind = cases[i].kind}, sum = {.kind = BP_OP_ADD, .name = "sum", .ninputs = 2};
    struct bp_graph *graph = NULL;
    struct bp_error err = {0};
    int at = 0;

    assert_int_equal(bp_graph_new(&cases[i].input, &graph, &err), BP_OK);
    if (node.kind == BP_OP_MULTI_HEAD_ATTENTION)
        node.u.attention = cases[i].attention;
    else
        node.u.norm = cases[i].norm;
    if (cases[i].body == VECTOR)
        at = add_dense(graph, at, "dense", 12, 0.0);
    at = add_node(graph, node, at, "layer");
    if (cases[i].body == VECTOR)
        at = add_node(graph, (struct bp_node){.kind = BP_OP_ACTIVATION, .u.activation = {BP_TANH, 0}}, at, "tanh");
    if (cases[i].body == RESIDUAL) {
        sum.input[1] = at;
        if (bp_graph_add(graph, &sum, &at, &err) != BP_OK)
            fail_msg("%s", err.message);
    }
    at = add_node(graph, (struct bp_node){.kind = BP_OP_FLATTEN}, at, "flat");
    at = add_dense(graph, at, "out", GOLDEN_CLASSES, 0.0);
    assert_int_equal(bp_graph_add_head(graph, at, BP_LOSS_CROSS_ENTROPY, 1.0, &err), BP_OK);
    return graph;
}

static void widen(double *worst, double got, double expect)
{
    double error = fabs(got - expect) / (fabs(expect) > 1.0 ? fabs(expect) : 1.0);
    *worst = error > *worst || isnan(error) ? error : *worst;
}

/* Predictions of the first rows, with the statistics that were learned. */
static void compare_outputs(struct bp_trainer *t, const double *expect, double *worst)
{
    struct bp_exec_options options = {.capacity = GOLDEN_BATCH, .threads = 1};
    struct bp_exec *exec = NULL;
    struct bp_error err;

    assert_int_equal(bp_exec_new(t->model, &options, &exec, &err), BP_OK);
    memcpy(bp_exec_input(exec), golden_x, GOLDEN_BATCH * INPUTS * sizeof(float));
    bp_exec_forward(exec, NULL, GOLDEN_BATCH);
    for (int o = 0; o < GOLDEN_BATCH * GOLDEN_CLASSES; o++)
        widen(worst, (double)bp_exec_output(exec, 0)[o], expect[o]);
    bp_exec_free(exec);
}

static double run_case(size_t i)
{
    struct bp_graph *graph = network(i);
    struct bp_train_config config = config_default();
    struct bp_train_hooks hooks = {.metric = on_metric};
    struct bp_error err = {0};
    struct data d;
    double worst = 0.0;

    assert_string_equal(cases[i].name, golden_cases[i].name);
    data_init(&d, GOLDEN_ROWS, INPUTS, GOLDEN_CLASSES, 0);
    for (int r = 0; r < GOLDEN_ROWS; r++) {
        memcpy(data_x(&d, r), golden_x + r * INPUTS, INPUTS * sizeof(float));
        *data_label(&d, r) = golden_label[r];
    }
    data_split(&d, 0.0);
    config.epochs = GOLDEN_EPOCHS;
    config.batch_size = GOLDEN_BATCH;
    config.shuffle = false;
    config.optimizer = (struct bp_optimizer){.kind = BP_SGD, .lr = 0.05, .momentum = 0.9};
    nlosses = 0;
    struct bp_trainer *t = trainer_new(&config, graph, &d);
    memcpy(t->model->params, golden_cases[i].first, graph->nparams * sizeof(float));
    bp_model_pack(t->model, NULL);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(t->at.step, 100);
    for (size_t p = 0; p < graph->nparams; p++)
        widen(&worst, (double)t->model->params[p], golden_cases[i].weights[p]);
    for (size_t s = 0; s < graph->nstats; s++)
        widen(&worst, (double)t->model->stats[s], golden_cases[i].stats[s]);
    for (int e = 0; e < GOLDEN_EPOCHS; e++)
        widen(&worst, losses[e], golden_cases[i].losses[e]);
    compare_outputs(t, golden_cases[i].outputs, &worst);
    bp_trainer_free(t);
    bp_graph_free(graph);
    data_done(&d);
    return worst;
}

static void test_layers(void **state)
{
    (void)state;
    assert_int_equal(CASES, sizeof golden_cases / sizeof golden_cases[0]);
    for (size_t i = 0; i < CASES; i++) {
        double worst = run_case(i);

        print_message("%-18s largest difference %.1e\n", cases[i].name, worst);
        assert_true(worst < 2e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
