/* optimizer.c: the update of the parameters.
 *
 * For sums, the flat range of the parameters is cut into chunks of a size that depends on the range alone, each chunk
 * into the runs of neighbouring tensors that are treated alike. A chunk has one partial sum; partial sums are added in
 * ascending order. So the bits depend on the shapes only, not on who did which chunk. The update itself goes by the
 * model's shares: a thread has the shares whose gradients it has computed, and packs what it has updated.
 *
 * It refuses to know the network: no layers, no losses, no steps but their number.
 */
#include "train/optimizer.h"

#include "base/scalar.h"
#include "kernels/kernels.h"

#include <math.h>

#define CHUNK 8192       /* elements of a task, at least: part of the numerics version */
#define TASKS_MAX 256    /* tasks of a stage; larger models have larger chunks */
#define CHUNK_ALIGN 1024 /* chunks end at cache lines and at whole blocks of lanes */

static const char *const names[BP_OPTIMIZER_COUNT] = {
    [BP_SGD] = "sgd",         [BP_ADAM] = "adam",         [BP_ADAMW] = "adamw", [BP_RMSPROP] = "rmsprop",
    [BP_ADAGRAD] = "adagrad", [BP_ADADELTA] = "adadelta", [BP_NADAM] = "nadam", [BP_ADAMAX] = "adamax",
    [BP_LAMB] = "lamb",       [BP_LION] = "lion"};

const char *bp_optimizer_name(enum bp_optimizer_kind kind)
{
    return names[kind];
}

int bp_optimizer_slots(const struct bp_optimizer *optimizer)
{
    bool momentum = optimizer->momentum != 0.0;

    switch (optimizer->kind) {
    case BP_SGD:
        return momentum;
    case BP_RMSPROP:
        return 1 + momentum + optimizer->centered;
    case BP_ADAGRAD:
    case BP_LION:
        return 1;
    case BP_ADAM:
    case BP_ADAMW:
        return 2 + optimizer->amsgrad;
    default:
        return 2;
    }
}

static size_t chunk_size(size_t n)
{
    size_t chunk = (n + TASKS_MAX - 1) / TASKS_MAX;

    chunk = (chunk + CHUNK_ALIGN - 1) / CHUNK_ALIGN * CHUNK_ALIGN;
    return chunk < CHUNK ? CHUNK : chunk;
}

static int chunk_count(size_t n)
{
    size_t chunk = chunk_size(n);

    return (int)((n + chunk - 1) / chunk);
}

/* A run of neighbouring parameters that are treated alike. */
struct run {
    const struct bp_tensor *like;
    size_t first, end;
};

static bool treated_alike(const struct bp_tensor *a, const struct bp_tensor *b)
{
    return a->trainable == b->trainable && a->decay == b->decay && a->l1 == b->l1 && a->l2 == b->l2;
}

/* The next run within [run->end, end): false when there is none. *tensor goes from 0 up over the graph's tensors,
 * whose offsets ascend. Frozen tensors are passed over. */
static bool next_run(const struct bp_graph *graph, size_t end, int *tensor, struct run *run)
{
    size_t from = run->end;

    if (from >= end) {
        return false;
    }
    for (; *tensor < graph->ntensors; (*tensor)++) {
        const struct bp_tensor *t = &graph->tensors[*tensor];

        if (t->statistic || !t->trainable || t->offset + t->count <= from) {
            continue;
        }
        if (t->offset >= end) {
            return false;
        }
        run->like = t;
        run->first = t->offset > from ? t->offset : from;
        run->end = t->offset + t->count;
        break;
    }
    if (*tensor == graph->ntensors) {
        return false;
    }
    for (int next = *tensor + 1; next < graph->ntensors && run->end < end; next++) {
        const struct bp_tensor *t = &graph->tensors[next];

        if (t->statistic || t->offset != run->end || !treated_alike(t, run->like)) {
            break;
        }
        run->end = t->offset + t->count;
        *tensor = next;
    }
    run->end = run->end < end ? run->end : end;
    return true;
}

struct prepare {
    struct bp_model *model;
    int parts;
    size_t chunk;
    double partial[TASKS_MAX];
};

/* Of l1 |p| + l2 p^2: sign(p) l1 + 2 l2 p. */
static void add_penalty_gradients(const struct bp_tensor *like, size_t n, const bp_real *p, bp_real *g)
{
    bp_real l1 = (bp_real)like->l1, twice_l2 = (bp_real)(2.0 * like->l2);

    for (size_t i = 0; i < n; i++) {
        bp_real sign = (bp_real)((p[i] > 0.0f) - (p[i] < 0.0f));
        g[i] = g[i] + (twice_l2 * p[i] + l1 * sign);
    }
}

