/* dense.c: the fully connected layer.
 *
 *   forward     Y (rows, out) = X (rows, in) W^T + b             W (out, in), b (out)
 *   backward    dX (rows, in) = dY (rows, out) W
 *   parameters  dW (out, in)  = dY^T X,  db (out) = sum over rows of dY
 *
 * The first two are row-local, or run by columns where the layer has more weights than activations. The last sums over
 * the batch: in chunks of BP_ROW_CHUNK rows, each chunk one chain of fma per element, the chunks' sums added in
 * ascending order. Its grid cuts dW into tiles; a task packs its columns of X chunk by chunk into scratch, unless a
 * chunk is small, and multiplies them by its rows of dY^T, so no two tasks write the same element. Where the pass
 * updates, a tile is made in scratch and handed over instead.
 *
 * Threads: pure functions of the call.
 */
#include "ops/op.h"

#include <math.h>
#include <stdio.h>

enum { WEIGHT, BIAS };

/* A tile of dW: half of the rows, but whole panels of them and at most TILE_OUT, so that two threads have bands of rows of
 * their own even in small layers, and TILE_IN_MIN to TILE_IN_MAX columns: more columns where there are few rows, so that a
 * task is worth its call. Packing a column costs about as much as one row of the product, hence is cheap beside a band. */
#define TILE_OUT 256
#define TILE_IN_MIN 64
#define TILE_IN_MAX 256
#define TILE_ELEMENTS 16384

/* Elements of a chunk of X that stay in the first-level cache beside a tile: they need no packing. */
#define BARE_ELEMENTS 8192

/* A column of dY whose rows are a power of two apart, as those of wide layers are, falls into so few sets of the first-level
 * cache that it is fetched again for every use. Where a product has few rows in registers, it cannot hide that: then the
 * rows of a band are copied closer together, a panel more than they are long, once for all tiles of the band that a thread
 * has; not of batches so large that the copy would fill the next cache. */
#define BAND_ROW (TILE_OUT + BP_PANEL)
#define BAND_ROWS_MAX (2 * BP_ROW_CHUNK)
#define BAND_TILE_ROWS 6 /* of a product that hides it no more */

/* Inputs of a layer of one unit up to which its rows are turned in the cache. */
#define ONE_UNIT_INPUTS 512

static int inputs_of(const struct bp_graph *graph, const struct bp_node *node)
{
    return (int)bp_input_shape(graph, node, 0)->dim[0];
}

static int outputs_of(const struct bp_node *node)
{
    return (int)node->shape.dim[0];
}

static int tile_rows(int outputs)
{
    int rows = ((outputs + 1) / 2 + BP_PANEL - 1) / BP_PANEL * BP_PANEL;
    return rows < TILE_OUT ? rows : TILE_OUT;
}

static int tile_columns(int outputs)
{
    int rows = tile_rows(outputs);
    int columns = (TILE_ELEMENTS / rows + BP_PANEL - 1) / BP_PANEL * BP_PANEL;
    return columns < TILE_IN_MIN ? TILE_IN_MIN : columns > TILE_IN_MAX ? TILE_IN_MAX : columns;
}

/* Of one unit: y^T (1, rows) = w X^T + b. A lane is a row, where otherwise 15 of 16 lanes would be idle. */
static bool is_one_unit(const struct bp_graph *graph, const struct bp_node *node)
{
    return outputs_of(node) == 1 && inputs_of(graph, node) <= ONE_UNIT_INPUTS;
}

/* Of few inputs, dW^T (in, out) = X^T dY, then turned: a lane is an output, where otherwise the lanes past the inputs would
 * be idle. */
static bool is_narrow(int in, int out)
{
    return in < BP_PANEL && out % BP_PANEL == 0;
}

/* A product (rows, n) = (rows, k) (k, n) by columns has each thread read its part of the weights and all of its
 * operand; by rows it is the other way round. */
#define COLUMNS_MIN 64        /* fewer have not enough for two threads */
#define COLUMNS_FLOPS 4000000 /* of a product that is worth the barrier before it */

static enum bp_by_columns by_columns(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase,
                                     int rows)
{
    int64_t in = inputs_of(graph, node), out = outputs_of(node), n = phase == BP_PHASE_FORWARD ? out : in;
    bool heavy = 2 * in * out >= rows * (in + out) && in * out >= COLUMNS_FLOPS / 2 / rows;
    return n >= COLUMNS_MIN && heavy ? BP_COLUMNS_BEGIN : BP_COLUMNS_NEVER;
}

