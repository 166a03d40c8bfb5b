/* Building networks: shapes, names, limits, errors that name the place and the fix. */
#include "graph/nets.h"

#include "base/memory.h"

#include <math.h>

static void shapes_and_tensors(void **state)
{
    struct bp_graph *graph = net_new(3, 1, 28, 28);
    char text[64];
    int n;
    (void)state;
    n = net_flatten(graph, 0);
    assert_int_equal(graph->nodes[n].shape.dim[0], 784);
    n = net_dense(graph, n, 10);
    assert_string_equal(graph->tensors[0].name, "n2.weight");
    assert_string_equal(graph->tensors[1].name, "n2.bias");
    assert_int_equal(graph->tensors[0].shape.dim[0], 10);
    assert_int_equal(graph->tensors[0].shape.dim[1], 784);
    assert_int_equal(graph->tensors[0].fan_in, 784);
    assert_int_equal(graph->tensors[0].fan_out, 10);
    assert_int_equal(graph->tensors[1].offset, 7840);
    assert_int_equal(graph->tensors[1].node, n);
    assert_int_equal(graph->nparams, 7850);
    assert_int_equal(graph->nstats, 0);
    assert_string_equal(bp_shape_print(&graph->nodes[0].shape, text, sizeof text), "[1, 28, 28]");
    assert_string_equal(bp_shape_print(&graph->nodes[0].shape, text, 5), "[1, ");
    assert_string_equal(bp_shape_print(&(struct bp_shape){0}, text, sizeof text), "[]");
    assert_int_equal(bp_graph_flops(graph, false), 2 * 784 * 10);
    assert_int_equal(bp_graph_flops(graph, true), 2 * 2 * 784 * 10);
    bp_graph_free(graph);
    bp_graph_free(NULL);
}

static void literals_are_copied(void **state)
{
    struct bp_graph *graph = net_new(1, 2, 0, 0);
    float weights[4] = {1, 2, 3, 4}, biases[2] = {5, 6};
    (void)state;
    net_add(graph,
            (struct bp_node){.kind = BP_OP_DENSE,
                             .u.dense = {.units = 2, .use_bias = true, .weights = weights, .biases = biases}},
            0);
    weights[2] = biases[1] = 0;
    assert_true(graph->tensors[0].literal[2] == 3 && graph->tensors[1].literal[1] == 6);
    assert_false(graph->tensors[0].trainable);
    bp_graph_free(graph);
}

/* Adds a node that must be refused with these words, and checks that the graph is as before. */
static void refused(struct bp_graph *graph, struct bp_node node, bp_status status, const char *words)
{
    struct bp_error err = {0};
    int index = -7, nodes = graph->nnodes, tensors = graph->ntensors;
    size_t params = graph->nparams;
    assert_int_equal(bp_graph_add(graph, &node, &index, &err), status);
    if (strstr(err.message, words) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, words);
    assert_int_equal(index, -7);
    assert_int_equal(graph->nnodes, nodes);
    assert_int_equal(graph->ntensors, tensors);
    assert_int_equal(graph->nparams, params);
}

static void errors_name_the_fix(void **state)
{
    struct bp_graph *graph = net_new(3, 1, 28, 28);
    struct bp_node dense = {.kind = BP_OP_DENSE, .name = "d1", .ninputs = 1, .u.dense = {.units = 3}};
    struct bp_node node;
    struct bp_error err = {0};
    (void)state;

    refused(graph, dense, BP_INVALID,
            "layer 'd1' (dense) needs a vector, but [1, 28, 28] arrives: put a flatten layer before it");
    int flat = net_flatten(graph, 0);
    dense.input[0] = flat;
    node = dense, node.u.dense.units = 0;
    refused(graph, node, BP_INVALID, "units must be between 1 and");
    node = dense, node.u.dense.units = 3000000;
    refused(graph, node, BP_LIMIT, "'d1.weight' has too many elements");
    node = dense, node.u.dense.l2 = -1;
    refused(graph, node, BP_INVALID, "l1 and l2");
    node = dense, node.input[0] = 2;
    refused(graph, node, BP_INVALID, "not an earlier layer");
    node = dense, node.ninputs = 2;
    refused(graph, node, BP_INVALID, "takes 1 to 1 inputs, got 2");
    node = dense, strcpy(node.name, "input");
    refused(graph, node, BP_INVALID, "the name 'input' is taken");
    node = dense, node.name[0] = '\0';
    refused(graph, node, BP_INVALID, "needs a name");
    memset(node.name, 'x', sizeof node.name);
    refused(graph, node, BP_INVALID, "needs a name");
    node = dense, node.kind = BP_OP_COUNT;
    refused(graph, node, BP_INVALID, "there is no operation");
    node = (struct bp_node){.kind = BP_OP_INPUT, .name = "again"};
    refused(graph, node, BP_INVALID, "a network has one input");
    node = (struct bp_node){.kind = BP_OP_DROPOUT, .name = "drop", .ninputs = 1, .u.dropout = {1.0}};
    refused(graph, node, BP_INVALID, "rate must be at least 0 and below 1, got 1");
    node.u.dropout.rate = NAN;
    refused(graph, node, BP_INVALID, "rate must be");
    node = (struct bp_node){.kind = BP_OP_ACTIVATION, .name = "a", .ninputs = 1, .u.activation = {BP_SOFTMAX, 0}};
    refused(graph, node, BP_INVALID, "layer 'a' (softmax) needs a vector, but [1, 28, 28] arrives");
    node.u.activation = (struct bp_activation_config){BP_ELU, INFINITY};
    refused(graph, node, BP_INVALID, "alpha");
    node.u.activation = (struct bp_activation_config){BP_ACTIVATION_COUNT, 0};
    refused(graph, node, BP_INVALID, "no activation number");

    assert_int_equal(bp_graph_add_head(graph, 0, BP_LOSS_MSE, 1, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "put a flatten layer after it"));
    assert_int_equal(bp_graph_add_head(graph, 9, BP_LOSS_MSE, 1, &err), BP_INVALID);
    assert_int_equal(bp_graph_add_head(graph, flat, BP_LOSS_MSE, NAN, &err), BP_INVALID);
    assert_int_equal(bp_graph_add_head(graph, flat, BP_LOSS_COUNT, 1, &err), BP_INVALID);
    int one = net_dense(graph, flat, 1);
    assert_int_equal(bp_graph_add_head(graph, one, BP_LOSS_CROSS_ENTROPY, 1, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "use bce"));
    assert_int_equal(graph->nheads, 0);
    bp_graph_free(graph);
}

