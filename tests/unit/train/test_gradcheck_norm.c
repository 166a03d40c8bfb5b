/* The gradients of normalization, joins and attention against numerical differentiation, in double. */
#include "train/gradcheck.h"

#include "graph/nets.h"
#include "tally.h"

#include <math.h>

#define WORST 1e-6

/* Adds a node with several inputs; ends them with -1. */
static int join(struct bp_graph *graph, struct bp_node node, const int *from)
{
    struct bp_error err = {0};
    int index = -1;
    snprintf(node.name, sizeof node.name, "n%d", graph->nnodes);
    for (node.ninputs = 0; from[node.ninputs] >= 0; node.ninputs++)
        node.input[node.ninputs] = from[node.ninputs];
    if (bp_graph_add(graph, &node, &index, &err) != BP_OK)
        fail_msg("%s", err.message);
    return index;
}

#define JOIN(graph, op, ...) join(graph, (struct bp_node){.kind = op}, (const int[]){__VA_ARGS__, -1})

static int norm(struct bp_graph *graph, int from, enum bp_op_kind kind, int groups, bool affine)
{
    struct bp_node node = {.kind = kind,
                           .trainable = true,
                           .u.norm = {.eps = 1e-5, .momentum = 0.1, .groups = groups, .affine = affine}};
    return net_add(graph, node, from);
}

static int attention(struct bp_graph *graph, const int *from, struct bp_attention_config config)
{
    return join(graph, (struct bp_node){.kind = BP_OP_MULTI_HEAD_ATTENTION, .trainable = true, .u.attention = config},
                from);
}

/* A head on any shape. */
static void finish(struct bp_graph *graph, int node)
{
    net_head(graph, net_dense(graph, net_flatten(graph, node), 3), BP_LOSS_CROSS_ENTROPY, 1);
}

/* Checks up to so many elements of each tensor of a graph, spread over it, and frees the graph. */
static void check_some(struct bp_graph *graph, int rows, uint64_t seed, int64_t max_elements)
{
    struct bp_gradcheck_options options = {.seed = seed, .rows = rows, .max_elements = max_elements};
    struct bp_gradcheck_tensor tensors[96];
    struct bp_error err = {0};
    double backward, numeric;
    int64_t kinks = 0, checked = 0;
    int count = 0;

    if (bp_gradcheck(graph, &options, tensors, 96, &count, &backward, &numeric, &err) != BP_OK)
        fail_msg("%s", err.message);
    for (int i = 0; i < count; i++) {
        kinks += tensors[i].kinks;
        checked += tensors[i].checked;
        if (!(tensors[i].worst <= WORST))
            fail_msg("%s[%lld]: backpropagation says %.12g, differences say %.12g, error %g (rows %d, seed %d)",
                     tensors[i].name, (long long)tensors[i].element, tensors[i].analytic, tensors[i].numeric,
                     tensors[i].worst, rows, (int)seed);
    }
    /* There are none but at the relu of a mask; where two rows nearly agree, their difference curves too strongly. */
    if (kinks * 20 > checked)
        fail_msg("only %lld of %lld were compared (rows %d, seed %d)", (long long)checked,
                 (long long)(checked + kinks), rows, (int)seed);
    tally_add(tensors, count);
    bp_graph_free(graph);
}

static void check(struct bp_graph *graph, int rows, uint64_t seed)
{
    check_some(graph, rows, seed, 40);
}

