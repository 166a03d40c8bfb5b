/* worker.c: one job from its claim to its end: prepare, restore, train, test, store the outcome.
 *
 * Everything that the run needs is derived again from what is stored (the resolved spec, the table, the transform, the
 * newest checkpoint), so a job that was interrupted goes on exactly where it was.
 */
#include "jobs/init_from.h"
#include "jobs/run.h"

#include "config.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WARNINGS_TOLD 20 /* of the fit: a wide table may have hundreds of constant columns */

/* --- events ---------------------------------------------------------------------------------------------------------- */
struct event {
    const char *job, *type, *data;
};

static bp_status store_event(struct bp_db *db, void *arg, struct bp_error *err)
{
    const struct event *e = arg;
    return bp_db_event_add(db, e->job, e->type, e->data, NULL, err);
}

static void add_event(struct bp_job_run *run, const char *type, const char *data)
{
    struct event e = {run->id, type, data};
    struct bp_error err;
    if (bp_store_write(run->app->store, store_event, &e, &err))
        bp_log(BP_LOG_ERROR, "an event could not be stored", "job", run->id, "type", type, "error", err.message,
               NULL);
}

/* --- preparing ------------------------------------------------------------------------------------------------------ */
struct version_read {
    const char *table;
    struct bp_dataset_row row;
};

static bp_status read_version(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct version_read *v = arg;
    return bp_db_dataset_version(db, v->table, &v->row, err);
}

static bp_status open_table(struct bp_job_run *run, const struct bp_job_row *row, struct bp_error *err)
{
    struct version_read v = {.table = row->table};
    bp_status status = bp_store_read(run->app->store, read_version, &v, err);
    if (!status)
        status = bp_table_open(run->app->config->data_dir, row->table, v.row.description, &run->table, err);
    bp_dataset_row_done(&v.row);
    return status;
}

static bp_status build_plan(struct bp_job_run *run, const struct bp_job_row *row, struct bp_error *err)
{
    json_error_t where;
    run->resolved = json_loads(row->spec, 0, &where);
    if (!run->resolved)
        return bp_fail(err, BP_CORRUPT, "the stored spec cannot be read: %s", where.text);
    struct bp_transform *stored = NULL;
    if (row->transform) {
        json_t *json = json_loads(row->transform, 0, &where);
        bp_status status = json ? bp_transform_parse(json, &stored, err)
                                : bp_fail(err, BP_CORRUPT, "the stored transform is damaged");
        json_decref(json);
        if (status)
            return status;
    }
    struct bp_problems problems;
    bp_problems_init(&problems);
    bp_status status = bp_plan_build(run->resolved, run->table, stored, &problems, &run->plan, err);
    if (status == BP_INVALID && bp_problems_any(&problems)) {
        const char *detail = json_string_value(json_object_get(json_array_get(problems.errors, 0), "detail"));
        bp_fail(err, BP_INTERNAL, "the accepted spec no longer fits: %s", detail ? detail : "?");
        status = BP_INTERNAL;
    }
    bp_problems_done(&problems);
    if (stored) {
        run->transform = stored;
    } else {
        run->transform = run->plan.transform;
        run->plan.transform = NULL;
    }
    return status;
}

struct fitted {
    char *transform;
    uint64_t fingerprint;
    json_t *told; /* what the fit found out, for the job's warnings */
};

/* Appends to the warnings that the job was submitted with. */
static bp_status add_warnings(struct bp_job_row *row, json_t *told, struct bp_error *err)
{
    json_t *all = row->warnings ? json_loads(row->warnings, 0, NULL) : json_array();
    char *text = all && !json_array_extend(all, told) ? bp_json_text(all) : NULL;
    json_decref(all);
    if (!text)
        return bp_fail(err, BP_NOMEM, "no memory for the warnings");
    free(row->warnings);
    row->warnings = text;
    return BP_OK;
}

static bp_status fitted_edit(void *arg, struct bp_job_row *row, struct bp_error *err)
{
    struct fitted *f = arg;
    bp_status status = json_array_size(f->told) ? add_warnings(row, f->told, err) : BP_OK;
    if (status)
        return status;
    free(row->transform);
    row->transform = f->transform;
    f->transform = NULL;
    row->has_split = true;
    row->split_fingerprint = (int64_t)f->fingerprint;
    return BP_OK;
}

