/* attention.c: self-attention with several heads over a sequence (steps T, features F).
 *
 *   forward     Q, K, V = X W_in^T + b_in             (T, E) each, E = heads * key_dim, Q divided by sqrt(key_dim)
 *               P_h = dropout(softmax(Q_h K_h^T))     (T, T) for each head h: how much each step looks at each other
 *               Y = [P_1 V_1, P_2 V_2, ...] W_out^T + b_out
 *   backward    dO = dY W_out;  dV_h = P_h^T dO_h;  dP_h = dO_h V_h^T;  dS_h = softmax'(dP_h)
 *               dQ_h = dS_h K_h;  dK_h = dS_h^T Q_h;  dX = [dQ, dK, dV] W_in
 *   parameters  dW_in = [dQ, dK, dV]^T X,  dW_out = dY^T O, and the columns' sums for the biases
 *
 * Tensors, laid out as PyTorch's nn.MultiheadAttention: in_proj_weight (3 E, F) with the rows of Q, K and V one after
 * the other, in each head after head; in_proj_bias (3 E); out_proj.weight (F, E); out_proj.bias (F). They start as PyTorch's do.
 *
 * A step that may not be looked at has probability 0: with `causal` those after the present one; with a second input,
 * a mask (T), those where it is 0 (padding). A step that may look at none gives out_proj.bias. The mask is a switch:
 * it gets no error signal.
 *
 * A sample at a time: the first two phases are row-local, their products small. The workspace keeps of each sample Q,
 * K, V (which backward replaces by their error signals), the probabilities before dropout, and O. The last phase is a
 * grid over tiles of both weights; it sums in chunks of as many samples as make BP_ROW_CHUNK steps, at least one, the
 * chunks' sums added in ascending order.
 *
 * Threads: pure functions of the call.
 */
#include "base/random.h"
#include "graph/exec.h"
#include "ops/op.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { IN_WEIGHT, IN_BIAS, OUT_WEIGHT, OUT_BIAS };

#define TILE_OUT 128 /* rows and columns of a task's tile of a weight */
#define TILE_IN 128

struct sizes {
    size_t steps, features, heads, key, all; /* T, F, heads, key_dim, E */
    size_t qkv, scores;                      /* elements of a sample: 3 T E, heads T T */
    size_t sample;                           /* of the workspace for a sample: qkv, scores, then O (T E) */
};

static struct sizes sizes_of(const struct bp_node *node)
{
    const struct bp_attention_config *c = &node->u.attention;
    struct sizes s = {
        .steps = (size_t)node->shape.dim[0], .features = (size_t)node->shape.dim[1], .heads = (size_t)c->heads};
    s.key = c->key_dim > 0 ? (size_t)c->key_dim : s.features / s.heads;
    s.all = s.heads * s.key;
    s.qkv = 3 * s.steps * s.all;
    s.scores = s.heads * s.steps * s.steps;
    s.sample = s.qkv + s.scores + s.steps * s.all;
    return s;
}

/* --- building ---------------------------------------------------------------------------------------------------- */

static bp_status add_tensor(struct bp_graph *graph, struct bp_node *node, const char *suffix, size_t rows,
                            size_t columns, size_t fan_out, enum bp_init_kind init, struct bp_error *err)
{
    struct bp_tensor tensor = {.shape = {.rank = columns > 0 ? 2 : 1, .dim = {(int64_t)rows, (int64_t)columns}},
                               .trainable = node->trainable,
                               .decay = true,
                               .fan_in = (int64_t)(columns > 0 ? columns : rows),
                               .fan_out = (int64_t)fan_out,
                               .init = {.kind = init}};
    snprintf(tensor.name, sizeof tensor.name, "%s.%s", node->name, suffix);
    return bp_graph_add_tensor(graph, node, &tensor, err);
}

