/* hooks.c: what a worker does between two steps of a training run: commands, the present, series, checkpoints.
 *
 * All hooks run on the leader of the team. They never wait for a reader or for the store, with one exception: a
 * checkpoint that must be stored.
 */
#include "jobs/run.h"

#include "log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FLUSH_SECONDS 0.2 /* series reach the store at least this often */
#define FLUSH_POINTS 1000
#define EPOCH_EVENTS 200        /* so many epochs have an event each; of more ... */
#define EPOCH_EVENT_SECONDS 0.5 /* ... the log gets the last of each such stretch: there may be thousands a second */
#define RATE_SECONDS 0.5        /* the rate shown is over at least this long */
#define POSTED_MAX 64           /* batches in flight, after which the trainer waits for the store to keep up */
#define REJECTED_MAX 64         /* batches that found no room, after which the trainer waits for it: some 20 MB */
#define RETRY_SECONDS 1.0       /* between two tries of those */

/* --- series and events on their way to the store -------------------------------------------------------------------- */
static void batch_free(struct bp_batch *b)
{
    if (!b)
        return;
    free(b->points);
    free(b->layers);
    for (size_t i = 0; i < b->nevents; i++)
        free(b->events[i]);
    free(b->events);
    free(b);
}

static bp_status batch_store(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_batch *b = arg;
    bp_status status = bp_db_metric_add(db, b->run->id, b->points, b->npoints, err);
    if (!status && b->nlayers)
        status = bp_db_layer_add(db, b->run->id, b->layers, b->nlayers, err);
    for (size_t i = 0; !status && i < b->nevents; i++)
        status = bp_db_event_add(db, b->run->id, b->event_type ? b->event_type : "epoch", b->events[i], NULL, err);
    return status;
}

static void batch_done(void *arg, bp_status status, const struct bp_error *err)
{
    struct bp_batch *b = arg;
    struct bp_job_run *run = b->run;
    if (bp_may_pass(status)) {
        pthread_mutex_lock(&run->mutex);
        *(run->rejected ? &run->last->next : &run->rejected) = b;
        run->last = b;
        atomic_fetch_add(&run->nrejected, 1);
        pthread_mutex_unlock(&run->mutex);
    } else {
        if (status)
            bp_log(BP_LOG_ERROR, "metrics could not be stored", "job", run->id, "error",
                   err ? err->message : "the store is closing", NULL);
        batch_free(b);
    }
    atomic_fetch_sub(&run->posted, 1);
}

static void batch_post(struct bp_job_run *run, struct bp_batch *b)
{
    b->next = NULL;
    atomic_fetch_add(&run->posted, 1);
    bp_status status = bp_store_post(run->app->store, batch_store, b, batch_done);
    if (status)
        batch_done(b, status, NULL); /* the store is closing, or has no memory for a queue entry */
}

