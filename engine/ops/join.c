/* join.c: where branches of a network meet: add, multiply, concat.
 *
 *   add       y = x_0 + x_1 + ...        dx_k = dy
 *   multiply  y = x_0 x_1 ...            dx_k = dy times the product of the other inputs
 *   concat    the inputs side by side    dx_k = its part of dy
 *
 * Sums and products run over the inputs in ascending order. All row-local. The same layer may be given twice: each
 * use sends its own contribution back.
 *
 * Threads: pure functions of the call.
 */
#include "ops/op.h"

#include <string.h>

static size_t elements_of(const struct bp_node *node)
{
    return (size_t)bp_shape_elements(&node->shape);
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    return phase == BP_PHASE_PARAMETERS ? 0 : node->ninputs * bp_shape_elements(&node->shape);
}

static bp_status differs(const struct bp_graph *graph, const struct bp_node *node, int k, const char *rule,
                         struct bp_error *err)
{
    char first[64], other[64];
    return bp_fail_at(
        err, BP_INVALID, node->name,
        "layer '%s' (%s) joins inputs %s: '%s' gives %s, but '%s' gives %s; bring them to one shape with "
        "a layer between",
        node->name, bp_op_table[node->kind]->name, rule, graph->nodes[node->input[0]].name,
        bp_shape_print(bp_input_shape(graph, node, 0), first, sizeof first), graph->nodes[node->input[k]].name,
        bp_shape_print(bp_input_shape(graph, node, k), other, sizeof other));
}

/* dst = src, or dst += src. */
static void put(const struct bp_call *call, size_t n, const bp_real *src, bp_real *dst, bool add)
{
    if (add)
        call->kernels->add(n, src, dst);
    else
        memcpy(dst, src, n * sizeof *dst);
}

/* --- add and multiply -------------------------------------------------------------------------------------------- */

static bp_status infer_same(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    node->shape = *bp_input_shape(graph, node, 0);
    for (int k = 1; k < node->ninputs; k++)
        if (!bp_shape_equal(&node->shape, bp_input_shape(graph, node, k)))
            return differs(graph, node, k, "of the same shape", err);
    return BP_OK;
}

static void forward_add(const struct bp_call *call)
{
    size_t n = (size_t)call->rows * elements_of(call->node);
    for (int k = 0; k < call->node->ninputs; k++)
        put(call, n, call->x[k], call->y, k > 0);
}

static void backward_add(const struct bp_call *call)
{
    size_t n = (size_t)call->rows * elements_of(call->node);
    for (int k = 0; k < call->node->ninputs; k++)
        if (call->dx[k] != NULL)
            put(call, n, call->dy, call->dx[k], call->add & 1u << k);
}

static unsigned needs_x(const struct bp_node *node, enum bp_phase phase)
{
    (void)node, (void)phase;
    return BP_NEEDS_X;
}

static void forward_multiply(const struct bp_call *call)
{
    size_t n = (size_t)call->rows * elements_of(call->node);
    call->kernels->multiply(n, call->x[0], call->x[1], call->y, false);
    for (int k = 2; k < call->node->ninputs; k++)
        call->kernels->multiply(n, call->y, call->x[k], call->y, false);
}

/* The product of the others, where there are more than one. */
static size_t scratch_multiply(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase,
                               int rows)
{
    (void)graph;
    return phase == BP_PHASE_BACKWARD && node->ninputs > 2 ? (size_t)rows * elements_of(node) : 0;
}

static void backward_multiply(const struct bp_call *call)
{
    size_t n = (size_t)call->rows * elements_of(call->node);
    for (int k = 0; k < call->node->ninputs; k++) {
        const bp_real *others = NULL;
        if (call->dx[k] == NULL)
            continue;
        for (int j = 0; j < call->node->ninputs; j++) {
            if (j == k)
                continue;
            if (others != NULL)
                call->kernels->multiply(n, others, call->x[j], call->scratch, false);
            others = others != NULL ? call->scratch : call->x[j];
        }
        call->kernels->multiply(n, call->dy, others, call->dx[k], call->add & 1u << k);
    }
}

