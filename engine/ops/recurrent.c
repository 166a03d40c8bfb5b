/* recurrent.c: layers that read a sequence step by step: simple_rnn, lstm, gru.
 *
 *   input (T, F) -> every state (T, U), or the last one (U); `reverse` reads from the end (states stay at their step)
 *   forward     a_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, h_t = cell(a_t, h_(t-1)), from h = 0
 *   backward    through time: from the last step read to the first, dh_(t-1) = W_hh^T da_t + what the cell passes on;
 *               then dX = dA W_ih for all steps at once
 *   parameters  dW_ih = sum of da_t x_t^T, dW_hh = sum of da_t h_(t-1)^T, db = sum of da_t, over rows and steps
 * Gates, their order, the tensors' names and the formulas are PyTorch's. The loop over the steps is inside the op:
 * memory is planned for T steps, and the first two phases are row-local.
 *
 * The workspace holds a slot for each row and step, in units of U, shared with the kernels (struct bp_cell):
 *   simple_rnn  a, h     lstm  i, f, g, o, c, h     gru  r, z, n, q, h
 * h is the state before the step. Backward overwrites the gates by their error signals, which the last phase reads:
 * it is a product over all (row, step) pairs, row after row and step after step, in chunks of BP_ROW_CHUNK pairs whose
 * sums are added in ascending order.
 *
 * Threads: pure functions of the call.
 */
#include "graph/exec.h"
#include "ops/op.h"

#include <stdio.h>
#include <string.h>

enum { W_IH, W_HH, B_IH, B_HH };

#define STEPS_MAX 65536 /* longer sequences cannot be unrolled; it also keeps rows of a block times steps in an int */
#define TILE_OUT 256    /* a tile of a weight's gradient: high enough that packing its columns is cheap beside it */
#define TILE_IN 64

/* What is different between the three, and the sizes of one node. */
struct layer {
    enum bp_op_kind kind;
    int steps, features, units;
    int outputs;        /* of the gates: gates times units */
    size_t slot, state; /* elements of a slot, and where h is in it */
    size_t row;         /* elements of a row's slots */
    bool sequences, reverse, biased;
};

static int gates_of(enum bp_op_kind kind)
{
    return kind == BP_OP_LSTM ? 4 : kind == BP_OP_GRU ? 3 : 1;
}

/* Parts of a slot, in units. */
static int parts_of(enum bp_op_kind kind)
{
    return kind == BP_OP_LSTM ? 6 : kind == BP_OP_GRU ? 5 : 2;
}

static struct layer layer_of(const struct bp_graph *graph, const struct bp_node *node)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_recurrent_config *config = &node->u.recurrent;
    struct layer l = {.kind = node->kind,
                      .steps = (int)in->dim[0],
                      .features = (int)in->dim[1],
                      .units = (int)config->units,
                      .sequences = config->return_sequences,
                      .reverse = config->reverse,
                      .biased = config->use_bias};
    l.outputs = gates_of(node->kind) * l.units;
    l.slot = (size_t)parts_of(node->kind) * (size_t)l.units;
    l.state = l.slot - (size_t)l.units;
    l.row = l.slot * (size_t)l.steps;
    return l;
}

/* --- shapes and tensors ------------------------------------------------------------------------------------------ */