static void post_rejected(struct bp_job_run *run)
{
    pthread_mutex_lock(&run->mutex);
    struct bp_batch *again = run->rejected;
    run->rejected = run->last = NULL;
    atomic_store(&run->nrejected, 0);
    pthread_mutex_unlock(&run->mutex);
    run->retried_at = bp_clock();
    while (again) {
        struct bp_batch *next = again->next;
        batch_post(run, again);
        again = next;
    }
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* Until so many batches are in flight at most. */
static void wait_for_posted(struct bp_job_run *run, int n)
{
    while (atomic_load(&run->posted) > n)
        nap();
}

void bp_run_flush(struct bp_job_run *run, bool all)
{
    if (all || bp_clock() - run->retried_at >= RETRY_SECONDS)
        post_rejected(run);
    if (run->batch) {
        batch_post(run, run->batch);
        run->batch = NULL;
    }
    run->flushed_at = bp_clock();
    wait_for_posted(run, all ? 0 : POSTED_MAX);
    if (all || atomic_load(&run->nrejected) <= REJECTED_MAX)
        return;
    do {
        post_rejected(run);
        wait_for_posted(run, 0);
    } while (bp_run_again(run, atomic_load(&run->nrejected) ? BP_FULL : BP_OK, BP_TOLD_ANYTHING));
}

void bp_run_drop(struct bp_job_run *run)
{
    while (run->rejected) {
        struct bp_batch *next = run->rejected->next;
        batch_free(run->rejected);
        run->rejected = next;
    }
    batch_free(run->batch);
    run->batch = NULL;
}

/* The batch being filled, with room for one more point; NULL without memory. */
static struct bp_batch *batch_open(struct bp_job_run *run)
{
    if (!run->batch) {
        run->batch = calloc(1, sizeof *run->batch);
        if (!run->batch)
            return NULL;
        run->batch->run = run;
    }
    struct bp_batch *b = run->batch;
    if (b->npoints == b->capacity) {
        size_t capacity = b->capacity ? 2 * b->capacity : 64;
        struct bp_metric_point *points = realloc(b->points, capacity * sizeof *points);
        if (!points)
            return NULL;
        b->points = points;
        b->capacity = capacity;
    }
    return b;
}

static void remember_last(struct bp_live *live, const struct bp_metric_point *point)
{
    pthread_mutex_lock(&live->mutex);
    struct bp_snapshot *s = &live->snapshot;
    int i = 0;
    while (i < s->nmetrics && strcmp(s->metrics[i].name, point->name))
        i++;
    if (i < BP_LAST_METRICS_MAX) {
        s->metrics[i] = *point;
        if (i == s->nmetrics)
            s->nmetrics++;
    }
    pthread_mutex_unlock(&live->mutex);
}

void bp_run_point(struct bp_job_run *run, const char *name, int64_t epoch, int64_t step, double value)
{
    struct bp_metric_point point = {.epoch = epoch, .step = step, .value = value};
    snprintf(point.name, sizeof point.name, "%s", name);
    if (strcmp(name, "batch_loss"))
        remember_last(run->live, &point);
    struct bp_batch *b = batch_open(run);
    if (b)
        b->points[b->npoints++] = point;
    else
        bp_log(BP_LOG_ERROR, "no memory for a metric", "job", run->id, "name", name, NULL);
}

char *bp_run_metrics_json(struct bp_job_run *run)
{
    json_t *object = json_object();
    pthread_mutex_lock(&run->live->mutex);
    const struct bp_snapshot *s = &run->live->snapshot;
    for (int i = 0; i < s->nmetrics; i++)
        json_object_set_new(object, s->metrics[i].name, bp_json_number(s->metrics[i].value));
    pthread_mutex_unlock(&run->live->mutex);
    char *text = bp_json_text(object);
    json_decref(object);
    return text;
}

char *bp_run_progress_json(const struct bp_progress *p)
{
    json_t *object =
        json_pack("{sI sI sI sI sI sf so}", "epoch", (json_int_t)p->epoch, "epochs", (json_int_t)p->epochs, "step",
                  (json_int_t)p->step, "steps", (json_int_t)p->steps, "samples", (json_int_t)p->samples, "seconds",
                  p->seconds, "batch_loss", bp_json_number(p->batch_loss));
    char *text = object ? bp_json_text(object) : NULL;
    json_decref(object);
    return text;
}

void bp_job_stored_progress(const struct bp_job_row *row, struct bp_progress *ret)
{
    json_t *stored = row->progress ? json_loads(row->progress, 0, NULL) : NULL;
    *ret = (struct bp_progress){.epoch = json_integer_value(json_object_get(stored, "epoch")),
                                .epochs = json_integer_value(json_object_get(stored, "epochs")),
                                .step = json_integer_value(json_object_get(stored, "step")),
                                .steps = json_integer_value(json_object_get(stored, "steps")),
                                .samples = json_integer_value(json_object_get(stored, "samples")),
                                .seconds = json_number_value(json_object_get(stored, "seconds")),
                                .batch_loss = json_number_value(json_object_get(stored, "batch_loss"))};
    json_decref(stored);
}

/* --- hooks ---------------------------------------------------------------------------------------------------------- */
static enum bp_command hook_command(void *ctx, int *threads)
{
    struct bp_job_run *run = ctx;
    *threads = bp_jobs_share(run->jobs, run->live->asked);
    if (atomic_load_explicit(&run->jobs->stopping, memory_order_relaxed))
        return BP_PAUSE;
    return (enum bp_command)atomic_load_explicit(&run->live->command, memory_order_relaxed);
}

static void hook_progress(void *ctx, const struct bp_progress *progress)
{
    struct bp_job_run *run = ctx;
    double now = bp_clock();
    if (!pthread_mutex_trylock(&run->live->mutex)) {
        struct bp_snapshot *s = &run->live->snapshot;
        s->progress = *progress;
        s->threads = bp_jobs_share(run->jobs, run->live->asked);
        if (now - run->rate_at >= RATE_SECONDS) {
            if (run->rate_at > 0)
                s->samples_per_second = (double)(progress->samples - run->rate_samples) / (now - run->rate_at);
            run->rate_at = now;
            run->rate_samples = progress->samples;
        }
        pthread_mutex_unlock(&run->live->mutex);
    }
    if (run->batch && (now - run->flushed_at >= FLUSH_SECONDS || run->batch->npoints >= FLUSH_POINTS ||
                       run->batch->nlayers >= FLUSH_POINTS))
        bp_run_flush(run, false);
}

static void hook_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    bp_run_point(ctx, name, epoch, step, value);
}

