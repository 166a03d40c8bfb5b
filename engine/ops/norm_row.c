/* norm_row.c: layer and group normalization: parts of a sample at mean 0 and variance 1, then a learned scale and
 * offset. No row looks at another, so training and prediction are the same.
 *
 *   forward     y = h gamma + beta,  h = (x - m) / sqrt(v + eps)     m, v: mean and variance of the part
 *   backward    dx = (g - mean(g) - h mean(g h)) / sqrt(v + eps),  g = dy gamma
 *   parameters  dgamma = sum dy h,  dbeta = sum dy                   over the rows
 *
 * The parts. layer_norm: all features of a vector, the features of each step of a sequence (steps, features), the
 * whole of anything with more dimensions; every element of the part has a factor of its own. group_norm: the channels
 * (first dimension) of a group with all their positions; every channel has a factor.
 *
 * The workspace holds m and 1 / sqrt(v + eps) of each part. The last phase is a grid over tiles of factors, each
 * summing in chunks of BP_ROW_CHUNK rows, the chunks' sums added in ascending order.
 *
 * Threads: pure functions of the call.
 */
#include "graph/exec.h"
#include "ops/op.h"

#include <math.h>
#include <stdio.h>

enum { GAMMA, BETA };

#define TILE_COLUMNS 64    /* factors of a task where each belongs to one element */
#define TILE_POSITIONS 256 /* and where it has positions: channels of about so many numbers */

/* A sample is `repeats` times `groups` parts; a part is `channels` factors with `positions` elements each. */
struct parts {
    size_t repeats, groups, channels, positions;
};

static struct parts parts_of(const struct bp_node *node)
{
    const struct bp_shape *shape = &node->shape;
    size_t elements = (size_t)bp_shape_elements(shape);
    if (node->kind == BP_OP_LAYER_NORM) {
        size_t last = (size_t)shape->dim[shape->rank - 1], repeats = shape->rank == 2 ? (size_t)shape->dim[0] : 1;
        return (struct parts){repeats, 1, shape->rank == 2 ? last : elements, 1};
    }
    size_t groups = (size_t)node->u.norm.groups, channels = (size_t)shape->dim[0];
    return (struct parts){1, groups, channels / groups, elements / channels};
}

/* --- building ---------------------------------------------------------------------------------------------------- */

static bp_status add_tensor(struct bp_graph *graph, struct bp_node *node, const char *suffix, enum bp_init_kind init,
                            struct bp_error *err)
{
    struct bp_tensor tensor = {
        .trainable = node->trainable, .decay = true, .fan_in = 1, .fan_out = 1, .init = {.kind = init}};
    const struct bp_shape *shape = &node->shape;
    bool whole = node->kind == BP_OP_LAYER_NORM && shape->rank != 2;
    tensor.shape =
        whole ? *shape : (struct bp_shape){.rank = 1, .dim = {shape->dim[node->kind == BP_OP_LAYER_NORM ? 1 : 0]}};
    snprintf(tensor.name, sizeof tensor.name, "%s.%s", node->name, suffix);
    return bp_graph_add_tensor(graph, node, &tensor, err);
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_norm_config *config = &node->u.norm;
    const char *op = bp_op_table[node->kind]->name;
    char shape[64];

    if (in->rank < 1)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (%s) needs features, but [] arrives", node->name,
                          op);
    if (!isfinite(config->eps) || !((bp_real)config->eps > 0))
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (%s): eps must be above 0, got %g", node->name, op,
                          config->eps);
    if (node->kind == BP_OP_GROUP_NORM &&
        (config->groups < 1 || config->groups > in->dim[0] || in->dim[0] % config->groups != 0))
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (group_norm): %lld groups must divide the %lld channels of %s evenly",
                          node->name, (long long)config->groups, (long long)in->dim[0],
                          bp_shape_print(in, shape, sizeof shape));
    node->shape = *in;
    if (!config->affine)
        return BP_OK;
    bp_status status = add_tensor(graph, node, "weight", BP_INIT_ONES, err);
    return status == BP_OK ? add_tensor(graph, node, "bias", BP_INIT_ZEROS, err) : status;
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    (void)node, (void)phase;
    return BP_NEEDS_X;
}

