/* verbs.c: changes of a job's state: the read-modify-write that all of them are, and the verbs of a user.
 *
 * A verb on a job that no worker has is carried out here; on a running one it is recorded here and carried out by the
 * worker, between two steps.
 */
#include "jobs/jobs_internal.h"

#include <string.h>

/* --- read, modify, write -------------------------------------------------------------------------------------------- */
bp_status bp_job_change_db(struct bp_db *db, const char *id, bp_job_edit *edit, void *arg, const char *event,
                           const char *event_data, struct bp_job_row *ret, struct bp_error *err)
{
    struct bp_job_row row = {0};
    bp_status status = bp_db_job_get(db, id, &row, err);
    if (status)
        return status;
    status = edit(arg, &row, err);
    if (bp_job_status_final(row.status)) {
        row.finished_at = row.finished_at ? row.finished_at : bp_store_now();
        row.stopping = 0;
    }
    if (!status)
        status = bp_db_job_update(db, &row, err);
    if (!status && event)
        status = bp_db_event_add(db, id, event, event_data ? event_data : "{}", NULL, err);
    if (!status && ret)
        *ret = row;
    else
        bp_job_row_done(&row);
    return status;
}

struct change {
    const char *id;
    bp_job_edit *edit;
    void *arg;
    const char *event, *event_data;
    struct bp_job_row row;
};

static bp_status change_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct change *c = arg;
    return bp_job_change_db(db, c->id, c->edit, c->arg, c->event, c->event_data, &c->row, err);
}

bp_status bp_job_change(struct bp_app *app, const char *id, bp_job_edit *edit, void *arg, const char *event,
                        const char *event_data, struct bp_job_row *ret, struct bp_error *err)
{
    struct change c = {.id = id, .edit = edit, .arg = arg, .event = event, .event_data = event_data};
    bp_status status = bp_store_write(app->store, change_work, &c, err);
    if (status) {
        bp_job_row_done(&c.row); /* filled when the transaction failed after the change */
        return status;
    }
    bp_http_notify(app->http, id, c.row.version);
    if (ret)
        *ret = c.row;
    else
        bp_job_row_done(&c.row);
    return BP_OK;
}

struct job_read {
    const char *id;
    struct bp_job_row *ret;
};

static bp_status read_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct job_read *r = arg;
    return bp_db_job_get(db, r->id, r->ret, err);
}

bp_status bp_job_read(struct bp_store *store, const char *id, struct bp_job_row *ret, struct bp_error *err)
{
    struct job_read r = {id, ret};
    return bp_store_read(store, read_work, &r, err);
}

/* --- the verbs ------------------------------------------------------------------------------------------------------ */
/* What a verb does to a job in a state: */
enum effect {
    REFUSE, /* the state does not allow it */
    SAME,   /* it is so already */
    MOVE,   /* the state becomes `next`, here and now */
    TELL,   /* the state becomes `next`, and the worker is told `command` */
};

struct rule {
    enum effect effect;
    enum bp_job_status next;
    enum bp_command command;
    const char *event;
};

static const struct rule rules[BP_VERB_COUNT][BP_JOB_STATUS_COUNT] =
    {
        [BP_VERB_CANCEL] =
            {
                [BP_JOB_QUEUED] = {MOVE, BP_JOB_CANCELLED, BP_GO_ON, "cancelled"},
                [BP_JOB_PAUSED] = {MOVE, BP_JOB_CANCELLED, BP_GO_ON, "cancelled"},
                [BP_JOB_RUNNING] = {TELL, BP_JOB_CANCELLING, BP_CANCEL, "cancelling"},
                [BP_JOB_PAUSING] = {TELL, BP_JOB_CANCELLING, BP_CANCEL, "cancelling"},
                [BP_JOB_CANCELLING] = {.effect = SAME},
                [BP_JOB_CANCELLED] = {.effect = SAME},
            },
        [BP_VERB_STOP] =
            {
                [BP_JOB_RUNNING] = {TELL, BP_JOB_RUNNING, BP_FINISH, "stopping"},
                [BP_JOB_PAUSING] = {TELL, BP_JOB_RUNNING, BP_FINISH, "stopping"},
                /* a paused job has to restore its best weights and be tested: a worker does that */
                [BP_JOB_PAUSED] = {TELL, BP_JOB_QUEUED, BP_FINISH, "stopping"},
                [BP_JOB_SUCCEEDED] = {.effect = SAME},
            },
        [BP_VERB_PAUSE] =
            {
                [BP_JOB_QUEUED] = {MOVE, BP_JOB_PAUSED, BP_GO_ON, "paused"},
                [BP_JOB_RUNNING] = {TELL, BP_JOB_PAUSING, BP_PAUSE, "pausing"},
                [BP_JOB_PAUSING] = {.effect = SAME},
                [BP_JOB_PAUSED] = {.effect = SAME},
            },
        [BP_VERB_RESUME] =
            {
                [BP_JOB_PAUSED] = {TELL, BP_JOB_QUEUED, BP_GO_ON, "resumed"},
                [BP_JOB_QUEUED] = {.effect = SAME},
                [BP_JOB_RUNNING] = {.effect = SAME},
            },
};