static bp_status add_tensor(struct bp_graph *graph, struct bp_node *node, const char *suffix,
                            struct bp_tensor *tensor, struct bp_error *err)
{
    snprintf(tensor->name, sizeof tensor->name, "%s.%s", node->name, suffix);
    tensor->trainable = node->trainable;
    tensor->decay = true;
    tensor->fan_in = bp_input_shape(graph, node, 0)->dim[0];
    tensor->fan_out = node->u.dense.units;
    return bp_graph_add_tensor(graph, node, tensor, err);
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_dense_config *config = &node->u.dense;
    char shape[64];

    if (in->rank != 1)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (dense) needs a vector, but %s arrives: put a flatten layer before it",
                          node->name, bp_shape_print(in, shape, sizeof shape));
    if (config->units < 1 || config->units >= BP_ELEMENTS_MAX)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (dense): units must be between 1 and %lld, got %lld", node->name,
                          BP_ELEMENTS_MAX - 1, (long long)config->units);
    if (!isfinite(config->l1) || !isfinite(config->l2) || config->l1 < 0 || config->l2 < 0)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (dense): l1 and l2 must be finite and at least 0, got %g and %g", node->name,
                          config->l1, config->l2);
    node->shape = (struct bp_shape){.rank = 1, .dim = {config->units}};

    struct bp_tensor weight = {.shape = {.rank = 2, .dim = {config->units, in->dim[0]}},
                               .l1 = config->l1,
                               .l2 = config->l2,
                               .init = config->kernel_init,
                               .literal = config->weights};
    bp_status status = add_tensor(graph, node, "weight", &weight, err);
    if (status != BP_OK || !config->use_bias)
        return status;
    struct bp_tensor bias = {
        .shape = {.rank = 1, .dim = {config->units}}, .init = config->bias_init, .literal = config->biases};
    return add_tensor(graph, node, "bias", &bias, err);
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    (void)node;
    return phase == BP_PHASE_PARAMETERS ? BP_NEEDS_X : 0;
}

static bool panels(const struct bp_graph *graph, const struct bp_node *node, int slot, enum bp_phase phase,
                   struct bp_panels *ret)
{
    if (slot != WEIGHT)
        return false;
    int in = inputs_of(graph, node), out = outputs_of(node);
    if (phase == BP_PHASE_FORWARD) /* W^T (in, out) */
        *ret = (struct bp_panels){.k = in, .n = out, .row = 1, .col = (size_t)in};
    else /* W (out, in) */
        *ret = (struct bp_panels){.k = out, .n = in, .row = (size_t)in, .col = 1};
    return true;
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)phase; /* each of the three is one product of the same size */
    return 2 * (int64_t)inputs_of(graph, node) * outputs_of(node);
}

/* The call's, at a column. */
static struct bp_epilogue epilogue_at(const struct bp_call *call, int column)
{
    struct bp_epilogue e = call->epilogue;
    e.x = e.x != NULL ? e.x + column : NULL;
    e.y = e.y != NULL ? e.y + column : NULL;
    return e;
}

static void forward_one_unit(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    const struct bp_tensor *tensors = call->graph->tensors;
    int in = inputs_of(call->graph, node);
    call->kernels->pack(call->scratch, call->x[0], in, call->rows, 1, (size_t)in);
    call->kernels->gemm(&(struct bp_gemm){
        .m = 1,
        .n = call->rows,
        .k = in,
        .a = call->params + tensors[node->tensor[WEIGHT]].offset,
        .a_row = (size_t)in,
        .a_col = 1,
        .b = call->scratch,
        .c = call->y,
        .c_row = (size_t)call->rows,
        .row_bias = node->u.dense.use_bias ? call->params + tensors[node->tensor[BIAS]].offset : NULL,
        .epilogue = call->epilogue,
    });
}

static void forward(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    if (is_one_unit(call->graph, node)) {
        forward_one_unit(call);
        return;
    }
    int in = inputs_of(call->graph, node), out = outputs_of(node);
    int first = call->column, n = call->columns > 0 ? call->columns : out;
    bool biased = node->u.dense.use_bias;
    call->kernels->gemm(&(struct bp_gemm){
        .m = call->rows,
        .n = n,
        .k = in,
        .a = call->x[0],
        .a_row = (size_t)in,
        .a_col = 1,
        .b = call->forward_panels[node->tensor[WEIGHT]] + (size_t)first * (size_t)in,
        .c = call->y + first,
        .c_row = (size_t)out,
        .bias = biased ? call->params + call->graph->tensors[node->tensor[BIAS]].offset + first : NULL,
        .epilogue = epilogue_at(call, first),
    });
}