static void prepare_chunk(struct prepare *w, int task)
{
    struct bp_model *model = w->model;
    const struct bp_kernels *kernels = bp_kernels_current();
    size_t end = ((size_t)task + 1) * w->chunk < model->nparams ? ((size_t)task + 1) * w->chunk : model->nparams;
    struct run run = {NULL, 0, (size_t)task * w->chunk};
    int tensor = 0;
    double sum = 0.0;

    while (next_run(model->graph, end, &tensor, &run)) {
        size_t n = run.end - run.first;

        if (run.like->l1 != 0.0 || run.like->l2 != 0.0) {
            add_penalty_gradients(run.like, n, model->params + run.first, model->grads + run.first);
        }
        sum += kernels->sum_squares(n, model->grads + run.first);
    }
    w->partial[task] = sum;
}

/* The chunks that begin in the thread's shares: it has computed nearly all of their gradients. */
static void prepare_part(void *arg, int part, int thread)
{
    struct prepare *w = arg;
    const struct bp_model *model = w->model;

    (void)thread;
    for (int g = 0; g < model->ngroups; g++) {
        struct bp_share_group mine = bp_model_part(model, g, w->parts, part);
        if (mine.first < mine.end) {
            size_t end = model->shares[mine.end - 1].end;
            for (size_t c = (model->shares[mine.first].first + w->chunk - 1) / w->chunk; c * w->chunk < end; c++) {
                prepare_chunk(w, (int)c);
            }
        }
    }
}

double bp_optimizer_prepare(struct bp_model *model, struct bp_team *team)
{
    struct prepare w = {.model = model, .chunk = chunk_size(model->nparams)};
    int tasks = chunk_count(model->nparams);
    double sum = 0.0;

    w.parts = tasks > 1 ? bp_model_parts(model, team) : 1;
    bp_team_for(team, w.parts, prepare_part, &w);
    for (int i = 0; i < tasks; i++) {
        sum += w.partial[i];
    }
    return sum;
}

struct step {
    struct bp_optimizer_update update;
    int parts;
};

/* The kernel of an optimizer; NULL for sgd and adam, which have signatures of their own. */
static bp_update_kernel *rule_of(const struct bp_kernels *kernels, const struct bp_optimizer *optimizer)
{
    switch (optimizer->kind) {
    case BP_ADAM:
    case BP_ADAMW:
        return optimizer->amsgrad ? kernels->amsgrad : NULL;
    case BP_RMSPROP:
        return kernels->rmsprop;
    case BP_ADAGRAD:
        return kernels->adagrad;
    case BP_ADADELTA:
        return kernels->adadelta;
    case BP_NADAM:
        return kernels->nadam;
    case BP_ADAMAX:
        return kernels->adamax;
    case BP_LAMB:
        return kernels->lamb;
    case BP_LION:
        return kernels->lion;
    default:
        return NULL;
    }
}

static void slots_at(const struct bp_model *model, size_t at, bp_real *ret[BP_SLOTS_MAX])
{
    for (int s = 0; s < model->nslots; s++) {
        ret[s] = model->slots[s] + at;
    }
}

/* One update of n neighbouring parameters from `at` with the gradients g. */
static void update_range(const struct bp_optimizer_update *w, const struct bp_update *u, size_t at, size_t n,
                         bp_real *g)
{
    const struct bp_kernels *kernels = bp_kernels_current();
    bp_update_kernel *rule = rule_of(kernels, w->optimizer);
    const struct bp_model *model = w->model;
    bp_real *p = model->params + at, *slots[BP_SLOTS_MAX] = {NULL};

    slots_at(model, at, slots);
    if (rule != NULL) {
        rule(n, u, p, g, slots);
    } else if (w->optimizer->kind == BP_SGD) {
        kernels->sgd(n, u, p, g, slots[0]);
    } else {
        kernels->adam(n, u, p, g, slots[0], slots[1]);
    }
}

/* Updates the thread's shares, and packs each while it is in the cache. */
static void step_part(void *arg, int part, int thread)
{
    const struct step *w = arg;
    const struct bp_optimizer_update *u = &w->update;
    struct bp_model *model = u->model;

    (void)thread;
    for (int g = 0; g < model->ngroups; g++) {
        struct bp_share_group mine = bp_model_part(model, g, w->parts, part);
        for (int s = mine.first; s < mine.end; s++) {
            const struct bp_share *share = &model->shares[s];
            struct run run = {NULL, 0, share->first};
            int tensor = 0;

            while (next_run(model->graph, share->end, &tensor, &run)) {
                update_range(u, &u->rule[run.like->decay], run.first, run.end - run.first, model->grads + run.first);
            }
            bp_model_pack_share(model, share);
        }
    }
}

