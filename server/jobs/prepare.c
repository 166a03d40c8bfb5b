/* prepare.c: everything that a run needs, made again from what is stored: the resolved spec, the table, the transform and
 * the newest sound checkpoint. So a job that was interrupted goes on exactly where it was.
 */
#include "jobs/init_from.h"
#include "jobs/run.h"

#include "config.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    const char *transform;
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
    char *copy = strdup(f->transform); /* the text itself is wanted again where the disk is full */
    if (!copy)
        return bp_fail(err, BP_NOMEM, "no memory for the transform");
    free(row->transform);
    row->transform = copy;
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
    char *text = bp_json_text(json);
    struct fitted fitted = {text, fingerprint, fit_warnings(run->transform, planned)};
    json_decref(json);
    if (!text)
        status = bp_fail(err, BP_NOMEM, "no memory for the transform");
    else
        do
            status = bp_job_change(run->app, run->id, fitted_edit, &fitted, NULL, NULL, NULL, err);
        while (bp_run_again(run, status, BP_TOLD_TO_LEAVE));
    if (!status)
        tell_warnings(run, fitted.told);
    json_decref(fitted.told);
    free(text);
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
    do
        status = bp_store_write(run->app->store, trim_after, row, err);
    while (bp_run_again(run, status, BP_TOLD_TO_LEAVE));
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
    bool was_stalled = bp_run_stalled(run, status);
    if (status == BP_OK) {
        bp_http_notify(run->app->http, run->id, atomic_load(&run->version));
        bp_log(BP_LOG_DEBUG, "checkpoint stored", "job", run->id, "checkpoint", row->id, NULL);
    } else if (!was_stalled) {
        bp_log(BP_LOG_ERROR, "a checkpoint could not be stored", "job", run->id, "error", err->message, NULL);
    }
    if (bp_may_pass(status) && atomic_load(&run->jobs->stopping))
        bp_saver_abandon(run->saver); /* whoever stops the daemon need not wait for room on the disk */
}

bp_status bp_run_prepare(struct bp_job_run *run, const struct bp_job_row *row, struct bp_error *err)
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