static struct bp_layer_row layer_row(const struct bp_layer_sample *sample, const struct bp_layer_stat *stat)
{
    return (struct bp_layer_row){.epoch = sample->epoch,
                                 .step = sample->step,
                                 .loss = NAN,
                                 .gradient_norm = stat->gradient_norm,
                                 .clipped_norm = stat->clipped_norm,
                                 .weight_norm = stat->weight_norm,
                                 .update_ratio = stat->update_ratio,
                                 .delta_norm = stat->delta_norm,
                                 .mean = stat->mean,
                                 .spread = stat->spread,
                                 .dead = stat->dead,
                                 .saturated = stat->saturated,
                                 .alike = stat->alike,
                                 .delta_first = stat->delta_first,
                                 .delta_last = stat->delta_last};
}

/* A sample of the layers joins the batch: first the whole network, then layer after layer. */
static void hook_layers(void *ctx, const struct bp_layer_sample *sample)
{
    struct bp_job_run *run = ctx;
    struct bp_batch *b = batch_open(run);
    size_t n = (size_t)sample->n + 1;
    struct bp_layer_row *rows = b ? realloc(b->layers, (b->nlayers + n) * sizeof *rows) : NULL;
    if (!rows) {
        bp_log(BP_LOG_ERROR, "no memory for figures of layers", "job", run->id, NULL);
        return;
    }
    b->layers = rows;
    rows += b->nlayers;
    b->nlayers += n;
    rows[0] = layer_row(sample, &sample->total);
    rows[0].loss = sample->loss;
    for (int i = 0; i < sample->n; i++) {
        const struct bp_layer_info *info = &sample->infos[i];
        struct bp_layer_row *row = &rows[i + 1];
        *row = layer_row(sample, &sample->stats[i]);
        row->layer = i + 1;
        row->hidden = info->hidden;
        snprintf(row->name, sizeof row->name, "%s", info->name);
        snprintf(row->type, sizeof row->type, "%s", info->type);
        snprintf(row->activation, sizeof row->activation, "%s", bp_activation_name(info->activation));
    }
}

/* Takes the data (NULL: there was no memory for it) of one more event of the batch's type; false without memory. */
static bool batch_event(struct bp_batch *b, char *data_steal)
{
    if (b->nevents == b->events_capacity) {
        size_t capacity = b->events_capacity ? 2 * b->events_capacity : 4;
        char **events = data_steal ? realloc(b->events, capacity * sizeof *events) : NULL;
        if (!events) {
            free(data_steal);
            return false;
        }
        b->events = events;
        b->events_capacity = capacity;
    }
    if (data_steal)
        b->events[b->nevents++] = data_steal;
    return data_steal != NULL;
}

static void epoch_event(struct bp_job_run *run, const struct bp_progress *progress)
{
    char *metrics = bp_run_metrics_json(run);
    struct bp_batch *b = batch_open(run);
    char *data = NULL;
    if (metrics && b &&
        asprintf(&data, "{\"epoch\":%lld,\"epochs\":%lld,\"step\":%lld,\"seconds\":%.3f,\"metrics\":%s}",
                 (long long)progress->epoch, (long long)progress->epochs, (long long)progress->step,
                 progress->seconds, metrics) > 0)
        batch_event(b, data);
    free(metrics);
    run->event_at = bp_clock();
}

static void hook_epoch(void *ctx, const struct bp_progress *progress, const struct bp_best *best)
{
    struct bp_job_run *run = ctx;
    pthread_mutex_lock(&run->live->mutex);
    run->live->snapshot.progress = *progress;
    run->live->snapshot.best = *best;
    pthread_mutex_unlock(&run->live->mutex);
    if (progress->epochs <= EPOCH_EVENTS || progress->epoch == progress->epochs ||
        bp_clock() - run->event_at >= EPOCH_EVENT_SECONDS)
        epoch_event(run, progress);
}