static bp_status check_input(const struct bp_graph *graph, const struct bp_node *node, struct bp_error *err)
{
    const struct bp_shape *in = bp_input_shape(graph, node, 0);
    char text[64], other[64];

    if (in->rank != 2)
        return bp_fail_at(
            err, BP_INVALID, node->name,
            "layer '%s' (multi_head_attention) needs a sequence [steps, features], but %s arrives: put a "
            "reshape layer before it",
            node->name, bp_shape_print(in, text, sizeof text));
    if (node->ninputs == 2) {
        const struct bp_shape *mask = bp_input_shape(graph, node, 1);
        if (mask->rank != 1 || mask->dim[0] != in->dim[0])
            return bp_fail_at(err, BP_INVALID, node->name,
                              "layer '%s' (multi_head_attention): its second input is a mask, one number for each of "
                              "the %lld steps of %s, but %s arrives",
                              node->name, (long long)in->dim[0], bp_shape_print(in, text, sizeof text),
                              bp_shape_print(mask, other, sizeof other));
    }
    return BP_OK;
}

static bp_status check_config(const struct bp_node *node, const struct bp_shape *in, struct bp_error *err)
{
    const struct bp_attention_config *c = &node->u.attention;
    const int64_t features = in->dim[1], steps = in->dim[0];
    if (c->heads < 1 || c->heads >= BP_ELEMENTS_MAX || c->key_dim < 0 || c->key_dim >= BP_ELEMENTS_MAX)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (multi_head_attention): heads and key_dim must be at least 1", node->name);
    if (c->key_dim == 0 && features % c->heads != 0)
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (multi_head_attention): %lld heads do not divide the %lld features evenly: "
                          "choose another number of heads, or give key_dim",
                          node->name, (long long)c->heads, (long long)features);
    if (!(c->dropout >= 0 && c->dropout < 1) || !((float)c->dropout < 1))
        return bp_fail_at(err, BP_INVALID, node->name,
                          "layer '%s' (multi_head_attention): dropout must be at least 0 and below 1, got %g",
                          node->name, c->dropout);
    int64_t key = c->key_dim > 0 ? c->key_dim : features / c->heads;
    if (key > (BP_ELEMENTS_MAX - 1) / c->heads / 3 / (features > steps ? features : steps) ||
        steps > (BP_ELEMENTS_MAX - 1) / steps / c->heads)
        return bp_fail_at(err, BP_LIMIT, node->name,
                          "layer '%s' (multi_head_attention): %lld heads over %lld steps of %lld features are too "
                          "many: the limit is %lld numbers for one sample's scores",
                          node->name, (long long)c->heads, (long long)steps, (long long)features,
                          BP_ELEMENTS_MAX - 1);
    return BP_OK;
}

static bp_status infer(struct bp_graph *graph, struct bp_node *node, struct bp_error *err)
{
    static const enum bp_init_kind in = BP_INIT_GLOROT_UNIFORM, out = BP_INIT_KAIMING_UNIFORM, none = BP_INIT_ZEROS;
    bp_status status = check_input(graph, node, err);

    if (status == BP_OK)
        status = check_config(node, bp_input_shape(graph, node, 0), err);
    if (status != BP_OK)
        return status;
    node->shape = *bp_input_shape(graph, node, 0);
    struct sizes s = sizes_of(node);
    status = add_tensor(graph, node, "in_proj_weight", 3 * s.all, s.features, 3 * s.all, in, err);
    if (status == BP_OK)
        status = add_tensor(graph, node, "in_proj_bias", 3 * s.all, 0, 3 * s.all, none, err);
    if (status == BP_OK)
        status = add_tensor(graph, node, "out_proj.weight", s.features, s.all, s.features, out, err);
    return status == BP_OK ? add_tensor(graph, node, "out_proj.bias", s.features, 0, s.features, none, err) : status;
}

static unsigned needs(const struct bp_node *node, enum bp_phase phase)
{
    (void)node;
    return phase == BP_PHASE_PARAMETERS ? BP_NEEDS_X : 0;
}

static struct bp_extent workspace(const struct bp_graph *graph, const struct bp_node *node)
{
    (void)graph;
    return (struct bp_extent){.row = sizes_of(node).sample};
}

