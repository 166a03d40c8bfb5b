/* worker.c: one job from its claim to its end: prepare (prepare.c), train, test (testing.c), store the outcome.
 *
 * A disk that is full, or memory that is short for a moment, is no fault of the job: what has to be stored is tried
 * again every second, until there is room or the daemon stops. The job then goes on after a restart.
 */
#include "jobs/run.h"

#include "jobs/recovery.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- waiting for room ------------------------------------------------------------------------------------------------ */
bool bp_run_stalled(struct bp_job_run *run, bp_status status)
{
    const char *why = status == BP_FULL ? "disk_full" : status == BP_NOMEM ? "out_of_memory" : NULL;
    pthread_mutex_lock(&run->live->mutex);
    bool was = run->live->snapshot.stalled != NULL;
    run->live->snapshot.stalled = why;
    pthread_mutex_unlock(&run->live->mutex);
    if (was != (why != NULL))
        bp_recovery_mark(run->app, why == NULL);
    return was;
}

bool bp_run_again(struct bp_job_run *run, bp_status status, unsigned told)
{
    bp_run_stalled(run, status);
    if (!bp_may_pass(status))
        return false;
    bp_jobs_rest(run->jobs, run->live);
    return !atomic_load(&run->jobs->stopping) && !(told >> atomic_load(&run->live->command) & 1u);
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
    if (o->status == BP_JOB_SUCCEEDED && o->stop_reason)
        row->stop_reason = strdup(o->stop_reason);
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

/* Stores how the run ended, after all that was collected of it. */
static void conclude(struct bp_job_run *run, struct outcome *o)
{
    do
        bp_run_flush(run, true);
    while (run->nrejected && bp_run_again(run, BP_FULL, 0));
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
    do
        status = bp_job_change(run->app, run->id, outcome_edit, o, event, data, NULL, &err);
    while (bp_run_again(run, status, 0));
    free(data);
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
    run.flushed_at = bp_clock();
    struct bp_error err = {0};
    struct outcome outcome = {.kind = BP_RUN_FAILED};
    char threads[16];
    snprintf(threads, sizeof threads, "%d", bp_jobs_share(jobs, live->asked));
    bp_log(BP_LOG_INFO, "job starts", "job", run.id, "threads", threads, NULL);

    bp_status status = bp_run_prepare(&run, row, &err);
    if (!status) {
        struct bp_train_hooks hooks = bp_run_hooks(&run);
        outcome.kind = bp_trainer_run(run.trainer, &hooks, &err);
        outcome.stop_reason = stop_reasons[bp_trainer_stop_reason(run.trainer)];
        outcome.stopping = atomic_load(&jobs->stopping);
        status = outcome.kind == BP_RUN_FAILED ? err.code : BP_OK;
        if (outcome.kind == BP_RUN_FINISHED)
            status = bp_run_test(&run, &outcome.test, &err);
    }
    int told = atomic_load(&live->command);
    if (bp_may_pass(status) && atomic_load(&jobs->stopping)) {
        outcome.kind = BP_RUN_PAUSED; /* no fault of the job: it goes on from the checkpoint before */
        outcome.stopping = true;
    } else if (status == BP_FULL && (told == BP_PAUSE || told == BP_CANCEL)) {
        outcome.kind = told == BP_PAUSE ? BP_RUN_PAUSED : BP_RUN_CANCELLED; /* while it waited for room */
    } else if (status) {
        outcome.kind = BP_RUN_FAILED;
        outcome.error = failure_json(&err, status);
    }
    conclude(&run, &outcome);
    run_free(&run);
}