static void backward(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    int in = inputs_of(call->graph, node), out = outputs_of(node);
    int first = call->column, n = call->columns > 0 ? call->columns : in;
    call->kernels->gemm(&(struct bp_gemm){
        .m = call->rows,
        .n = n,
        .k = out,
        .a = call->dy,
        .a_row = (size_t)out,
        .a_col = 1,
        .b = call->backward_panels[node->tensor[WEIGHT]] + (size_t)first * (size_t)out,
        .c = call->dx[0] + first,
        .c_row = (size_t)in,
        .accumulate = call->add & 1,
        .epilogue = epilogue_at(call, first),
    });
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    if (phase != BP_PHASE_PARAMETERS)
        return 0;
    int in = inputs_of(graph, node), out = outputs_of(node), rows = tile_rows(out), columns = tile_columns(out);
    int64_t tasks = (((int64_t)in + columns - 1) / columns) * (((int64_t)out + rows - 1) / rows);
    return (int)tasks; /* in * out is below 2^31, and a tile has many elements or is a whole side */
}

static size_t scratch(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows)
{
    if (phase == BP_PHASE_FORWARD && is_one_unit(graph, node))
        return bp_panels_size(inputs_of(graph, node), rows);
    if (phase != BP_PHASE_PARAMETERS)
        return 0;
    int out = outputs_of(node), columns = tile_columns(out);
    size_t band = out > TILE_OUT ? (size_t)BAND_ROWS_MAX * BAND_ROW : 0;
    /* X; dW and db; dY */
    return bp_panels_size(BP_ROW_CHUNK, columns) + (size_t)tile_rows(out) * (size_t)(columns + 1) + band;
}

/* (sum dY^2) (sum X^2) for the weights (exec.h); a bias is a weight whose x is 1 in every row. */
static double bound(const struct bp_node *node, int rows, double x, double dy)
{
    return (x + (node->u.dense.use_bias ? rows : 0)) * dy;
}

/* A tile of dW, its columns of dY, and of db where that is not NULL: in grads, or in scratch where the pass updates. */
struct tile {
    int o0, nout, i0, nin;
    size_t at; /* the first weight, in the range of all parameters */
    bp_real *dw, *db;
    size_t dw_row;
    const bp_real *dy;
    size_t dy_row;
};

/* Tile `task`: at row task / tiles * tile_rows and column task % tiles * columns; the first of a row of tiles has the bias
 * too. */
static struct tile tile_of(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    const struct bp_tensor *tensors = call->graph->tensors;
    int in = inputs_of(call->graph, node), out = outputs_of(node), band = tile_rows(out), columns = tile_columns(out);
    int tiles = (int)(((int64_t)in + columns - 1) / columns);
    int o0 = call->task / tiles * band, i0 = call->task % tiles * columns;
    size_t at = tensors[node->tensor[WEIGHT]].offset + (size_t)o0 * (size_t)in + (size_t)i0;
    bool biased = node->u.dense.use_bias && i0 == 0;
    struct tile t = {.o0 = o0, .i0 = i0, .at = at};

    t.nout = out - o0 < band ? out - o0 : band;
    t.nin = in - i0 < columns ? in - i0 : columns;
    if (call->update != NULL) {
        t.dw = call->scratch + bp_panels_size(BP_ROW_CHUNK, columns);
        t.dw_row = (size_t)columns;
        t.db = biased ? t.dw + (size_t)band * (size_t)columns : NULL;
    } else {
        t.dw = call->grads + at;
        t.dw_row = (size_t)in;
        t.db = biased ? call->grads + tensors[node->tensor[BIAS]].offset + o0 : NULL;
    }
    t.dy = call->dy + o0;
    t.dy_row = (size_t)out;
    if (out > TILE_OUT && call->rows <= BAND_ROWS_MAX && call->kernels->tile_rows <= BAND_TILE_ROWS &&
        !is_narrow(in, out)) {
        bp_real *copy = call->scratch + bp_panels_size(BP_ROW_CHUNK, columns) + (size_t)band * (size_t)(columns + 1);
        if (call->first || i0 == 0)
            call->kernels->copy_rows(call->rows, t.nout, t.dy, t.dy_row, copy, BAND_ROW);
        t.dy = copy;
        t.dy_row = BAND_ROW;
    }
    return t;
}

