/* embedding.c: a learned vector for each category.
 *
 *   forward     y[i] = W[code i]                        x (n) codes, W (input_dim, output_dim), y (n, output_dim)
 *   backward    dx = 0: a code is a name, not a quantity
 *   parameters  dW[c] = sum of dy[i] over the places i whose code is c, in the order of rows and places
 *
 * A code is a whole number from 0; anything else (a fraction, a code of no row, NaN for a missing one) gives zeros and
 * has no gradient. The first two phases are row-local. The gradient is a grid over ranges of W's rows: each task looks
 * at all codes of the batch and adds the rows that are its own.
 *
 * Threads: pure functions of the call.
 */
#include "ops/op.h"

#include <stdio.h>
#include <string.h>

#define TASKS_MAX 16 /* each task reads all codes of a batch */

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_embedding_config *config = &node->u.embedding;
    char shape[64];

    if (in->rank > 1)
        return bp_fail_at(
            err, BP_INVALID, node->name,
            "layer '%s' (embedding) needs a vector of codes, but %s arrives: put a flatten layer before "
            "it",
            node->name, bp_shape_print(in, shape, sizeof shape));
    if (config->input_dim < 1 || config->output_dim < 1 || config->input_dim >= BP_ELEMENTS_MAX ||
        config->output_dim >= BP_ELEMENTS_MAX)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (embedding): input_dim and output_dim must be between 1 and %lld", node->name,
                          BP_ELEMENTS_MAX - 1);
    node->shape = (struct bp_shape){.rank = 2, .dim = {bp_shape_elements(in), config->output_dim}};
    struct bp_tensor weight = {.shape = {.rank = 2, .dim = {config->input_dim, config->output_dim}},
                               .trainable = node->trainable,
                               .decay = true,
                               .fan_in = config->input_dim,
                               .fan_out = config->output_dim,
                               .init = config->init,
                               .literal = config->weights};
    snprintf(weight.name, sizeof weight.name, "%s.weight", node->name);
    return bp_graph_add_tensor(graph, node, &weight, err);
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    (void)node;
    return phase == BP_PHASE_PARAMETERS ? BP_NEEDS_X : 0;
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    return phase == BP_PHASE_BACKWARD ? 0 : bp_shape_elements(&node->shape);
}

/* The row of W that a number names, or -1. */
static int64_t row_of(const struct bp_node *node, bp_real code)
{
    if (!(code >= 0 && code < (bp_real)node->u.embedding.input_dim))
        return -1;
    int64_t row = (int64_t)code;
    return (bp_real)row == code && row < node->u.embedding.input_dim ? row : -1;
}

static const bp_real *weight_of(const struct bp_call *call)
{
    return call->params + call->graph->tensors[call->node->tensor[0]].offset;
}

static void forward(const struct bp_call *call)
{
    size_t width = (size_t)call->node->u.embedding.output_dim;
    size_t places = (size_t)call->rows * (size_t)call->node->shape.dim[0];
    for (size_t i = 0; i < places; i++) {
        int64_t row = row_of(call->node, call->x[0][i]);
        if (row >= 0)
            memcpy(call->y + i * width, weight_of(call) + (size_t)row * width, width * sizeof *call->y);
        else
            memset(call->y + i * width, 0, width * sizeof *call->y);
    }
}

static void backward(const struct bp_call *call)
{
    size_t places = (size_t)call->rows * (size_t)call->node->shape.dim[0];
    if (call->dx[0] != NULL && !(call->add & 1))
        memset(call->dx[0], 0, places * sizeof *call->dx[0]);
}

/* Rows of W that a task does. */
static int64_t range_rows(const struct bp_node *node)
{
    return (node->u.embedding.input_dim + TASKS_MAX - 1) / TASKS_MAX;
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    int64_t rows = range_rows(node);
    return phase == BP_PHASE_PARAMETERS ? (int)((node->u.embedding.input_dim + rows - 1) / rows) : 0;
}

static void parameters(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    size_t width = (size_t)node->u.embedding.output_dim, places = (size_t)call->rows * (size_t)node->shape.dim[0];
    int64_t rows = range_rows(node), first = call->task * rows, end = first + rows;
    bp_real *dw = call->grads + call->graph->tensors[node->tensor[0]].offset;
    end = end < node->u.embedding.input_dim ? end : node->u.embedding.input_dim;
    memset(dw + (size_t)first * width, 0, (size_t)(end - first) * width * sizeof *dw);
    for (size_t i = 0; i < places; i++) {
        int64_t row = row_of(node, call->x[0][i]);
        if (row >= first && row < end)
            call->kernels->add(width, call->dy + i * width, dw + (size_t)row * width);
    }
}

const struct bp_op bp_op_embedding = {
    .name = "embedding",
    .min_inputs = 1,
    .max_inputs = 1,
    .infer = infer,
    .needs = needs,
    .grid = grid,
    .flops = flops,
    .forward = forward,
    .backward = backward,
    .parameters = parameters,
};
