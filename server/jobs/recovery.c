/* recovery.c: makes sure that no job stays in a state that only a living worker can end. */
#include "jobs/recovery.h"

#include "jobs/jobs_internal.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct left {
    char (*ids)[BP_ID_SIZE]; /* jobs in the middle of something */
    size_t n, capacity;
};

static bp_status collect(void *arg, const struct bp_job_row *row)
{
    struct left *left = arg;
    if (left->n == left->capacity) {
        size_t capacity = left->capacity ? 2 * left->capacity : 16;
        void *ids = realloc(left->ids, capacity * sizeof *left->ids);
        if (!ids)
            return BP_NOMEM;
        left->ids = ids;
        left->capacity = capacity;
    }
    memcpy(left->ids[left->n++], row->id, BP_ID_SIZE);
    return BP_OK;
}

static bp_status recover_edit(void *arg, struct bp_job_row *row, struct bp_error *err)
{
    (void)err;
    const char **event = arg;
    switch (row->status) {
    case BP_JOB_PAUSING:
        row->status = BP_JOB_PAUSED;
        *event = "paused";
        return BP_OK;
    case BP_JOB_CANCELLING:
        row->status = BP_JOB_CANCELLED;
        row->finished_at = bp_store_now();
        *event = "cancelled";
        return BP_OK;
    default:
        break;
    }
    row->restarts++;
    row->stalls++;
    row->status = BP_JOB_QUEUED;
    *event = "restarted";
    if (row->stalls >= BP_CRASHES_MAX) {
        row->status = BP_JOB_FAILED;
        row->finished_at = bp_store_now();
        free(row->error);
        row->error =
            strdup("{\"code\":\"crash_loop\",\"message\":\"the daemon ended again and again while this job was "
                   "running and before it could store a checkpoint\"}");
        *event = "failed";
    }
    return BP_OK;
}

static bp_status recover_all(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct left *left = arg;
    struct bp_job_filter filter = {.statuses = 1 << BP_JOB_RUNNING | 1 << BP_JOB_PAUSING | 1 << BP_JOB_CANCELLING,
                                   .ascending = true,
                                   .limit = BP_QUEUE_MAX};
    left->n = 0;
    bp_status status = bp_db_job_list(db, &filter, collect, left, err);
    for (size_t i = 0; !status && i < left->n; i++) {
        const char *event = NULL;
        status = bp_job_change_db(db, left->ids[i], recover_edit, &event, NULL, NULL, NULL, err);
        if (!status)
            status = bp_db_event_add(db, left->ids[i], event, "{}", NULL, err);
    }
    return status;
}

bp_status bp_recover(struct bp_app *app, struct bp_error *err)
{
    struct left left = {0};
    bp_status status = bp_store_write(app->store, recover_all, &left, err);
    if (!status && left.n) {
        char n[24];
        snprintf(n, sizeof n, "%zu", left.n);
        bp_log(BP_LOG_INFO, "jobs that were in the middle of something go on", "jobs", n, NULL);
    }
    free(left.ids);
    return status;
}
