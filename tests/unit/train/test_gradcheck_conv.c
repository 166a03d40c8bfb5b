/* The gradients of convolutions, pools, reshape and embedding against numerical differentiation, in double: strides,
 * dilation, groups, padding of both kinds, odd sizes, a batch of one row, fan-out. */
#include "train/gradcheck.h"

#include "graph/nets.h"
#include "tally.h"

#include <math.h>

#define WORST 1e-6

static void check(struct bp_graph *graph, int rows, uint64_t seed)
{
    struct bp_gradcheck_options options = {.seed = seed, .rows = rows};
    struct bp_gradcheck_tensor tensors[64];
    struct bp_error err = {0};
    double backward, numeric;
    int64_t kinks = 0, checked = 0;
    int count = 0;

    if (bp_gradcheck(graph, &options, tensors, 64, &count, &backward, &numeric, &err) != BP_OK)
        fail_msg("%s", err.message);
    assert_int_equal(count, graph->ntensors + 1);
    for (int i = 0; i < count; i++) {
        if (!(tensors[i].worst <= WORST))
            fail_msg("case %llu: %s[%lld]: backpropagation says %.12g, differences say %.12g, error %g",
                     (unsigned long long)seed, tensors[i].name, (long long)tensors[i].element, tensors[i].analytic,
                     tensors[i].numeric, tensors[i].worst);
        kinks += tensors[i].kinks;
        checked += tensors[i].checked;
    }
    assert_true(kinks * 20 <= checked);
    tally_add(tensors, count);
    bp_graph_free(graph);
}

/* Image, convolution; weights are random, so each has its own place in the sums. */
struct conv_case {
    int rows;
    int64_t channels, height, width; /* height 0: one axis */
    struct bp_conv_config conv;
};