/* lamb's step of one tensor: first the moments and the two norms, chunk by chunk, then the update. */
struct layer {
    const struct bp_optimizer_update *step;
    const struct bp_tensor *tensor;
    size_t chunk;
    struct bp_update update;                             /* its rate is that of this tensor */
    double parameters[TASKS_MAX], directions[TASKS_MAX]; /* sums of squares */
};

static size_t layer_range(const struct layer *l, int task, size_t *ret_n)
{
    size_t first = (size_t)task * l->chunk, left = l->tensor->count - first;

    *ret_n = left < l->chunk ? left : l->chunk;
    return l->tensor->offset + first;
}

static void moments_chunk(void *arg, int task, int thread)
{
    struct layer *l = arg;
    const struct bp_kernels *kernels = bp_kernels_current();
    const struct bp_model *model = l->step->model;
    bp_real *slots[BP_SLOTS_MAX] = {NULL};
    size_t n, at = layer_range(l, task, &n);

    (void)thread;
    slots_at(model, at, slots);
    l->parameters[task] = kernels->sum_squares(n, model->params + at);
    l->directions[task] = kernels->lamb_moments(n, &l->update, model->params + at, model->grads + at, slots);
}

static void layer_chunk(void *arg, int task, int thread)
{
    const struct layer *l = arg;
    size_t n, at = layer_range(l, task, &n);

    (void)thread;
    update_range(l->step, &l->update, at, n, l->step->model->grads + at);
}

static void step_layers(const struct bp_optimizer_update *w, struct bp_team *team, double lr)
{
    const struct bp_graph *graph = w->model->graph;
    struct layer l = {.step = w};

    for (int t = 0; t < graph->ntensors; t++) {
        double parameters = 0.0, directions = 0.0;
        int tasks;

        l.tensor = &graph->tensors[t];
        if (l.tensor->statistic || !l.tensor->trainable) {
            continue;
        }
        l.update = w->rule[l.tensor->decay];
        l.chunk = chunk_size(l.tensor->count);
        tasks = chunk_count(l.tensor->count);
        bp_team_for(team, tasks, moments_chunk, &l);
        for (int i = 0; i < tasks; i++) {
            parameters += l.parameters[i];
            directions += l.directions[i];
        }
        l.update.lr = (bp_real)(parameters > 0.0 && directions > 0.0 ? lr * sqrt(parameters / directions) : lr);
        bp_team_for(team, tasks, layer_chunk, &l);
    }
}

#define NADAM_BASE 0.96         /* of the momentum's rise, as PyTorch and Dozat (2016) have it */
#define NADAM_FORGOTTEN 0x1p-64 /* a product below this is nothing beside 1 */

/* nadam's momentum of step t is beta1 (1 - 0.96^(t decay) / 2). The product of all up to `step` is computed anew from
 * the step's number, so that it is no state: it falls at least as fast as beta1^t, which ends the loop early. */
static double nadam_momentum(double beta1, double decay, double step)
{
    return beta1 * (1.0 - 0.5 * bp_pow(NADAM_BASE, step * decay));
}

static double nadam_product(double beta1, double decay, uint64_t step)
{
    double base = bp_pow(NADAM_BASE, decay), power = 1.0, product = 1.0;

    for (uint64_t t = 1; t <= step; t++) {
        power *= base;
        product *= beta1 * (1.0 - 0.5 * power);
        if (product < NADAM_FORGOTTEN) {
            return 0.0;
        }
    }
    return product;
}

#define FORGOTTEN 40.0 /* beta^t <= e^(-(1 - beta) t), and 1 - e^-40 is 1 */

/* 1 - beta^t. It is exactly 1 for most of the steps of a long run, which then need no power. */
static double bias_correction(double beta, uint64_t step)
{
    return (1.0 - beta) * (double)step > FORGOTTEN ? 1.0 : 1.0 - bp_powi(beta, step);
}

/* What depends on the step number. The moments decay by the betas as the kernels see them, in bp_real: so must their
 * corrections. */
