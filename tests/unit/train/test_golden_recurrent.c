/* test_golden_recurrent.c: 100 steps of recurrent networks end where PyTorch's end.
 *
 * PyTorch computed in float64 (scripts/golden_recurrent.py), we compute in float32. As in test_golden.c a step rounds a
 * parameter by at most 2^-24 of it, and 100 steps by 6e-6; here each step's gradient has besides gone through seven
 * steps of time, each with its own roundings, and Adam divides by the root of its square. So: 2e-5 max(1, |p|). A gate
 * in the wrong place, or a reset that is applied before instead of after the product, is off by 1e-2 and more.
 */
#include "fixture.h"

#include "golden/recurrent.h"

static double losses[GOLDEN_EPOCHS];
static int nlosses;

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    (void)ctx, (void)epoch, (void)step;
    if (strcmp(name, "loss") == 0 && nlosses < GOLDEN_EPOCHS)
        losses[nlosses++] = value;
}

static struct bp_graph *network(size_t i)
{
    struct bp_shape shape = {.rank = 2, .dim = {GOLDEN_STEPS, GOLDEN_FEATURES}};
    struct bp_graph *graph = NULL;
    struct bp_error err;
    int at = 0;

    assert_int_equal(bp_graph_new(&shape, &graph, &err), BP_OK);
    for (int l = 0; l < golden_cases[i].nlayers; l++) {
        struct bp_node node = {.kind = golden_cases[i].layers[l].kind,
                               .u.recurrent = golden_cases[i].layers[l].config};
        char name[16];

        snprintf(name, sizeof name, "layer%d", l);
        at = add_node(graph, node, at, name);
    }
    if (graph->nodes[at].shape.rank > 1)
        at = add_node(graph, (struct bp_node){.kind = BP_OP_FLATTEN}, at, "flat");
    at = add_dense(graph, at, "out", GOLDEN_CLASSES, 0.0);
    assert_int_equal(bp_graph_add_head(graph, at, BP_LOSS_CROSS_ENTROPY, 1.0, &err), BP_OK);
    return graph;
}

static double run_case(size_t i)
{
    struct bp_graph *graph = network(i);
    struct bp_train_config config = config_default();
    struct bp_train_hooks hooks = {.metric = on_metric};
    struct bp_error err = {0};
    struct data d;
    double worst = 0.0;
    int inputs = GOLDEN_STEPS * GOLDEN_FEATURES;

    data_init(&d, GOLDEN_ROWS, inputs, GOLDEN_CLASSES, 0);
    for (int r = 0; r < GOLDEN_ROWS; r++) {
        memcpy(data_x(&d, r), golden_x + r * inputs, (size_t)inputs * sizeof(float));
        *data_label(&d, r) = golden_label[r];
    }
    data_split(&d, 0.0);
    config.epochs = GOLDEN_EPOCHS;
    config.batch_size = GOLDEN_BATCH;
    config.shuffle = false;
    config.optimizer.lr = 0.01;
    nlosses = 0;
    struct bp_trainer *t = trainer_new(&config, graph, &d);
    memcpy(t->model->params, golden_cases[i].first, graph->nparams * sizeof(float));
    bp_model_pack(t->model, NULL);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(t->at.step, 100);
    for (size_t p = 0; p < graph->nparams; p++) {
        double expect = golden_cases[i].weights[p], error = fabs(t->model->params[p] - expect);
        error /= fabs(expect) > 1.0 ? fabs(expect) : 1.0;
        worst = error > worst ? error : worst;
    }
    for (int e = 0; e < GOLDEN_EPOCHS; e++) {
        double error = fabs(losses[e] - golden_cases[i].losses[e]);
        worst = error > worst ? error : worst;
    }
    bp_trainer_free(t);
    bp_graph_free(graph);
    data_done(&d);
    return worst;
}

static void test_layers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden_cases / sizeof golden_cases[0]; i++) {
        double worst = run_case(i);

        print_message("%-16s largest difference %.1e\n", golden_cases[i].name, worst);
        assert_true(worst < 2e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