/* What the fit found out: all beyond the warnings that were known when it was planned. */
static json_t *fit_warnings(const struct bp_transform *transform, size_t planned)
{
    json_t *all = bp_transform_warnings(transform), *told = json_array();
    size_t n = json_array_size(all);
    for (size_t i = planned; i < n && i < planned + WARNINGS_TOLD; i++)
        json_array_append(told, json_array_get(all, i));
    if (n > planned + WARNINGS_TOLD)
        json_array_append_new(
            told, json_pack("{ss ss so}", "code", "more_warnings", "pointer", "/dataset/features", "detail",
                            json_sprintf("and %zu more columns of this kind", n - planned - WARNINGS_TOLD)));
    json_decref(all);
    return told;
}

static size_t count_warnings(const struct bp_transform *transform)
{
    json_t *all = bp_transform_warnings(transform);
    size_t n = json_array_size(all);
    json_decref(all);
    return n;
}

static void tell_warnings(struct bp_job_run *run, json_t *told)
{
    size_t i;
    json_t *entry;
    json_array_foreach(told, i, entry) {
        char *text = bp_json_text(entry);
        if (text)
            add_event(run, "warning", text);
        free(text);
    }
}

/* Splits the rows; the first time also fits the transform and stores both, later makes sure that nothing changed. */
static bp_status split_and_fit(struct bp_job_run *run, const struct bp_job_row *row, struct bp_error *err)
{
    bp_status status = bp_plan_split(&run->plan, run->transform, run->table, &run->split, err);
    if (status)
        return status;
    uint64_t fingerprint = bp_split_fingerprint(&run->split);
    if (row->has_split && (uint64_t)row->split_fingerprint != fingerprint)
        return bp_fail(err, BP_MISMATCH, "the rows no longer divide as they did when the job began");
    if (row->transform)
        return BP_OK;
    size_t planned = count_warnings(run->transform);
    status = bp_transform_fit(run->transform, run->table, &run->split, run->plan.standardize_target, err);
    if (status)
        return status;
    json_t *json = bp_transform_json(run->transform);
    struct fitted fitted = {.transform = json ? bp_json_text(json) : NULL,
                            .fingerprint = fingerprint,
                            .told = fit_warnings(run->transform, planned)};
    json_decref(json);
    status = fitted.transform ? bp_job_change(run->app, run->id, fitted_edit, &fitted, NULL, NULL, NULL, err)
                              : bp_fail(err, BP_NOMEM, "no memory for the transform");
    if (!status)
        tell_warnings(run, fitted.told);
    json_decref(fitted.told);
    free(fitted.transform);
    return status;
}

/* --- restoring ------------------------------------------------------------------------------------------------------ */
struct found {
    const char *job;
    int n;
    struct bp_checkpoint_row rows[4]; /* newest first: retention keeps fewer */
};

static bp_status keep_checkpoint(void *arg, const struct bp_checkpoint_row *row)
{
    struct found *f = arg;
    if (f->n < (int)(sizeof f->rows / sizeof f->rows[0])) {
        f->rows[f->n] = *row;
        f->rows[f->n++].metrics = NULL;
    }
    return BP_OK;
}

static bp_status read_checkpoints(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct found *f = arg;
    f->n = 0;
    return bp_db_checkpoint_list(db, f->job, keep_checkpoint, f, err);
}

static bp_status trim_after(struct bp_db *db, void *arg, struct bp_error *err)
{
    const struct bp_checkpoint_row *row = arg;
    bp_status status = bp_db_metric_trim(db, row->job, row->step, err);
    char data[160];
    snprintf(data, sizeof data, "{\"from_step\":%lld,\"from_epoch\":%lld,\"checkpoint\":\"%s\"}",
             (long long)row->step, (long long)row->epoch, row->id);
    return status ? status : bp_db_event_add(db, row->job, "recovered", data, NULL, err);
}

