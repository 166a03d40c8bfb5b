/* recovery.c: makes sure that no job stays in a state that only a living worker can end. */
#include "jobs/recovery.h"

#include "config.h"
#include "jobs/jobs_internal.h"
#include "log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK "working" /* in the data directory */

struct left {
    char (*ids)[BP_ID_SIZE]; /* jobs in the middle of something */
    size_t n, capacity;
    bool crashed;      /* the daemon ended without a word */
    const char *event; /* what became of the job that is looked at */
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
    struct left *left = arg;
    const char **event = &left->event;
    switch (row->status) {
    case BP_JOB_PAUSING:
        row->status = BP_JOB_PAUSED;
        *event = "paused";
        return BP_OK;
    case BP_JOB_CANCELLING:
        row->status = BP_JOB_CANCELLED;
        *event = "cancelled";
        return BP_OK;
    default:
        break;
    }
    row->restarts++;
    row->stalls += left->crashed;
    row->status = BP_JOB_QUEUED;
    *event = "restarted";
    if (row->stalls >= BP_CRASHES_MAX) {
        row->status = BP_JOB_FAILED;
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
        status = bp_job_change_db(db, left->ids[i], recover_edit, left, NULL, NULL, NULL, err);
        if (!status)
            status = bp_db_event_add(db, left->ids[i], left->event, "{}", NULL, err);
    }
    return status;
}

static void mark_path(const struct bp_app *app, char *ret, size_t size)
{
    snprintf(ret, size, "%s/%s", app->config->data_dir, MARK);
}

void bp_recovery_mark(const struct bp_app *app, bool at_work)
{
    char path[sizeof app->config->data_dir + sizeof MARK + 1];
    mark_path(app, path, sizeof path);
    if (!at_work) {
        unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

bool bp_recovery_marked(const struct bp_app *app)
{
    char path[sizeof app->config->data_dir + sizeof MARK + 1];
    mark_path(app, path, sizeof path);
    return access(path, F_OK) == 0;
}

bp_status bp_recover(struct bp_app *app, bool crashed, struct bp_error *err)
{
    struct left left = {.crashed = crashed};
    bp_status status = bp_store_write(app->store, recover_all, &left, err);
    if (!status && left.n) {
        char n[24];
        snprintf(n, sizeof n, "%zu", left.n);
        bp_log(BP_LOG_INFO, "jobs that were in the middle of something go on", "jobs", n, NULL);
        for (size_t i = 0; app->http && i < left.n; i++) /* a late recovery: somebody may wait for them */
            bp_http_notify(app->http, left.ids[i], INT64_MAX);
    }
    free(left.ids);
    return status;
}