static const int shapes[][4] = {
    /* rank and dimensions: vectors about the width of a tile, sequences, images of odd and of large planes */
    {1, 1, 0, 0},  {1, 5, 0, 0}, {1, 33, 0, 0}, {1, 67, 0, 0}, {2, 3, 5, 0},
    {2, 2, 17, 0}, {2, 1, 1, 0}, {3, 3, 2, 3},  {3, 4, 5, 5},  {3, 2, 17, 16},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct bp_graph *graph_of_shape(const int *s)
{
    return net_new(s[0], s[1], s[2], s[3]);
}

/* After a layer that learns, so that the error signal is sent on; and first of all, where nothing below wants it. */
static int body(struct bp_graph *graph, const int *s, bool below)
{
    int n = 0;
    if (below && s[0] == 1)
        n = net_dense(graph, 0, s[1]);
    return n;
}

static void batch_norm_of_all_shapes(void **state)
{
    static const int rows[] = {2, 3, 7};
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (int affine = 0; affine < 2; affine++) {
                struct bp_graph *graph = graph_of_shape(shapes[i]);
                int n = norm(graph, body(graph, shapes[i], r > 0), BP_OP_BATCH_NORM, 0, affine);
                finish(graph, net_act(graph, n, BP_TANH, 0));
                check(graph, rows[r], (uint64_t)(i * 16 + (int)r));
            }
}

static void batch_norm_over_several_chunks(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    finish(graph, net_act(graph, norm(graph, net_dense(graph, 0, 4), BP_OP_BATCH_NORM, 0, true), BP_GELU, 0));
    check(graph, 300, 1);
    graph = net_new(3, 2, 3, 1);
    finish(graph, net_act(graph, norm(graph, 0, BP_OP_BATCH_NORM, 0, true), BP_GELU, 0));
    check(graph, 130, 2);
}

/* One row: the variance is 0 where a channel has one number. */
static void batch_norm_of_one_row(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        struct bp_graph *graph = graph_of_shape(shapes[i]);
        if (shapes[i][0] == 1) {
            int n = norm(graph, 0, BP_OP_BATCH_NORM, 0, true);
            net_head(graph, net_dense(graph, n, 3), BP_LOSS_CROSS_ENTROPY, 1);
        } else {
            finish(graph, net_act(graph, norm(graph, 0, BP_OP_BATCH_NORM, 0, true), BP_SIGMOID, 0));
        }
        check(graph, 1, (uint64_t)i);
    }
}

static void batch_norm_frozen(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        for (int affine = 0; affine < 2; affine++) {
            struct bp_graph *graph = graph_of_shape(shapes[i]);
            struct bp_node node = {.kind = BP_OP_BATCH_NORM,
                                   .u.norm = {.eps = 1e-3, .momentum = 0.1, .affine = affine}};
            int n = net_add(graph, node, body(graph, shapes[i], true));
            finish(graph, net_act(graph, n, BP_TANH, 0));
            check(graph, 3, (uint64_t)i);
        }
}

static void batch_norm_in_a_deep_net_with_forks(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 6, 0, 0);
    int trunk = norm(graph, net_dense(graph, 0, 9), BP_OP_BATCH_NORM, 0, true);
    int left = net_act(graph, trunk, BP_TANH, 0), right = norm(graph, trunk, BP_OP_BATCH_NORM, 0, false);
    int sum = JOIN(graph, BP_OP_ADD, left, right, trunk);
    net_head(graph, net_dense(graph, net_dropout(graph, sum, 0.3), 4), BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, trunk, BP_LOSS_MSE, 0.3);
    check(graph, 8, 5);
}

static void layer_norm_of_all_shapes(void **state)
{
    static const int rows[] = {1, 4, 130};
    (void)state;
    for (int i = 1; i < SHAPES; i++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            struct bp_graph *graph = graph_of_shape(shapes[i]);
            int64_t elements = bp_shape_elements(&graph->nodes[0].shape);
            if (rows[r] * elements > 2000 || elements < 2 || (shapes[i][0] == 2 && shapes[i][2] < 2)) {
                bp_graph_free(graph);
                continue;
            }
            int n = norm(graph, body(graph, shapes[i], true), BP_OP_LAYER_NORM, 0, r != 1);
            finish(graph, net_act(graph, n, BP_TANH, 0));
            check(graph, rows[r], (uint64_t)i);
        }
}

