/* shape.c: ops that compute nothing: the input of the network, flatten and reshape.
 *
 * Flatten and reshape are views: their value is their input's memory, and so is their gradient; the plan never gives
 * them an instruction.
 *
 * Threads: pure functions.
 */
#include "ops/op.h"

static bp_status infer_input(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    if (graph->nnodes != 0)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (input): a network has one input, and it has it already", node->name);
    return BP_OK; /* bp_graph_new has set the shape */
}

static bp_status infer_flatten(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    (void)err;
    node->shape = (struct bp_shape){.rank = 1, .dim = {bp_shape_elements(bp_input_shape(graph, node, 0))}};
    return BP_OK;
}

static bp_status infer_reshape(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0), *to = &node->u.reshape;
    int64_t elements = bp_shape_elements(in), left = elements;
    char from[64], text[64];
    bool fits = to->rank >= 0 && to->rank <= BP_RANK_MAX;
    for (int i = 0; fits && i < to->rank; i++) { /* dimension by dimension, so that no product overflows */
        fits = to->dim[i] >= 1 && left % to->dim[i] == 0;
        left = fits ? left / to->dim[i] : left;
    }
    if (!fits || left != 1)
        return bp_fail_at(
            err, BP_INVALID, node->name,
            "layer '%s' (reshape): %s has %lld elements, which do not make the shape %s: the product of "
            "its dimensions must be %lld",
            node->name, bp_shape_print(in, from, sizeof from), (long long)elements,
            to->rank >= 0 && to->rank <= BP_RANK_MAX ? bp_shape_print(to, text, sizeof text) : "asked for",
            (long long)elements);
    node->shape = *to;
    return BP_OK;
}

const struct bp_op bp_op_input = {
    .name = "input",
    .min_inputs = 0,
    .max_inputs = 0,
    .infer = infer_input,
};

const struct bp_op bp_op_flatten = {
    .name = "flatten",
    .min_inputs = 1,
    .max_inputs = 1,
    .view = true,
    .infer = infer_flatten,
};

const struct bp_op bp_op_reshape = {
    .name = "reshape",
    .min_inputs = 1,
    .max_inputs = 1,
    .view = true,
    .infer = infer_reshape,
};
