/* The gradients of the recurrent layers against numerical differentiation, in double: through time, through several
 * layers, in both directions. */
#include "train/gradcheck.h"

#include "graph/nets.h"
#include "tally.h"

#define WORST 1e-6

static const enum bp_op_kind kinds[] = {BP_OP_SIMPLE_RNN, BP_OP_LSTM, BP_OP_GRU};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static int net_recurrent(struct bp_graph *graph, int from, enum bp_op_kind kind,
                         const struct bp_recurrent_config *config)
{
    struct bp_node node = {.kind = kind, .trainable = true, .u.recurrent = *config};
    if (node.u.recurrent.activation == BP_LINEAR)
        node.u.recurrent.activation = BP_TANH;
    return net_add(graph, node, from);
}

/* Checks all elements of a graph and frees it. */
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
            fail_msg("%s[%lld]: backpropagation says %.12g, differences say %.12g, error %g", tensors[i].name,
                     (long long)tensors[i].element, tensors[i].analytic, tensors[i].numeric, tensors[i].worst);
        kinks += tensors[i].kinks;
        checked += tensors[i].checked;
    }
    assert_true(checked > 0 && kinks * 20 <= checked);
    tally_add(tensors, count);
    bp_graph_free(graph);
}

/* One layer of `units` over (steps, features), and a loss. */
static void check_one(enum bp_op_kind kind, int steps, int features, int rows, struct bp_recurrent_config config)
{
    struct bp_graph *graph = net_new(2, steps, features, 0);
    int n = net_recurrent(graph, 0, kind, &config);
    if (config.return_sequences)
        n = net_flatten(graph, n);
    net_head(graph, net_dense(graph, n, 3), BP_LOSS_CROSS_ENTROPY, 1);
    check(graph, rows, (uint64_t)(steps * 64 + features * 8 + rows));
}

static void every_kind_in_every_form(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (int form = 0; form < 8; form++)
            check_one(kinds[k], 5, 3, 4,
                      (struct bp_recurrent_config){
                          .units = 4, .return_sequences = form & 1, .reverse = form & 2, .use_bias = !(form & 4)});
}

static void odd_sizes(void **state)
{
    static const int sizes[][4] = {/* steps, features, units, rows */
                                   {1, 1, 1, 1}, {1, 3, 2, 2},  {2, 17, 1, 1},
                                   {7, 1, 5, 3}, {3, 2, 19, 2}, {3, 5, 33, 1}};
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            check_one(kinds[k], sizes[i][0], sizes[i][1], sizes[i][3],
                      (struct bp_recurrent_config){
                          .units = sizes[i][2], .use_bias = true, .return_sequences = i % 2, .reverse = i % 3 == 1});
}

/* More pairs of rows and steps than one chunk has, in chunks that end in the middle of a sequence. */
static void several_chunks(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++)
        check_one(kinds[k], 7, 2, 50, (struct bp_recurrent_config){.units = 2, .use_bias = true});
}

static void relu_in_a_simple_rnn(void **state)
{
    (void)state;
    check_one(BP_OP_SIMPLE_RNN, 4, 3, 3,
              (struct bp_recurrent_config){.units = 6, .use_bias = true, .activation = BP_RELU});
}

static void layer_on_layer(void **state)
{
    struct bp_recurrent_config all = {.units = 4, .use_bias = true, .return_sequences = true};
    struct bp_recurrent_config back = {.units = 3, .use_bias = true, .return_sequences = true, .reverse = true};
    struct bp_recurrent_config last = {.units = 5, .use_bias = true};
    struct bp_graph *graph = net_new(2, 4, 2, 0);
    (void)state;
    int n = net_recurrent(graph, 0, BP_OP_LSTM, &all);
    n = net_recurrent(graph, net_dropout(graph, n, 0.3), BP_OP_GRU, &back);
    n = net_recurrent(graph, net_act(graph, n, BP_GELU, 0), BP_OP_SIMPLE_RNN, &last);
    net_head(graph, net_dense(graph, n, 2), BP_LOSS_MSE, 1);
    check(graph, 3, 7);
}

/* A sequence read by two layers in opposite directions, and its states used twice. */
static void fan_out(void **state)
{
    struct bp_recurrent_config all = {.units = 3, .use_bias = true, .return_sequences = true};
    struct bp_recurrent_config forth = {.units = 4, .use_bias = true}, back = forth;
    struct bp_graph *graph = net_new(2, 4, 3, 0);
    (void)state;
    back.reverse = true;
    int trunk = net_recurrent(graph, 0, BP_OP_GRU, &all);
    net_head(graph, net_dense(graph, net_recurrent(graph, trunk, BP_OP_LSTM, &forth), 3), BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, net_dense(graph, net_recurrent(graph, trunk, BP_OP_GRU, &back), 2), BP_LOSS_MSE, 0.6);
    net_head(graph, net_dense(graph, net_flatten(graph, trunk), 2), BP_LOSS_BCE, 0.3);
    check(graph, 3, 8);
}

/* A frozen layer passes the error signal on to what is below it; one with nothing below gets none. */
static void frozen_layers(void **state)
{
    (void)state;
    for (int frozen = 1; frozen < 4; frozen++) {
        struct bp_graph *graph = net_new(2, 3, 2, 0);
        int n = 0;
        for (int i = 0; i < 2; i++) {
            struct bp_node node = {.kind = kinds[1 + i], .trainable = !(frozen & 1 << i)};
            node.u.recurrent = (struct bp_recurrent_config){.units = 3, .use_bias = true, .return_sequences = i == 0};
            n = net_add(graph, node, n);
        }
        net_head(graph, net_dense(graph, n, 2), BP_LOSS_MSE, 1);
        check(graph, 2, (uint64_t)frozen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_in_every_form),
        cmocka_unit_test(odd_sizes),
        cmocka_unit_test(several_chunks),
        cmocka_unit_test(relu_in_a_simple_rnn),
        cmocka_unit_test(layer_on_layer),
        cmocka_unit_test(fan_out),
        cmocka_unit_test(frozen_layers),
    };
    return tally_print(cmocka_run_group_tests(tests, NULL, NULL));
}
