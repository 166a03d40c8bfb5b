/* nets.h: small networks for the tests: one call a layer, failing the test where the graph refuses it. */
#ifndef BP_TESTS_GRAPH_NETS_H
#define BP_TESTS_GRAPH_NETS_H

#include "graph/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static inline struct bp_graph *net_new(int rank, int64_t d0, int64_t d1, int64_t d2)
{
    struct bp_shape shape = {.rank = rank, .dim = {d0, d1, d2}};
    struct bp_graph *graph = NULL;
    assert_int_equal(bp_graph_new(&shape, &graph, NULL), BP_OK);
    return graph;
}

static inline int net_add(struct bp_graph *graph, struct bp_node node, int from)
{
    struct bp_error err = {0};
    int index = -1;
    if (node.name[0] == '\0')
        snprintf(node.name, sizeof node.name, "n%d", graph->nnodes);
    node.ninputs = 1;
    node.input[0] = from;
    if (bp_graph_add(graph, &node, &index, &err) != BP_OK)
        fail_msg("%s", err.message);
    return index;
}

static inline int net_dense(struct bp_graph *graph, int from, int64_t units)
{
    return net_add(
        graph,
        (struct bp_node){.kind = BP_OP_DENSE, .trainable = true, .u.dense = {.units = units, .use_bias = true}},
        from);
}

static inline int net_act(struct bp_graph *graph, int from, enum bp_activation kind, double alpha)
{
    return net_add(graph, (struct bp_node){.kind = BP_OP_ACTIVATION, .u.activation = {kind, alpha}}, from);
}

static inline int net_dropout(struct bp_graph *graph, int from, double rate)
{
    return net_add(graph, (struct bp_node){.kind = BP_OP_DROPOUT, .u.dropout = {rate}}, from);
}

static inline int net_flatten(struct bp_graph *graph, int from)
{
    return net_add(graph, (struct bp_node){.kind = BP_OP_FLATTEN}, from);
}

static inline void net_head(struct bp_graph *graph, int node, enum bp_loss loss, double weight)
{
    struct bp_error err = {0};
    if (bp_graph_add_head(graph, node, loss, weight, &err) != BP_OK)
        fail_msg("%s", err.message);
}

#endif
