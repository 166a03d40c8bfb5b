/* pool.c: pooling over height and width.
 *
 *   max     y = the largest value of a window; what is outside the image is -inf. dx: dy goes to the value that won,
 *           the first one in reading order where several are equal
 *   avg     y = the sum of a window / its size; what is outside counts as 0 and in the size (as PyTorch's
 *           count_include_pad). dx: an equal share to each
 *   global  the mean of each channel, a vector; of images and of sequences (channels, length)
 *
 * Which value won is kept in the workspace as the number of its tap. Every element of dx belongs to its own row and
 * gets its contributions in the order of positions and taps.
 *
 * Threads: pure functions of the call; all phases are row-local.
 */
#include "ops/conv.h"

#include <stdio.h>

#define WINDOW_MAX 1048576 /* taps: their numbers are exact as floats */

static bool is_global(const struct bp_node *node)
{
    return node->u.pool.kind == BP_POOL_GLOBAL_AVG;
}

static bp_status check_axis(const struct bp_node *node, const struct bp_shape *in, int i, struct bp_error *err)
{
    static const char *const axis[] = {"height", "width"};
    const struct bp_pool_config *c = &node->u.pool;
    int64_t size = c->size[i], padded = in->dim[i + 1] + 2 * c->padding[i];
    char shape[64];
    if (size < 1 || size > WINDOW_MAX || c->stride[i] < 1 || c->stride[i] > WINDOW_MAX)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (%s): pool_size and strides must be between 1 and %d", node->name,
                          bp_node_type(node), WINDOW_MAX);
    if (c->padding[i] < 0 || c->padding[i] > size / 2)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (%s): padding must be between 0 and half of pool_size, %lld, got %lld",
                          node->name, bp_node_type(node), (long long)(size / 2), (long long)c->padding[i]);
    if (!c->same && size > padded)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (%s): its window of %lld is larger than the %s of %lld%s in %s that arrives, "
                          "nothing would be left: use a smaller pool_size, \"padding\": \"same\", or less pooling "
                          "before it",
                          node->name, bp_node_type(node), (long long)size, axis[i], (long long)padded,
                          c->padding[i] ? " (with padding)" : "", bp_shape_print(in, shape, sizeof shape));
    return BP_OK;
}

static struct bp_span span_of(const struct bp_node *node, const struct bp_shape *in, int i)
{
    const struct bp_pool_config *c = &node->u.pool;
    return (struct bp_span){in->dim[i + 1], c->size[i], c->stride[i], 1, c->padding[i], c->same};
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_pool_config *c = &node->u.pool;
    char shape[64];

    if ((unsigned)c->kind > BP_POOL_GLOBAL_AVG)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s': there is no pool number %d", node->name,
                          (int)c->kind);
    if (in->rank != 3 && !(is_global(node) && in->rank == 2))
        return bp_fail_at(
            err, BP_INVALID, node->name,
            "layer '%s' (%s) needs [channels, height, width], but %s arrives: put it before the flatten "
            "layer, or a reshape layer before it",
            node->name, bp_node_type(node), bp_shape_print(in, shape, sizeof shape));
    if (is_global(node)) {
        node->shape = (struct bp_shape){.rank = 1, .dim = {in->dim[0]}};
        return BP_OK;
    }
    node->shape = (struct bp_shape){.rank = 3, .dim = {in->dim[0]}};
    for (int i = 0; i < 2; i++) {
        bp_status status = check_axis(node, in, i, err);
        if (status != BP_OK)
            return status;
        struct bp_span span = span_of(node, in, i);
        node->shape.dim[i + 1] = bp_span_out(&span);
    }
    if (c->size[0] * c->size[1] > WINDOW_MAX)
        return bp_fail_at(err, BP_LIMIT, node->name, "layer '%s' (%s): a window has at most %d elements", node->name,
                          bp_node_type(node), WINDOW_MAX);
    return BP_OK;
}

static struct bp_window window_of(const struct bp_graph *graph, const struct bp_node *node)
{
    const struct bp_pool_config *c = &node->u.pool;
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    struct bp_span down = span_of(node, in, 0), across = span_of(node, in, 1);
    return (struct bp_window){.ih = (int)in->dim[1],
                              .iw = (int)in->dim[2],
                              .oh = (int)node->shape.dim[1],
                              .ow = (int)node->shape.dim[2],
                              .kh = (int)c->size[0],
                              .kw = (int)c->size[1],
                              .sh = (int)c->stride[0],
                              .sw = (int)c->stride[1],
                              .top = (int)bp_span_before(&down),
                              .left = (int)bp_span_before(&across)};
}

static struct bp_extent workspace(const struct bp_graph *graph, const struct bp_node *node)
{
    (void)graph;
    bool max = node->u.pool.kind == BP_POOL_MAX;
    return (struct bp_extent){.row = max ? (size_t)bp_shape_elements(&node->shape) : 0};
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)phase;
    return bp_shape_elements(bp_input_shape(graph, node, 0));
}

/* Planes of a call, and elements of one, of a global pool. */
static int global_planes(const struct bp_call *call, int *ret_elements)
{
    const struct bp_shape *in = bp_input_shape(call->graph, call->node, 0);
    *ret_elements = (int)(bp_shape_elements(in) / in->dim[0]);
    return call->rows * (int)in->dim[0];
}

static void forward(const struct bp_call *call)
{
    int planes = call->rows * (int)call->node->shape.dim[0], n;
    if (is_global(call->node)) {
        global_planes(call, &n);
        call->kernels->row_sum(planes, n, call->x[0], (size_t)n, call->y, false);
        for (int p = 0; p < planes; p++)
            call->y[p] /= (bp_real)n;
        return;
    }
    struct bp_window w = window_of(call->graph, call->node);
    if (call->node->u.pool.kind == BP_POOL_MAX)
        call->kernels->max_pool(&w, planes, call->x[0], call->y, call->workspace);
    else
        call->kernels->avg_pool(&w, planes, call->x[0], call->y);
}

static void backward_global(const struct bp_call *call)
{
    int n, planes = global_planes(call, &n);
    bp_real *dx = call->dx[0];
    for (int p = 0; p < planes; p++, dx += n) {
        bp_real share = call->dy[p] / (bp_real)n;
        for (int i = 0; i < n; i++)
            dx[i] = call->add & 1 ? dx[i] + share : share;
    }
}

static void backward(const struct bp_call *call)
{
    int planes = call->rows * (int)call->node->shape.dim[0];
    bool add = call->add & 1;
    if (is_global(call->node)) {
        backward_global(call);
        return;
    }
    struct bp_window w = window_of(call->graph, call->node);
    if (call->node->u.pool.kind == BP_POOL_MAX)
        call->kernels->max_pool_gradient(&w, planes, call->workspace, call->dy, call->dx[0], add);
    else
        call->kernels->avg_pool_gradient(&w, planes, call->dy, call->dx[0], add);
}

const struct bp_op bp_op_pool = {
    .name = "pool",
    .min_inputs = 1,
    .max_inputs = 1,
    .infer = infer,
    .workspace = workspace,
    .flops = flops,
    .forward = forward,
    .backward = backward,
};
