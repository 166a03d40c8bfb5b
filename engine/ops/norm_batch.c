/* norm_batch.c: batch normalization: each channel at mean 0 and variance 1 over the batch, then its own scale and
 * offset, which are learned.
 *
 *   m = mean(x), v = mean((x - m)^2)     over the rows and positions of a channel, n numbers
 *   forward     y = (x - m) / sqrt(v + eps) gamma + beta
 *   parameters  dbeta = sum dy,  dgamma = sum dy h     with h = (x - m) / sqrt(v + eps)
 *   backward    dx = gamma / sqrt(v + eps) (dy - dbeta / n - h dgamma / n): m and v depend on every x
 *   statistics  running = (1 - momentum) running + momentum (m, v n / (n - 1))
 *
 * The first dimension is the channels, the others are positions. Prediction, and a frozen layer at any time, take the
 * running statistics for m and v; a frozen layer leaves them as they are, and is row-local. A channel with a single
 * number (a batch of one row) has variance 0: it gives beta and sends no error signal; of the running statistics only
 * the mean learns from it.
 *
 * The phases of a layer that trains are grids, or run by columns where the channels have no positions: a tile of
 * channels at a time, in chunks of BP_ROW_CHUNK rows whose sums are added in ascending order. One task writes the running statistics of its channels in each training pass.
 *
 * Threads: pure functions of the call, apart from the statistics.
 */
#include "graph/exec.h"
#include "ops/op.h"

#include <math.h>
#include <stdio.h>

enum { GAMMA, BETA, LEARNED }; /* slots of the learned tensors; the statistics come after them, or first */
enum { MEAN, VARIANCE };
enum { FIXED_MEAN, FIXED_INVERSE, FIXED_SUM, FIXED_PRODUCT, FIXED_COUNT }; /* rows of channels in the workspace */

#define TILE_COLUMNS 64    /* channels at a time where they are columns: they stay in the cache for the second pass */
#define TILE_POSITIONS 256 /* channels of a task where they have positions: of about so many numbers a row */

struct layout {
    size_t channels, positions;
};

static struct layout layout_of(const struct bp_node *node)
{
    size_t channels = (size_t)node->shape.dim[0];
    return (struct layout){channels, (size_t)bp_shape_elements(&node->shape) / channels};
}

/* Channels of a task. */
static size_t tile_of(const struct layout *l)
{
    if (l->positions == 1)
        return TILE_COLUMNS;
    return l->positions >= TILE_POSITIONS ? 1 : TILE_POSITIONS / l->positions;
}

static bool learned(const struct bp_node *node)
{
    return node->u.norm.affine;
}

static const struct bp_tensor *statistic_of(const struct bp_graph *graph, const struct bp_node *node, int which)
{
    return &graph->tensors[node->tensor[(learned(node) ? LEARNED : 0) + which]];
}

static const bp_real *factors(const struct bp_call *call, int slot)
{
    return learned(call->node) ? call->params + call->graph->tensors[call->node->tensor[slot]].offset : NULL;
}

/* --- building ---------------------------------------------------------------------------------------------------- */

static bp_status add_tensor(struct bp_graph *graph, struct bp_node *node, const char *suffix, bool statistic,
                            enum bp_init_kind init, struct bp_error *err)
{
    struct bp_tensor tensor = {.shape = {.rank = 1, .dim = {node->shape.dim[0]}},
                               .statistic = statistic,
                               .trainable = !statistic && node->trainable,
                               .decay = !statistic,
                               .fan_in = 1,
                               .fan_out = 1,
                               .init = {.kind = init}};
    snprintf(tensor.name, sizeof tensor.name, "%s.%s", node->name, suffix);
    return bp_graph_add_tensor(graph, node, &tensor, err);
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_norm_config *config = &node->u.norm;
    bp_status status = BP_OK;

