/* run.c: the training loop.
 *
 * Between any two steps it asks the host what to do; at the end of an epoch it lets evaluate.c judge; from time to
 * time it offers a checkpoint. The clock decides about checkpoints only, and those change nothing of the training.
 *
 * A step that fails (step.c) ends the run, or is answered by going back to the start of the epoch (rollback.c).
 */
#include "train/state.h"

#include "base/clock.h"
#include "train/tuner.h"

#include <stdio.h>
#include <string.h>

#define CHECKPOINT_PAUSE 1.0  /* seconds between two checkpoints at least */
#define CHECKPOINT_SHARE 33.0 /* and this many times what the last one took: at most 3 % of the time */

/* One call of bp_trainer_run. */
struct run {
    struct bp_trainer *t;
    const struct bp_train_hooks *hooks;
    struct bp_team *team;
    struct bp_error *err;
    enum bp_outcome outcome;
    int threads;             /* that the host gives at present */
    struct bp_tuner tuner;   /* how many of them are used */
    double started, earlier; /* when the run began, and the seconds trained before it */
    double time;             /* at the end of the last step: one look at the clock is enough for it */
    double checkpoint_end;   /* when the last checkpoint was done (at first: when the run began) */
    double checkpoint_cost;  /* seconds that it took */
    bool checkpoint_waits;   /* the end of an epoch asked for one that was too early */
};

/* A step, with a sample of the layers where one is due. One that failed is looked at too: for the blame. */
static bp_status watched_step(struct run *run)
{
    struct bp_trainer *t = run->t;
    const struct bp_train_hooks *hooks = run->hooks;
    bool able = t->sampler != NULL && hooks->layers != NULL;
    int64_t number = t->at.step + 1, steps = t->steps_per_epoch * t->config.epochs;
    bool watched = able && bp_layer_sampler_due(t->sampler, number, steps);
    bp_status status = BP_OK;

    if (watched) {
        status = bp_layer_sampler_before(t->sampler, run->team, number, run->err);
    }
    t->watched = watched;
    if (status == BP_OK) {
        status = bp_trainer_step(t, run->team, run->err);
    }
    if (able && !watched && status == BP_NONFINITE) {
        watched = bp_layer_sampler_before(t->sampler, run->team, number, NULL) == BP_OK;
    }
    if (watched) {
        hooks->layers(hooks->ctx,
                      bp_layer_sampler_after(t->sampler, t->at.epoch + 1, number, t->clip, status == BP_OK));
    }
    return status;
}

/* A step on as many threads as it is worth. */
static bp_status tuned_step(struct run *run)
{
    bool listens = bp_tuner_listens(&run->tuner);
    double begin = listens ? bp_clock() : 0.0;
    bp_status status;

    bp_team_set_active(run->team, bp_tuner_threads(&run->tuner));
    status = watched_step(run);
    bp_tuner_took(&run->tuner, listens ? bp_clock() - begin : 0.0);
    return status;
}

/* A step that failed may be answered by going back: true when the run goes on. */
static bool rolled_back(struct run *run, bp_status status)
{
    struct bp_trainer *t = run->t;
    const struct bp_train_hooks *hooks = run->hooks;

    if (status != BP_NONFINITE || t->config.rollbacks < 1) {
        return false;
    }
    if (!bp_trainer_roll_back(t, run->team)) {
        size_t n = strlen(run->err->message);
        snprintf(run->err->message + n, sizeof run->err->message - n, " (given up after %lld rollbacks)",
                 (long long)t->at.rollbacks);
        return false;
    }
    if (hooks->rollback != NULL) {
        hooks->rollback(hooks->ctx, t->at.epoch + 1, t->at.step, t->at.rate_factor, run->err);
    }
    return true;
}

/* The clock: seconds so far, and the end of a run that has a budget of them. */
static void keep_time(struct run *run)
{
    struct bp_trainer *t = run->t;

    run->time = bp_clock();
    t->at.seconds = run->earlier + (run->time - run->started);
    if (t->config.max_seconds > 0.0 && t->at.seconds >= t->config.max_seconds && t->at.stop_reason == BP_STOP_NONE) {
        t->at.stop_reason = BP_STOP_TIME;
    }
}

static void report_step(const struct run *run)
{
    const struct bp_train_hooks *hooks = run->hooks;
    const struct bp_trainer *t = run->t;
    struct bp_progress progress;

    if (hooks->metric != NULL && t->config.log_every_steps > 0 && t->at.step % t->config.log_every_steps == 0) {
        hooks->metric(hooks->ctx, "batch_loss", t->at.epoch + 1, t->at.step, t->batch_loss);
    }
    if (hooks->progress != NULL) {
        bp_trainer_progress(t, &progress);
        hooks->progress(hooks->ctx, &progress);
    }
}

