/* job_json.c: the job object: what is stored of a job, and what its worker knows this moment, as one JSON. */
#include "api/common.h"
#include "json_text.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

struct lookups {
    const struct bp_job_row *row;
    struct bp_checkpoint_row latest, best;
    bool has_latest, has_best;
    int64_t ahead; /* queued jobs that come before it */
};

static bp_status look_up(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct lookups *l = arg;
    bp_status status = bp_db_checkpoint_get(db, l->row->id, "latest", &l->latest, err);
    l->has_latest = status == BP_OK;
    if (status == BP_OK) {
        status = bp_db_checkpoint_get(db, l->row->id, "best", &l->best, err);
        l->has_best = status == BP_OK;
    }
    if (status == BP_NOT_FOUND)
        status = BP_OK;
    if (!status && l->row->status == BP_JOB_QUEUED)
        status = bp_db_job_ahead(db, l->row, &l->ahead, err);
    return status;
}

/* The checkpoint that holds the best weights: the one that was written at the best step, or else the latest, which
 * carries them along. */
static json_t *checkpoints_json(const struct lookups *l)
{
    json_t *object = json_object();
    bool own = l->has_best && l->row->has_best && l->best.step == l->row->best_step;
    json_object_set_new(object, "latest", l->has_latest ? json_string(l->latest.id) : json_null());
    json_object_set_new(object, "best",
                        own             ? json_string(l->best.id)
                        : l->has_latest ? json_string(l->latest.id)
                                        : json_null());
    return object;
}

static json_t *progress_json(const struct bp_progress *p, double rate, int threads, const char *stalled)
{
    double fraction = p->steps > 0 ? (double)p->step / (double)p->steps : 0;
    json_t *object =
        json_pack("{sf sI sI sI sI sI sf}", "fraction", fraction, "epoch", (json_int_t)p->epoch, "epochs",
                  (json_int_t)p->epochs, "step", (json_int_t)p->step, "steps", (json_int_t)p->steps, "samples",
                  (json_int_t)p->samples, "training_seconds", p->seconds);
    if (!object)
        return NULL;
    double done = p->seconds > 0 ? (double)p->samples / p->seconds : 0;
    double speed = rate > 0 ? rate : done;
    json_object_set_new(object, "samples_per_second", speed > 0 ? json_real(speed) : json_null());
    bool running = threads > 0;
    double left = p->step > 0 ? (double)p->samples / (double)p->step * (double)(p->steps - p->step) : 0;
    json_object_set_new(object, "eta_seconds",
                        running && speed > 0 && p->step > 0 ? json_real(left / speed) : json_null());
    if (running) {
        json_object_set_new(object, "threads", json_integer(threads));
        json_object_set_new(object, "batch_loss", bp_json_number(p->batch_loss));
    }
    if (stalled)
        json_object_set_new(object, "stalled", json_string(stalled));
    return object;
}

/* A job that has not begun does not know its steps yet, but its epochs are in its spec. */
static void add_epochs(json_t *progress, const json_t *spec)
{
    json_t *epochs = json_object_get(json_object_get(spec, "training"), "epochs");
    if (progress && epochs && json_integer_value(json_object_get(progress, "epochs")) == 0)
        json_object_set(progress, "epochs", epochs);
}

/* Progress of a job that no worker has, as it was stored last. */
static json_t *stored_progress(const struct bp_job_row *row)
{
    struct bp_progress p;
    bp_job_stored_progress(row, &p);
    json_t *progress = progress_json(&p, 0, 0, NULL);
    if (progress && row->status == BP_JOB_SUCCEEDED)
        json_object_set_new(progress, "fraction", json_real(1.0));
    return progress;
}

static json_t *best_json(const struct bp_job_row *row)
{
    if (!row->has_best)
        return json_null();
    return json_pack("{ss? so sI sI}", "name", row->best_name, "value", bp_json_number(row->best_value), "epoch",
                     (json_int_t)row->best_epoch, "step", (json_int_t)row->best_step);
}

/* Last values: the series of the worker, or the stored ones, and those of the test. */
static json_t *metrics_json(const struct bp_job_row *row, const struct bp_snapshot *now, bool live)
{
    json_t *last = bp_api_parsed(row->last_metrics);
    if (!json_is_object(last)) {
        json_decref(last);
        last = json_object();
    }
    for (int i = 0; live && i < now->nmetrics; i++)
        json_object_set_new(last, now->metrics[i].name, bp_json_number(now->metrics[i].value));
    json_t *test = bp_api_parsed(row->test_metrics);
    if (json_is_object(test))
        json_object_update(last, test);
    json_decref(test);
    json_t *best = live && now->best.any
                       ? json_pack("{ss? so sI sI}", "name", row->best_name, "value", bp_json_number(now->best.value),
                                   "epoch", (json_int_t)now->best.epoch, "step", (json_int_t)now->best.step)
                       : best_json(row);
    return json_pack("{so so}", "last", last, "best", best);
}