static bp_status restore_one(struct bp_job_run *run, struct bp_checkpoint_row *row, struct bp_error *err)
{
    uint8_t *bytes = NULL;
    size_t size;
    bool exact = true;
    bp_status status = bp_store_checkpoint_load(run->app->store, row->id, &bytes, &size, err);
    if (!status)
        status = bp_checkpoint_restore(run->trainer, bytes, size, &exact, err);
    free(bytes);
    if (status)
        return status;
    status = bp_store_write(run->app->store, trim_after, row, err);
    if (!status && !exact)
        add_event(run, "inexact_resume", "{}");
    return status;
}

/* Puts the trainer into the state of the newest sound checkpoint; without any it is at step 0, with the first weights
 * of another job where the spec says so. */
static bp_status restore(struct bp_job_run *run, struct bp_error *err)
{
    struct found found = {.job = run->id};
    bp_status status = bp_store_read(run->app->store, read_checkpoints, &found, err);
    if (!status && found.n == 0)
        return bp_start_apply(run->app->store, run->id, run->trainer, err);
    for (int i = 0; !status && i < found.n; i++) {
        status = restore_one(run, &found.rows[i], err);
        if (status != BP_CORRUPT)
            return status;
        bp_log(BP_LOG_ERROR, "a checkpoint is damaged; trying the one before", "job", run->id, "checkpoint",
               found.rows[i].id, "error", err->message, NULL);
        add_event(run, "checkpoint_damaged", "{}");
        status = i + 1 < found.n ? BP_OK : status;
    }
    return status;
}

static void checkpoint_noted(void *ctx, bp_status status, const struct bp_checkpoint_row *row,
                             const struct bp_error *err)
{
    struct bp_job_run *run = ctx;
    bool was_stalled;
    pthread_mutex_lock(&run->live->mutex);
    was_stalled = run->live->snapshot.stalled != NULL;
    run->live->snapshot.stalled = status == BP_FULL ? "disk_full" : NULL;
    pthread_mutex_unlock(&run->live->mutex);
    if (status == BP_OK) {
        bp_http_notify(run->app->http, run->id, atomic_load(&run->version));
        bp_log(BP_LOG_DEBUG, "checkpoint stored", "job", run->id, "checkpoint", row->id, NULL);
    } else if (status != BP_FULL || !was_stalled) {
        bp_log(BP_LOG_ERROR, "a checkpoint could not be stored", "job", run->id, "error", err->message, NULL);
    }
    if (status == BP_FULL && atomic_load(&run->jobs->stopping))
        bp_saver_abandon(run->saver); /* whoever stops the daemon need not wait for room on the disk */
}

static bp_status prepare(struct bp_job_run *run, const struct bp_job_row *row, struct bp_error *err)
{
    bp_status status = open_table(run, row, err);
    if (!status)
        status = build_plan(run, row, err);
    if (!status)
        status = split_and_fit(run, row, err);
    if (!status)
        status = bp_transform_source(run->transform, run->table, &run->source, err);
    if (status)
        return status;
    const json_t *checkpoint = json_object_get(json_object_get(run->resolved, "training"), "checkpoint");
    run->keep = (int)json_integer_value(json_object_get(checkpoint, "keep"));
    run->plan.config.threads = run->jobs->budget; /* capacity of the team; the share decides who takes part */
    const struct bp_monitor *m = &run->plan.config.monitor;
    const char *label = m->head > 0 ? run->plan.graph->heads[m->head - 1].label : "";
    snprintf(run->monitor, sizeof run->monitor, "%s%s%s%s",
             m->validation && run->split.count[BP_VALIDATION] ? "val_" : "", bp_metric_name(m->metric),
             label[0] ? "_" : "", label);
    status = bp_trainer_new(&run->plan.config, run->plan.graph, &run->source, &run->split, &run->trainer, err);
    if (!status)
        status =
            bp_saver_new(run->app->store, bp_checkpoint_size(run->trainer), checkpoint_noted, run, &run->saver, err);
    if (!status)
        status = restore(run, err);
    if (!status) {
        pthread_mutex_lock(&run->live->mutex);
        bp_trainer_progress(run->trainer, &run->live->snapshot.progress);
        bp_trainer_best(run->trainer, &run->live->snapshot.best);
        pthread_mutex_unlock(&run->live->mutex);
    }
    return status;
}

