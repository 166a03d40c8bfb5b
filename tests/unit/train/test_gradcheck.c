/* The gradients of every op, activation and loss against numerical differentiation, in double. */
#include "train/gradcheck.h"

#include "graph/nets.h"
#include "tally.h"

#include <math.h>

#define WORST 1e-6

/* Checks all elements of a graph and frees it; returns the number of kinks. */
static int64_t check(struct bp_graph *graph, int rows, uint64_t seed)
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
    assert_string_equal(tensors[count - 1].name, "input");
    for (int i = 0; i < count; i++) {
        bool frozen = i < count - 1 && !graph->tensors[i].trainable;
        int64_t all =
            i < count - 1 ? (int64_t)graph->tensors[i].count : rows * bp_shape_elements(&graph->nodes[0].shape);
        assert_int_equal(tensors[i].checked + tensors[i].kinks, frozen ? 0 : all);
        if (!(tensors[i].worst <= WORST))
            fail_msg("%s[%lld]: backpropagation says %.12g, differences say %.12g, error %g", tensors[i].name,
                     (long long)tensors[i].element, tensors[i].analytic, tensors[i].numeric, tensors[i].worst);
        kinks += tensors[i].kinks;
        checked += tensors[i].checked;
    }
    assert_true(kinks * 20 <= checked); /* nearly everything was compared */
    assert_true(backward >= 0 && numeric >= 0);
    tally_add(tensors, count);
    bp_graph_free(graph);
    return kinks;
}

static void every_activation_with_every_loss(void **state)
{
    (void)state;
    for (int kind = 0; kind < BP_ACTIVATION_COUNT; kind++)
        for (int loss = 0; loss < BP_LOSS_COUNT; loss++)
            for (int at_output = 0; at_output < 2; at_output++) {
                struct bp_graph *graph = net_new(1, 5, 0, 0);
                int n = net_act(graph, net_dense(graph, 0, 7), kind, 0.3);
                n = net_dense(graph, n, 3);
                if (at_output)
                    n = net_act(graph, n, kind, 0.3);
                net_head(graph, n, loss, 1);
                check(graph, 5, (uint64_t)(kind * 16 + loss * 2 + at_output));
            }
}

/* Smoothing, deltas and levels; the rows have weights of their own in every check. */
static void losses_with_parameters(void **state)
{
    static const struct {
        enum bp_loss loss;
        double parameter;
    } cases[] = {{BP_LOSS_CROSS_ENTROPY, 0.1}, {BP_LOSS_CROSS_ENTROPY, 0.9}, {BP_LOSS_BCE, 0.2},
                 {BP_LOSS_HUBER, 0.3},         {BP_LOSS_HUBER, 5},           {BP_LOSS_QUANTILE, 0.05},
                 {BP_LOSS_QUANTILE, 0.9}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int outputs = 2; outputs < 40; outputs += 17) {
            struct bp_graph *graph = net_new(1, 5, 0, 0);
            struct bp_head head = {.loss = cases[i].loss, .weight = 0.7, .parameter = cases[i].parameter};
            head.node = net_dense(graph, net_act(graph, net_dense(graph, 0, 6), BP_TANH, 0), outputs);
            assert_int_equal(bp_graph_add_output(graph, &head, NULL), BP_OK);
            check(graph, 5, i);
        }
}

static void odd_sizes(void **state)
{
    static const int sizes[][4] = {
        {1, 1, 2, 1}, {2, 3, 5, 2}, {17, 16, 15, 3}, {31, 33, 2, 1}, {1, 65, 17, 4}, {3, 4, 19, 33},
    };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int *s = sizes[i];
        struct bp_graph *graph = net_new(1, s[0], 0, 0);
        net_head(graph, net_dense(graph, net_act(graph, net_dense(graph, 0, s[1]), BP_TANH, 0), s[2]),
                 BP_LOSS_CROSS_ENTROPY, 1);
        check(graph, s[3], i);
    }
}

static void several_chunks_of_rows(void **state)
{
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    (void)state;
    net_head(graph, net_dense(graph, net_act(graph, net_dense(graph, 0, 4), BP_GELU, 0), 2), BP_LOSS_MSE, 1);
    check(graph, 300, 1);
}

static void flatten_and_dropout(void **state)
{
    struct bp_graph *graph = net_new(3, 2, 3, 2);
    int n;
    (void)state;
    n = net_dropout(graph, 0, 0.25);
    n = net_dense(graph, net_flatten(graph, n), 9);
    n = net_dropout(graph, net_act(graph, n, BP_RELU, 0), 0.5);
    n = net_dropout(graph, net_dense(graph, n, 4), 0);
    net_head(graph, n, BP_LOSS_CROSS_ENTROPY, 1);
    check(graph, 6, 3);
}

/* One value used by two layers, by a layer and a loss, and by two losses. */
static void fan_out(void **state)
{
    struct bp_graph *graph = net_new(1, 6, 0, 0);
    int trunk, left, right;
    (void)state;
    trunk = net_act(graph, net_dense(graph, 0, 8), BP_TANH, 0);
    left = net_dense(graph, net_act(graph, trunk, BP_SIGMOID, 0), 3);
    right = net_dense(graph, net_dropout(graph, net_flatten(graph, trunk), 0.3), 4);
    net_head(graph, left, BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, right, BP_LOSS_MSE, 0.7);
    net_head(graph, trunk, BP_LOSS_MSE, 0.2);
    net_head(graph, left, BP_LOSS_BCE, 0.4);
    net_head(graph, net_dense(graph, net_act(graph, right, BP_SOFTMAX, 0), 2), BP_LOSS_BCE, 1.5);
    check(graph, 5, 4);
}