static void group_norm_of_all_groups(void **state)
{
    static const int cases[][5] = {/* rank, channels, extents, groups */
                                   {1, 12, 0, 0, 3}, {1, 70, 0, 0, 2}, {1, 6, 0, 0, 1}, {2, 4, 5, 0, 2},
                                   {2, 6, 17, 0, 3}, {3, 4, 3, 3, 4},  {3, 6, 2, 5, 2}, {3, 2, 16, 17, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int affine = 0; affine < 2; affine++) {
            struct bp_graph *graph = graph_of_shape(cases[i]);
            int n = norm(graph, body(graph, cases[i], true), BP_OP_GROUP_NORM, cases[i][4], affine);
            finish(graph, net_act(graph, n, BP_TANH, 0));
            check(graph, affine ? 2 : 3, i);
        }
    struct bp_graph *graph = net_new(2, 2, 2, 0); /* several chunks of rows */
    finish(graph, norm(graph, 0, BP_OP_GROUP_NORM, 1, true));
    check(graph, 140, 3);
}

/* Joins of two and of many, of a layer with itself, with the network's input, and with forks between. */
static void joins(void **state)
{
    (void)state;
    for (int op = BP_OP_ADD; op <= BP_OP_MULTIPLY; op++) {
        struct bp_graph *graph = net_new(1, 7, 0, 0);
        int a = net_dense(graph, 0, 7), b = net_act(graph, a, BP_TANH, 0), c = net_dense(graph, b, 7);
        int n = JOIN(graph, (enum bp_op_kind)op, a, b, c, 0);
        n = JOIN(graph, (enum bp_op_kind)op, n, n);
        n = JOIN(graph, (enum bp_op_kind)op, n, a);
        finish(graph, net_act(graph, n, BP_TANH, 0));
        check(graph, 5, (uint64_t)op);

        graph = net_new(1, 3, 0, 0);
        int from[BP_NODE_INPUTS_MAX + 1];
        for (int i = 0; i < BP_NODE_INPUTS_MAX; i++)
            from[i] = net_act(graph, net_dense(graph, 0, 5), BP_SIGMOID, 0);
        from[BP_NODE_INPUTS_MAX] = -1;
        finish(graph, join(graph, (struct bp_node){.kind = (enum bp_op_kind)op}, from));
        check(graph, 3, (uint64_t)op);
    }
}

static int concat(struct bp_graph *graph, int axis, const int *from)
{
    return join(graph, (struct bp_node){.kind = BP_OP_CONCAT, .u.concat = {axis}}, from);
}

static void concats(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 6, 0, 0);
    int a = net_dense(graph, 0, 3), b = net_dense(graph, a, 17), c = net_act(graph, a, BP_TANH, 0);
    int n = concat(graph, BP_AXIS_CHANNELS, (const int[]){a, b, 0, c, b, -1});
    assert_int_equal(graph->nodes[n].shape.dim[0], 3 + 17 + 6 + 3 + 17);
    finish(graph, net_act(graph, n, BP_TANH, 0));
    check(graph, 4, 1);
    for (int axis = -3; axis < 3; axis++) { /* of an image, with itself normalized */
        graph = net_new(3, 2, 3, 4);
        a = norm(graph, 0, BP_OP_BATCH_NORM, 0, true);
        b = norm(graph, a, BP_OP_LAYER_NORM, 0, true);
        n = concat(graph, axis, (const int[]){a, b, a, 0, -1});
        int64_t extent = (axis + 3) % 3 + 2;
        assert_int_equal(graph->nodes[n].shape.dim[(axis + 3) % 3], 4 * extent);
        finish(graph, n);
        check(graph, 3, (uint64_t)(axis + 3));
    }
    graph = net_new(2, 5, 3, 0); /* the features of a sequence */
    a = norm(graph, 0, BP_OP_LAYER_NORM, 0, true);
    n = concat(graph, BP_AXIS_CHANNELS, (const int[]){a, 0, -1});
    assert_int_equal(graph->nodes[n].shape.dim[1], 6);
    finish(graph, n);
    check(graph, 3, 9);
}

