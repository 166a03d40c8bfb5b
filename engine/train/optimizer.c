/* optimizer.c: the update of the parameters.
 *
 * The flat range of the parameters is cut into chunks of a size that depends on the range alone, each chunk into the
 * runs of neighbouring tensors that are treated alike. A chunk is one task and has one partial sum; partial sums are
 * added in ascending order. So the bits depend on the shapes only, not on who did which chunk.
 *
 * It refuses to know the network: no layers, no losses, no steps but their number.
 */
#include "train/optimizer.h"

#include "base/scalar.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdbool.h>

#define CHUNK 8192       /* elements of a task, at least: part of the numerics version */
#define TASKS_MAX 256    /* tasks of a stage; larger models have larger chunks */
#define CHUNK_ALIGN 1024 /* chunks end at cache lines and at whole blocks of lanes */

static const char *const names[BP_OPTIMIZER_COUNT] = {[BP_SGD] = "sgd", [BP_ADAM] = "adam", [BP_ADAMW] = "adamw"};

const char *bp_optimizer_name(enum bp_optimizer_kind kind)
{
    return names[kind];
}

int bp_optimizer_slots(const struct bp_optimizer *optimizer)
{
    if (optimizer->kind == BP_SGD) {
        return optimizer->momentum != 0.0 ? 1 : 0;
    }
    return 2;
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

static void prepare_chunk(void *arg, int task, int thread)
{
    struct prepare *w = arg;
    struct bp_model *model = w->model;
    const struct bp_kernels *kernels = bp_kernels_current();
    size_t end = ((size_t)task + 1) * w->chunk < model->nparams ? ((size_t)task + 1) * w->chunk : model->nparams;
    struct run run = {NULL, 0, (size_t)task * w->chunk};
    int tensor = 0;
    double sum = 0.0;

    (void)thread;
    while (next_run(model->graph, end, &tensor, &run)) {
        size_t n = run.end - run.first;

        if (run.like->l1 != 0.0 || run.like->l2 != 0.0) {
            add_penalty_gradients(run.like, n, model->params + run.first, model->grads + run.first);
        }
        sum += kernels->sum_squares(n, model->grads + run.first);
    }
    w->partial[task] = sum;
}

double bp_optimizer_prepare(struct bp_model *model, struct bp_team *team)
{
    struct prepare w = {.model = model, .chunk = chunk_size(model->nparams)};
    int tasks = chunk_count(model->nparams);
    double sum = 0.0;

    bp_team_for(team, tasks, prepare_chunk, &w);
    for (int i = 0; i < tasks; i++) {
        sum += w.partial[i];
    }
    return sum;
}

struct step {
    const struct bp_optimizer *optimizer;
    struct bp_model *model;
    size_t chunk;
    struct bp_update update[2]; /* of tensors without and with weight decay */
};

static void step_chunk(void *arg, int task, int thread)
{
    const struct step *w = arg;
    struct bp_model *model = w->model;
    const struct bp_kernels *kernels = bp_kernels_current();
    size_t end = ((size_t)task + 1) * w->chunk < model->nparams ? ((size_t)task + 1) * w->chunk : model->nparams;
    struct run run = {NULL, 0, (size_t)task * w->chunk};
    int tensor = 0;

    (void)thread;
    while (next_run(model->graph, end, &tensor, &run)) {
        const struct bp_update *u = &w->update[run.like->decay];
        size_t n = run.end - run.first, at = run.first;
        bp_real *p = model->params + at, *g = model->grads + at;

        if (w->optimizer->kind == BP_SGD) {
            kernels->sgd(n, u, p, g, model->nslots > 0 ? model->slots[0] + at : NULL);
        } else {
            kernels->adam(n, u, p, g, model->slots[0] + at, model->slots[1] + at);
        }
    }
}

void bp_optimizer_step(const struct bp_optimizer *optimizer, struct bp_model *model, struct bp_team *team, double lr,
                       double grad_scale, uint64_t step)
{
    struct step w = {.optimizer = optimizer, .model = model, .chunk = chunk_size(model->nparams)};
    /* The moments decay by the betas as the kernels see them, in bp_real: so must their corrections. */
    double correction1 = 1.0 - bp_powi((double)(bp_real)optimizer->beta1, step);
    double correction2 = 1.0 - bp_powi((double)(bp_real)optimizer->beta2, step);
    struct bp_update update = {
        .lr = (bp_real)lr,
        .grad_scale = (bp_real)grad_scale,
        .shrink = 1.0f,
        .momentum = (bp_real)optimizer->momentum,
        .dampening = (bp_real)optimizer->dampening,
        .nesterov = optimizer->nesterov,
        .first = step == 1,
        .beta1 = (bp_real)optimizer->beta1,
        .beta2 = (bp_real)optimizer->beta2,
        .eps = (bp_real)optimizer->eps,
    };

    if (optimizer->kind != BP_SGD) {
        update.step_size = (bp_real)(lr / correction1);
        update.root_scale = (bp_real)(1.0 / sqrt(correction2));
    }
    w.update[0] = w.update[1] = update;
    if (optimizer->kind == BP_ADAMW) {
        w.update[1].shrink = (bp_real)(1.0 - lr * optimizer->weight_decay);
    } else {
        w.update[1].decay = (bp_real)optimizer->weight_decay;
    }
    bp_team_for(team, chunk_count(model->nparams), step_chunk, &w);
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