static const struct conv_case conv_cases[] = {
    {1, 1, 5, 5, {.filters = 3, .kernel = {3, 3}, .use_bias = true}},
    {2, 2, 5, 6, {.filters = 3, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {1, 3, 4, 7, {.filters = 2, .kernel = {1, 1}}},
    {2, 2, 7, 5, {.filters = 4, .kernel = {3, 2}, .stride = {2, 1}, .use_bias = true}},
    {1, 2, 8, 9, {.filters = 3, .kernel = {3, 3}, .stride = {2, 3}, .padding = {1, 2}, .use_bias = true}},
    {1, 2, 7, 7, {.filters = 2, .kernel = {3, 3}, .stride = {2, 2}, .same = true, .use_bias = true}},
    {1, 1, 9, 8, {.filters = 2, .kernel = {3, 2}, .dilation = {2, 3}, .padding = {2, 1}}},
    {1, 2, 9, 9, {.filters = 2, .kernel = {3, 3}, .stride = {2, 2}, .dilation = {2, 2}, .padding = {2, 2}}},
    {1, 2, 10, 9, {.filters = 2, .kernel = {3, 3}, .stride = {3, 2}, .dilation = {2, 3}, .same = true}},
    {2, 4, 5, 5, {.filters = 6, .groups = 2, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {2, 3, 6, 5, {.multiplier = 1, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {1, 3, 6, 5, {.multiplier = 2, .kernel = {3, 3}, .padding = {1, 0}, .use_bias = true}},
    {1, 2, 6, 7, {.multiplier = 5, .kernel = {2, 3}}},
    {1, 2, 7, 7, {.multiplier = 2, .kernel = {3, 3}, .stride = {2, 2}, .same = true}},
    {1, 2, 7, 7, {.multiplier = 1, .kernel = {3, 3}, .stride = {2, 1}, .dilation = {1, 2}}},
    {1, 1, 4, 4, {.filters = 2, .kernel = {2, 2}, .stride = {3, 3}}}, /* positions between windows */
    {1, 1, 3, 3, {.filters = 1, .kernel = {2, 2}, .padding = {3, 3}, .use_bias = true}}, /* windows in the border */
    {1, 2, 1, 1, {.filters = 17, .kernel = {1, 1}, .use_bias = true}},
    {1, 17, 3, 3, {.filters = 2, .kernel = {2, 2}}}, /* more than one tile of dw */
    {2, 2, 0, 9, {.axes = 1, .filters = 3, .kernel = {3}, .use_bias = true}},
    {1, 2, 0, 20, {.axes = 1, .filters = 3, .kernel = {4}, .same = true, .use_bias = true}},
    {1,
     2,
     0,
     11,
     {.axes = 1, .filters = 2, .groups = 2, .kernel = {3}, .stride = {2}, .dilation = {2}, .same = true}},
    {1, 1, 0, 300, {.axes = 1, .filters = 1, .kernel = {5}, .stride = {1}, .use_bias = true}}, /* several runs */
};

static void convolutions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof conv_cases / sizeof *conv_cases; i++) {
        const struct conv_case *c = &conv_cases[i];
        struct bp_graph *graph =
            c->height ? net_new(3, c->channels, c->height, c->width) : net_new(2, c->channels, c->width, 0);
        int n = net_act(graph, net_conv(graph, 0, c->conv), BP_TANH, 0);
        net_head(graph, net_dense(graph, net_flatten(graph, n), 2), BP_LOSS_MSE, 1);
        check(graph, c->rows, i);
    }
}

static const struct {
    int64_t height, width;
    struct bp_pool_config pool;
} pool_cases[] = {
    {4, 6, {.kind = BP_POOL_MAX, .size = {2, 2}, .stride = {2, 2}}},
    {5, 7, {.kind = BP_POOL_MAX, .size = {2, 2}, .stride = {2, 2}}},
    {5, 5, {.kind = BP_POOL_MAX, .size = {3, 3}, .stride = {1, 1}, .padding = {1, 1}}},
    {7, 6, {.kind = BP_POOL_MAX, .size = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}},
    {7, 6, {.kind = BP_POOL_MAX, .size = {3, 2}, .stride = {3, 2}, .same = true}},
    {5, 5, {.kind = BP_POOL_MAX, .size = {2, 2}, .stride = {3, 3}}},
    {4, 6, {.kind = BP_POOL_AVG, .size = {2, 2}, .stride = {2, 2}}},
    {7, 6, {.kind = BP_POOL_AVG, .size = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}},
    {5, 20, {.kind = BP_POOL_AVG, .size = {3, 4}, .stride = {1, 1}, .same = true}},
    {5, 3, {.kind = BP_POOL_GLOBAL_AVG}},
};

static void pools(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pool_cases / sizeof *pool_cases; i++) {
        struct bp_graph *graph = net_new(3, 1, pool_cases[i].height, pool_cases[i].width);
        int n = net_conv(graph, 0, (struct bp_conv_config){.filters = 3, .kernel = {1, 1}, .use_bias = true});
        n = net_pool(graph, net_act(graph, n, BP_TANH, 0), pool_cases[i].pool);
        net_head(graph, net_dense(graph, net_flatten(graph, n), 2), BP_LOSS_MSE, 1);
        check(graph, 2, 100 + i);
    }
}

static void global_pool_of_sequences(void **state)
{
    struct bp_graph *graph = net_new(2, 2, 9, 0);
    (void)state;
    int n = net_conv(graph, 0, (struct bp_conv_config){.axes = 1, .filters = 4, .kernel = {3}});
    n = net_pool(graph, net_act(graph, n, BP_GELU, 0), (struct bp_pool_config){.kind = BP_POOL_GLOBAL_AVG});
    net_head(graph, net_dense(graph, n, 3), BP_LOSS_CROSS_ENTROPY, 1);
    check(graph, 3, 200);
}

/* One value used four times: each contribution but the first adds. */
static void fan_out(void **state)
{
    struct bp_graph *graph = net_new(3, 1, 6, 6);
    (void)state;
    struct bp_conv_config same = {.filters = 2, .kernel = {3, 3}, .same = true, .use_bias = true};
    struct bp_conv_config strided = {.filters = 2, .kernel = {3, 3}, .stride = {2, 2}};
    struct bp_conv_config depthwise = {.multiplier = 1, .kernel = {3, 3}, .same = true};
    int trunk = net_act(graph, net_conv(graph, 0, same), BP_TANH, 0);
    int ends[] = {net_conv(graph, trunk, same),
                  net_conv(graph, trunk, strided),
                  net_conv(graph, trunk, depthwise),
                  net_pool(graph, trunk, (struct bp_pool_config){.size = {2, 2}, .stride = {2, 2}}),
                  net_pool(graph, trunk, (struct bp_pool_config){BP_POOL_AVG, {2, 2}, {2, 2}, false, {0, 0}}),
                  net_pool(graph, trunk, (struct bp_pool_config){.kind = BP_POOL_GLOBAL_AVG})};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        net_head(graph, net_dense(graph, net_flatten(graph, ends[i]), 2), BP_LOSS_MSE, 0.5);
    check(graph, 2, 300);
}

static void a_small_image_network(void **state)
{
    struct bp_graph *graph = net_new(1, 50, 0, 0);
    (void)state;
    int n = net_reshape(graph, 0, (struct bp_shape){.rank = 3, .dim = {2, 5, 5}});
    n = net_conv(graph, n, (struct bp_conv_config){.filters = 3, .kernel = {3, 3}, .same = true, .use_bias = true});
    n = net_pool(graph, net_act(graph, n, BP_SILU, 0), (struct bp_pool_config){.size = {2, 2}, .stride = {2, 2}});
    n = net_conv(graph, n, (struct bp_conv_config){.filters = 4, .kernel = {2, 2}, .use_bias = true});
    n = net_flatten(graph, net_act(graph, n, BP_TANH, 0));
    net_head(graph, net_dense(graph, n, 3), BP_LOSS_CROSS_ENTROPY, 1);
    check(graph, 3, 400);
}

/* The inputs of the check are random numbers: hardly one is a code. relu6 of a steep line makes 0 or 6 of most, and
 * so codes; what the gradient of the codes is, is 0 on both sides. */
static void embeddings(void **state)
{
    struct bp_graph *graph = net_new(1, 4, 0, 0);
    struct bp_node steep = {.kind = BP_OP_DENSE, .u.dense = {.units = 5, .use_bias = true}};
    (void)state;
    int n = net_act(graph, net_add(graph, steep, 0), BP_RELU, 0); /* frozen; about half of its values are code 0 */
    n = net_embedding(graph, n, 7, 3);
    net_head(graph, net_dense(graph, net_flatten(graph, n), 2), BP_LOSS_MSE, 1);
    check(graph, 6, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(convolutions),
                                       cmocka_unit_test(pools),
                                       cmocka_unit_test(global_pool_of_sequences),
                                       cmocka_unit_test(fan_out),
                                       cmocka_unit_test(a_small_image_network),
                                       cmocka_unit_test(embeddings)};
    return tally_print(cmocka_run_group_tests(tests, NULL, NULL));
}
