/* predictor.c: loading trained networks, keeping the last few, running them (see predictor.h).
 *
 * Lock order: there is one mutex, and it is never held while anything is loaded or computed. Two requests that miss
 * the same predictor at once both load it; the second to finish throws its own away.
 */
#include "jobs/predictor.h"

#include "base/scalar.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BENCH_BYTES ((size_t)64 << 20) /* of an execution: there may be several of each predictor */

struct bp_predictors {
    struct bp_store *store;
    pthread_mutex_t mutex; /* guards all below, and the holders and benches of every predictor */
    struct bp_predictor *first;
};

bp_status bp_predictors_new(struct bp_store *store, struct bp_predictors **ret, struct bp_error *err)
{
    struct bp_predictors *predictors = calloc(1, sizeof *predictors);
    if (!predictors)
        return bp_fail(err, BP_NOMEM, "no memory for the predictors");
    predictors->store = store;
    pthread_mutex_init(&predictors->mutex, NULL);
    *ret = predictors;
    return BP_OK;
}

static void free_predictor(struct bp_predictor *p)
{
    for (int i = 0; i < p->nbenches; i++)
        bp_exec_free(p->benches[i]);
    bp_model_free(p->model);
    bp_network_done(&p->network);
    free(p);
}

void bp_predictors_free(struct bp_predictors *predictors)
{
    if (!predictors)
        return;
    while (predictors->first) {
        struct bp_predictor *p = predictors->first;
        predictors->first = p->next;
        free_predictor(p);
    }
    pthread_mutex_destroy(&predictors->mutex);
    free(predictors);
}

int bp_predict_batch(const struct bp_graph *graph)
{
    int rows = BP_PREDICT_BATCH;
    for (; rows > 2; rows /= 2) {
        struct bp_exec_options options = {.capacity = rows, .threads = 1};
        size_t bytes;
        if (!bp_exec_estimate(graph, &options, &bytes) && bytes <= BENCH_BYTES)
            break;
    }
    return rows;
}

/* --- loading --- */

static bp_status load_weights(struct bp_store *store, struct bp_predictor *p, struct bp_error *err)
{
    uint8_t *bytes = NULL;
    size_t size;
    bp_status status = bp_store_checkpoint_load(store, p->checkpoint, &bytes, &size, err);
    if (status)
        return status;
    struct bp_checkpoint_header header;
    const uint8_t *params, *stats;
    status = bp_checkpoint_read(bytes, size, p->best, &header, &params, &stats, err);
    if (!status)
        status = bp_network_check(&p->network, &header, err);
    if (!status)
        status = bp_model_new(p->network.plan.graph, false, 0, &p->model, err);
    if (!status) {
        memcpy(p->model->params, params, p->model->nparams * sizeof *p->model->params);
        if (p->model->nstats > 0)
            memcpy(p->model->stats, stats, p->model->nstats * sizeof *p->model->stats);
        bp_model_pack(p->model, NULL);
        bool of_best = p->best && header.best.any;
        p->epoch = of_best ? header.best.epoch : header.epoch;
        p->step = of_best ? header.best.step : header.step;
    }
    free(bytes);
    return status;
}

static bp_status load(struct bp_store *store, const struct bp_choice *choice, struct bp_predictor **ret,
                      struct bp_error *err)
{
    struct bp_predictor *p = calloc(1, sizeof *p);
    if (!p)
        return bp_fail(err, BP_NOMEM, "no memory for the predictor");
    bp_status status = bp_network_make(choice, &p->network, err);
    if (status) {
        free(p);
        return status;
    }
    memcpy(p->job, choice->row.id, sizeof p->job);
    memcpy(p->checkpoint, choice->checkpoint.id, sizeof p->checkpoint);
    p->best = choice->best;
    p->batch = bp_predict_batch(p->network.plan.graph);
    status = load_weights(store, p, err);
    if (status) {
        free_predictor(p);
        return status;
    }
    *ret = p;
    return BP_OK;
}

