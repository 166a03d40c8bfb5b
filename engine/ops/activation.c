/* activation.c: nonlinearities.
 *
 *   forward   y = f(x), element by element; softmax and log_softmax along the row
 *   backward  dx = dy f'(x): the error signal times the slope at the point where the forward pass was; for softmax
 *             the product with the Jacobian, y (dy - <y, dy>)
 *
 * Many slopes are functions of the value y alone; then the forward pass may run in place. The relu of an image or a
 * sequence keeps a bit an element instead of y: pools and sums do not need y either, and it is the largest of all values
 * of such a network, so that writing it to memory and reading it again costs more than computing it.
 *
 * After a product they are part of its last store (op.h: epilogues), and these phases do not run.
 *
 * Threads: pure functions of the call.
 */
#include "ops/op.h"

#include <math.h>

/* What the slope of each activation is computed from, as kernels->activation_gradient does. */
static const unsigned needs_of[BP_ACTIVATION_COUNT] = {
    [BP_LINEAR] = 0,
    [BP_RELU] = BP_NEEDS_Y,
    [BP_LEAKY_RELU] = BP_NEEDS_X,
    [BP_ELU] = BP_NEEDS_X | BP_NEEDS_Y,
    [BP_SELU] = BP_NEEDS_X | BP_NEEDS_Y,
    [BP_GELU] = BP_NEEDS_X,
    [BP_SILU] = BP_NEEDS_X,
    [BP_MISH] = BP_NEEDS_X,
    [BP_SIGMOID] = BP_NEEDS_Y,
    [BP_TANH] = BP_NEEDS_Y,
    [BP_SOFTPLUS] = BP_NEEDS_X,
    [BP_SOFTSIGN] = BP_NEEDS_X,
    [BP_HARD_SIGMOID] = BP_NEEDS_X,
    [BP_RELU6] = BP_NEEDS_X,
    [BP_SOFTMAX] = BP_NEEDS_Y,
    [BP_LOG_SOFTMAX] = BP_NEEDS_Y,
};

static bool keeps_bits(const struct bp_node *node)
{
    return node->u.activation.kind == BP_RELU && node->shape.rank > 1;
}

static bool along_rows(enum bp_activation kind)
{
    return kind == BP_SOFTMAX || kind == BP_LOG_SOFTMAX;
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_activation_config *config = &node->u.activation;
    char shape[64];

    if ((unsigned)config->kind >= BP_ACTIVATION_COUNT)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (activation): there is no activation number %d",
                          node->name, (int)config->kind);
    if (!isfinite(config->alpha))
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (activation): alpha must be a finite number",
                          node->name);
    if (along_rows(config->kind) && in->rank != 1)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (%s) needs a vector, but %s arrives: put a flatten layer before it", node->name,
                          bp_activation_name(config->kind), bp_shape_print(in, shape, sizeof shape));
    node->shape = *in;
    return BP_OK;
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    return phase == BP_PHASE_BACKWARD && !keeps_bits(node) ? needs_of[node->u.activation.kind] : 0;
}

static enum bp_by_columns by_columns(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase,
                                     int rows)
{
    (void)graph, (void)phase, (void)rows;
    return along_rows(node->u.activation.kind) || keeps_bits(node) ? BP_COLUMNS_NEVER : BP_COLUMNS_JOIN;
}

static bool in_place(const struct bp_node *node, enum bp_phase phase)
{
    return phase == BP_PHASE_FORWARD || (phase == BP_PHASE_BACKWARD && !along_rows(node->u.activation.kind));
}

static bool epilogue(const struct bp_node *node, struct bp_epilogue *ret)
{
    const struct bp_activation_config *config = &node->u.activation;
    *ret = (struct bp_epilogue){.kind = config->kind, .alpha = (bp_real)config->alpha};
    return config->kind != BP_LINEAR && !along_rows(config->kind) && !keeps_bits(node);
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    return phase == BP_PHASE_PARAMETERS ? 0 : bp_shape_elements(&node->shape);
}

/* Elements of the workspace for the bits of a row, words of 16. */
static size_t bits_row(const struct bp_node *node)
{
    size_t bytes = (size_t)((bp_shape_elements(&node->shape) + 15) / 16) * sizeof(uint16_t);
    return (bytes + sizeof(bp_real) - 1) / sizeof(bp_real);
}

static struct bp_extent workspace(const struct bp_graph *graph, const struct bp_node *node)
{
    (void)graph;
    return (struct bp_extent){.row = keeps_bits(node) ? bits_row(node) : 0};
}

static void relu(const struct bp_call *call, size_t n, bool backward)
{
    size_t bits = bits_row(call->node);
    for (size_t r = 0, at = 0; r < (size_t)call->rows; r++, at += n) {
        uint16_t *closed = (uint16_t *)(call->workspace + r * bits);
        if (backward)
            call->kernels->relu_gradient(n, closed, call->dy + at, call->dx[0] + at, call->add & 1);
        else
            call->kernels->relu(n, call->x[0] + at, call->y + at, closed);
    }
}

static void forward(const struct bp_call *call)
{
    const struct bp_activation_config *config = &call->node->u.activation;
    int n = (int)bp_shape_elements(&call->node->shape);
    if (keeps_bits(call->node))
        relu(call, (size_t)n, false);
    else if (along_rows(config->kind))
        call->kernels->softmax(config->kind == BP_LOG_SOFTMAX, call->rows, n, call->x[0], call->y);
    else {
        struct bp_runs runs = bp_call_runs(call, (size_t)n);
        for (size_t r = 0, at = runs.first; r < runs.count; r++, at += runs.row)
            call->kernels->activation(config->kind, (bp_real)config->alpha, runs.length, call->x[0] + at,
                                      call->y + at);
    }
}

static void backward(const struct bp_call *call)
{
    const struct bp_activation_config *config = &call->node->u.activation;
    int n = (int)bp_shape_elements(&call->node->shape);
    bool add = call->add & 1;
    if (keeps_bits(call->node))
        relu(call, (size_t)n, true);
    else if (along_rows(config->kind))
        call->kernels->softmax_gradient(config->kind == BP_LOG_SOFTMAX, call->rows, n, call->y, call->dy, call->dx[0],
                                        add);
    else {
        struct bp_runs runs = bp_call_runs(call, (size_t)n);
        for (size_t r = 0, at = runs.first; r < runs.count; r++, at += runs.row)
            call->kernels->activation_gradient(config->kind, (bp_real)config->alpha, runs.length, call->x[0] + at,
                                               call->y + at, call->dy + at, call->dx[0] + at, add);
    }
}

const struct bp_op bp_op_activation = {
    .name = "activation",
    .min_inputs = 1,
    .max_inputs = 1,
    .infer = infer,
    .in_place = in_place,
    .by_columns = by_columns,
    .epilogue = epilogue,
    .needs = needs,
    .workspace = workspace,
    .flops = flops,
    .forward = forward,
    .backward = backward,
};
