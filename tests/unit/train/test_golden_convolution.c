/* test_golden_convolution.c: 100 steps of sgd on convolutions, pools and embeddings end where PyTorch's end.
 *
 * PyTorch computed in float64 (scripts/golden_convolution.py), we compute in float32. As for the optimizers: a step
 * rounds a parameter by at most 2^-24 of it, and 100 of them stay near 6e-6 max(1, |p|) unless training amplifies them
 * (1e-6 is what is seen). A wrong tap, stride or share is off by 1e-2.
 */
#include "fixture.h"

#include "golden/convolution.h"

#define TOLERANCE 6e-6

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

/* --- the networks ------------------------------------------------------------------------------------------------- */

static int add(struct bp_graph *graph, struct bp_node node)
{
    char name[16];
    snprintf(name, sizeof name, "n%d", graph->nnodes);
    return add_node(graph, node, graph->nnodes - 1, name);
}

/* What is 0 becomes the default, as in PyTorch. */
static void conv(struct bp_graph *graph, struct bp_conv_config c)
{
    c.axes = c.axes ? c.axes : 2;
    c.groups = c.groups ? c.groups : 1;
    for (int i = 0; i < 2; i++) {
        c.stride[i] = c.stride[i] ? c.stride[i] : 1;
        c.dilation[i] = c.dilation[i] ? c.dilation[i] : 1;
    }
    add(graph, (struct bp_node){.kind = BP_OP_CONV, .u.conv = c});
}

static void function(struct bp_graph *graph)
{
    add(graph, (struct bp_node){.kind = BP_OP_ACTIVATION, .u.activation = {.kind = BP_TANH}});
}

static void pool(struct bp_graph *graph, struct bp_pool_config c)
{
    add(graph, (struct bp_node){.kind = BP_OP_POOL, .u.pool = c});
}

static void dense(struct bp_graph *graph, int units)
{
    add(graph, (struct bp_node){.kind = BP_OP_DENSE, .u.dense = {.units = units, .use_bias = true}});
}

static void flatten(struct bp_graph *graph)
{
    add(graph, (struct bp_node){.kind = BP_OP_FLATTEN});
}

static void build_conv2d(struct bp_graph *graph)
{
    conv(graph, (struct bp_conv_config){.filters = 4, .kernel = {3, 3}, .same = true, .use_bias = true});
    function(graph);
    pool(graph, (struct bp_pool_config){.size = {2, 2}, .stride = {2, 2}});
    conv(graph, (struct bp_conv_config){.filters = 5, .kernel = {2, 2}, .use_bias = true});
    function(graph);
    flatten(graph);
}

static void build_strided(struct bp_graph *graph)
{
    conv(graph, (struct bp_conv_config){
                    .filters = 4, .kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .use_bias = true});
    function(graph);
    conv(graph, (struct bp_conv_config){.filters = 6, .kernel = {2, 3}, .stride = {1, 2}});
    function(graph);
    flatten(graph);
}

static void build_dilated_groups(struct bp_graph *graph)
{
    conv(graph,
         (struct bp_conv_config){
             .filters = 6, .groups = 2, .kernel = {3, 3}, .dilation = {2, 2}, .padding = {2, 2}, .use_bias = true});
    function(graph);
    pool(graph, (struct bp_pool_config){BP_POOL_AVG, {3, 3}, {2, 2}, false, {1, 1}});
    conv(graph,
         (struct bp_conv_config){
             .filters = 3, .groups = 3, .kernel = {3, 3}, .dilation = {1, 2}, .padding = {1, 2}, .use_bias = true});
    function(graph);
    flatten(graph);
}

static void build_depthwise(struct bp_graph *graph)
{
    conv(graph, (struct bp_conv_config){.multiplier = 2, .kernel = {3, 3}, .padding = {1, 1}, .use_bias = true});
    function(graph);
    conv(graph, (struct bp_conv_config){.filters = 8, .kernel = {1, 1}, .use_bias = true});
    function(graph);
    pool(graph, (struct bp_pool_config){.size = {3, 3}, .stride = {1, 1}, .padding = {1, 1}});
    pool(graph, (struct bp_pool_config){.kind = BP_POOL_GLOBAL_AVG});
}

