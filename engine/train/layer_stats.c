/* layer_stats.c: sampling the layers of a network in training; see layer_stats.h.
 *
 * The probe is an execution of its own, planned to keep everything, over the trainer's own model. Its rows are gathered
 * once: they stay in its input.
 */
#include "train/layer_stats.h"

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"
#include "train/batch.h"

#include <math.h>
#include <string.h>

#define PROBE_ROWS 256             /* enough to tell a unit that never answers from one that answers seldom */
#define PROBE_ELEMENTS (1LL << 22) /* values kept of all rows together: 32 MB with their error signals */
#define COST 80.0                  /* steps between samples, for each batch of rows in the probe and one more */
#define LANES 8                    /* partial sums of a pass over activations: independent, added in order */
#define FLAT 0.05                  /* of the steepest slope: below it a unit is saturated */

struct bp_layer_sampler {
    struct bp_model *model;
    const struct bp_source *source;
    struct bp_exec *exec;
    int capacity, rows;
    bool loaded; /* the rows are in the execution */
    uint64_t seed;
    int64_t interval;
    int n;
    struct bp_layer_info *infos;
    struct bp_layer_stat *stats;
    uint32_t *row;  /* indices of the probe's rows */
    float *before;  /* nparams: the parameters before the step */
    float *kept;    /* nstats: the running statistics before the probe */
    uint8_t *alive; /* of the widest layer: units that were not 0 */
    struct bp_layer_sample sample;
};

/* --- which layers -------------------------------------------------------------------------------------------------- */

static bool has_parameters(const struct bp_graph *graph, const struct bp_node *node)
{
    for (int i = 0; i < node->ntensors; i++) {
        if (!graph->tensors[node->tensor[i]].statistic) {
            return true;
        }
    }
    return false;
}

/* The activation right on top of a node, or the node itself. */
static int activation_of(const struct bp_graph *graph, int node)
{
    int next = node + 1;
    bool on_top = next < graph->nnodes && graph->nodes[next].kind == BP_OP_ACTIVATION &&
                  graph->nodes[next].input[0] == node && graph->nodes[node].kind != BP_OP_ACTIVATION;

    return on_top ? next : node;
}

/* Fills infos when not NULL; returns how many layers there are. */
static int find_layers(const struct bp_graph *graph, struct bp_layer_info *infos)
{
    int n = 0;

    for (int i = 1; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        struct bp_layer_info info = {.name = node->name, .type = bp_node_type(node), .node = i, .hidden = true};

        if (!has_parameters(graph, node) && node->kind != BP_OP_ACTIVATION) {
            continue;
        }
        info.output = activation_of(graph, i);
        info.activation = graph->nodes[info.output].kind == BP_OP_ACTIVATION
                              ? graph->nodes[info.output].u.activation.kind
                              : BP_LINEAR;
        for (int h = 0; h < graph->nheads; h++) {
            info.hidden = info.hidden && graph->heads[h].node != info.output;
        }
        if (infos != NULL) {
            infos[n] = info;
        }
        n++;
        i = info.output;
    }
    return n;
}

/* --- sizes --------------------------------------------------------------------------------------------------------- */

/* Rows of the probe: fewer where a row's values are many. */
static int probe_rows(const struct bp_graph *graph, uint64_t nrows)
{
    int64_t elements = 0, rows;

    for (int i = 0; i < graph->nnodes; i++) {
        elements += bp_shape_elements(&graph->nodes[i].shape); /* at most 2^12 of at most 2^31 */
    }
    rows = PROBE_ELEMENTS / (elements > 0 ? elements : 1);
    rows = rows > PROBE_ROWS ? PROBE_ROWS : rows < 1 ? 1 : rows;
    return (uint64_t)rows > nrows ? (int)nrows : (int)rows;
}

static size_t widest(const struct bp_graph *graph)
{
    int64_t most = 1;

    for (int i = 0; i < graph->nnodes; i++) {
        int64_t width = bp_shape_elements(&graph->nodes[i].shape);
        most = width > most ? width : most;
    }
    return (size_t)most;
}

static struct bp_exec_options exec_options(const struct bp_graph *graph, const struct bp_layer_sampler_options *o)
{
    return (struct bp_exec_options){
        .capacity = probe_rows(graph, o->nrows), .training = true, .keep_all = true, .threads = o->threads};
}

/* Steps between two samples. A probe of as many rows as a batch, with its sums, costs about two and a half steps. */
static int64_t interval_of(int rows, int batch)
{
    return (int64_t)ceil(COST * (1.0 + (double)rows / (double)batch));
}

