/* gradient.c: sums and limits of gradients; see gradient.h. */
#include "train/gradient.h"

#include "kernels/kernels.h"

#include <string.h>

#define CHUNK 32768 /* elements of a task: worth a barrier */

struct work {
    struct bp_model *model;
    float *sum;
    float factor, limit;
    bool first, last;
};

static size_t range(const struct work *w, int task, size_t *ret_n)
{
    size_t first = (size_t)task * CHUNK, left = w->model->nparams - first;

    *ret_n = left < CHUNK ? left : CHUNK;
    return first;
}

static int tasks_of(const struct bp_model *model)
{
    return (int)((model->nparams + CHUNK - 1) / CHUNK);
}

static void accumulate_chunk(void *arg, int task, int thread)
{
    const struct work *w = arg;
    const struct bp_kernels *kernels = bp_kernels_current();
    size_t n, at = range(w, task, &n);
    float *g = w->model->grads + at;

    (void)thread;
    kernels->scale(n, w->factor, g);
    if (!w->first) {
        kernels->add(n, w->sum + at, g);
    }
    if (!w->last) {
        memcpy(w->sum + at, g, n * sizeof *g);
    }
}

void bp_gradient_accumulate(struct bp_model *model, struct bp_team *team, float *sum, double share, bool first,
                            bool last)
{
    struct work w = {.model = model, .sum = sum, .factor = (float)share, .first = first, .last = last};

    bp_team_for(team, tasks_of(model), accumulate_chunk, &w);
}

static void clip_chunk(void *arg, int task, int thread)
{
    const struct work *w = arg;
    size_t n, at = range(w, task, &n);

    (void)thread;
    bp_kernels_current()->clip(n, w->factor, w->limit, w->model->grads + at);
}

void bp_gradient_clip(struct bp_model *model, struct bp_team *team, double factor, double limit)
{
    struct work w = {.model = model, .factor = (float)factor, .limit = (float)limit};

    bp_team_for(team, tasks_of(model), clip_chunk, &w);
}