_Static_assert(1 + BP_SLOTS_MAX <= BP_AHEAD_MAX, "a product fetches the parameters and all slots");

/* What the update of a tile will change: its parameters and slots. */
static struct bp_ahead ahead_of(const struct bp_call *call, const struct tile *t, size_t row)
{
    struct bp_ahead ahead = {.count = 1 + call->model->nslots, .at = {call->params + t->at}, .row = row};
    for (int s = 0; s < call->model->nslots; s++)
        ahead.at[1 + s] = call->model->slots[s] + t->at;
    return ahead;
}

static void hand_over(const struct bp_call *call, const struct tile *t)
{
    const struct bp_node *node = call->node;
    struct bp_piece weight = {node->tensor[WEIGHT], t->o0, t->nout, t->i0, t->nin};
    bp_call_hand_over(call, &weight, t->dw, t->dw_row);
    if (t->db != NULL)
        bp_call_hand_over(call, &(struct bp_piece){node->tensor[BIAS], 0, 1, t->o0, t->nout}, t->db, 0);
}

/* Its tile of dW, which is all inputs wide. */
static void narrow_weights(const struct bp_call *call, const struct tile *t)
{
    int in = inputs_of(call->graph, call->node);
    size_t turned_row = (size_t)t->nout;

    for (int row = 0; row < call->rows; row += BP_ROW_CHUNK) {
        call->kernels->gemm(&(struct bp_gemm){
            .m = in,
            .n = t->nout,
            .k = call->rows - row < BP_ROW_CHUNK ? call->rows - row : BP_ROW_CHUNK,
            .a = call->x[0] + (size_t)row * (size_t)in,
            .a_row = 1,
            .a_col = (size_t)in,
            .b = t->dy + (size_t)row * t->dy_row,
            .b_row = t->dy_row,
            .c = call->scratch,
            .c_row = turned_row,
            .accumulate = row > 0,
        });
    }
    call->kernels->turn(in, t->nout, call->scratch, turned_row, NULL, t->dw, t->dw_row, false);
}

static void parameters(const struct bp_call *call)
{
    const struct bp_kernels *kernels = call->kernels;
    int in = inputs_of(call->graph, call->node), out = outputs_of(call->node);
    bool updates = call->update != NULL, narrow = is_narrow(in, out);
    struct tile t = tile_of(call);
    struct bp_ahead ahead = updates ? ahead_of(call, &t, (size_t)in) : (struct bp_ahead){0};

    if (narrow)
        narrow_weights(call, &t);
    for (int row = 0; row < call->rows; row += BP_ROW_CHUNK) {
        int rows = call->rows - row < BP_ROW_CHUNK ? call->rows - row : BP_ROW_CHUNK;
        const bp_real *dy = t.dy + (size_t)row * t.dy_row;
        if (t.db != NULL)
            kernels->column_sum(rows, t.nout, dy, t.dy_row, t.db, row > 0);
        if (narrow)
            continue;
        const bp_real *x = call->x[0] + (size_t)row * (size_t)in + t.i0;
        bool bare = in % BP_PANEL == 0 && in <= BARE_ELEMENTS / rows;
        if (!bare)
            kernels->pack(call->scratch, x, rows, t.nin, (size_t)in, 1);
        kernels->gemm(&(struct bp_gemm){
            .m = t.nout,
            .n = t.nin,
            .k = rows,
            .a = dy,
            .a_row = 1,
            .a_col = t.dy_row,
            .b = bare ? x : call->scratch,
            .b_row = bare ? (size_t)in : 0,
            .c = t.dw,
            .c_row = t.dw_row,
            .accumulate = row > 0,
            .ahead = updates && row + rows == call->rows ? &ahead : NULL,
        });
    }
    if (updates)
        hand_over(call, &t);
}

const struct bp_op bp_op_dense = {
    .name = "dense",
    .min_inputs = 1,
    .max_inputs = 1,
    .epilogues = true,
    .infer = infer,
    .needs = needs,
    .grid = grid,
    .by_columns = by_columns,
    .scratch = scratch,
    .panels = panels,
    .flops = flops,
    .bound = bound,
    .forward = forward,
    .backward = backward,
    .parameters = parameters,
};
