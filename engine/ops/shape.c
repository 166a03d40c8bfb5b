/* shape.c: ops that compute nothing: the input of the network, and flatten.
 *
 * Flatten is a view: its value is its input's memory, and so is its gradient; the plan never gives it an instruction.
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