    if (in->rank < 1)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (batch_norm) needs channels, but [] arrives",
                          node->name);
    if (!isfinite(config->eps) || !((bp_real)config->eps > 0))
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (batch_norm): eps must be above 0, got %g",
                          node->name, config->eps);
    if (!(config->momentum >= 0 && config->momentum <= 1))
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (batch_norm): momentum must be between 0 and 1, got %g", node->name,
                          config->momentum);
    node->shape = *in;
    if (config->affine) {
        status = add_tensor(graph, node, "weight", false, BP_INIT_ONES, err);
        if (status == BP_OK)
            status = add_tensor(graph, node, "bias", false, BP_INIT_ZEROS, err);
    }
    if (status == BP_OK)
        status = add_tensor(graph, node, "running_mean", true, BP_INIT_ZEROS, err);
    return status == BP_OK ? add_tensor(graph, node, "running_var", true, BP_INIT_ONES, err) : status;
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    return phase == BP_PHASE_BACKWARD && node->trainable ? BP_NEEDS_X : 0;
}

static bool in_place(const struct bp_node *node, enum bp_phase phase)
{
    return !node->trainable && phase != BP_PHASE_PARAMETERS; /* a frozen layer reads each number once */
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct layout l = layout_of(node);
    (void)graph;
    if (phase == BP_PHASE_PARAMETERS)
        return 1;
    return node->trainable && l.positions > 1 ? (int)((l.channels - 1) / tile_of(&l) + 1) : 0;
}

static enum bp_by_columns by_columns(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase,
                                     int rows)
{
    (void)graph, (void)phase, (void)rows;
    return node->trainable && layout_of(node).positions == 1 ? BP_COLUMNS_ALWAYS : BP_COLUMNS_NEVER;
}

static struct bp_extent workspace(const struct bp_graph *graph, const struct bp_node *node)
{
    (void)graph;
    return (struct bp_extent){.fixed = node->trainable ? FIXED_COUNT * layout_of(node).channels : 0};
}

/* A task's coefficients of its channels: three of them. */
static size_t scratch(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows)
{
    struct layout l = layout_of(node);
    (void)graph, (void)rows;
    if (phase == BP_PHASE_PARAMETERS)
        return 0;
    return 3 * (node->trainable && tile_of(&l) < l.channels ? tile_of(&l) : l.channels);
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)graph;
    return phase == BP_PHASE_PARAMETERS ? 2 * node->shape.dim[0] : 8 * bp_shape_elements(&node->shape);
}

/* --- running ----------------------------------------------------------------------------------------------------- */

static bp_real inverse_root(bp_real variance, double eps)
{
#ifdef BP_DOUBLE
    return 1 / sqrt(variance + eps);
#else
    return 1 / sqrtf(variance + (float)eps);
#endif
}

/* Channels [first, first + count) of some rows, as blocks that a kernel takes: all columns, or plane after plane. */
struct tile {
    struct layout l;
    size_t first, count;
};

/* Runs part of a phase tile after tile of what the call is to do: its task, its columns, or all channels. */
static void for_tiles(const struct bp_call *call, void (*run)(const struct bp_call *call, const struct tile *t))
{
    struct layout l = layout_of(call->node);
    size_t most = tile_of(&l), first = 0, end = l.channels;
    if (call->columns > 0) {
        first = (size_t)call->column;
        end = first + (size_t)call->columns;
    } else if (!call->node->trainable) {
        most = l.channels;
    } else {
        first = (size_t)call->task * most;
        end = first + most < end ? first + most : end;
    }
    for (size_t c = first; c < end; c += most)
        run(call, &(struct tile){l, c, end - c < most ? end - c : most});
}

static size_t blocks_of(const struct tile *t)
{
    return t->l.positions == 1 ? 1 : t->count;
}

static struct bp_channels block_of(const struct tile *t, size_t rows)
{
    bool plane = t->l.positions > 1;
    return (struct bp_channels){.rows = rows,
                                .n = (int)(plane ? t->l.positions : t->count),
                                .row = t->l.channels * t->l.positions,
                                .plane = plane};
}