static bool panels(const struct bp_graph *graph, const struct bp_node *node, int slot, enum bp_phase phase,
                   struct bp_panels *ret)
{
    struct sizes s = sizes_of(node);
    (void)graph;
    if (slot != IN_WEIGHT && slot != OUT_WEIGHT)
        return false;
    int out = (int)(slot == IN_WEIGHT ? 3 * s.all : s.features), in = (int)(slot == IN_WEIGHT ? s.features : s.all);
    if (phase == BP_PHASE_FORWARD)
        *ret = (struct bp_panels){.k = in, .n = out, .row = 1, .col = (size_t)in};
    else
        *ret = (struct bp_panels){.k = out, .n = in, .row = (size_t)in, .col = 1};
    return true;
}

static int64_t flops(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct sizes s = sizes_of(node);
    (void)graph;
    int64_t projections = (int64_t)(2 * s.steps * 4 * s.all * s.features);
    int64_t heads = (int64_t)(2 * s.steps * s.steps * 2 * s.all);
    return phase == BP_PHASE_FORWARD    ? projections + heads
           : phase == BP_PHASE_BACKWARD ? projections + 2 * heads
                                        : projections;
}

/* --- scratch ----------------------------------------------------------------------------------------------------- */

/* Steps of a chunk of the parameter gradients. */
static size_t chunk_samples(const struct sizes *s)
{
    return s->steps >= BP_ROW_CHUNK ? 1 : BP_ROW_CHUNK / s->steps;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Panels of one head: (key, T) or (T, key). */
static size_t head_panels(const struct sizes *s)
{
    return larger(bp_panels_size((int)s->key, (int)s->steps), bp_panels_size((int)s->steps, (int)s->key));
}

static size_t scratch(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase, int rows)
{
    struct sizes s = sizes_of(node);
    size_t scores = s.steps * s.steps, chunk = chunk_samples(&s) * s.steps;
    (void)graph, (void)rows;
    if (phase == BP_PHASE_FORWARD) /* panels, probabilities after dropout */
        return head_panels(&s) + scores;
    if (phase == BP_PHASE_BACKWARD) /* panels, two (T, T), dO, and the signals of Q, K, V */
        return head_panels(&s) + 2 * scores + s.steps * s.all + s.qkv;
    return chunk * (TILE_OUT + TILE_IN) + bp_panels_size((int)chunk, TILE_IN);
}

/* --- forward and backward of a sample ----------------------------------------------------------------------------- */

/* One sample of a call. */
struct sample {
    const struct bp_call *call;
    struct sizes s;
    uint64_t row;        /* in the batch: the dropout's */
    const bp_real *mask; /* (T), or NULL */
    bp_real *qkv;        /* (T, 3 E) */
    bp_real *scores;     /* (heads, T, T) */
    bp_real *out;        /* (T, E) */
    bp_real *panels;     /* of the scratch */
    bp_real scale;       /* 1 / sqrt(key_dim) */
};

static struct sample sample_of(const struct bp_call *call, int r)
{
    struct sample a = {.call = call, .s = sizes_of(call->node), .row = (uint64_t)call->row0 + (uint64_t)r};
    a.mask = call->node->ninputs == 2 ? call->x[1] + (size_t)r * a.s.steps : NULL;
    a.qkv = call->workspace + (size_t)r * a.s.sample;
    a.scores = a.qkv + a.s.qkv;
    a.out = a.scores + a.s.scores;
    a.panels = call->scratch;
#ifdef BP_DOUBLE
    a.scale = 1 / sqrt((double)a.s.key);
#else
    a.scale = 1 / sqrtf((float)a.s.key);
#endif
    return a;
}

static const bp_real *values_of(const struct bp_call *call, int slot)
{
    return call->params + call->graph->tensors[call->node->tensor[slot]].offset;
}

/* C (m, n) = A B for matrices inside larger ones; A transposed where a_col is not 1. */
static void product(const struct sample *a, size_t m, size_t n, size_t k, const bp_real *left, size_t a_row,
                    size_t a_col, bp_real *c, size_t c_row)
{
    a->call->kernels->gemm(&(struct bp_gemm){.m = (int)m,
                                             .n = (int)n,
                                             .k = (int)k,
                                             .a = left,
                                             .a_row = a_row,
                                             .a_col = a_col,
                                             .b = a->panels,
                                             .c = c,
                                             .c_row = c_row});
}

static void pack(const struct sample *a, const bp_real *b, size_t k, size_t n, size_t row, size_t col)
{
    a->call->kernels->pack(a->panels, b, (int)k, (int)n, row, col);
}

static void drop(const struct sample *a, size_t head, const bp_real *from, bp_real *to)
{
    const struct bp_call *call = a->call;
    size_t n = a->s.steps * a->s.steps;
    call->kernels->dropout(n, from, to, call->seed, bp_stream(BP_STREAM_DROPOUT, (uint32_t)call->index), call->step,
                           (a->row * a->s.heads + head) * n, (float)call->node->u.attention.dropout, false);
}

static bool drops(const struct sample *a)
{
    return a->call->training && a->call->node->u.attention.dropout > 0;
}

/* Scores (T, T) to probabilities, in place. */
static void probabilities(const struct sample *a, bp_real *scores)
{
    size_t steps = a->s.steps;
    for (size_t i = 0; i < steps; i++, scores += steps) {
        size_t seen = a->call->node->u.attention.causal ? i + 1 : steps;
        bool any = a->mask == NULL;
        for (size_t j = 0; a->mask != NULL && j < seen; j++) {
            if (a->mask[j] == 0)
                scores[j] = -(bp_real)INFINITY;
            else
                any = true;
        }
        if (any)
            a->call->kernels->softmax(false, 1, (int)seen, scores, scores);
        else
            seen = 0;
        memset(scores + seen, 0, (steps - seen) * sizeof *scores);
    }
}

static void forward_sample(const struct sample *a, const bp_real *x, bp_real *y)
{
    const struct bp_call *call = a->call;
    const struct sizes *s = &a->s;
    size_t row = 3 * s->all;
    bp_real *dropped = a->panels + head_panels(s);

    call->kernels->gemm(&(struct bp_gemm){.m = (int)s->steps,
                                          .n = (int)row,
                                          .k = (int)s->features,
                                          .a = x,
                                          .a_row = s->features,
                                          .a_col = 1,
                                          .b = call->forward_panels[call->node->tensor[IN_WEIGHT]],
                                          .c = a->qkv,
                                          .c_row = row,
                                          .bias = values_of(call, IN_BIAS)});
    for (size_t i = 0; i < s->steps; i++)
        call->kernels->scale(s->all, a->scale, a->qkv + i * row);
    for (size_t h = 0; h < s->heads; h++) {
        const bp_real *q = a->qkv + h * s->key, *k = q + s->all, *v = k + s->all;
        bp_real *scores = a->scores + h * s->steps * s->steps;
        const bp_real *weights = scores;
        pack(a, k, s->key, s->steps, 1, row);
        product(a, s->steps, s->steps, s->key, q, row, 1, scores, s->steps);
        probabilities(a, scores);
        if (drops(a)) {
            drop(a, h, scores, dropped);
            weights = dropped;
        }
        pack(a, v, s->steps, s->key, row, 1);
        product(a, s->steps, s->key, s->steps, weights, s->steps, 1, a->out + h * s->key, s->all);
    }
    call->kernels->gemm(&(struct bp_gemm){.m = (int)s->steps,
                                          .n = (int)s->features,
                                          .k = (int)s->all,
                                          .a = a->out,
                                          .a_row = s->all,
                                          .a_col = 1,
                                          .b = call->forward_panels[call->node->tensor[OUT_WEIGHT]],
                                          .c = y,
                                          .c_row = s->features,
                                          .bias = values_of(call, OUT_BIAS)});
}

static void forward(const struct bp_call *call)
{
    size_t elements = (size_t)bp_shape_elements(&call->node->shape);
    for (int r = 0; r < call->rows; r++) {
        struct sample a = sample_of(call, r);
        forward_sample(&a, call->x[0] + (size_t)r * elements, call->y + (size_t)r * elements);
    }
}

/* The error signals of one head's Q, K and V, into `signal` (T, 3 E). */
static void backward_head(const struct sample *a, size_t h, const bp_real *dout, bp_real *work, bp_real *signal)
{
    const struct sizes *s = &a->s;
    size_t row = 3 * s->all, steps = s->steps;
    const bp_real *q = a->qkv + h * s->key, *k = q + s->all, *v = k + s->all, *weights;
    bp_real *dq = signal + h * s->key, *dk = dq + s->all, *dv = dk + s->all;
    const bp_real *chances = a->scores + h * steps * steps;
    bp_real *dropped = work, *ds = work + steps * steps;

    weights = chances;
    if (drops(a)) {
        drop(a, h, chances, dropped);
        weights = dropped;
    }
    dout += h * s->key;
    pack(a, dout, steps, s->key, s->all, 1);
    product(a, steps, s->key, steps, weights, 1, steps, dv, row);
    pack(a, v, s->key, steps, 1, row);
    product(a, steps, steps, s->key, dout, s->all, 1, ds, steps);
    if (drops(a))
        drop(a, h, ds, ds);
    a->call->kernels->softmax_gradient(false, (int)steps, (int)steps, chances, ds, ds, false);
    pack(a, k, steps, s->key, row, 1);
    product(a, steps, s->key, steps, ds, steps, 1, dq, row);
    pack(a, q, steps, s->key, row, 1);
    product(a, steps, s->key, steps, ds, 1, steps, dk, row);
}

static void backward_sample(const struct sample *a, const bp_real *dy, bp_real *dx, bool add)
{
    const struct bp_call *call = a->call;
    const struct sizes *s = &a->s;
    size_t row = 3 * s->all;
    bp_real *work = a->panels + head_panels(s), *dout = work + 2 * s->steps * s->steps,
            *signal = dout + s->steps * s->all;

    call->kernels->gemm(&(struct bp_gemm){.m = (int)s->steps,
                                          .n = (int)s->all,
                                          .k = (int)s->features,
                                          .a = dy,
                                          .a_row = s->features,
                                          .a_col = 1,
                                          .b = call->backward_panels[call->node->tensor[OUT_WEIGHT]],
                                          .c = dout,
                                          .c_row = s->all});
    for (size_t h = 0; h < s->heads; h++)
        backward_head(a, h, dout, work, signal);
    for (size_t i = 0; i < s->steps; i++)
        call->kernels->scale(s->all, a->scale, signal + i * row);
    memcpy(a->qkv, signal, s->qkv * sizeof *signal);
    if (dx == NULL)
        return;
    call->kernels->gemm(&(struct bp_gemm){.m = (int)s->steps,
                                          .n = (int)s->features,
                                          .k = (int)row,
                                          .a = signal,
                                          .a_row = row,
                                          .a_col = 1,
                                          .b = call->backward_panels[call->node->tensor[IN_WEIGHT]],
                                          .c = dx,
                                          .c_row = s->features,
                                          .accumulate = add});
}

static void backward(const struct bp_call *call)
{
    size_t elements = (size_t)bp_shape_elements(&call->node->shape), steps = (size_t)call->node->shape.dim[0];
    if (call->node->ninputs == 2 && call->dx[1] != NULL &&
        !(call->add & 2)) /* the mask's; first, for it may be dx[0] */
        memset(call->dx[1], 0, (size_t)call->rows * steps * sizeof *call->dx[1]);
    for (int r = 0; r < call->rows; r++) {
        struct sample a = sample_of(call, r);
        bp_real *dx = call->dx[0] != NULL ? call->dx[0] + (size_t)r * elements : NULL;
        backward_sample(&a, call->dy + (size_t)r * elements, dx, call->add & 1);
    }
}

/* --- parameter gradients ------------------------------------------------------------------------------------------ */

/* A weight (outputs, inputs) whose gradient is L^T R: L the error signals (steps, outputs), R what went in. Both lie
 * in samples that are *_sample elements apart. */
struct weight {
    int slot;
    size_t outputs, inputs;
    const bp_real *left, *right;
    size_t left_sample, right_sample;
};

static void weights_of(const struct bp_call *call, const struct sizes *s, struct weight ret[2])
{
    size_t io = s->steps * s->features;
    const bp_real *w = call->workspace;
    ret[0] = (struct weight){IN_WEIGHT, 3 * s->all, s->features, w, call->x[0], s->sample, io};
    ret[1] = (struct weight){OUT_WEIGHT, s->features, s->all, call->dy, w + s->qkv + s->scores, io, s->sample};
}

static size_t tiles_of(size_t outputs, size_t inputs)
{
    return ((outputs - 1) / TILE_OUT + 1) * ((inputs - 1) / TILE_IN + 1);
}

static int grid(const struct bp_graph *graph, const struct bp_node *node, enum bp_phase phase)
{
    struct sizes s = sizes_of(node);
    (void)graph;
    return phase != BP_PHASE_PARAMETERS ? 0 : (int)(tiles_of(3 * s.all, s.features) + tiles_of(s.features, s.all));
}

/* Columns [first, first + n) of some samples' steps, one under the other. */
static void gather(bp_real *to, const bp_real *from, size_t samples, size_t apart, size_t steps, size_t row,
                   size_t first, size_t n)
{
    for (size_t r = 0; r < samples; r++)
        for (size_t i = 0; i < steps; i++, to += n)
            memcpy(to, from + r * apart + i * row + first, n * sizeof *to);
}

/* Tasks: the tiles of in_proj, then those of out_proj; the first of a row of tiles does the bias too. */
static void parameters(const struct bp_call *call)
{
    struct sizes s = sizes_of(call->node);
    struct weight both[2], *w = both;
    const struct bp_tensor *tensors = call->graph->tensors;
    size_t task = (size_t)call->task, samples = chunk_samples(&s), all = (size_t)call->rows;
    weights_of(call, &s, both);
    if (task >= tiles_of(w->outputs, w->inputs)) {
        task -= tiles_of(w->outputs, w->inputs);
        w++;
    }
    size_t across = (w->inputs - 1) / TILE_IN + 1, o0 = task / across * TILE_OUT, i0 = task % across * TILE_IN;
    size_t nout = w->outputs - o0 < TILE_OUT ? w->outputs - o0 : TILE_OUT;
    size_t nin = w->inputs - i0 < TILE_IN ? w->inputs - i0 : TILE_IN;
    bp_real *dw = call->grads + tensors[call->node->tensor[w->slot]].offset + o0 * w->inputs + i0;
    bp_real *db = i0 == 0 ? call->grads + tensors[call->node->tensor[w->slot + 1]].offset + o0 : NULL;
    bp_real *left = call->scratch, *right = left + samples * s.steps * TILE_OUT;
    bp_real *packed = right + samples * s.steps * TILE_IN;

    for (size_t r = 0; r < all; r += samples) {
        size_t n = all - r < samples ? all - r : samples, k = n * s.steps;
        gather(left, w->left + r * w->left_sample, n, w->left_sample, s.steps, w->outputs, o0, nout);
        gather(right, w->right + r * w->right_sample, n, w->right_sample, s.steps, w->inputs, i0, nin);
        call->kernels->pack(packed, right, (int)k, (int)nin, nin, 1);
        call->kernels->gemm(&(struct bp_gemm){.m = (int)nout,
                                              .n = (int)nin,
                                              .k = (int)k,
                                              .a = left,
                                              .a_row = 1,
                                              .a_col = nout,
                                              .b = packed,
                                              .c = dw,
                                              .c_row = w->inputs,
                                              .accumulate = r > 0});
        if (db != NULL)
            call->kernels->column_sum((int)k, (int)nout, left, nout, db, r > 0);
    }
}

const struct bp_op bp_op_multi_head_attention = {
    .name = "multi_head_attention",
    .min_inputs = 1,
    .max_inputs = 2,
    .backward_first = true,
    .infer = infer,
    .needs = needs,
    .grid = grid,
    .workspace = workspace,
    .scratch = scratch,
    .panels = panels,
    .flops = flops,
    .forward = forward,
    .backward = backward,
    .parameters = parameters,
};
