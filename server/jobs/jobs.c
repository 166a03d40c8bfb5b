/* jobs.c: the workers and what they are working on: starting, claiming, the present of a job, stopping.
 *
 * It refuses to know how a job is trained (worker.c) or which changes of state a user may ask for (verbs.c).
 */
#include "jobs/jobs_internal.h"

#include "base/memory.h"
#include "base/team.h"
#include "config.h"
#include "jobs/recovery.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TRAINER_NICE 10 /* so that polls stay quick while every core trains */
#define RETRY_SECONDS 1 /* between two tries of a write that found no room */

struct claim {
    struct bp_jobs *jobs;
    struct bp_job_row row;
    bool found;
    struct bp_live *live; /* made before, so that no memory is needed once the job is ours */
};

static bp_status start_row(void *arg, struct bp_job_row *row, struct bp_error *err)
{
    (void)arg;
    if (row->status != BP_JOB_QUEUED)
        return bp_fail(err, BP_CONFLICT, "job %s is no longer queued", row->id);
    row->status = BP_JOB_RUNNING;
    if (row->started_at == 0)
        row->started_at = bp_store_now();
    return BP_OK;
}

static void live_link(struct bp_jobs *jobs, struct bp_live *live, const struct bp_job_row *row)
{
    memcpy(live->id, row->id, sizeof live->id);
    live->asked = (int)row->threads;
    atomic_store(&live->command, row->stopping ? BP_FINISH : BP_GO_ON);
    bp_job_stored_progress(row, &live->snapshot.progress); /* what a poll sees until the trainer is restored */
    live->snapshot.best = (struct bp_best){row->has_best, row->best_epoch, row->best_step, row->best_value};
    pthread_mutex_lock(&jobs->mutex);
    live->next = jobs->lives;
    jobs->lives = live;
    atomic_fetch_add(&jobs->running, 1);
    pthread_mutex_unlock(&jobs->mutex);
}

/* Fine for one that is not linked. */
static void live_unlink(struct bp_jobs *jobs, struct bp_live *live)
{
    pthread_mutex_lock(&jobs->mutex);
    for (struct bp_live **at = &jobs->lives; *at; at = &(*at)->next)
        if (*at == live) {
            *at = live->next;
            atomic_fetch_sub(&jobs->running, 1);
            break;
        }
    pthread_mutex_unlock(&jobs->mutex);
}

/* Makes the first of the queue a running job. Its live entry is linked in here, on the store's thread, before any verb
 * can be stored for the running job: so none is missed. */
static bp_status claim_next(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct claim *claim = arg;
    char id[BP_ID_SIZE];
    bp_status status = bp_db_job_next(db, id, err);
    claim->found = false;
    if (status == BP_NOT_FOUND)
        return BP_OK;
    if (status)
        return status;
    status = bp_job_change_db(db, id, start_row, NULL, "started", NULL, &claim->row, err);
    claim->found = status == BP_OK;
    if (claim->found)
        live_link(claim->jobs, claim->live, &claim->row);
    return status;
}

enum taken { NOTHING, A_JOB, FAILED };

/* Takes the next queued job and trains it. */
static enum taken work_once(struct bp_jobs *jobs)
{
    struct bp_live *live = bp_alloc(sizeof *live);
    struct claim claim = {.jobs = jobs, .live = live};
    struct bp_error err = {0};
    if (!live) {
        bp_log(BP_LOG_ERROR, "no memory to take a job from the queue", NULL);
        return FAILED;
    }
    pthread_mutex_init(&live->mutex, NULL);
    bp_status status = bp_store_write(jobs->app->store, claim_next, &claim, &err);
    enum taken taken = status ? FAILED : claim.found ? A_JOB : NOTHING;
    if (taken == A_JOB) {
        bp_http_notify(jobs->app->http, claim.row.id, claim.row.version);
        bp_jobs_wake(
            jobs); /* one poke may have stood for several jobs: the next worker looks whether there is more */
        bp_worker_run(jobs, &claim.row, live);
    } else if (status) {
        bp_log(BP_LOG_ERROR, "cannot take a job from the queue", "error", err.message, NULL);
    }
    live_unlink(jobs, live);
    pthread_mutex_destroy(&live->mutex);
    bp_free(live);
    bp_job_row_done(&claim.row);
    return taken;
}

/* --- waiting -------------------------------------------------------------------------------------------------------- */
static struct timespec next_try(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += RETRY_SECONDS;
    return at;
}

void bp_jobs_rest(struct bp_jobs *jobs, struct bp_live *live)
{
    struct timespec until = next_try();
    int told = atomic_load(&live->command);
    pthread_mutex_lock(&jobs->mutex);
    while (!atomic_load(&jobs->stopping) && atomic_load(&live->command) == told &&
           !pthread_cond_timedwait(&jobs->wake, &jobs->mutex, &until))
        continue;
    pthread_mutex_unlock(&jobs->mutex);
}

/* Until something is queued; after a failure, not for longer than until the next try. */
static void wait_for_work(struct bp_jobs *jobs, bool failed)
{
    struct timespec until = next_try();
    pthread_mutex_lock(&jobs->mutex);
    while (!jobs->poked && !atomic_load(&jobs->stopping)) {
        if (!failed)
            pthread_cond_wait(&jobs->wake, &jobs->mutex);
        else if (pthread_cond_timedwait(&jobs->wake, &jobs->mutex, &until))
            break;
    }
    jobs->poked = false;
    pthread_mutex_unlock(&jobs->mutex);
}