/* --- ending --------------------------------------------------------------------------------------------------------- */
struct outcome {
    enum bp_outcome kind;
    bool stopping; /* the daemon is stopping: a pause that nobody asked for */
    const char *stop_reason;
    char *error; /* JSON */
    char *test, *metrics, *progress;
    enum bp_job_status status; /* what it became */
};

static const char *const stop_reasons[] = {[BP_STOP_NONE] = NULL,
                                           [BP_STOP_MAX_EPOCHS] = "max_epochs",
                                           [BP_STOP_EARLY] = "early_stopping",
                                           [BP_STOP_USER] = "user",
                                           [BP_STOP_TIME] = "time_budget",
                                           [BP_STOP_TARGET] = "target_reached",
                                           [BP_STOP_CONVERGED] = "converged"};

/* error.code of a job, for what went wrong in the engine or the store. */
static const char *failure_code(bp_status status)
{
    switch (status) {
    case BP_NONFINITE:
        return "nonfinite_loss";
    case BP_NOMEM:
        return "out_of_memory";
    case BP_FULL:
        return "disk_full";
    case BP_NOT_FOUND:
        return "dataset_gone";
    default:
        return "internal";
    }
}

static bp_status outcome_edit(void *arg, struct bp_job_row *row, struct bp_error *err)
{
    (void)err;
    struct outcome *o = arg;
    static const enum bp_job_status states[] = {[BP_RUN_FINISHED] = BP_JOB_SUCCEEDED,
                                                [BP_RUN_PAUSED] = BP_JOB_PAUSED,
                                                [BP_RUN_CANCELLED] = BP_JOB_CANCELLED,
                                                [BP_RUN_FAILED] = BP_JOB_FAILED};
    o->status = states[o->kind];
    if (row->status == BP_JOB_CANCELLING && o->kind != BP_RUN_FAILED)
        o->status = BP_JOB_CANCELLED;
    else if (o->kind == BP_RUN_PAUSED && row->status != BP_JOB_PAUSING)
        o->status = BP_JOB_QUEUED; /* the daemon stops: the job goes on with the next one */
    row->status = o->status;
    char **fields[] = {&row->progress, &row->last_metrics, &row->test_metrics, &row->error};
    char **values[] = {&o->progress, &o->metrics, &o->test, &o->error};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        /* Copies: when the disk is full the row is dropped, and all of it is wanted again for the next attempt. */
        char *copy = *values[i] ? strdup(*values[i]) : NULL;
        if (copy) {
            free(*fields[i]);
            *fields[i] = copy;
        }
    }
    if (bp_job_status_final(o->status)) {
        row->finished_at = bp_store_now();
        row->stopping = 0;
        if (o->status == BP_JOB_SUCCEEDED && o->stop_reason)
            row->stop_reason = strdup(o->stop_reason);
    }
    return BP_OK;
}

static char *failure_json(const struct bp_error *err, bp_status status)
{
    json_t *object = json_pack("{ss ss}", "code", failure_code(status), "message", err->message);
    if (object && err->where[0])
        json_object_set_new(object, "where", json_string(err->where));
    char *text = object ? bp_json_text(object) : NULL;
    json_decref(object);
    return text;
}