/* --- the cache --- */

/* Moves the predictor of a choice to the front and takes hold of it; NULL where it is not there. Under the mutex. */
static struct bp_predictor *find(struct bp_predictors *predictors, const struct bp_choice *choice)
{
    for (struct bp_predictor **link = &predictors->first; *link; link = &(*link)->next) {
        struct bp_predictor *p = *link;
        if (p->best == choice->best && !strcmp(p->checkpoint, choice->checkpoint.id)) {
            *link = p->next;
            p->next = predictors->first;
            predictors->first = p;
            p->holders++;
            return p;
        }
    }
    return NULL;
}

/* Takes the least recently used predictors out until BP_PREDICTORS_MAX are left; returns those that nobody holds, for
 * the caller to free. Under the mutex. */
static struct bp_predictor *evict(struct bp_predictors *predictors)
{
    struct bp_predictor *unused = NULL, **link = &predictors->first;
    for (int kept = 0; *link && kept < BP_PREDICTORS_MAX; kept++)
        link = &(*link)->next;
    while (*link) {
        struct bp_predictor *p = *link;
        *link = p->next;
        p->next = NULL;
        if (--p->holders == 0) {
            p->next = unused;
            unused = p;
        }
    }
    return unused;
}

bp_status bp_predictors_get(struct bp_predictors *predictors, const struct bp_choice *choice,
                            struct bp_predictor **ret, struct bp_error *err)
{
    pthread_mutex_lock(&predictors->mutex);
    struct bp_predictor *p = find(predictors, choice);
    pthread_mutex_unlock(&predictors->mutex);
    if (p) {
        *ret = p;
        return BP_OK;
    }
    struct bp_predictor *loaded = NULL;
    bp_status status = load(predictors->store, choice, &loaded, err);
    if (status)
        return status;

    struct bp_predictor *unused = NULL;
    pthread_mutex_lock(&predictors->mutex);
    p = find(predictors, choice);
    if (p) {
        unused = loaded; /* another request was faster */
    } else {
        p = loaded;
        p->holders = 2;
        p->next = predictors->first;
        predictors->first = p;
        unused = evict(predictors);
    }
    pthread_mutex_unlock(&predictors->mutex);
    while (unused) {
        struct bp_predictor *next = unused->next;
        free_predictor(unused);
        unused = next;
    }
    *ret = p;
    return BP_OK;
}

void bp_predictors_put(struct bp_predictors *predictors, struct bp_predictor *predictor)
{
    pthread_mutex_lock(&predictors->mutex);
    bool last = --predictor->holders == 0;
    pthread_mutex_unlock(&predictors->mutex);
    if (last)
        free_predictor(predictor);
}

/* --- running --- */

bp_status bp_predictor_bench(struct bp_predictors *predictors, struct bp_predictor *predictor, struct bp_exec **ret,
                             struct bp_error *err)
{
    struct bp_exec *exec = NULL;
    pthread_mutex_lock(&predictors->mutex);
    if (predictor->nbenches)
        exec = predictor->benches[--predictor->nbenches];
    pthread_mutex_unlock(&predictors->mutex);
    if (exec) {
        *ret = exec;
        return BP_OK;
    }
    struct bp_exec_options options = {.capacity = predictor->batch, .threads = 1};
    return bp_exec_new(predictor->model, &options, ret, err);
}

void bp_predictor_bench_put(struct bp_predictors *predictors, struct bp_predictor *predictor, struct bp_exec *exec)
{
    pthread_mutex_lock(&predictors->mutex);
    if (predictor->nbenches < BP_PREDICT_BENCHES) {
        predictor->benches[predictor->nbenches++] = exec;
        exec = NULL;
    }
    pthread_mutex_unlock(&predictors->mutex);
    bp_exec_free(exec);
}

int bp_predictor_width(const struct bp_predictor *predictor)
{
    const struct bp_graph *graph = predictor->network.plan.graph;
    int width = 0;
    for (int h = 0; h < graph->nheads; h++)
        width += bp_predictor_head_width(predictor, h);
    return width;
}