/* Where block b of the tile begins in a row. */
static size_t place_of(const struct tile *t, size_t b)
{
    return (t->first + b) * t->l.positions;
}

/* out[c] = the mean over the batch of x, or of (x - mean[c])^2 */
static void batch_moment(const struct bp_call *call, const struct tile *t, const bp_real *mean, bp_real *out)
{
    size_t all = (size_t)call->rows;
    bp_real n = (bp_real)(all * t->l.positions);
    for (size_t row = 0; row < all; row += BP_ROW_CHUNK) {
        struct bp_channels block = block_of(t, all - row < BP_ROW_CHUNK ? all - row : BP_ROW_CHUNK);
        for (size_t b = 0; b < blocks_of(t); b++)
            call->kernels->channel_moment(&block, call->x[0] + row * block.row + place_of(t, b),
                                          mean != NULL ? mean + b : NULL, out + b, row > 0);
    }
    for (size_t c = 0; c < t->count; c++)
        out[c] /= n;
}

static void learn_statistics(const struct bp_call *call, const struct tile *t, const bp_real *mean,
                             const bp_real *variance)
{
    const struct bp_node *node = call->node;
    bp_real *running_mean = call->stats + statistic_of(call->graph, node, MEAN)->offset + t->first;
    bp_real *running_variance = call->stats + statistic_of(call->graph, node, VARIANCE)->offset + t->first;
    bp_real fresh = (bp_real)node->u.norm.momentum, kept = (bp_real)(1 - node->u.norm.momentum);
    double n = (double)call->rows * (double)t->l.positions;
    bp_real unbiased = n > 1 ? (bp_real)(n / (n - 1)) : 1;
    for (size_t c = 0; c < t->count; c++) {
        running_mean[c] = kept * running_mean[c] + fresh * mean[c];
        if (n > 1)
            running_variance[c] = kept * running_variance[c] + fresh * (variance[c] * unbiased);
    }
}

static void forward_tile(const struct bp_call *call, const struct tile *t)
{
    const struct bp_node *node = call->node;
    const bp_real *gamma = factors(call, GAMMA), *beta = factors(call, BETA), *mean;
    bp_real *scale = call->scratch;

    if (call->training && node->trainable) {
        bp_real *of_batch = call->workspace + FIXED_MEAN * t->l.channels + t->first;
        bp_real *inverse = call->workspace + FIXED_INVERSE * t->l.channels + t->first;
        batch_moment(call, t, NULL, of_batch);
        batch_moment(call, t, of_batch, inverse); /* the variance, as yet */
        learn_statistics(call, t, of_batch, inverse);
        for (size_t c = 0; c < t->count; c++)
            scale[c] = inverse[c] = inverse_root(inverse[c], node->u.norm.eps);
        mean = of_batch;
    } else {
        const bp_real *variance = call->stats + statistic_of(call->graph, node, VARIANCE)->offset + t->first;
        mean = call->stats + statistic_of(call->graph, node, MEAN)->offset + t->first;
        for (size_t c = 0; c < t->count; c++)
            scale[c] = inverse_root(variance[c], node->u.norm.eps);
    }
    for (size_t c = 0; gamma != NULL && c < t->count; c++)
        scale[c] *= gamma[t->first + c];
    struct bp_channels block = block_of(t, (size_t)call->rows);
    for (size_t b = 0; b < blocks_of(t); b++)
        call->kernels->channel_apply(&block, call->x[0] + place_of(t, b), mean + b, scale + b,
                                     beta != NULL ? beta + t->first + b : NULL, call->y + place_of(t, b));
}

static void forward(const struct bp_call *call)
{
    for_tiles(call, forward_tile);
}

