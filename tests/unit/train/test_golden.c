/* test_golden.c: 100 steps of each optimizer end where PyTorch's end.
 *
 * PyTorch computed in float64 (scripts/golden_optimizers.py), we compute in float32. A step rounds a parameter by at
 * most 2^-24 of it, and training carries the roundings on: 100 steps of them, with parameters around 1, stay
 * near 100 * 2^-24 = 6e-6 at most, unless training amplifies them. So: 6e-6 max(1, |p|). A wrong formula (a missing
 * bias correction, eps in the wrong place, decay that is not decoupled) is off by 1e-3 and more.
 */
#include "fixture.h"

#include "golden/optimizers.h"

struct losses {
    int n;
    double value[GOLDEN_EPOCHS];
};

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    struct losses *losses = ctx;

    (void)step;
    if (strcmp(name, "loss") == 0 && losses->n < GOLDEN_EPOCHS) {
        assert_int_equal(epoch, losses->n + 1);
        losses->value[losses->n++] = value;
    }
}

/* The network with PyTorch's first weights as literals. */
static struct bp_graph *network(bool classes)
{
    const float *w = classes ? golden_first_classes : golden_first_values;
    int outputs = classes ? 4 : 2;
    struct bp_graph *graph = graph_new(GOLDEN_INPUTS);
    struct bp_node node = {.kind = BP_OP_DENSE};
    struct bp_error err;
    int at;

    node.u.dense = (struct bp_dense_config){
        .units = GOLDEN_HIDDEN, .use_bias = true, .weights = w, .biases = w + GOLDEN_HIDDEN * GOLDEN_INPUTS};
    at = add_node(graph, node, 0, "a");
    w += GOLDEN_HIDDEN * (GOLDEN_INPUTS + 1);
    node = (struct bp_node){.kind = BP_OP_ACTIVATION};
    node.u.activation.kind = BP_TANH;
    at = add_node(graph, node, at, "tanh");
    node = (struct bp_node){.kind = BP_OP_DENSE};
    node.u.dense = (struct bp_dense_config){
        .units = outputs, .use_bias = true, .weights = w, .biases = w + GOLDEN_HIDDEN * outputs};
    at = add_node(graph, node, at, "b");
    assert_int_equal(bp_graph_add_head(graph, at, classes ? BP_LOSS_CROSS_ENTROPY : BP_LOSS_MSE, 1.0, &err), BP_OK);
    return graph;
}

static double run_case(size_t i)
{
    bool classes = golden_cases[i].classes;
    struct bp_graph *graph = network(classes);
    struct bp_train_config config = config_default();
    struct losses losses = {0};
    struct bp_train_hooks hooks = {.ctx = &losses, .metric = on_metric};
    struct bp_error err = {0};
    struct bp_trainer *t;
    struct data d;
    double worst = 0.0;

    data_init(&d, GOLDEN_ROWS, GOLDEN_INPUTS, classes ? 4 : 0, classes ? 0 : 2);
    for (int r = 0; r < GOLDEN_ROWS; r++) {
        memcpy(data_x(&d, r), golden_x + r * GOLDEN_INPUTS, GOLDEN_INPUTS * sizeof(float));
        *data_label(&d, r) = golden_label[r];
        memcpy(data_value(&d, r), golden_value + 2 * r, classes ? 0 : 2 * sizeof(float));
    }
    data_split(&d, 0.0);
    config.epochs = GOLDEN_EPOCHS;
    config.batch_size = GOLDEN_BATCH;
    config.shuffle = false;
    config.optimizer = golden_cases[i].optimizer;
    config.clip_grad_norm = golden_cases[i].clip;
    config.clip_grad_value = golden_cases[i].clip_value;
    t = trainer_new(&config, graph, &d);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(t->at.step, 100);
    for (size_t p = 0; p < graph->nparams; p++) {
        double expect = golden_cases[i].weights[p], error = fabs(t->model->params[p] - expect);
        error /= fabs(expect) > 1.0 ? fabs(expect) : 1.0;
        worst = error > worst ? error : worst;
    }
    for (int e = 0; e < GOLDEN_EPOCHS; e++) {
        double error = fabs(losses.value[e] - golden_cases[i].losses[e]);
        worst = error > worst ? error : worst;
    }
    bp_trainer_free(t);
    bp_graph_free(graph);
    data_done(&d);
    return worst;
}

static void test_optimizers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden_cases / sizeof golden_cases[0]; i++) {
        double worst = run_case(i);

        print_message("%-20s largest difference %.1e\n", golden_cases[i].name, worst);
        assert_true(worst < 6e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_optimizers)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