static void set_sizes(struct bp_update *u, const struct bp_optimizer *optimizer, double lr, uint64_t step)
{
    double beta1 = (double)(bp_real)optimizer->beta1, decay = optimizer->momentum_decay;
    double correction1 = bias_correction(beta1, step);
    double correction2 = bias_correction((double)(bp_real)optimizer->beta2, step);

    u->root_scale = (bp_real)(1.0 / sqrt(correction2));
    if (optimizer->kind == BP_NADAM) {
        double next = nadam_momentum(beta1, decay, (double)step + 1.0);
        double product = nadam_product(beta1, decay, step);

        u->step_size = (bp_real)(lr * next / (1.0 - product * next));
        u->fresh_size = (bp_real)(lr * (1.0 - nadam_momentum(beta1, decay, (double)step)) / (1.0 - product));
    } else if (optimizer->kind == BP_LAMB) {
        u->step_size = (bp_real)(1.0 / correction1);
    } else {
        u->step_size = (bp_real)(lr / correction1);
    }
}

void bp_optimizer_begin(const struct bp_optimizer *optimizer, struct bp_model *model, double lr, double grad_scale,
                        uint64_t step, struct bp_optimizer_update *ret)
{
    enum bp_optimizer_kind kind = optimizer->kind;
    bool averages = kind == BP_RMSPROP || kind == BP_ADADELTA; /* of squares alone: their decay is alpha */
    struct bp_update rule = {
        .lr = (bp_real)lr,
        .grad_scale = (bp_real)grad_scale,
        .shrink = 1.0f,
        .momentum = (bp_real)optimizer->momentum,
        .dampening = (bp_real)optimizer->dampening,
        .nesterov = optimizer->nesterov,
        .first = step == 1,
        .beta1 = (bp_real)optimizer->beta1,
        .beta2 = (bp_real)(averages ? optimizer->alpha : optimizer->beta2),
        .eps = (bp_real)optimizer->eps,
        .initial = (bp_real)optimizer->initial_accumulator,
        .centered = optimizer->centered,
    };

    if (kind != BP_SGD && kind != BP_ADAGRAD && kind != BP_LION && !averages) { /* those with bias corrections */
        set_sizes(&rule, optimizer, lr, step);
    }
    *ret = (struct bp_optimizer_update){optimizer, model, {rule, rule}};
    if (kind == BP_ADAMW || kind == BP_LION) {
        ret->rule[1].shrink = (bp_real)(1.0 - lr * optimizer->weight_decay);
    } else {
        ret->rule[1].decay = (bp_real)optimizer->weight_decay;
    }
}

bool bp_optimizer_by_pieces(const struct bp_optimizer *optimizer)
{
    return optimizer->kind != BP_LAMB;
}

void bp_optimizer_take(void *arg, const struct bp_piece *piece, bp_real *gradient, size_t gradient_row)
{
    const struct bp_optimizer_update *w = arg;
    const struct bp_tensor *tensor = &w->model->graph->tensors[piece->tensor];
    size_t row = tensor->shape.rank > 1 ? tensor->count / (size_t)tensor->shape.dim[0] : tensor->count;
    size_t at = tensor->offset + (size_t)piece->row * row + (size_t)piece->column;

    for (int done = 0; done < piece->rows; done += BP_PANEL) { /* stores to the panels wait less in small portions */
        struct bp_piece band = *piece;

        band.row += done;
        band.rows = piece->rows - done < BP_PANEL ? piece->rows - done : BP_PANEL;
        for (int r = 0; r < band.rows; r++) {
            update_range(w, &w->rule[tensor->decay], at, (size_t)piece->columns, gradient);
            at += row;
            gradient += gradient_row;
        }
        bp_model_pack_piece(w->model, &band);
    }
    bp_model_pack_end(w->model);
}

void bp_optimizer_step(const struct bp_optimizer *optimizer, struct bp_model *model, struct bp_team *team, double lr,
                       double grad_scale, uint64_t step)
{
    struct step w = {.parts = bp_model_parts(model, team)};

    bp_optimizer_begin(optimizer, model, lr, grad_scale, step, &w.update);
    if (optimizer->kind == BP_LAMB) {
        step_layers(&w.update, team, lr);
        bp_model_pack(model, team);
    } else {
        bp_team_for(team, w.parts, step_part, &w);
    }
}

double bp_optimizer_penalty(const struct bp_model *model)
{
    double sum = 0.0;

    for (int t = 0; t < model->graph->ntensors; t++) {
        const struct bp_tensor *tensor = &model->graph->tensors[t];
        const bp_real *p = model->params + tensor->offset;

        if (tensor->statistic || (tensor->l1 == 0.0 && tensor->l2 == 0.0)) {
            continue;
        }
        for (size_t i = 0; i < tensor->count; i++) {
            sum += tensor->l1 * fabs((double)p[i]) + tensor->l2 * (double)p[i] * (double)p[i];
        }
    }
    return sum;
}