bp_status bp_layer_sampler_estimate(const struct bp_graph *graph, const struct bp_layer_sampler_options *options,
                                    size_t *ret)
{
    struct bp_exec_options o = exec_options(graph, options);
    size_t layers = (size_t)find_layers(graph, NULL), sum;
    bp_status status = bp_exec_estimate(graph, &o, &sum);

    if (status != BP_OK) {
        return status;
    }
    if (!bp_size_add(sum, sizeof(float) * (graph->nparams + graph->nstats), &sum) ||
        !bp_size_add(sum, layers * (sizeof(struct bp_layer_info) + sizeof(struct bp_layer_stat)), &sum) ||
        !bp_size_add(sum, widest(graph) + PROBE_ROWS * sizeof(uint32_t) + sizeof(struct bp_layer_sampler), &sum)) {
        return BP_LIMIT;
    }
    *ret = sum;
    return BP_OK;
}

/* --- making -------------------------------------------------------------------------------------------------------- */

static bp_status make_parts(struct bp_layer_sampler *s, const struct bp_layer_sampler_options *options,
                            struct bp_error *err)
{
    const struct bp_graph *graph = s->model->graph;
    struct bp_exec_options o = exec_options(graph, options);

    s->n = find_layers(graph, NULL);
    s->infos = bp_alloc((size_t)s->n * sizeof *s->infos);
    s->stats = bp_alloc((size_t)s->n * sizeof *s->stats);
    s->row = bp_alloc((size_t)o.capacity * sizeof *s->row);
    s->before = bp_alloc(graph->nparams * sizeof *s->before);
    s->kept = bp_alloc(graph->nstats * sizeof *s->kept);
    s->alive = bp_alloc(widest(graph));
    if (!s->infos || !s->stats || !s->row || !s->before || !s->kept || !s->alive) {
        return bp_fail(err, BP_NOMEM, "no memory for the statistics of %d layers", s->n);
    }
    find_layers(graph, s->infos);
    s->rows = o.capacity;
    for (int i = 0; i < s->rows; i++) { /* evenly spaced: rows may be sorted by class */
        s->row[i] = options->rows[(uint64_t)i * options->nrows / (uint64_t)s->rows];
    }
    s->interval = interval_of(s->rows, options->batch_size);
    s->seed = options->seed;
    return bp_exec_new(s->model, &o, &s->exec, err);
}

bp_status bp_layer_sampler_new(struct bp_model *model, const struct bp_source *source,
                               const struct bp_layer_sampler_options *options, struct bp_layer_sampler **ret,
                               struct bp_error *err)
{
    struct bp_layer_sampler *s = bp_alloc(sizeof *s);
    bp_status status;

    if (s == NULL) {
        return bp_fail(err, BP_NOMEM, "no memory for the statistics of the layers");
    }
    s->model = model;
    s->source = source;
    status = make_parts(s, options, err);
    if (status != BP_OK) {
        bp_layer_sampler_free(s);
        return status;
    }
    *ret = s;
    return BP_OK;
}

void bp_layer_sampler_free(struct bp_layer_sampler *s)
{
    if (s == NULL) {
        return;
    }
    bp_exec_free(s->exec);
    bp_free(s->infos);
    bp_free(s->stats);
    bp_free(s->row);
    bp_free(s->before);
    bp_free(s->kept);
    bp_free(s->alive);
    bp_free(s);
}

bool bp_layer_sampler_due(const struct bp_layer_sampler *s, int64_t step, int64_t steps)
{
    int64_t most = BP_LAYER_SAMPLES_MAX, interval = s->interval;

    if (s->n > 0 && most > BP_LAYER_ROWS_MAX / s->n) {
        most = BP_LAYER_ROWS_MAX / s->n > 1 ? BP_LAYER_ROWS_MAX / s->n : 1;
    }
    if (steps / most > interval) {
        interval = steps / most;
    }
    return step == steps || (step < interval ? (step & (step - 1)) == 0 : step % interval == 0);
}

/* --- the probe's figures ------------------------------------------------------------------------------------------- */

/* Mean and standard deviation of n numbers. */
static void find_moments(const float *y, size_t n, struct bp_layer_stat *stat)
{
    double sum[LANES] = {0}, squares[LANES] = {0}, total = 0.0, variance = 0.0;

    for (size_t i = 0; i < n / LANES * LANES; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            sum[k] += (double)y[i + (size_t)k];
            squares[k] += (double)y[i + (size_t)k] * (double)y[i + (size_t)k];
        }
    }
    for (size_t i = n / LANES * LANES; i < n; i++) {
        sum[0] += (double)y[i];
        squares[0] += (double)y[i] * (double)y[i];
    }
    for (int k = 0; k < LANES; k++) {
        total += sum[k];
        variance += squares[k];
    }
    stat->mean = total / (double)n;
    variance = variance / (double)n - stat->mean * stat->mean;
    stat->spread = variance > 0.0 ? sqrt(variance) : variance == variance ? 0.0 : NAN;
}