static void no_work(struct bp_team *team, void *arg)
{
    (void)team;
    (void)arg;
}

/* Whether jobs may be taken. Where a recovery is due, one worker tries it. */
static bool recovered(struct bp_jobs *jobs)
{
    int due = BP_RECOVERY_DUE;
    struct bp_error err = {0};
    if (!atomic_compare_exchange_strong(&jobs->recovery, &due, BP_RECOVERY_GOES_ON))
        return due == BP_RECOVERED;
    bp_status status = bp_recover(jobs->app, jobs->crashed, &err);
    bool done = status == BP_OK;
    atomic_store(&jobs->recovery, done ? BP_RECOVERED : BP_RECOVERY_DUE);
    if (done) {
        bp_recovery_mark(jobs->app, true);
        bp_log(BP_LOG_INFO, "there is room again: jobs are taken from the queue", NULL);
    } else if (status != BP_FULL) {
        bp_log(BP_LOG_ERROR, "jobs that were in the middle of something cannot be put right", "error", err.message,
               NULL);
    }
    return done;
}

static void *worker_main(void *arg)
{
    struct bp_jobs *jobs = arg;
    /* Threads of the team inherit the niceness. Failure means normal priority, which is no reason to stop. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), TRAINER_NICE);
    bp_team_run(jobs->budget, no_work, NULL); /* makes the threads now, when failing hurts nobody */
    while (!atomic_load(&jobs->stopping)) {
        enum taken taken = recovered(jobs) ? work_once(jobs) : FAILED;
        if (taken != A_JOB)
            wait_for_work(jobs, taken == FAILED);
    }
    return NULL;
}

bp_status bp_jobs_start(struct bp_app *app, struct bp_error *err)
{
    bool crashed = bp_recovery_marked(app);
    bp_status status = bp_recover(app, crashed, err);
    if (status == BP_FULL)
        bp_log(BP_LOG_ERROR,
               "the disk is full: jobs that were in the middle of something wait, and none is taken from the queue; "
               "reading works. Free some space",
               "data_dir", app->config->data_dir, "error", err->message, NULL);
    else if (status)
        return status;
    struct bp_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return bp_fail(err, BP_NOMEM, "no memory for the workers");
    jobs->app = app;
    jobs->crashed = crashed;
    atomic_init(&jobs->recovery, status ? BP_RECOVERY_DUE : BP_RECOVERED);
    jobs->budget = app->config->threads;
    jobs->workers = calloc((size_t)app->config->workers, sizeof *jobs->workers);
    pthread_mutex_init(&jobs->mutex, NULL);
    pthread_condattr_t steady;
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&jobs->wake, &steady);
    pthread_condattr_destroy(&steady);
    app->jobs = jobs;
    if (status == BP_OK)
        bp_recovery_mark(app, true);
    if (!jobs->workers) {
        bp_jobs_stop(app);
        return bp_fail(err, BP_NOMEM, "no memory for the workers");
    }
    for (int i = 0; i < app->config->workers; i++) {
        if (pthread_create(&jobs->workers[i], NULL, worker_main, jobs)) {
            bp_jobs_stop(app);
            return bp_fail(err, BP_NOMEM, "cannot create worker thread %d of %d", i + 1, app->config->workers);
        }
        jobs->nworkers++;
    }
    return BP_OK;
}

void bp_jobs_stop(struct bp_app *app)
{
    struct bp_jobs *jobs = app->jobs;
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->mutex);
    atomic_store(&jobs->stopping, true);
    pthread_cond_broadcast(&jobs->wake);
    pthread_mutex_unlock(&jobs->mutex);
    for (int i = 0; i < jobs->nworkers; i++)
        pthread_join(jobs->workers[i], NULL);
    if (atomic_load(&jobs->recovery) == BP_RECOVERED) /* else the next start still comes after the crash */
        bp_recovery_mark(app, false);
    app->jobs = NULL;
    pthread_cond_destroy(&jobs->wake);
    pthread_mutex_destroy(&jobs->mutex);
    free(jobs->workers);
    free(jobs);
}

void bp_jobs_wake(struct bp_jobs *jobs)
{
    pthread_mutex_lock(&jobs->mutex);
    jobs->poked = true;
    pthread_cond_broadcast(&jobs->wake); /* not only idle workers listen */
    pthread_mutex_unlock(&jobs->mutex);
}

bool bp_jobs_snapshot(struct bp_jobs *jobs, const char *id, struct bp_snapshot *ret)
{
    bool found = false;
    pthread_mutex_lock(&jobs->mutex);
    for (struct bp_live *live = jobs->lives; live && !found; live = live->next)
        if (!strcmp(live->id, id)) {
            pthread_mutex_lock(&live->mutex);
            *ret = live->snapshot;
            pthread_mutex_unlock(&live->mutex);
            found = true;
        }
    pthread_mutex_unlock(&jobs->mutex);
    return found;
}

int bp_jobs_running(struct bp_jobs *jobs)
{
    return atomic_load(&jobs->running);
}