/* --- concat ------------------------------------------------------------------------------------------------------ */

/* The axis counted from 0: by default the channels, which come first, or the features of a sequence, which come last. */
static int axis_of(const struct bp_node *node, int rank)
{
    int axis = node->u.concat.axis;
    if (axis == BP_AXIS_CHANNELS)
        return rank == 2 ? 1 : 0;
    return axis < 0 ? axis + rank : axis;
}

static bp_status infer_concat(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    struct bp_shape shape = *bp_input_shape(graph, node, 0);
    int axis = axis_of(node, shape.rank);
    char text[64];

    if (axis < 0 || axis >= shape.rank)
        return bp_fail_at(
            err, BP_INVALID, node->name,
            "layer '%s' (concat): there is no axis %d in %s; a sample's axes are numbered from 0, or from "
            "the end with -1, -2, ...",
            node->name, node->u.concat.axis, bp_shape_print(&shape, text, sizeof text));
    for (int k = 1; k < node->ninputs; k++) {
        struct bp_shape other = *bp_input_shape(graph, node, k);
        int64_t extent = axis < other.rank ? other.dim[axis] : 0;
        if (extent > 0)
            other.dim[axis] = shape.dim[axis];
        if (!bp_shape_equal(&shape, &other))
            return differs(graph, node, k, "that differ along the joined axis only", err);
        if (extent >= BP_ELEMENTS_MAX - shape.dim[axis])
            return bp_fail_at(err, BP_LIMIT, node->name, "layer '%s' (concat): its value has too many elements",
                              node->name);
        shape.dim[axis] += extent;
    }
    node->shape = shape;
    return BP_OK;
}

/* Of input k, how many elements lie together in a row of the result; *ret_outer is how many times. */
static size_t run_of(const struct bp_call *call, int k, size_t *ret_outer)
{
    const struct bp_shape *shape = bp_input_shape(call->graph, call->node, k);
    size_t outer = 1;
    for (int d = 0; d < axis_of(call->node, shape->rank); d++)
        outer *= (size_t)shape->dim[d];
    *ret_outer = outer;
    return (size_t)bp_shape_elements(shape) / outer;
}

static void forward_concat(const struct bp_call *call)
{
    size_t before = 0, outer, whole = elements_of(call->node);
    for (int k = 0; k < call->node->ninputs; k++) {
        size_t run = run_of(call, k, &outer), step = whole / outer;
        for (size_t i = 0; i < (size_t)call->rows * outer; i++)
            memcpy(call->y + i * step + before, call->x[k] + i * run, run * sizeof *call->y);
        before += run;
    }
}

static void backward_concat(const struct bp_call *call)
{
    size_t before = 0, outer, whole = elements_of(call->node);
    for (int k = 0; k < call->node->ninputs; k++) {
        size_t run = run_of(call, k, &outer), step = whole / outer;
        for (size_t i = 0; call->dx[k] != NULL && i < (size_t)call->rows * outer; i++)
            put(call, run, call->dy + i * step + before, call->dx[k] + i * run, call->add & 1u << k);
        before += run;
    }
}

const struct bp_op bp_op_add = {
    .name = "add",
    .min_inputs = 2,
    .max_inputs = BP_NODE_INPUTS_MAX,
    .infer = infer_same,
    .flops = flops,
    .forward = forward_add,
    .backward = backward_add,
};

const struct bp_op bp_op_multiply = {
    .name = "multiply",
    .min_inputs = 2,
    .max_inputs = BP_NODE_INPUTS_MAX,
    .infer = infer_same,
    .needs = needs_x,
    .scratch = scratch_multiply,
    .flops = flops,
    .forward = forward_multiply,
    .backward = backward_multiply,
};

const struct bp_op bp_op_concat = {
    .name = "concat",
    .min_inputs = 2,
    .max_inputs = BP_NODE_INPUTS_MAX,
    .infer = infer_concat,
    .flops = flops,
    .forward = forward_concat,
    .backward = backward_concat,
};