static void limits(void **state)
{
    struct bp_graph *graph = NULL;
    struct bp_error err = {0};
    (void)state;
    assert_int_equal(bp_graph_new(&(struct bp_shape){.rank = 1, .dim = {0}}, &graph, &err), BP_INVALID);
    assert_int_equal(bp_graph_new(&(struct bp_shape){.rank = 5}, &graph, &err), BP_INVALID);
    assert_int_equal(bp_graph_new(&(struct bp_shape){.rank = 3, .dim = {1 << 20, 1 << 20, 1 << 20}}, &graph, &err),
                     BP_LIMIT);
    assert_int_equal(bp_graph_new(&(struct bp_shape){.rank = 1, .dim = {BP_ELEMENTS_MAX}}, &graph, &err), BP_LIMIT);
    assert_null(graph);
    graph = net_new(1, 1, 0, 0);
    for (int i = 1; i < BP_NODES_MAX; i++)
        net_act(graph, i - 1, BP_RELU, 0);
    refused(graph, (struct bp_node){.kind = BP_OP_FLATTEN, .name = "f", .ninputs = 1}, BP_LIMIT,
            "at most 4096 layers");
    bp_graph_free(graph);
}

static bp_status build(struct bp_graph **ret)
{
    static const float weights[12];
    struct bp_node node = {.kind = BP_OP_DENSE, .ninputs = 1, .u.dense = {.units = 4, .use_bias = true}};
    struct bp_graph *graph = NULL;
    bp_status status = bp_graph_new(&(struct bp_shape){.rank = 1, .dim = {3}}, &graph, NULL);
    for (int i = 0; i < 20 && status == BP_OK; i++) {
        node.u.dense.weights = i == 0 ? weights : NULL;
        node.input[0] = i;
        snprintf(node.name, sizeof node.name, "d%d", i);
        status = bp_graph_add(graph, &node, &(int){0}, NULL);
    }
    if (status == BP_OK)
        status = bp_graph_add_head(graph, 20, BP_LOSS_MSE, 1, NULL);
    if (status == BP_OK)
        *ret = graph;
    else
        bp_graph_free(graph);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    struct bp_graph *graph = NULL;
    int failures = 0;
    (void)state;
    for (int n = 0; graph == NULL && n < 100; n++) {
        bp_alloc_fail_after(n);
        bp_status status = build(&graph);
        bp_alloc_fail_after(-1);
        assert_int_equal(status, graph != NULL ? BP_OK : BP_NOMEM);
        failures += graph == NULL;
    }
    assert_non_null(graph);
    assert_true(failures >= 5);
    bp_graph_free(graph);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(bp_op_name(BP_OP_DENSE), "dense");
    assert_string_equal(bp_activation_name(BP_LOG_SOFTMAX), "log_softmax");
    assert_string_equal(bp_loss_name(BP_LOSS_BCE), "bce");
    assert_string_equal(bp_init_name(BP_INIT_KAIMING_UNIFORM), "kaiming_uniform");
    for (int i = 0; i < BP_ACTIVATION_COUNT; i++)
        assert_non_null(bp_activation_name(i));
    for (int i = 0; i < BP_INIT_COUNT; i++)
        assert_non_null(bp_init_name(i));
    assert_string_equal(bp_op_name(BP_OP_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_and_tensors),        cmocka_unit_test(literals_are_copied),
        cmocka_unit_test(errors_name_the_fix),       cmocka_unit_test(limits),
        cmocka_unit_test(every_allocation_may_fail), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
