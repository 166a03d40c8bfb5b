/* jobs.c: the workers and what they are working on: starting, claiming, the present of a job, stopping.
 *
 * It refuses to know how a job is trained (worker.c) or which changes of state a user may ask for (verbs.c).
 */
#include "jobs/jobs_internal.h"

#include "base/team.h"
#include "config.h"
#include "jobs/recovery.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRAINER_NICE 10 /* so that polls stay quick while every core trains */

struct claim {
    struct bp_job_row row;
    bool found;
};

/* One of a list of queued jobs, oldest first: keeps the first of the highest priority. */
static bp_status prefer(void *arg, const struct bp_job_row *row)
{
    struct claim *claim = arg;
    if (!claim->found || row->priority > claim->row.priority) {
        claim->found = true;
        memcpy(claim->row.id, row->id, sizeof claim->row.id);
        claim->row.priority = row->priority;
    }
    return BP_OK;
}

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

static bp_status claim_next(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct claim *claim = arg;
    struct bp_job_filter filter = {.statuses = 1 << BP_JOB_QUEUED, .ascending = true, .limit = BP_QUEUE_MAX};
    claim->found = false;
    bp_status status = bp_db_job_list(db, &filter, prefer, claim, err);
    if (status || !claim->found)
        return status;
    char id[BP_ID_SIZE];
    memcpy(id, claim->row.id, sizeof id);
    memset(&claim->row, 0, sizeof claim->row);
    claim->found = false;
    status = bp_job_change_db(db, id, start_row, NULL, "started", NULL, &claim->row, err);
    claim->found = status == BP_OK;
    return status;
}

static struct bp_live *live_new(struct bp_jobs *jobs, const struct bp_job_row *row)
{
    struct bp_live *live = calloc(1, sizeof *live);
    if (!live)
        return NULL;
    memcpy(live->id, row->id, sizeof live->id);
    live->asked = (int)row->threads;
    atomic_init(&live->command, BP_GO_ON);
    bp_job_stored_progress(row, &live->snapshot.progress); /* what a poll sees until the trainer is restored */
    live->snapshot.best = (struct bp_best){row->has_best, row->best_epoch, row->best_step, row->best_value};
    pthread_mutex_init(&live->mutex, NULL);
    pthread_mutex_lock(&jobs->mutex);
    live->next = jobs->lives;
    jobs->lives = live;
    atomic_fetch_add(&jobs->running, 1);
    pthread_mutex_unlock(&jobs->mutex);
    return live;
}

static void live_free(struct bp_jobs *jobs, struct bp_live *live)
{
    pthread_mutex_lock(&jobs->mutex);
    for (struct bp_live **at = &jobs->lives; *at; at = &(*at)->next)
        if (*at == live) {
            *at = live->next;
            break;
        }
    atomic_fetch_sub(&jobs->running, 1);
    pthread_mutex_unlock(&jobs->mutex);
    pthread_mutex_destroy(&live->mutex);
    free(live);
}

/* Takes the next queued job and trains it. False when there was none. */
static bool work_once(struct bp_jobs *jobs)
{
    struct claim claim = {0};
    struct bp_error err = {0};
    bp_status status = bp_store_write(jobs->app->store, claim_next, &claim, &err);
    if (status || !claim.found) {
        if (status && status != BP_CONFLICT)
            bp_log(BP_LOG_ERROR, "cannot take a job from the queue", "error", err.message, NULL);
        return status == BP_CONFLICT;
    }
    bp_http_notify(jobs->app->http, claim.row.id, claim.row.version);
    bp_jobs_wake(jobs); /* one poke may have stood for several jobs: the next worker looks whether there is more */
    struct bp_live *live = live_new(jobs, &claim.row);
    if (live) {
        bp_worker_run(jobs, &claim.row, live);
        live_free(jobs, live);
    } else {
        bp_log(BP_LOG_ERROR, "no memory to start a job: it goes on after a restart", "job", claim.row.id, NULL);
    }
    bp_job_row_done(&claim.row);
    return true;
}

static void no_work(struct bp_team *team, void *arg)
{
    (void)team;
    (void)arg;
}

static void *worker_main(void *arg)
{
    struct bp_jobs *jobs = arg;
    /* Threads of the team inherit the niceness. Failure means normal priority, which is no reason to stop. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), TRAINER_NICE);
    bp_team_run(jobs->budget, no_work, NULL); /* makes the threads now, when failing hurts nobody */
    while (!atomic_load(&jobs->stopping)) {
        if (work_once(jobs))
            continue;
        pthread_mutex_lock(&jobs->mutex);
        while (!jobs->poked && !atomic_load(&jobs->stopping))
            pthread_cond_wait(&jobs->wake, &jobs->mutex);
        jobs->poked = false;
        pthread_mutex_unlock(&jobs->mutex);
    }
    return NULL;
}

bp_status bp_jobs_start(struct bp_app *app, struct bp_error *err)
{
    bp_status status = bp_recover(app, err);
    if (status)
        return status;
    struct bp_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return bp_fail(err, BP_NOMEM, "no memory for the workers");
    jobs->app = app;
    jobs->budget = app->config->threads;
    jobs->workers = calloc((size_t)app->config->workers, sizeof *jobs->workers);
    pthread_mutex_init(&jobs->mutex, NULL);
    pthread_cond_init(&jobs->wake, NULL);
    app->jobs = jobs;
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
    pthread_cond_signal(&jobs->wake);
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