static void hook_rollback(void *ctx, int64_t epoch, int64_t step, double factor, const struct bp_error *why)
{
    struct bp_job_run *run = ctx;
    struct bp_batch *b = calloc(1, sizeof *b);
    json_t *data = json_pack("{sI sI sf ss ss}", "epoch", (json_int_t)epoch, "step", (json_int_t)step, "lr_factor",
                             factor, "where", why->where, "reason", why->message);
    bp_log(BP_LOG_WARN, "a step failed; back to the start of the epoch", "job", run->id, "error", why->message, NULL);
    bp_run_flush(run, false);
    bool made = b && batch_event(b, bp_json_text(data));
    json_decref(data);
    if (!made) {
        batch_free(b);
        return;
    }
    b->run = run;
    b->event_type = "rollback";
    batch_post(run, b);
}

/* --- checkpoints ---------------------------------------------------------------------------------------------------- */
static void durable_done(void *arg)
{
    struct bp_job_run *run = arg;
    free(run->durable.progress);
    free(run->durable.metrics);
    run->durable = (struct bp_durable){0};
}

static void replace(char **field, const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    if (copy) {
        free(*field);
        *field = copy;
    }
}

static bp_status durable_edit(void *arg, struct bp_job_row *row, struct bp_error *err)
{
    (void)err;
    const struct bp_job_run *run = arg;
    const struct bp_durable *d = &run->durable;
    replace(&row->progress, d->progress);
    replace(&row->last_metrics, d->metrics);
    if (d->best.any) {
        row->has_best = true;
        row->best_epoch = d->best.epoch;
        row->best_step = d->best.step;
        row->best_value = d->best.value;
        replace(&row->best_name, run->monitor);
    }
    row->stalls = 0; /* a stored checkpoint is progress */
    return BP_OK;
}

static bp_status durable_store(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_job_run *run = arg;
    char data[96];
    snprintf(data, sizeof data, "{\"epoch\":%lld,\"step\":%lld}", (long long)run->durable.epoch,
             (long long)run->durable.step);
    struct bp_job_row row = {0};
    bp_status status = bp_job_change_db(db, run->id, durable_edit, run, "checkpoint", data, &row, err);
    if (!status)
        atomic_store(&run->version, row.version);
    bp_job_row_done(&row);
    return status;
}

static bp_status hook_checkpoint(void *ctx, struct bp_trainer *trainer, bool must, struct bp_error *err)
{
    struct bp_job_run *run = ctx;
    uint8_t *buffer = bp_saver_begin(run->saver, must);
    if (!buffer)
        return BP_OK; /* the last one is still being written, and this one may be skipped */
    size_t size;
    bp_status status = bp_checkpoint_encode(trainer, buffer, bp_checkpoint_size(trainer), &size, err);
    if (status)
        return status;
    struct bp_progress progress;
    bp_trainer_progress(trainer, &progress);
    struct bp_durable *d = &run->durable; /* free: the saver has given its buffer back */
    *d = (struct bp_durable){.progress = bp_run_progress_json(&progress),
                             .metrics = bp_run_metrics_json(run),
                             .epoch = progress.epoch,
                             .step = progress.step};
    bp_trainer_best(trainer, &d->best);
    struct bp_checkpoint_row row = {.created_at = bp_store_now(),
                                    .epoch = progress.epoch,
                                    .step = progress.step,
                                    .best = d->best.any && d->best.step == progress.step,
                                    .metrics = bp_run_metrics_json(run),
                                    .keep = run->keep,
                                    .numerics = BP_NUMERICS_VERSION};
    memcpy(row.job, run->live->id, sizeof row.job);
    bp_run_flush(run, false); /* points up to this step go into the store before the checkpoint */
    bp_saver_commit(run->saver, size, &row, durable_store, run, durable_done);
    return must ? bp_saver_wait(run->saver, err) : BP_OK;
}

struct bp_train_hooks bp_run_hooks(struct bp_job_run *run)
{
    return (struct bp_train_hooks){.ctx = run,
                                   .command = hook_command,
                                   .progress = hook_progress,
                                   .metric = hook_metric,
                                   .layers = hook_layers,
                                   .epoch = hook_epoch,
                                   .rollback = hook_rollback,
                                   .checkpoint = hook_checkpoint};
}