/* Channels of a task of the last phase, and tasks of a group. */
static size_t tile_of(const struct parts *p)
{
    if (p->positions == 1)
        return TILE_COLUMNS;
    return p->positions >= TILE_POSITIONS ? 1 : TILE_POSITIONS / p->positions;
}

static size_t tiles_of(const struct parts *p)
{
    return (p->channels - 1) / tile_of(p) + 1;
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct parts p = parts_of(node);
    (void)graph;
    return phase == BP_PHASE_PARAMETERS ? (int)(p.groups * tiles_of(&p)) : 0;
}

static struct bp_extent workspace(const struct bp_graph *graph, const struct bp_node *node)
{
    struct parts p = parts_of(node);
    (void)graph;
    return (struct bp_extent){.row = 2 * p.repeats * p.groups};
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    return (phase == BP_PHASE_PARAMETERS ? 4 : 8) * bp_shape_elements(&node->shape);
}

/* --- running ----------------------------------------------------------------------------------------------------- */

static const bp_real *factors(const struct bp_call *call, int slot)
{
    return call->node->u.norm.affine ? call->params + call->graph->tensors[call->node->tensor[slot]].offset : NULL;
}

static struct bp_row_norm rows_of(const struct bp_call *call)
{
    struct parts p = parts_of(call->node);
    return (struct bp_row_norm){.rows = (size_t)call->rows * p.repeats * p.groups,
                                .groups = (int)p.groups,
                                .channels = (int)p.channels,
                                .spatial = (int)p.positions,
                                .eps = (bp_real)call->node->u.norm.eps,
                                .x = call->x[0],
                                .gamma = factors(call, GAMMA),
                                .beta = factors(call, BETA),
                                .moments = call->workspace};
}

static void forward(const struct bp_call *call)
{
    struct bp_row_norm c = rows_of(call);
    c.y = call->y;
    call->kernels->row_norm(&c);
}

static void backward(const struct bp_call *call)
{
    struct bp_row_norm c = rows_of(call);
    c.dy = call->dy;
    c.dx = call->dx[0];
    c.accumulate = call->add & 1;
    call->kernels->row_norm_gradient(&c);
}

/* Task t: a tile of the channels of group t / tiles. */
static void parameters(const struct bp_call *call)
{
    struct parts p = parts_of(call->node);
    size_t tiles = tiles_of(&p), group = (size_t)call->task / tiles, first = (size_t)call->task % tiles * tile_of(&p);
    size_t count = p.channels - first < tile_of(&p) ? p.channels - first : tile_of(&p);
    size_t channel = group * p.channels + first, row = p.groups * p.channels * p.positions;
    bool plane = p.positions > 1;
    bp_real *dgamma = call->grads + call->graph->tensors[call->node->tensor[GAMMA]].offset + channel;
    bp_real *dbeta = call->grads + call->graph->tensors[call->node->tensor[BETA]].offset + channel;
    size_t all = (size_t)call->rows * p.repeats, chunk = BP_ROW_CHUNK * p.repeats;

    for (size_t r = 0; r < all; r += chunk) {
        struct bp_channels block = {.rows = all - r < chunk ? all - r : chunk,
                                    .n = (int)(plane ? p.positions : count),
                                    .row = row,
                                    .plane = plane};
        const bp_real *moments = call->workspace + 2 * (r * p.groups + group);
        for (size_t b = 0; b < (plane ? count : 1); b++) {
            size_t at = r * row + (channel + b) * p.positions;
            call->kernels->row_norm_products(&block, call->x[0] + at, call->dy + at, moments, 2 * p.groups, dbeta + b,
                                             dgamma + b, r > 0);
        }
    }
}

#define ROW_NORM(title)                                                                                              \
    {                                                                                                                \
        .name = title, .min_inputs = 1, .max_inputs = 1, .infer = infer, .needs = needs, .grid = grid,               \
        .workspace = workspace, .flops = flops, .forward = forward, .backward = backward, .parameters = parameters,  \
    }

const struct bp_op bp_op_layer_norm = ROW_NORM("layer_norm");
const struct bp_op bp_op_group_norm = ROW_NORM("group_norm");
