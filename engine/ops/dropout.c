/* dropout.c: in training, each element is zeroed with probability `rate`, and the others are divided by 1 - rate.
 *
 *   forward   y = m x,  m = 0 or 1 / (1 - rate)
 *   backward  dx = m dy
 *
 * The mask is a function of (seed, node, step, row and column), so the backward pass computes it again instead of
 * storing it, and a row is masked alike wherever the batch is cut. In prediction mode everything passes.
 *
 * Threads: pure functions of the call.
 */
#include "base/random.h"
#include "ops/op.h"

#include <string.h>

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    double rate = node->u.dropout.rate;
    if (!(rate >= 0 && rate < 1) || !((float)rate < 1))
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (dropout): rate must be at least 0 and below 1, got %g", node->name, rate);
    node->shape = *bp_input_shape(graph, node, 0);
    return BP_OK;
}

static bool in_place(const struct bp_node *node, enum bp_phase phase)
{
    (void)node;
    return phase != BP_PHASE_PARAMETERS;
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    return phase == BP_PHASE_PARAMETERS ? 0 : bp_shape_elements(&node->shape);
}

static enum bp_by_columns by_columns(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase,
                                     int rows)
{
    (void)graph, (void)node, (void)phase, (void)rows;
    return BP_COLUMNS_JOIN;
}

static void mask(const struct bp_call *call, const bp_real *from, bp_real *to, bool add)
{
    size_t n = (size_t)bp_shape_elements(&call->node->shape);
    struct bp_runs runs = bp_call_runs(call, n);
    for (size_t r = 0, at = runs.first; r < runs.count; r++, at += runs.row)
        call->kernels->dropout(runs.length, from + at, to + at, call->seed,
                               bp_stream(BP_STREAM_DROPOUT, (uint32_t)call->index), call->step,
                               (uint64_t)call->row0 * n + at, (float)call->node->u.dropout.rate, add);
}

static void forward(const struct bp_call *call)
{
    struct bp_runs runs = bp_call_runs(call, (size_t)bp_shape_elements(&call->node->shape));
    if (call->training)
        mask(call, call->x[0], call->y, false);
    else if (call->y != call->x[0])
        for (size_t r = 0, at = runs.first; r < runs.count; r++, at += runs.row)
            memcpy(call->y + at, call->x[0] + at, runs.length * sizeof *call->y);
}

static void backward(const struct bp_call *call)
{
    mask(call, call->dy, call->dx[0], call->add & 1);
}

const struct bp_op bp_op_dropout = {
    .name = "dropout",
    .min_inputs = 1,
    .max_inputs = 1,
    .infer = infer,
    .in_place = in_place,
    .by_columns = by_columns,
    .flops = flops,
    .forward = forward,
    .backward = backward,
};