/* Share of units that are 0 for every row; a unit of an image is a whole channel. */
static double dead_share(struct bp_layer_sampler *s, const struct bp_shape *shape, const float *y)
{
    size_t width = (size_t)bp_shape_elements(shape);
    size_t units = shape->rank == 3 ? (size_t)shape->dim[0] : width, each = width / units, dead = 0;

    memset(s->alive, 0, width);
    for (int r = 0; r < s->rows; r++, y += width) {
        for (size_t i = 0; i < width; i++) {
            s->alive[i] |= y[i] != 0.0f;
        }
    }
    for (size_t u = 0; u < units; u++) {
        dead += memchr(s->alive + u * each, 1, each) == NULL;
    }
    return (double)dead / (double)units;
}

/* Values y from which on the slope is below FLAT of the steepest: y outside (low, high). */
static bool flat_beyond(enum bp_activation kind, float *low, float *high)
{
    switch (kind) {
    case BP_SIGMOID: /* slope y (1 - y), at most 1/4 */
        *high = (float)(0.5 + 0.5 * sqrt(1.0 - FLAT));
        *low = 1.0f - *high;
        return true;
    case BP_TANH: /* 1 - y^2, at most 1 */
        *high = (float)sqrt(1.0 - FLAT);
        *low = -*high;
        return true;
    case BP_SOFTSIGN: /* (1 - |y|)^2, at most 1 */
        *high = (float)(1.0 - sqrt(FLAT));
        *low = -*high;
        return true;
    case BP_HARD_SIGMOID: /* constant between the two, else 0 */
        *low = 0.0f;
        *high = 1.0f;
        return true;
    default:
        return false;
    }
}

static double saturated_share(enum bp_activation kind, const float *y, size_t n)
{
    float low = 0.0f, high = 0.0f;
    size_t count = 0;

    if (!flat_beyond(kind, &low, &high)) {
        return NAN;
    }
    for (size_t i = 0; i < n; i++) {
        count += !(y[i] > low && y[i] < high);
    }
    return (double)count / (double)n;
}

/* The rows' error signals come scaled by 1 / rows, as the loss is a mean over them: here they are of a row. */
static double delta_norm(const struct bp_layer_sampler *s, const float *dz, size_t n)
{
    return sqrt(bp_kernels_current()->sum_squares(n, dz) * (double)s->rows);
}

/* n numbers of each row, `row` elements apart. */
static double step_norm(const struct bp_layer_sampler *s, const float *dz, size_t row, size_t n)
{
    double sum = 0.0;

    for (int r = 0; r < s->rows; r++) {
        sum += bp_kernels_current()->sum_squares(n, dz + (size_t)r * row);
    }
    return sqrt(sum * (double)s->rows);
}

/* signal: the backward pass went through the layer. */
static void look_through_time(const struct bp_layer_sampler *s, int node, bool signal, struct bp_layer_stat *stat)
{
    const struct bp_graph *graph = s->model->graph;
    const struct bp_op *op = bp_op_table[graph->nodes[node].kind];
    const float *left = bp_exec_workspace(s->exec, node);

    if (op->unrolled == NULL || left == NULL || !signal) {
        return;
    }
    struct bp_unrolled steps = op->unrolled(graph, &graph->nodes[node]);
    stat->delta_first = step_norm(s, left + steps.first, steps.row, steps.n);
    stat->delta_last = step_norm(s, left + steps.last, steps.row, steps.n);
}

static double alike_share(const struct bp_model *model, const struct bp_node *node)
{
    const struct bp_tensor *weight = node->ntensors > 0 ? &model->graph->tensors[node->tensor[0]] : NULL;
    const float *first;
    size_t units, each, same = 0;

    if (weight == NULL || (node->kind != BP_OP_DENSE && node->kind != BP_OP_CONV) || weight->shape.rank < 2 ||
        weight->shape.dim[0] < 2) {
        return NAN;
    }
    units = (size_t)weight->shape.dim[0];
    each = weight->count / units;
    first = model->params + weight->offset;
    for (size_t u = 1; u < units; u++) {
        same += memcmp(first, first + u * each, each * sizeof *first) == 0;
    }
    return (double)same / (double)(units - 1);
}

