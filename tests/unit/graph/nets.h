/* nets.h: small networks for the tests: one call a layer, failing the test where the graph refuses it. */
#ifndef BP_TESTS_GRAPH_NETS_H
#define BP_TESTS_GRAPH_NETS_H

#include "base/random.h"
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

/* What is 0 in a configuration becomes the default: axes 2, groups 1, strides 1, dilation 1. */
static inline int net_conv(struct bp_graph *graph, int from, struct bp_conv_config c)
{
    c.axes = c.axes ? c.axes : 2;
    c.groups = c.groups ? c.groups : 1;
    for (int i = 0; i < 2; i++) {
        c.stride[i] = c.stride[i] ? c.stride[i] : 1;
        c.dilation[i] = c.dilation[i] ? c.dilation[i] : 1;
    }
    return net_add(graph, (struct bp_node){.kind = BP_OP_CONV, .trainable = true, .u.conv = c}, from);
}

static inline int net_pool(struct bp_graph *graph, int from, struct bp_pool_config c)
{
    return net_add(graph, (struct bp_node){.kind = BP_OP_POOL, .u.pool = c}, from);
}

static inline int net_reshape(struct bp_graph *graph, int from, struct bp_shape shape)
{
    return net_add(graph, (struct bp_node){.kind = BP_OP_RESHAPE, .u.reshape = shape}, from);
}

static inline int net_embedding(struct bp_graph *graph, int from, int64_t input_dim, int64_t output_dim)
{
    return net_add(graph,
                   (struct bp_node){.kind = BP_OP_EMBEDDING,
                                    .trainable = true,
                                    .u.embedding = {.input_dim = input_dim, .output_dim = output_dim}},
                   from);
}

static inline void net_head(struct bp_graph *graph, int node, enum bp_loss loss, double weight)
{
    struct bp_error err = {0};
    if (bp_graph_add_head(graph, node, loss, weight, &err) != BP_OK)
        fail_msg("%s", err.message);
}

/* Random choices: a function of the seed and the number of throws. */
struct net_dice {
    uint64_t seed, throws;
};

static inline int net_throw(struct net_dice *dice, int sides)
{
    uint32_t w[4];
    bp_random(dice->seed, 99, 0, dice->throws++, w);
    return (int)bp_random_below(w[0], w[1], (uint64_t)sides);
}

/* A random network: chains, forks, unused and frozen layers, several losses; layers of at most `units`. */
static inline struct bp_graph *net_random(struct net_dice *dice, int units)
{
    struct bp_graph *graph = net_new(2, 1 + net_throw(dice, 5), 1 + net_throw(dice, 4), 0);
    int layers = 2 + net_throw(dice, 14);
    net_flatten(graph, 0);
    for (int i = 0; i < layers; i++) {
        int from = 1 + net_throw(dice, graph->nnodes - 1); /* any earlier vector: forks are common */
        from = net_throw(dice, 3) ? graph->nnodes - 1 : from;
        struct bp_node dense = {
            .kind = BP_OP_DENSE,
            .trainable = net_throw(dice, 4) != 0,
            .u.dense = {.units = 1 + net_throw(dice, units), .use_bias = net_throw(dice, 3) != 0}};
        switch (net_throw(dice, 5)) {
        case 0:
            net_flatten(graph, from);
            break;
        case 1:
            net_dropout(graph, from, 0.1 * net_throw(dice, 8));
            break;
        case 2:
        case 3:
            net_act(graph, from, (enum bp_activation)net_throw(dice, BP_ACTIVATION_COUNT), 0.2);
            break;
        default:
            net_add(graph, dense, from);
        }
    }
    net_head(graph, graph->nnodes - 1, BP_LOSS_MSE, 1);
    for (int heads = net_throw(dice, 4); heads > 0; heads--) {
        int node = 1 + net_throw(dice, graph->nnodes - 1);
        enum bp_loss loss = (enum bp_loss)net_throw(dice, BP_LOSS_COUNT);
        if (bp_loss_takes_labels(loss) && graph->nodes[node].shape.dim[0] < 2)
            loss = BP_LOSS_BCE;
        net_head(graph, node, loss, 0.25 * (1 + net_throw(dice, 4)));
    }
    return graph;
}

/* A node with two inputs. */
static inline int net_join(struct bp_graph *graph, struct bp_node node, int a, int b)
{
    struct bp_error err = {0};
    int index = -1;
    snprintf(node.name, sizeof node.name, "n%d", graph->nnodes);
    node.ninputs = 2;
    node.input[0] = a;
    node.input[1] = b;
    if (bp_graph_add(graph, &node, &index, &err) != BP_OK)
        fail_msg("%s", err.message);
    return index;
}

/* A random network of vectors with normalization and joins, in which rows meet: forks everywhere, since a join reads
 * any two earlier layers that fit. */
static inline struct bp_graph *net_random_joined(struct net_dice *dice, int units)
{
    struct bp_graph *graph = net_new(1, 1 + net_throw(dice, 9), 0, 0);
    int layers = 4 + net_throw(dice, 16);
    for (int i = 0; i < layers; i++) {
        int last = graph->nnodes - 1, other = net_throw(dice, graph->nnodes);
        int from = net_throw(dice, 3) ? last : other;
        bool learns = net_throw(dice, 4) != 0,
             alike = bp_shape_equal(&graph->nodes[from].shape, &graph->nodes[other].shape);
        struct bp_node norm = {.trainable = learns,
                               .u.norm = {.eps = 1e-2, .momentum = 0.1, .groups = 1, .affine = net_throw(dice, 3)}};
        switch (net_throw(dice, 8)) {
        case 0:
        case 1:
            norm.kind = net_throw(dice, 3) ? BP_OP_BATCH_NORM : BP_OP_GROUP_NORM;
            net_add(graph, norm, from);
            break;
        case 2:
            norm.kind = BP_OP_LAYER_NORM;
            net_add(graph, norm, from);
            break;
        case 3:
            net_join(graph, (struct bp_node){.kind = net_throw(dice, 3) ? BP_OP_ADD : BP_OP_MULTIPLY}, from,
                     alike ? other : from);
            break;
        case 4:
            if (graph->nodes[from].shape.dim[0] + graph->nodes[other].shape.dim[0] <= 2 * units)
                net_join(graph, (struct bp_node){.kind = BP_OP_CONCAT, .u.concat = {BP_AXIS_CHANNELS}}, from, other);
            break;
        case 5:
            net_act(graph, from, net_throw(dice, 2) ? BP_TANH : BP_SOFTSIGN, 0);
            break;
        default:
            net_add(graph,
                    (struct bp_node){.kind = BP_OP_DENSE,
                                     .trainable = learns,
                                     .u.dense = {.units = 1 + net_throw(dice, units), .use_bias = true}},
                    from);
        }
    }
    net_head(graph, net_dense(graph, graph->nnodes - 1, 3), BP_LOSS_CROSS_ENTROPY, 1);
    if (net_throw(dice, 2))
        net_head(graph, net_act(graph, net_throw(dice, graph->nnodes), BP_TANH, 0), BP_LOSS_MSE, 0.5);
    return graph;
}

#endif