static void attention_of_all_kinds(void **state)
{
    static const struct {
        int steps, features, rows;
        struct bp_attention_config config;
    } cases[] = {
        {5, 6, 3, {.heads = 2}},
        {1, 4, 2, {.heads = 4}},
        {17, 4, 2, {.heads = 1}},
        {4, 3, 1, {.heads = 2, .key_dim = 5}},
        {6, 8, 3, {.heads = 2, .causal = true}},
        {7, 6, 4, {.heads = 3, .dropout = 0.3}},
        {9, 4, 3, {.heads = 2, .key_dim = 3, .causal = true, .dropout = 0.5}},
        {3, 2, 100, {.heads = 1, .causal = true}}, /* several chunks */
        {130, 1, 2, {.heads = 1}},                 /* a chunk is one sample */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int below = 0; below < 2; below++) {
            struct bp_graph *graph = net_new(2, cases[i].steps, cases[i].features, 0);
            if (below && cases[i].features < 2) {
                bp_graph_free(graph);
                continue;
            }
            int x = below ? norm(graph, 0, BP_OP_LAYER_NORM, 0, true) : 0;
            int n = attention(graph, (const int[]){x, -1}, cases[i].config);
            n = below ? JOIN(graph, BP_OP_ADD, n, x) : n;
            finish(graph, net_act(graph, n, BP_TANH, 0));
            check(graph, cases[i].rows, i);
        }
}

/* A tile of a weight is 128 wide: more than one of it. */
static void wide_attention(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(2, 3, 5, 0);
    struct bp_gradcheck_options options = {.seed = 1, .rows = 3, .max_elements = 40};
    struct bp_gradcheck_tensor tensors[16];
    double backward, numeric;
    int count = 0;
    finish(graph, attention(graph, (const int[]){0, -1}, (struct bp_attention_config){.heads = 3, .key_dim = 50}));
    assert_int_equal(bp_gradcheck(graph, &options, tensors, 16, &count, &backward, &numeric, NULL), BP_OK);
    for (int i = 0; i < count; i++)
        assert_true(tensors[i].worst <= WORST);
    tally_add(tensors, count);
    bp_graph_free(graph);
}

/* A mask computed from the input: relu of a difference is 0 for some steps of some rows. */
static void attention_with_a_mask(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        struct bp_graph *graph = net_new(2, 6, 2, 0);
        int flat = net_flatten(graph, 0);
        int x = norm(graph, 0, BP_OP_LAYER_NORM, 0, true);
        int mask = net_act(graph, net_dense(graph, flat, 6), BP_RELU, 0);
        int n =
            attention(graph, (const int[]){x, mask, -1}, (struct bp_attention_config){.heads = 2, .causal = causal});
        finish(graph, n);
        check(graph, 5, (uint64_t)causal);
    }
}

static void random_networks(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct net_dice dice = {.seed = 1000 + seed};
        check_some(net_random_joined(&dice, 7), 5, seed, 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_norm_of_all_shapes),
        cmocka_unit_test(batch_norm_over_several_chunks),
        cmocka_unit_test(batch_norm_of_one_row),
        cmocka_unit_test(batch_norm_frozen),
        cmocka_unit_test(batch_norm_in_a_deep_net_with_forks),
        cmocka_unit_test(layer_norm_of_all_shapes),
        cmocka_unit_test(group_norm_of_all_groups),
        cmocka_unit_test(joins),
        cmocka_unit_test(concats),
        cmocka_unit_test(attention_of_all_kinds),
        cmocka_unit_test(wide_attention),
        cmocka_unit_test(attention_with_a_mask),
        cmocka_unit_test(random_networks),
    };
    return tally_print(cmocka_run_group_tests(tests, NULL, NULL));
}