static bp_status check(const struct bp_graph *graph, const struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    const struct bp_recurrent_config *config = &node->u.recurrent;
    const char *type = bp_op_table[node->kind]->name;
    char shape[64];

    if (in->rank != 2)
        return bp_fail_at(
            err, BP_INVALID, node->name, "layer '%s' (%s) needs a sequence [steps, features], but %s arrives: %s",
            node->name, type, bp_shape_print(in, shape, sizeof shape),
            in->rank == 1 ? "set dataset.window to make sequences of rows, give dataset.input_shape two "
                            "extents, or put a reshape layer before it"
                          : "give dataset.input_shape two extents, such as [28, 28] for the lines of an "
                            "image, or put a reshape layer before it");
    if (in->dim[0] > STEPS_MAX)
        return bp_fail_at(err, BP_LIMIT, node->name, "layer '%s' (%s) takes at most %d steps, and %lld arrive",
                          node->name, type, STEPS_MAX, (long long)in->dim[0]);
    if (config->units < 1 || config->units >= BP_ELEMENTS_MAX / 8)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (%s): units must be between 1 and %lld, got %lld",
                          node->name, type, BP_ELEMENTS_MAX / 8 - 1, (long long)config->units);
    if (in->dim[0] * parts_of(node->kind) > (BP_ELEMENTS_MAX - 1) / config->units)
        return bp_fail_at(err, BP_LIMIT, node->name, "layer '%s' (%s): %lld units over %lld steps are too many",
                          node->name, type, (long long)config->units, (long long)in->dim[0]);
    if (node->kind == BP_OP_SIMPLE_RNN && config->activation != BP_TANH && config->activation != BP_RELU)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (%s): its activation is tanh or relu", node->name,
                          type);
    return BP_OK;
}

/* kaiming_uniform stands for PyTorch's default, which in a recurrent layer is U(+-1/sqrt(units)) for all tensors;
 * every other initializer sees the fans of one gate. */
static bp_status add_tensor(struct bp_graph *graph, struct bp_node *node, const char *name, int64_t columns,
                            const struct bp_initializer *init, struct bp_error *err)
{
    int64_t units = node->u.recurrent.units, rows = gates_of(node->kind) * units;
    struct bp_tensor tensor = {.shape = {.rank = columns > 0 ? 2 : 1, .dim = {rows, columns}},
                               .trainable = node->trainable,
                               .decay = true,
                               .fan_in = init->kind == BP_INIT_KAIMING_UNIFORM || columns == 0 ? units : columns,
                               .fan_out = units,
                               .init = *init};
    snprintf(tensor.name, sizeof tensor.name, "%s.%s", node->name, name);
    return bp_graph_add_tensor(graph, node, &tensor, err);
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    const struct bp_recurrent_config *config = &node->u.recurrent;
    bp_status status = check(graph, node, err);
    if (status != BP_OK)
        return status;
    int64_t steps = bp_input_shape(graph, node, 0)->dim[0], features = bp_input_shape(graph, node, 0)->dim[1];
    node->shape = config->return_sequences ? (struct bp_shape){.rank = 2, .dim = {steps, config->units}}
                                           : (struct bp_shape){.rank = 1, .dim = {config->units}};
    if ((status = add_tensor(graph, node, "weight_ih_l0", features, &config->kernel_init, err)) != BP_OK ||
        (status = add_tensor(graph, node, "weight_hh_l0", config->units, &config->recurrent_init, err)) != BP_OK ||
        !config->use_bias)
        return status;
    status = add_tensor(graph, node, "bias_ih_l0", 0, &config->bias_init, err);
    return status != BP_OK ? status : add_tensor(graph, node, "bias_hh_l0", 0, &config->bias_init, err);
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    (void)node;
    return phase == BP_PHASE_PARAMETERS ? BP_NEEDS_X : 0;
}

static struct bp_extent workspace(const struct bp_graph *graph, const struct bp_node *node)
{
    return (struct bp_extent){.row = layer_of(graph, node).row};
}

/* The gates' error signals are the first parts of a slot. */
static struct bp_unrolled unrolled(const struct bp_graph *graph, const struct bp_node *node)
{
    struct layer l = layer_of(graph, node);
    size_t end = (size_t)(l.steps - 1) * l.slot;
    return (struct bp_unrolled){
        .row = l.row, .first = l.reverse ? end : 0, .last = l.reverse ? 0 : end, .n = (size_t)l.outputs};
}