/* Of a frozen layer: dx = scale dy. */
static void backward_frozen(const struct bp_call *call, const struct tile *t)
{
    const bp_real *gamma = factors(call, GAMMA);
    const bp_real *variance = call->stats + statistic_of(call->graph, call->node, VARIANCE)->offset;
    bp_real *scale = call->scratch;
    for (size_t c = 0; c < t->count; c++)
        scale[c] = inverse_root(variance[c], call->node->u.norm.eps) * (gamma != NULL ? gamma[c] : 1);
    struct bp_channels block = block_of(t, (size_t)call->rows);
    for (size_t b = 0; b < blocks_of(t); b++)
        call->kernels->channel_gradient(&block, &(struct bp_channel_slope){.scale = scale + b}, NULL,
                                        call->dy + place_of(t, b), call->dx[0] + place_of(t, b), call->add & 1);
}

static void backward_tile(const struct bp_call *call, const struct tile *t)
{
    const bp_real *gamma = factors(call, GAMMA);
    const bp_real *mean = call->workspace + FIXED_MEAN * t->l.channels + t->first;
    const bp_real *inverse = call->workspace + FIXED_INVERSE * t->l.channels + t->first;
    bp_real *sum = call->workspace + FIXED_SUM * t->l.channels + t->first;
    bp_real *product = call->workspace + FIXED_PRODUCT * t->l.channels + t->first;
    size_t all = (size_t)call->rows;
    for (size_t row = 0; row < all; row += BP_ROW_CHUNK) {
        struct bp_channels block = block_of(t, all - row < BP_ROW_CHUNK ? all - row : BP_ROW_CHUNK);
        for (size_t b = 0; b < blocks_of(t); b++) {
            size_t at = row * block.row + place_of(t, b);
            call->kernels->channel_products(&block, call->x[0] + at, call->dy + at, mean + b, sum + b, product + b,
                                            row > 0);
        }
    }
    bp_real *scale = call->scratch, *slope = scale + t->count, *offset = slope + t->count;
    bp_real n = (bp_real)(all * t->l.positions);
    for (size_t c = 0; c < t->count; c++) {
        product[c] *= inverse[c];
        scale[c] = gamma != NULL ? inverse[c] * gamma[t->first + c] : inverse[c];
        slope[c] = -inverse[c] * (product[c] / n);
        offset[c] = -(sum[c] / n);
    }
    struct bp_channels block = block_of(t, all);
    for (size_t b = 0; call->dx[0] != NULL && b < blocks_of(t); b++)
        call->kernels->channel_gradient(
            &block, &(struct bp_channel_slope){mean + b, scale + b, slope + b, offset + b},
            call->x[0] + place_of(t, b), call->dy + place_of(t, b), call->dx[0] + place_of(t, b), call->add & 1);
}

static void backward(const struct bp_call *call)
{
    for_tiles(call, call->node->trainable ? backward_tile : backward_frozen);
}

/* The backward phase has summed already. */
static void parameters(const struct bp_call *call)
{
    size_t channels = layout_of(call->node).channels;
    if (!learned(call->node))
        return;
    bp_real *dgamma = call->grads + call->graph->tensors[call->node->tensor[GAMMA]].offset;
    bp_real *dbeta = call->grads + call->graph->tensors[call->node->tensor[BETA]].offset;
    for (size_t c = 0; c < channels; c++) {
        dgamma[c] = call->workspace[FIXED_PRODUCT * channels + c];
        dbeta[c] = call->workspace[FIXED_SUM * channels + c];
    }
}

const struct bp_op bp_op_batch_norm = {
    .name = "batch_norm",
    .min_inputs = 1,
    .max_inputs = 1,
    .backward_first = true,
    .infer = infer,
    .needs = needs,
    .in_place = in_place,
    .grid = grid,
    .by_columns = by_columns,
    .workspace = workspace,
    .scratch = scratch,
    .flops = flops,
    .forward = forward,
    .backward = backward,
    .parameters = parameters,
};
