/* job_json.c: the job object: what is stored of a job, and what its worker knows this moment, as JSON text.
 *
 * Most of it was stored as the JSON that it is shown as, and goes into the reply as it is: to parse and print it again would
 * be nine tenths of what a page of the list costs. bp_json_text has written all of it, so the bytes are the same.
 */
#include "api/common.h"
#include "json_text.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lookups {
    const struct bp_job_row *row;
    struct bp_checkpoint_ids checkpoints;
    int64_t ahead; /* queued jobs that come before it */
};

static bp_status look_up(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct lookups *l = arg;
    bp_status status = bp_db_checkpoint_ids(db, l->row->seq, &l->checkpoints, err);
    if (!status && l->row->status == BP_JOB_QUEUED)
        status = bp_db_job_ahead(db, l->row, &l->ahead, err);
    return status;
}

/* --- parts ---------------------------------------------------------------------------------------------------------- */
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

/* A job that has not begun does not know its steps yet, but its epochs are in its spec (NULL: as it was stored). */
static void add_epochs(json_t *progress, const struct bp_job_row *row, const json_t *spec)
{
    if (!progress || json_integer_value(json_object_get(progress, "epochs")))
        return;
    json_t *stored = spec ? NULL : bp_api_parsed(row->spec);
    json_t *epochs = json_object_get(json_object_get(spec ? spec : stored, "training"), "epochs");
    if (epochs)
        json_object_set(progress, "epochs", epochs);
    json_decref(stored);
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
static json_t *last_json(const struct bp_job_row *row, const struct bp_snapshot *now)
{
    json_t *last = bp_api_parsed(row->last_metrics);
    if (!json_is_object(last)) {
        json_decref(last);
        last = json_object();
    }
    for (int i = 0; now && i < now->nmetrics; i++)
        json_object_set_new(last, now->metrics[i].name, bp_json_number(now->metrics[i].value));
    json_t *test = bp_api_parsed(row->test_metrics);
    if (json_is_object(test))
        json_object_update(last, test);
    json_decref(test);
    return last;
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

static json_t *progress_now(const struct bp_job_row *row, const struct bp_snapshot *now, const json_t *spec)
{
    json_t *progress = now ? progress_json(&now->progress, now->samples_per_second, now->threads, now->stalled)
                           : stored_progress(row);
    add_epochs(progress, row, spec);
    return progress;
}

json_t *bp_api_job_progress(struct bp_app *app, const struct bp_job_row *row)
{
    struct bp_snapshot now;
    return progress_now(row, at_work(app, row, &now) ? &now : NULL, NULL);
}

json_t *bp_api_job_last(struct bp_app *app, const struct bp_job_row *row)
{
    struct bp_snapshot now;
    return last_json(row, at_work(app, row, &now) ? &now : NULL);
}

/* --- the object ----------------------------------------------------------------------------------------------------- */
/* A member that is JSON text already; null for NULL. */
static void add_text(struct bp_text *t, const char *name, const char *json)
{
    bp_text_add(t, ",\"%s\":%s", name, json ? json : "null");
}

static void put(struct bp_text *t, json_t *value_steal)
{
    char *json = bp_json_text(value_steal);
    t->failed |= !json;
    bp_text_add(t, "%s", json ? json : "null");
    free(json);
    json_decref(value_steal);
}

static void add(struct bp_text *t, const char *name, json_t *value_steal)
{
    bp_text_add(t, ",\"%s\":", name);
    put(t, value_steal);
}

static void add_string(struct bp_text *t, const char *name, const char *string)
{
    add(t, name, string ? json_string(string) : json_null());
}

static void add_integer(struct bp_text *t, const char *name, int64_t value)
{
    bp_text_add(t, ",\"%s\":%lld", name, (long long)value);
}

static void add_metrics(struct bp_text *t, const struct bp_job_row *row, const struct bp_snapshot *now)
{
    bp_text_add(t, ",\"metrics\":{\"last\":");
    if (!now && !row->test_metrics && row->last_metrics)
        bp_text_add(t, "%s", row->last_metrics);
    else
        put(t, last_json(row, now));
    bool live = now && now->best.any;
    add(t, "best",
        !live ? best_json(row)
              : json_pack("{ss? so sI sI}", "name", row->best_name, "value", bp_json_number(now->best.value), "epoch",
                          (json_int_t)now->best.epoch, "step", (json_int_t)now->best.step));
    bp_text_add(t, "}");
}

/* The checkpoint that holds the best weights is the one that was written at the best step, or else the latest, which
 * carries them along. */
static void add_checkpoints(struct bp_text *t, const struct lookups *l)
{
    const struct bp_checkpoint_ids *c = &l->checkpoints;
    bool own = c->best[0] && l->row->has_best && c->best_step == l->row->best_step;
    const char *best = own ? c->best : c->latest;
    if (c->latest[0])
        bp_text_add(t, ",\"checkpoints\":{\"latest\":\"%s\",\"best\":\"%s\"}", c->latest, best);
    else
        bp_text_add(t, ",\"checkpoints\":{\"latest\":null,\"best\":null}");
}

/* spec: of the row, where it is at hand, or NULL. */
static void add_job(struct bp_text *t, struct bp_app *app, const struct lookups *l, const json_t *spec)
{
    const struct bp_job_row *row = l->row;
    struct bp_snapshot snapshot;
    const struct bp_snapshot *now = at_work(app, row, &snapshot) ? &snapshot : NULL;
    bp_text_add(t, "{\"id\":\"%s\",\"object\":\"job\"", row->id);
    add_string(t, "name", row->name);
    bp_text_add(t, ",\"status\":\"%s\"", bp_job_status_name(row->status));
    add_string(t, "stop_reason", row->stop_reason);
    add(t, "created_at", bp_api_time(row->created_at));
    add(t, "started_at", bp_api_time(row->started_at));
    add(t, "finished_at", bp_api_time(row->finished_at));
    add(t, "progress", progress_now(row, now, spec));
    add_metrics(t, row, now);
    add_text(t, "spec", row->spec);
    add_text(t, "model", row->model);
    add_integer(t, "seed", row->seed);
    add(t, "threads", row->threads ? json_integer(row->threads) : json_null());
    add_integer(t, "priority", row->priority);
    add(t, "queue_position", row->status == BP_JOB_QUEUED ? json_integer(l->ahead + 1) : json_null());
    add_integer(t, "restarts", row->restarts);
    add(t, "dataset", json_pack("{ss ss}", "name", row->dataset, "sha256", row->sha256));
    add_string(t, "parent", row->parent[0] ? row->parent : NULL);
    add_checkpoints(t, l);
    add_text(t, "error", row->error);
    add_text(t, "warnings", row->warnings);
    add_text(t, "tags", row->tags);
    bp_text_add(t, ",\"engine\":{\"version\":\"%s\",\"numerics_version\":%lld,\"simd\":\"%s\"}", BACKPROPD_VERSION,
                (long long)row->numerics, bp_kernels_current()->name);
    add_integer(t, "version", row->version);
    bp_text_add(t, "}");
}

bp_status bp_api_job_text(struct bp_app *app, struct bp_db *db, const struct bp_job_row *row, struct bp_text *ret,
                          struct bp_error *err)
{
    struct lookups l = {.row = row};
    bp_status status = db ? look_up(db, &l, err) : bp_store_read(app->store, look_up, &l, err);
    if (!status)
        add_job(ret, app, &l, NULL);
    return status;
}

void bp_api_new_job_text(struct bp_app *app, const struct bp_job_row *row, const json_t *spec, int64_t ahead,
                         struct bp_text *ret)
{
    struct lookups l = {.row = row, .ahead = ahead};
    add_job(ret, app, &l, spec);
}