/* Stores how the run ended. A full disk is waited out, unless the daemon stops: the job then goes on after a restart. */
static void conclude(struct bp_job_run *run, struct outcome *o)
{
    bp_run_flush(run, true);
    struct bp_progress progress = run->live->snapshot.progress;
    if (run->trainer)
        bp_trainer_progress(run->trainer, &progress);
    o->progress = bp_run_progress_json(&progress);
    o->metrics = bp_run_metrics_json(run);
    static const char *const events[] = {[BP_RUN_FINISHED] = "succeeded",
                                         [BP_RUN_PAUSED] = "paused",
                                         [BP_RUN_CANCELLED] = "cancelled",
                                         [BP_RUN_FAILED] = "failed"};
    const char *event = o->kind == BP_RUN_PAUSED && o->stopping ? "interrupted" : events[o->kind];
    char *data = o->error ? strdup(o->error) : NULL;
    if (!data && o->stop_reason && o->kind == BP_RUN_FINISHED &&
        asprintf(&data, "{\"stop_reason\":\"%s\"}", o->stop_reason) < 0)
        data = NULL;
    struct bp_error err = {0};
    bp_status status;
    while ((status = bp_job_change(run->app, run->id, outcome_edit, o, event, data, NULL, &err)) == BP_FULL &&
           !atomic_load(&run->jobs->stopping))
        sleep(1);
    free(data);
    bp_run_flush(run, true); /* again, what a full disk has turned away */
    if (status)
        bp_log(BP_LOG_ERROR, "a job's end could not be stored; it goes on after a restart", "job", run->id, "error",
               err.message, NULL);
    else
        bp_log(o->kind == BP_RUN_FAILED ? BP_LOG_WARN : BP_LOG_INFO, "job is done for now", "job", run->id, "status",
               bp_job_status_name(o->status), NULL);
    free(o->progress);
    free(o->metrics);
    free(o->test);
    free(o->error);
}

/* A verb may have been stored between the claim and the live entry: it is in the row. */
static void catch_up(struct bp_job_run *run)
{
    struct bp_job_row row = {0};
    struct bp_error err;
    bp_status status = bp_job_read(run->app->store, run->id, &row, &err);
    if (status)
        return;
    int expected = BP_GO_ON;
    int command = row.status == BP_JOB_PAUSING      ? BP_PAUSE
                  : row.status == BP_JOB_CANCELLING ? BP_CANCEL
                  : row.stopping                    ? BP_FINISH
                                                    : BP_GO_ON;
    atomic_compare_exchange_strong(&run->live->command, &expected, command);
    bp_job_row_done(&row);
}

static void run_free(struct bp_job_run *run)
{
    bp_saver_free(run->saver);
    bp_trainer_free(run->trainer);
    bp_run_drop(run);
    bp_transform_source_done(&run->source);
    bp_split_done(&run->split);
    bp_transform_free(run->transform);
    bp_plan_done(&run->plan);
    bp_table_close(run->table);
    json_decref(run->resolved);
    pthread_mutex_destroy(&run->mutex);
}

void bp_worker_run(struct bp_jobs *jobs, struct bp_job_row *row, struct bp_live *live)
{
    struct bp_job_run run = {.jobs = jobs, .app = jobs->app, .live = live, .id = live->id};
    pthread_mutex_init(&run.mutex, NULL);
    atomic_store(&run.version, row->version);
    run.flushed_at = bp_run_clock();
    struct bp_error err = {0};
    struct outcome outcome = {.kind = BP_RUN_FAILED};
    char threads[16];
    snprintf(threads, sizeof threads, "%d", bp_jobs_share(jobs, live->asked));
    bp_log(BP_LOG_INFO, "job starts", "job", run.id, "threads", threads, NULL);

    catch_up(&run);
    bp_status status = prepare(&run, row, &err);
    if (!status) {
        struct bp_train_hooks hooks = bp_run_hooks(&run);
        outcome.kind = bp_trainer_run(run.trainer, &hooks, &err);
        outcome.stop_reason = stop_reasons[bp_trainer_stop_reason(run.trainer)];
        outcome.stopping = atomic_load(&jobs->stopping);
        status = outcome.kind == BP_RUN_FAILED ? err.code : BP_OK;
        if (outcome.kind == BP_RUN_FINISHED)
            status = bp_run_test(&run, &outcome.test, &err);
    }
    if (status == BP_FULL && atomic_load(&jobs->stopping)) {
        outcome.kind = BP_RUN_PAUSED; /* no fault of the job: it goes on from the checkpoint before */
        outcome.stopping = true;
    } else if (status) {
        outcome.kind = BP_RUN_FAILED;
        outcome.error = failure_json(&err, status);
    }
    conclude(&run, &outcome);
    run_free(&run);
}