/* Whether a worker has the job, and what it knows. A row that is not at work any more stands for itself, although its
 * worker may still be putting things away: so a version is the same whenever it is read. */
static bool at_work(struct bp_app *app, const struct bp_job_row *row, struct bp_snapshot *ret)
{
    const int states = 1 << BP_JOB_RUNNING | 1 << BP_JOB_PAUSING | 1 << BP_JOB_CANCELLING;
    return states >> row->status & 1 && app->jobs && bp_jobs_snapshot(app->jobs, row->id, ret);
}

void bp_api_job_tag(struct bp_app *app, const struct bp_job_row *row, char ret[BP_JOB_TAG])
{
    struct bp_snapshot now;
    if (at_work(app, row, &now))
        snprintf(ret, BP_JOB_TAG, "\"v%lld-%lld\"", (long long)row->version, (long long)now.progress.step);
    else
        snprintf(ret, BP_JOB_TAG, "\"v%lld\"", (long long)row->version);
}

static json_t *job_json(struct bp_app *app, const struct bp_job_row *row, const struct bp_job_values *values,
                        const struct lookups *l)
{
    struct bp_snapshot now;
    bool live = at_work(app, row, &now);
    json_t *job = json_pack("{ss ss ss? ss ss?}", "id", row->id, "object", "job", "name", row->name, "status",
                            bp_job_status_name(row->status), "stop_reason", row->stop_reason);
    if (job) {
        json_object_set_new(job, "created_at", bp_api_time(row->created_at));
        json_object_set_new(job, "started_at", bp_api_time(row->started_at));
        json_object_set_new(job, "finished_at", bp_api_time(row->finished_at));
        json_t *progress = live ? progress_json(&now.progress, now.samples_per_second, now.threads, now.stalled)
                                : stored_progress(row);
        add_epochs(progress, values->spec);
        json_object_set_new(job, "progress", progress);
        json_object_set_new(job, "metrics", metrics_json(row, &now, live));
        json_object_set(job, "spec", values->spec);
        json_object_set(job, "model", values->model);
        json_object_set_new(job, "seed", json_integer(row->seed));
        json_object_set_new(job, "threads", row->threads ? json_integer(row->threads) : json_null());
        json_object_set_new(job, "priority", json_integer(row->priority));
        json_object_set_new(job, "queue_position",
                            row->status == BP_JOB_QUEUED ? json_integer(l->ahead + 1) : json_null());
        json_object_set_new(job, "restarts", json_integer(row->restarts));
        json_object_set_new(job, "dataset", json_pack("{ss ss}", "name", row->dataset, "sha256", row->sha256));
        json_object_set_new(job, "parent", row->parent[0] ? json_string(row->parent) : json_null());
        json_object_set_new(job, "checkpoints", checkpoints_json(l));
        json_object_set_new(job, "error", bp_api_parsed(row->error));
        json_object_set(job, "warnings", values->warnings);
        json_object_set_new(job, "tags", bp_api_parsed(row->tags));
        json_object_set_new(job, "engine",
                            json_pack("{ss sI ss}", "version", BACKPROPD_VERSION, "numerics_version",
                                      (json_int_t)row->numerics, "simd", bp_kernels_current()->name));
        json_object_set_new(job, "version", json_integer(row->version));
    }
    return job;
}

json_t *bp_api_job_json(struct bp_app *app, const struct bp_job_row *row)
{
    struct bp_job_values values = {bp_api_parsed(row->spec), bp_api_parsed(row->model), bp_api_parsed(row->warnings),
                                   0};
    struct lookups l = {.row = row};
    struct bp_error err;
    bp_store_read(app->store, look_up, &l, &err);
    json_t *job = job_json(app, row, &values, &l);
    bp_checkpoint_row_done(&l.latest);
    bp_checkpoint_row_done(&l.best);
    json_decref(values.spec);
    json_decref(values.model);
    json_decref(values.warnings);
    return job;
}

json_t *bp_api_new_job_json(struct bp_app *app, const struct bp_job_row *row, const struct bp_job_values *values)
{
    struct lookups l = {.row = row, .ahead = values->ahead};
    return job_json(app, row, values, &l);
}