/* The verbs that a state allows, for the reply to a verb that it does not. */
static const char *const allowed_verbs[BP_JOB_STATUS_COUNT] = {
    [BP_JOB_QUEUED] = "cancel,pause", [BP_JOB_RUNNING] = "cancel,stop,pause",
    [BP_JOB_PAUSING] = "cancel,stop", [BP_JOB_PAUSED] = "cancel,stop,resume",
    [BP_JOB_CANCELLING] = "",         [BP_JOB_SUCCEEDED] = "delete",
    [BP_JOB_FAILED] = "delete",       [BP_JOB_CANCELLED] = "delete",
};

static const char *const verb_names[BP_VERB_COUNT] = {"cancel", "stop", "pause", "resume"};

struct verb_work {
    const char *id;
    enum bp_verb verb;
    enum bp_job_status found;
    const struct rule *rule;
    struct bp_job_row row;
};

static bp_status verb_edit(void *arg, struct bp_job_row *row, struct bp_error *err)
{
    (void)err;
    const struct verb_work *w = arg;
    row->status = w->rule->next;
    /* A stop request outlives the daemon: it is in the row until the worker has carried it out. */
    if (w->verb == BP_VERB_STOP)
        row->stopping = 1;
    return BP_OK;
}

static bp_status verb_db(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct verb_work *w = arg;
    bp_status status = bp_db_job_get(db, w->id, &w->row, err);
    if (status)
        return status;
    w->found = w->row.status;
    w->rule = &rules[w->verb][w->row.status];
    /* A stop that was asked for and then paused has to be told again; so has one that ended with a cancel. */
    bool on_its_way = w->verb == BP_VERB_STOP && w->row.stopping &&
                      (w->row.status == BP_JOB_QUEUED || w->row.status == BP_JOB_RUNNING);
    if (w->rule->effect == SAME || on_its_way)
        return BP_OK;
    bool refused = w->rule->effect == REFUSE;
    bp_job_row_done(&w->row);
    memset(&w->row, 0, sizeof w->row);
    if (refused)
        return bp_fail(err, BP_CONFLICT, "a job that is %s cannot %s", bp_job_status_name(w->found),
                       verb_names[w->verb]);
    return bp_job_change_db(db, w->id, verb_edit, w, w->rule->event, NULL, &w->row, err);
}

static void tell_worker(struct bp_jobs *jobs, const char *id, enum bp_command command)
{
    pthread_mutex_lock(&jobs->mutex);
    for (struct bp_live *live = jobs->lives; live; live = live->next)
        if (!strcmp(live->id, id))
            atomic_store(&live->command, command);
    pthread_mutex_unlock(&jobs->mutex);
    bp_jobs_wake(jobs);
}

bp_status bp_jobs_verb(struct bp_app *app, const char *id, enum bp_verb verb, struct bp_job_row *ret,
                       enum bp_job_status *ret_status, const char **ret_allowed, struct bp_error *err)
{
    struct verb_work w = {.id = id, .verb = verb};
    bp_status status = bp_store_write(app->store, verb_db, &w, err);
    if (status == BP_CONFLICT) {
        *ret_status = w.found;
        *ret_allowed = allowed_verbs[w.found];
    }
    if (status) {
        bp_job_row_done(&w.row);
        return status;
    }
    if (w.rule->effect == TELL)
        tell_worker(app->jobs, id, w.rule->command);
    if (w.rule->effect != SAME)
        bp_http_notify(app->http, id, w.row.version);
    *ret = w.row;
    return BP_OK;
}