static bp_status offer_checkpoint(struct run *run, bool must)
{
    double begin = bp_clock();
    bp_status status = BP_OK;

    if (run->hooks->checkpoint != NULL) {
        status = run->hooks->checkpoint(run->hooks->ctx, run->t, must, run->err);
    }
    run->checkpoint_end = bp_clock();
    run->checkpoint_cost = run->checkpoint_end - begin;
    run->checkpoint_waits = false;
    return status;
}

/* A checkpoint at its time: at the end of an epoch, or when enough seconds have passed, but neither too soon after
 * the last nor for too large a share of the time. */
static bp_status pace_checkpoint(struct run *run)
{
    const struct bp_train_config *c = &run->t->config;
    const struct bp_position *at = &run->t->at;
    bool edge = at->epoch_step == 0;
    double passed = run->time - run->checkpoint_end;
    bool early = passed < CHECKPOINT_PAUSE || passed < CHECKPOINT_SHARE * run->checkpoint_cost;

    if (edge && c->checkpoint_epochs > 0 && at->epoch % c->checkpoint_epochs == 0) {
        run->checkpoint_waits = true;
    }
    if (early || at->stop_reason != BP_STOP_NONE) {
        return BP_OK;
    }
    if ((edge && run->checkpoint_waits) || (c->checkpoint_seconds > 0.0 && passed >= c->checkpoint_seconds)) {
        return offer_checkpoint(run, false);
    }
    return BP_OK;
}

static enum bp_command ask(struct run *run)
{
    int threads = run->threads, active;
    enum bp_command command;

    if (run->hooks->command == NULL) {
        return BP_GO_ON;
    }
    command = run->hooks->command(run->hooks->ctx, &threads);
    bp_team_set_active(run->team, threads);
    active = bp_team_active(run->team);
    if (active != run->threads) {
        run->threads = active;
        bp_tuner_begin(&run->tuner, active);
    }
    return command;
}

/* Obeys the host: true to go on with the next step; false when the run ends with run->outcome and *status. */
static bool obey(struct run *run, bp_status *status)
{
    enum bp_command command = ask(run);

    *status = BP_OK;
    if (command == BP_GO_ON) {
        return true;
    }
    if (command == BP_FINISH) {
        run->t->at.stop_reason = BP_STOP_USER;
        return true; /* the loop sees the reason */
    }
    *status = offer_checkpoint(run, true);
    if (command == BP_CHECKPOINT_NOW) {
        return *status == BP_OK;
    }
    run->outcome = command == BP_PAUSE ? BP_RUN_PAUSED : BP_RUN_CANCELLED;
    return false;
}

static bp_status loop(struct run *run)
{
    struct bp_trainer *t = run->t;
    bp_status status = BP_OK;

    for (;;) {
        if (t->at.stop_reason == BP_STOP_NONE && !obey(run, &status)) {
            return status;
        }
        if (t->at.stop_reason != BP_STOP_NONE) {
            run->outcome = BP_RUN_FINISHED;
            return offer_checkpoint(run, true);
        }
        bp_trainer_keep_start(t);
        status = tuned_step(run);
        if (rolled_back(run, status)) {
            continue;
        }
        if (status != BP_OK) {
            return status;
        }
        keep_time(run);
        report_step(run);
        if (t->at.epoch_step == t->steps_per_epoch) {
            status = bp_trainer_end_epoch(t, run->hooks, run->team, run->err);
            if (status != BP_OK) {
                return status;
            }
        }
        status = pace_checkpoint(run);
        if (status != BP_OK) {
            return status;
        }
    }
}

static void lead(struct bp_team *team, void *arg)
{
    struct run *run = arg;

    run->team = team;
    run->threads = bp_team_active(team);
    bp_tuner_begin(&run->tuner, run->threads);
    if (loop(run) != BP_OK) {
        run->outcome = BP_RUN_FAILED;
    }
}

enum bp_outcome bp_trainer_run(struct bp_trainer *trainer, const struct bp_train_hooks *hooks, struct bp_error *err)
{
    struct bp_error unread;
    struct run run = {.t = trainer, .hooks = hooks, .err = err ? err : &unread, .outcome = BP_RUN_FAILED};

    if (trainer->put) { /* once, however many pieces they came in */
        bp_model_pack(trainer->model, NULL);
        trainer->put = false;
    }
    run.started = run.checkpoint_end = bp_clock();
    run.earlier = trainer->at.seconds;
    if (trainer->at.stop_reason == BP_STOP_NONE && trainer->at.epoch >= trainer->config.epochs) {
        trainer->at.stop_reason = BP_STOP_MAX_EPOCHS;
    }
    bp_team_run(trainer->config.threads, lead, &run);
    return run.outcome;
}