static void build_conv1d(struct bp_graph *graph)
{
    conv(graph, (struct bp_conv_config){
                    .axes = 1, .filters = 4, .kernel = {3}, .stride = {2}, .padding = {1}, .use_bias = true});
    function(graph);
    conv(graph, (struct bp_conv_config){
                    .axes = 1, .filters = 4, .groups = 2, .kernel = {2}, .dilation = {2}, .use_bias = true});
    function(graph);
    flatten(graph);
}

static void build_embedding(struct bp_graph *graph)
{
    add(graph, (struct bp_node){.kind = BP_OP_EMBEDDING, .u.embedding = {.input_dim = 7, .output_dim = 3}});
    flatten(graph);
    dense(graph, 6);
    function(graph);
}

static const struct {
    const char *name;
    void (*build)(struct bp_graph *graph);
} builders[] = {{"conv2d", build_conv2d},       {"strided", build_strided}, {"dilated_groups", build_dilated_groups},
                {"depthwise", build_depthwise}, {"conv1d", build_conv1d},   {"embedding", build_embedding}};

/* --- running ------------------------------------------------------------------------------------------------------ */

static double worse(double worst, double value, double expect)
{
    double error = fabs(value - expect) / (fabs(expect) > 1 ? fabs(expect) : 1);
    return error > worst ? error : worst;
}

static double run_case(size_t i)
{
    struct bp_graph *graph = NULL;
    struct bp_train_config config = config_default();
    struct losses losses = {0};
    struct bp_train_hooks hooks = {.ctx = &losses, .metric = on_metric};
    struct bp_error err = {0};
    struct data d;
    int inputs = (int)bp_shape_elements(&golden_cases[i].shape);
    double worst = 0;

    assert_string_equal(builders[i].name, golden_cases[i].name);
    assert_int_equal(bp_graph_new(&golden_cases[i].shape, &graph, &err), BP_OK);
    builders[i].build(graph);
    dense(graph, GOLDEN_CLASSES);
    assert_int_equal(bp_graph_add_head(graph, graph->nnodes - 1, BP_LOSS_CROSS_ENTROPY, 1, &err), BP_OK);
    assert_int_equal(graph->nparams, golden_cases[i].params);

    data_init(&d, GOLDEN_ROWS, inputs, GOLDEN_CLASSES, 0);
    for (int r = 0; r < GOLDEN_ROWS; r++) {
        memcpy(data_x(&d, r), golden_cases[i].x + r * inputs, (size_t)inputs * sizeof(float));
        *data_label(&d, r) = golden_cases[i].label[r];
    }
    data_split(&d, 0);
    config.epochs = GOLDEN_EPOCHS;
    config.batch_size = GOLDEN_BATCH;
    config.shuffle = false;
    config.optimizer = (struct bp_optimizer){.kind = BP_SGD, .lr = GOLDEN_LR, .momentum = GOLDEN_MOMENTUM};
    struct bp_trainer *t = trainer_new(&config, graph, &d);
    memcpy(t->model->params, golden_cases[i].first, graph->nparams * sizeof(float));
    bp_model_pack(t->model, NULL);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(t->at.step, 100);
    for (size_t p = 0; p < graph->nparams; p++)
        worst = worse(worst, t->model->params[p], golden_cases[i].last[p]);
    for (int e = 0; e < GOLDEN_EPOCHS; e++)
        worst = worse(worst, losses.value[e], golden_cases[i].losses[e]);
    assert_true(golden_cases[i].losses[GOLDEN_EPOCHS - 1] < 0.9 * golden_cases[i].losses[0]); /* it learned */
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
        print_message("%-20s largest difference %.1e\n", golden_cases[i].name, worst);
        assert_true(worst < TOLERANCE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