static void frozen_layers(void **state)
{
    (void)state;
    for (int frozen = 0; frozen < 8; frozen++) {
        struct bp_graph *graph = net_new(1, 4, 0, 0);
        int n = 0;
        for (int layer = 0; layer < 3; layer++) {
            n = net_add(graph,
                        (struct bp_node){.kind = BP_OP_DENSE,
                                         .trainable = !(frozen & 1 << layer),
                                         .u.dense = {.units = 5, .use_bias = layer != 1}},
                        n);
            n = net_act(graph, n, BP_SOFTSIGN, 0);
        }
        net_head(graph, n, BP_LOSS_MSE, 1);
        check(graph, 3, (uint64_t)frozen);
    }
}

/* A layer without a loss below it, and a head on the input itself. */
static void loose_ends(void **state)
{
    struct bp_graph *graph = net_new(1, 4, 0, 0);
    (void)state;
    net_head(graph, net_dense(graph, 0, 2), BP_LOSS_BCE, 1);
    net_head(graph, 0, BP_LOSS_MSE, 0.5);
    check(graph, 2, 5);
}

/* relu of numbers that are exactly 0 has a kink there, and it is stepped around. */
static void kinks_are_counted(void **state)
{
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    struct bp_gradcheck_options options = {.seed = 1, .rows = 2};
    struct bp_gradcheck_tensor tensors[2];
    double backward, numeric;
    int count;
    (void)state;
    /* dropout makes some inputs exactly 0; then the bias-free relu after it sits on its kink */
    net_head(graph, net_act(graph, net_dropout(graph, net_act(graph, 0, BP_HARD_SIGMOID, 0), 0.9), BP_RELU, 0),
             BP_LOSS_MSE, 1);
    assert_int_equal(bp_gradcheck(graph, &options, tensors, 2, &count, &backward, &numeric, NULL), BP_OK);
    assert_true(tensors[0].worst <= WORST);
    bp_graph_free(graph);

    graph = net_new(1, 1, 0, 0);
    net_head(graph,
             net_act(graph,
                     net_add(graph,
                             (struct bp_node){
                                 .kind = BP_OP_DENSE, .trainable = true, .u.dense = {.units = 40, .use_bias = true}},
                             0),
                     BP_RELU, 0),
             BP_LOSS_MSE, 1);
    check(graph, 4, 9);
}

static void a_choice_of_elements(void **state)
{
    struct bp_graph *graph = net_new(1, 20, 0, 0);
    struct bp_gradcheck_options options = {.seed = 7, .rows = 3, .max_elements = 11};
    struct bp_gradcheck_tensor tensors[3];
    double backward, numeric;
    int count;
    (void)state;
    net_head(graph, net_dense(graph, 0, 30), BP_LOSS_MSE, 1);
    assert_int_equal(bp_gradcheck(graph, &options, tensors, 3, &count, &backward, &numeric, NULL), BP_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tensors[i].checked, 11);

    assert_int_equal(bp_gradcheck(graph, &options, tensors, 2, &count, &backward, &numeric, NULL), BP_INVALID);
    options.rows = 0;
    assert_int_equal(bp_gradcheck(graph, &options, tensors, 3, &count, &backward, &numeric, NULL), BP_INVALID);
    bp_graph_free(graph);
}

static void random_graphs(void **state)
{
    int64_t checked = 0, kinks = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct net_dice dice = {.seed = seed};
        struct bp_graph *graph = net_random(&dice, 9);
        struct bp_gradcheck_options options = {.seed = seed, .rows = 1 + (int)seed % 5, .max_elements = 12};
        struct bp_gradcheck_tensor tensors[64];
        struct bp_error err = {0};
        double backward, numeric;
        int count;
        if (bp_gradcheck(graph, &options, tensors, 64, &count, &backward, &numeric, &err) != BP_OK)
            fail_msg("%s", err.message);
        for (int i = 0; i < count; i++) {
            if (!(tensors[i].worst <= WORST))
                fail_msg("network %d, %s[%lld]: %.12g against %.12g, error %g", (int)seed, tensors[i].name,
                         (long long)tensors[i].element, tensors[i].analytic, tensors[i].numeric, tensors[i].worst);
            checked += tensors[i].checked;
            kinks += tensors[i].kinks;
        }
        tally_add(tensors, count);
        bp_graph_free(graph);
    }
    assert_true(checked > 1000 && kinks * 10 < checked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_activation_with_every_loss),
        cmocka_unit_test(losses_with_parameters),
        cmocka_unit_test(odd_sizes),
        cmocka_unit_test(several_chunks_of_rows),
        cmocka_unit_test(flatten_and_dropout),
        cmocka_unit_test(fan_out),
        cmocka_unit_test(frozen_layers),
        cmocka_unit_test(loose_ends),
        cmocka_unit_test(kinks_are_counted),
        cmocka_unit_test(a_choice_of_elements),
        cmocka_unit_test(random_graphs),
    };
    return tally_print(cmocka_run_group_tests(tests, NULL, NULL));
}
