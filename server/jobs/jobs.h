/* jobs.h: the queue and the workers.
 *
 * The truth about a job is its row in the store; every change of state is a read-modify-write inside one piece of
 * store work, so it cannot be lost to a race. What is only of this moment (the step, the rate, a command on its way
 * to the trainer) lives in a `live` entry while a worker has the job.
 *
 *   queued --claim--> running --+--> succeeded | failed
 *     ^                 | | |   +--cancelling--> cancelled
 *     +----- resume --- paused <--pausing
 *
 * A worker is a thread that takes the next queued job (highest priority, then oldest), builds its plan, restores its
 * newest checkpoint if there is one, and trains. `--workers` jobs run at a time and share `--threads` cores: each gets
 * max(1, budget / running jobs) threads, at most what it asked for; the share follows at once when jobs come and go,
 * because the number of threads changes nothing but the speed.
 *
 * Lock order: the mutex of struct bp_jobs, then the mutex of a live entry. Neither is held while waiting for the
 * store.
 */
#ifndef BP_JOBS_JOBS_H
#define BP_JOBS_JOBS_H

#include "app.h"
#include "base/status.h"
#include "store/store.h"
#include "train/trainer.h"

#define BP_QUEUE_MAX 1000      /* queued jobs; one more is refused with 429 */
#define BP_LAST_METRICS_MAX 64 /* series whose last value a live entry keeps */
#define BP_CRASHES_MAX 10      /* crashes in a row without progress, after which a job is failed as crash_loop */

/* Recovers what a crash left (recovery.h), starts the workers. */
bp_status bp_jobs_start(struct bp_app *app, struct bp_error *err);
/* Has every running job checkpointed and put back into the queue, then ends the workers. */
void bp_jobs_stop(struct bp_app *app);

/* A job was committed as queued: wakes a worker. */
void bp_jobs_wake(struct bp_jobs *jobs);

/* The present of a running job. */
struct bp_snapshot {
    struct bp_progress progress;
    struct bp_best best;
    int threads;               /* it trains with just now */
    double samples_per_second; /* over the last second or so; 0: not known yet */
    const char *stalled;       /* "disk_full" or "out_of_memory" while what must be stored cannot be, else NULL */
    int nmetrics;
    struct bp_metric_point metrics[BP_LAST_METRICS_MAX]; /* last value of each series by epoch */
};
/* Never waits for the trainer. False when no worker has the job. */
bool bp_jobs_snapshot(struct bp_jobs *jobs, const char *id, struct bp_snapshot *ret);

/* The progress that a row remembers; zero where there is none yet. */
void bp_job_stored_progress(const struct bp_job_row *row, struct bp_progress *ret);

/* Reads a job's row: BP_NOT_FOUND when there is none. Any thread. */
bp_status bp_job_read(struct bp_store *store, const char *id, struct bp_job_row *ret, struct bp_error *err);

/* How many jobs train now, and the budget that they share. */
int bp_jobs_running(struct bp_jobs *jobs);

/* The verbs. Each commits the new state and passes it on to the worker; *ret is the row after it. BP_NOT_FOUND, or
 * BP_CONFLICT: the state does not allow it (*ret_status and *ret_allowed, a comma-separated list of verbs, say what
 * there is). A repeated verb (cancel a cancelled job) succeeds. Call from a thread that may wait for a commit. */
enum bp_verb { BP_VERB_CANCEL, BP_VERB_STOP, BP_VERB_PAUSE, BP_VERB_RESUME, BP_VERB_COUNT };
bp_status bp_jobs_verb(struct bp_app *app, const char *id, enum bp_verb verb, struct bp_job_row *ret,
                       enum bp_job_status *ret_status, const char **ret_allowed, struct bp_error *err);

#endif