static void look_at(struct bp_layer_sampler *s, int layer)
{
    const struct bp_graph *graph = s->model->graph;
    const struct bp_layer_info *info = &s->infos[layer];
    const struct bp_shape *shape = &graph->nodes[info->output].shape;
    const float *y = bp_exec_value(s->exec, info->output), *dz = bp_exec_gradient(s->exec, info->node);
    size_t n = (size_t)s->rows * (size_t)bp_shape_elements(shape);
    struct bp_layer_stat stat = {.gradient_norm = NAN,
                                 .clipped_norm = NAN,
                                 .weight_norm = NAN,
                                 .update_ratio = NAN,
                                 .delta_norm = NAN,
                                 .delta_first = NAN,
                                 .delta_last = NAN,
                                 .mean = NAN,
                                 .spread = NAN,
                                 .dead = NAN,
                                 .saturated = NAN};

    if (y != NULL) {
        find_moments(y, n, &stat);
        stat.saturated = saturated_share(info->activation, y, n);
        if (info->activation == BP_RELU || info->activation == BP_RELU6) {
            stat.dead = dead_share(s, shape, y);
        }
    }
    if (dz != NULL) {
        stat.delta_norm =
            delta_norm(s, dz, (size_t)s->rows * (size_t)bp_shape_elements(&graph->nodes[info->node].shape));
    }
    look_through_time(s, info->node, dz != NULL && graph->nodes[info->node].trainable, &stat);
    stat.alike = alike_share(s->model, &graph->nodes[info->node]);
    s->stats[layer] = stat;
}

bp_status bp_layer_sampler_before(struct bp_layer_sampler *s, struct bp_team *team, int64_t step,
                                  struct bp_error *err)
{
    const struct bp_graph *graph = s->model->graph;
    struct bp_batch batch;

    if (!s->loaded) {
        bp_status status = bp_batch_load(&batch, s->exec, graph, s->source, s->row, s->rows, err);
        if (status != BP_OK) {
            return status;
        }
        s->loaded = true;
    }
    memcpy(s->before, s->model->params, graph->nparams * sizeof *s->before);
    memcpy(s->kept, s->model->stats, graph->nstats * sizeof *s->kept);
    s->sample.loss = bp_exec_pass(s->exec, team, s->rows, true, s->seed, (uint64_t)step);
    memcpy(s->model->stats, s->kept, graph->nstats * sizeof *s->kept);
    for (int i = 0; i < s->n; i++) {
        look_at(s, i);
    }
    return BP_OK;
}

/* --- the step's figures -------------------------------------------------------------------------------------------- */

struct norms {
    double gradient, weight, update; /* sums of squares */
};

/* Adds the squares of a tensor's numbers; `before` becomes the update. */
static void add_tensor(struct bp_layer_sampler *s, const struct bp_tensor *t, bool weights, struct norms *sum)
{
    const struct bp_kernels *kernels = bp_kernels_current();
    float *before = s->before + t->offset;
    const float *after = s->model->params + t->offset;

    sum->gradient += kernels->sum_squares(t->count, s->model->grads + t->offset);
    if (!weights) {
        return;
    }
    sum->weight += kernels->sum_squares(t->count, before);
    for (size_t i = 0; i < t->count; i++) {
        before[i] = after[i] - before[i];
    }
    sum->update += kernels->sum_squares(t->count, before);
}

static void set_norms(struct bp_layer_stat *stat, const struct norms *sum, double clip, bool updated)
{
    stat->gradient_norm = sqrt(sum->gradient);
    stat->clipped_norm = stat->gradient_norm * clip;
    stat->weight_norm = sqrt(sum->weight);
    stat->update_ratio = updated && sum->weight > 0.0 ? sqrt(sum->update / sum->weight) : NAN;
}

const struct bp_layer_sample *bp_layer_sampler_after(struct bp_layer_sampler *s, int64_t epoch, int64_t step,
                                                     double clip, bool updated)
{
    const struct bp_graph *graph = s->model->graph;
    struct norms all = {0};

    for (int i = 0; i < s->n; i++) {
        const struct bp_node *node = &graph->nodes[s->infos[i].node];
        struct norms sum = {0};
        bool matrix = false, any = false;

        for (int k = 0; k < node->ntensors; k++) {
            const struct bp_tensor *t = &graph->tensors[node->tensor[k]];
            matrix = matrix || (!t->statistic && t->shape.rank >= 2);
        }
        for (int k = 0; k < node->ntensors; k++) {
            const struct bp_tensor *t = &graph->tensors[node->tensor[k]];
            if (t->statistic || !t->trainable) {
                continue;
            }
            any = true;
            add_tensor(s, t, !matrix || t->shape.rank >= 2, &sum);
        }
        if (!any) {
            continue;
        }
        set_norms(&s->stats[i], &sum, clip, updated);
        all.gradient += sum.gradient;
        all.weight += sum.weight;
        all.update += sum.update;
    }
    s->sample.total = (struct bp_layer_stat){.delta_norm = NAN,
                                             .delta_first = NAN,
                                             .delta_last = NAN,
                                             .mean = NAN,
                                             .spread = NAN,
                                             .dead = NAN,
                                             .saturated = NAN,
                                             .alike = NAN};
    set_norms(&s->sample.total, &all, clip, updated);
    s->sample.epoch = epoch;
    s->sample.step = step;
    s->sample.n = s->n;
    s->sample.interval = s->interval;
    s->sample.infos = s->infos;
    s->sample.stats = s->stats;
    return &s->sample;
}
