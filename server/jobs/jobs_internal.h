/* jobs_internal.h: what queue, worker and saver share. */
#ifndef BP_JOBS_JOBS_INTERNAL_H
#define BP_JOBS_JOBS_INTERNAL_H

#include "jobs/jobs.h"

#include <pthread.h>
#include <stdatomic.h>

/* A job in the hands of a worker. Linked from struct bp_jobs; freed by the worker. */
struct bp_live {
    struct bp_live *next;
    char id[BP_ID_SIZE];
    atomic_int command;    /* enum bp_command, set by verbs, read by the trainer between steps */
    int asked;             /* threads the job asked for at most; 0: no limit */
    pthread_mutex_t mutex; /* guards snapshot; the trainer only tries it, so it never waits for a reader */
    struct bp_snapshot snapshot;
};

/* What a crash left in the middle is put right at start, or, where the disk is full, by a worker once there is room; no
 * job is taken before. */
enum bp_recovery { BP_RECOVERED, BP_RECOVERY_DUE, BP_RECOVERY_GOES_ON };

struct bp_jobs {
    struct bp_app *app;
    int budget; /* threads that all jobs share */
    int nworkers;
    pthread_t *workers;
    pthread_mutex_t mutex; /* guards lives and waiting for `wake` */
    pthread_cond_t wake;   /* a job was queued, or told something, or stopping was set; on the steady clock */
    struct bp_live *lives;
    bool poked;         /* something may be queued */
    atomic_int running; /* number of lives */
    atomic_bool stopping;
    atomic_int recovery; /* enum bp_recovery */
    bool crashed;        /* the last run ended without a word */
};

/* The present share of threads of one of the running jobs: a function of two atomics. */
static inline int bp_jobs_share(struct bp_jobs *jobs, int asked)
{
    int running = atomic_load_explicit(&jobs->running, memory_order_relaxed);
    int share = jobs->budget / (running > 0 ? running : 1);
    if (asked > 0 && share > asked)
        share = asked;
    return share > 0 ? share : 1;
}

/* Whether a write that failed like this may succeed later: with room on the disk, or memory, again. */
static inline bool bp_may_pass(bp_status status)
{
    return status == BP_FULL || status == BP_NOMEM;
}

/* Rests for a second, or until the daemon stops, or the job is told something. */
void bp_jobs_rest(struct bp_jobs *jobs, struct bp_live *live);

/* A read-modify-write of a job's row in one piece of store work: edit changes the row or returns something else
 * than BP_OK to leave it alone. On success the version has risen, waiters of the job are woken, and *ret (may be NULL)
 * is the new row. event (may be NULL) is appended to the log in the same transaction with event_data (JSON). A job that
 * the edit ends gets its time, and has no request to stop left. */
typedef bp_status bp_job_edit(void *arg, struct bp_job_row *row, struct bp_error *err);
bp_status bp_job_change(struct bp_app *app, const char *id, bp_job_edit *edit, void *arg, const char *event,
                        const char *event_data, struct bp_job_row *ret, struct bp_error *err);

/* The same inside a transaction that is already open; *ret_version for the notification that the caller sends after
 * its commit. */
bp_status bp_job_change_db(struct bp_db *db, const char *id, bp_job_edit *edit, void *arg, const char *event,
                           const char *event_data, struct bp_job_row *ret, struct bp_error *err);

/* Trains a claimed job from where it is to where it ends or is stopped, and stores the outcome (worker.c). */
void bp_worker_run(struct bp_jobs *jobs, struct bp_job_row *row, struct bp_live *live);

#endif