int bp_predictor_head_width(const struct bp_predictor *predictor, int head)
{
    bool inputs = bp_transform_target(predictor->network.transform, head)->inputs;
    return predictor->network.plan.graph->heads[head].outputs + inputs;
}

/* One row of a head's output y as what it means. */
static void interpret_row(const struct bp_head *head, const struct bp_transform_target *target, const float *y,
                          float *to)
{
    const struct bp_kernels *kernels = bp_kernels_current();
    int n = head->outputs;
    switch (head->loss) {
    case BP_LOSS_CROSS_ENTROPY:
    case BP_LOSS_KL_DIV:
        kernels->softmax(false, 1, n, y, to);
        break;
    case BP_LOSS_BCE:
        kernels->activation(BP_SIGMOID, 0, (size_t)n, y, to);
        break;
    case BP_LOSS_HINGE:
    case BP_LOSS_MULTI_MARGIN:
        memcpy(to, y, (size_t)n * sizeof *to);
        break;
    case BP_LOSS_POISSON:
        for (int j = 0; j < n; j++)
            to[j] = (float)bp_exp((double)y[j]);
        break;
    default:
        for (int j = 0; j < n; j++)
            to[j] = (float)((double)y[j] / target->scale + target->shift);
    }
}

/* From the network's output y (rows, n) to what it means, into a stretch of each row of `to` (width apart). x: the
 * network's input, which an autoencoder is compared with. */
static void interpret(const struct bp_head *head, const struct bp_transform_target *target, int rows, const float *x,
                      const float *y, float *to, int width)
{
    int n = head->outputs;
    for (int r = 0; r < rows; r++, y += n, x += target->inputs ? n : 0, to += width) {
        double squares = 0;
        interpret_row(head, target, y, to);
        for (int j = 0; j < n && target->inputs; j++)
            squares += ((double)y[j] - (double)x[j]) * ((double)y[j] - (double)x[j]);
        if (target->inputs)
            to[n] = (float)(squares / n);
    }
}

/* One batch: rows first .. first+n-1 of the source into their rows of outputs. */
static void run_batch(struct bp_predictor *p, struct bp_exec *exec, const struct bp_source *source, int first, int n,
                      float *outputs, int width)
{
    const struct bp_graph *graph = p->network.plan.graph;
    uint32_t rows[BP_PREDICT_BATCH];
    for (int i = 0; i < n; i++)
        rows[i] = (uint32_t)(first + i);
    bp_source_gather(source, rows, n, bp_exec_input(exec));
    bp_exec_forward(exec, NULL, n);
    float *to = outputs + (size_t)first * (size_t)width;
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_transform_target *target = bp_transform_target(p->network.transform, h);
        interpret(&graph->heads[h], target, n, bp_exec_input(exec), bp_exec_output(exec, h), to, width);
        to += bp_predictor_head_width(p, h);
    }
}

bp_status bp_predictor_run(struct bp_predictors *predictors, struct bp_predictor *predictor,
                           const struct bp_source *source, int n, float *outputs, struct bp_error *err)
{
    struct bp_exec *exec;
    bp_status status = bp_predictor_bench(predictors, predictor, &exec, err);
    if (status)
        return status;
    int width = bp_predictor_width(predictor);
    for (int first = 0; first < n; first += predictor->batch)
        run_batch(predictor, exec, source, first, n - first < predictor->batch ? n - first : predictor->batch,
                  outputs, width);
    bp_predictor_bench_put(predictors, predictor, exec);
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        if (isfinite(outputs[i]))
            continue;
        char where[40];
        snprintf(where, sizeof where, "/rows/%zu", i / (size_t)width);
        return bp_fail_at(err, BP_NONFINITE, where, "the prediction for row %zu is not a finite number",
                          i / (size_t)width);
    }
    return BP_OK;
}