static bool panels(const struct bp_graph *graph, const struct bp_node *node, int slot, enum bp_phase phase,
                   struct bp_panels *ret)
{
    struct layer l = layer_of(graph, node);
    int in = slot == W_IH ? l.features : l.units;
    if (slot > W_HH)
        return false;
    if (phase == BP_PHASE_FORWARD) /* W^T (in, outputs) */
        *ret = (struct bp_panels){.k = in, .n = l.outputs, .row = 1, .col = (size_t)in};
    else /* W (outputs, in) */
        *ret = (struct bp_panels){.k = l.outputs, .n = in, .row = (size_t)in, .col = 1};
    return true;
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    (void)phase; /* each of the three is the same two products */
    struct layer l = layer_of(graph, node);
    return 2 * (int64_t)l.steps * ((int64_t)l.outputs * l.features + (int64_t)l.outputs * l.units);
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

/* The step that is read as number s. */
static size_t time_of(const struct layer *l, int s)
{
    return (size_t)(l->reverse ? l->steps - 1 - s : s);
}

static const bp_real *bias_of(const struct bp_call *call, int slot)
{
    const struct bp_node *node = call->node;
    return node->u.recurrent.use_bias ? call->params + call->graph->tensors[node->tensor[slot]].offset : NULL;
}

/* h' = f(a), where a is the sum of the slot and `hidden`. */
static void simple_step(const struct bp_kernels *kernels, const struct bp_cell *c, enum bp_activation function)
{
    size_t n = (size_t)c->units;
    for (size_t r = 0; r < (size_t)c->rows; r++) {
        bp_real *a = c->slot + r * c->row;
        kernels->add(n, c->hidden + r * n, a);
        kernels->activation(function, 0, n, a, a);
        if (c->next != NULL)
            memcpy(c->next + r * c->row, a, n * sizeof *a);
        if (c->y != NULL)
            memcpy(c->y + r * c->y_row, a, n * sizeof *a);
    }
}

/* Takes the error signal through f, of which the slot holds the value. */
static void simple_step_gradient(const struct bp_kernels *kernels, const struct bp_cell *c,
                                 enum bp_activation function)
{
    size_t n = (size_t)c->units;
    for (size_t r = 0; r < (size_t)c->rows; r++) {
        bp_real *a = c->slot + r * c->row, *dh = c->dh + r * n;
        if (c->dy != NULL)
            kernels->add(n, c->dy + r * c->y_row, dh);
        kernels->activation_gradient(function, 0, n, NULL, a, dh, a, false);
    }
}

/* A step's places in the workspace; s is its number in the order of reading. */
static struct bp_cell cell_of(const struct bp_call *call, const struct layer *l, int s)
{
    bool last = s == l->steps - 1;
    return (struct bp_cell){.rows = call->rows,
                            .units = l->units,
                            .row = l->row,
                            .slot = call->workspace + time_of(l, s) * l->slot,
                            .before = s > 0 ? call->workspace + time_of(l, s - 1) * l->slot : NULL,
                            .next = last ? NULL : call->workspace + time_of(l, s + 1) * l->slot + l->state,
                            .y_row = (size_t)l->units * (l->sequences ? (size_t)l->steps : 1)};
}

/* Whether the state after step s is a result, and where in a row of results. */
static bool is_result(const struct layer *l, int s, size_t *ret)
{
    *ret = l->sequences ? time_of(l, s) * (size_t)l->units : 0;
    return l->sequences || s == l->steps - 1;
}

static void forward(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    const struct bp_kernels *kernels = call->kernels;
    struct layer l = layer_of(call->graph, node);

    kernels->gemm(&(struct bp_gemm){.m = call->rows * l.steps,
                                    .n = l.outputs,
                                    .k = l.features,
                                    .a = call->x[0],
                                    .a_row = (size_t)l.features,
                                    .a_col = 1,
                                    .b = call->forward_panels[node->tensor[W_IH]],
                                    .c = call->workspace,
                                    .c_row = l.slot,
                                    .bias = bias_of(call, B_IH)});
    for (int s = 0; s < l.steps; s++) {
        struct bp_cell c = cell_of(call, &l, s);
        size_t at;
        c.y = is_result(&l, s, &at) ? call->y + at : NULL;
        c.hidden = call->scratch;
        for (int r = 0; s == 0 && r < call->rows; r++)
            memset(c.slot + (size_t)r * l.row + l.state, 0, (size_t)l.units * sizeof *c.slot);
        kernels->gemm(&(struct bp_gemm){.m = call->rows,
                                        .n = l.outputs,
                                        .k = s == 0 ? 0 : l.units, /* of a state of zeros nothing comes */
                                        .a = c.slot + l.state,
                                        .a_row = l.row,
                                        .a_col = 1,
                                        .b = call->forward_panels[node->tensor[W_HH]],
                                        .c = c.hidden,
                                        .c_row = (size_t)l.outputs,
                                        .bias = bias_of(call, B_HH)});
        if (l.kind == BP_OP_LSTM)
            kernels->lstm(&c);
        else if (l.kind == BP_OP_GRU)
            kernels->gru(&c);
        else
            simple_step(kernels, &c, node->u.recurrent.activation);
    }
}

/* --- backward ---------------------------------------------------------------------------------------------------- */

static size_t scratch(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows)
{
    struct layer l = layer_of(graph, node);
    size_t state = (size_t)rows * (size_t)l.units, hidden = (size_t)rows * (size_t)l.outputs;
    if (phase == BP_PHASE_FORWARD)
        return hidden;
    if (phase == BP_PHASE_PARAMETERS)
        return bp_panels_size(BP_ROW_CHUNK, TILE_IN);
    return state + (l.kind == BP_OP_LSTM ? state : l.kind == BP_OP_GRU ? hidden : 0);
}

static void backward(const struct bp_call *call)
{
    const struct bp_node *node = call->node;
    const struct bp_kernels *kernels = call->kernels;
    struct layer l = layer_of(call->graph, node);
    size_t state = (size_t)call->rows * (size_t)l.units;
    bool gru = l.kind == BP_OP_GRU;
    bp_real *dh = call->scratch, *more = dh + state; /* more: dc of an lstm, the error signals of a gru's W_hh h */

    memset(dh, 0, (l.kind == BP_OP_LSTM ? 2 : 1) * state * sizeof *dh);
    for (int s = l.steps - 1; s >= 0; s--) {
        struct bp_cell c = cell_of(call, &l, s);
        size_t at;
        c.dy = is_result(&l, s, &at) ? call->dy + at : NULL;
        c.dh = dh;
        c.dc = c.hidden = more;
        if (l.kind == BP_OP_LSTM)
            kernels->lstm_gradient(&c);
        else if (gru)
            kernels->gru_gradient(&c);
        else
            simple_step_gradient(kernels, &c, node->u.recurrent.activation);
        if (s > 0)
            kernels->gemm(&(struct bp_gemm){.m = call->rows,
                                            .n = l.units,
                                            .k = l.outputs,
                                            .a = gru ? more : c.slot,
                                            .a_row = gru ? (size_t)l.outputs : l.row,
                                            .a_col = 1,
                                            .b = call->backward_panels[node->tensor[W_HH]],
                                            .c = dh,
                                            .c_row = (size_t)l.units,
                                            .accumulate = gru});
    }
    if (call->dx[0] != NULL)
        kernels->gemm(&(struct bp_gemm){.m = call->rows * l.steps,
                                        .n = l.features,
                                        .k = l.outputs,
                                        .a = call->workspace,
                                        .a_row = l.slot,
                                        .a_col = 1,
                                        .b = call->backward_panels[node->tensor[W_IH]],
                                        .c = call->dx[0],
                                        .c_row = (size_t)l.features,
                                        .accumulate = call->add & 1});
}

/* --- parameters -------------------------------------------------------------------------------------------------- */

static int tiles_of(int n, int tile)
{
    return (n - 1) / tile + 1;
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    if (phase != BP_PHASE_PARAMETERS)
        return 0;
    struct layer l = layer_of(graph, node);
    return tiles_of(l.outputs, TILE_OUT) * (tiles_of(l.features, TILE_IN) + tiles_of(l.units, TILE_IN));
}

/* A tile of the gradient of one weight, rows [o, o_end) and columns [i, i + columns), and of its bias where db is not
 * NULL. Rows from `split` on have their error signals one part of the slot further on: those of a gru's q. */
struct tile {
    int o, o_end, split, i, columns;
    const bp_real *x; /* what the weight is multiplied by, of the first pair */
    size_t x_row;     /* elements from a pair to the next */
    bp_real *dw, *db; /* the whole tensors */
    size_t dw_row;
};

static struct tile tile_of(const struct bp_call *call, const struct layer *l)
{
    const struct bp_node *node = call->node;
    const struct bp_tensor *tensors = call->graph->tensors;
    int high = tiles_of(l->outputs, TILE_OUT), task = call->task;
    bool state = task >= high * tiles_of(l->features, TILE_IN);
    int in = state ? l->units : l->features, wide = tiles_of(in, TILE_IN);
    struct tile t = {.x = state ? call->workspace + l->state : call->x[0],
                     .x_row = state ? l->slot : (size_t)l->features,
                     .dw = call->grads + tensors[node->tensor[state ? W_HH : W_IH]].offset,
                     .dw_row = (size_t)in};
    task -= state ? high * tiles_of(l->features, TILE_IN) : 0;
    t.o = task / wide * TILE_OUT;
    t.o_end = l->outputs - t.o < TILE_OUT ? l->outputs : t.o + TILE_OUT;
    t.i = task % wide * TILE_IN;
    t.columns = in - t.i < TILE_IN ? in - t.i : TILE_IN;
    t.split = state && l->kind == BP_OP_GRU ? 2 * l->units : l->outputs;
    if (l->biased && t.i == 0)
        t.db = call->grads + tensors[node->tensor[state ? B_HH : B_IH]].offset;
    return t;
}

/* Adds `pairs` pairs of rows and steps to rows [o, o_end) of a tile; da: the error signals of row 0 in the first. */
static void add_pairs(const struct bp_call *call, const struct layer *l, const struct tile *t, int o, int o_end,
                      const bp_real *da, int pairs, bool accumulate)
{
    if (o >= o_end)
        return;
    call->kernels->gemm(&(struct bp_gemm){.m = o_end - o,
                                          .n = t->columns,
                                          .k = pairs,
                                          .a = da + o,
                                          .a_row = 1,
                                          .a_col = l->slot,
                                          .b = call->scratch,
                                          .c = t->dw + (size_t)o * t->dw_row + t->i,
                                          .c_row = t->dw_row,
                                          .accumulate = accumulate});
    if (t->db != NULL)
        call->kernels->column_sum(pairs, o_end - o, da + o, l->slot, t->db + o, accumulate);
}

static void parameters(const struct bp_call *call)
{
    struct layer l = layer_of(call->graph, call->node);
    struct tile t = tile_of(call, &l);
    size_t all = (size_t)call->rows * (size_t)l.steps;
    int low = t.o_end < t.split ? t.o_end : t.split, high = t.o > t.split ? t.o : t.split;

    for (size_t p = 0; p < all; p += BP_ROW_CHUNK) {
        int pairs = all - p < BP_ROW_CHUNK ? (int)(all - p) : BP_ROW_CHUNK;
        const bp_real *da = call->workspace + p * l.slot;
        call->kernels->pack(call->scratch, t.x + p * t.x_row + t.i, pairs, t.columns, t.x_row, 1);
        add_pairs(call, &l, &t, t.o, low, da, pairs, p > 0);
        add_pairs(call, &l, &t, high, t.o_end, da + l.units, pairs, p > 0);
    }
}

#define RECURRENT(title)                                                                                             \
    {                                                                                                                \
        .name = title, .min_inputs = 1, .max_inputs = 1, .backward_first = true, .infer = infer, .needs = needs,     \
        .grid = grid, .workspace = workspace, .unrolled = unrolled, .scratch = scratch, .panels = panels,            \
        .flops = flops, .forward = forward, .backward = backward, .parameters = parameters                           \
    }
const struct bp_op bp_op_simple_rnn = RECURRENT("simple_rnn");
const struct bp_op bp_op_lstm = RECURRENT("lstm");
const struct bp_op bp_op_gru = RECURRENT("gru");
