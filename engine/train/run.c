/* run.c: the training loop.
 *
 * Between any two steps it asks the host what to do; at the end of an epoch it lets evaluate.c judge; from time to
 * time it offers a checkpoint. The clock decides about checkpoints only, and those change nothing of the training.
 *
 * A step that fails (a loss or a gradient that is no finite number) has changed no parameter: what is checkpointed
 * afterwards is the state before it.
 */
#include "base/random.h"
#include "train/batch.h"
#include "train/state.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <time.h>

#define CHECKPOINT_PAUSE 1.0  /* seconds between two checkpoints at least */
#define CHECKPOINT_SHARE 33.0 /* and this many times what the last one took: at most 3 % of the time */
#define CLIP_EPS 1e-6         /* keeps the clipping factor finite at norm 0; PyTorch's value */

/* One call of bp_trainer_run. */
struct run {
    struct bp_trainer *t;
    const struct bp_train_hooks *hooks;
    struct bp_team *team;
    struct bp_error *err;
    enum bp_outcome outcome;
    int threads;             /* active at present */
    double started, earlier; /* when the run began, and the seconds trained before it */
    double checkpoint_end;   /* when the last checkpoint was done (at first: when the run began) */
    double checkpoint_cost;  /* seconds that it took */
    bool checkpoint_waits;   /* the end of an epoch asked for one that was too early */
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* The order of the open epoch: a function of the seed and the epoch alone. */
static void order_rows(struct bp_trainer *t)
{
    uint64_t n = t->split->count[BP_TRAIN];

    if (t->order_epoch == t->at.epoch) {
        return;
    }
    memcpy(t->order, t->split->rows[BP_TRAIN], n * sizeof *t->order);
    if (t->config.shuffle) {
        bp_random_shuffle(t->config.seed, bp_stream(BP_STREAM_SHUFFLE, 0), (uint64_t)t->at.epoch, t->order, n);
    }
    t->order_epoch = t->at.epoch;
}

/* Loss of the last pass in the targets' own units. */
static double batch_loss(const struct bp_trainer *t, int rows)
{
    double sum = 0.0;

    for (int h = 0; h < t->graph->nheads; h++) {
        const struct bp_head *head = &t->graph->heads[h];
        const float *weight = bp_exec_targets(t->exec, h)->weight;
        const float *loss = bp_exec_row_losses(t->exec, h);
        double weights = 0.0, losses = 0.0;

        for (int r = 0; r < rows; r++) {
            weights += (double)weight[r];
            losses += (double)weight[r] * (double)loss[r];
        }
        sum += weights > 0.0
                   ? head->weight * (losses / weights) * bp_loss_unit(head->loss, bp_head_unit(t->source, h))
                   : 0.0;
    }
    return sum;
}

static bp_status fail_at_gradient(const struct bp_trainer *t, struct bp_error *err)
{
    for (int i = 0; i < t->graph->ntensors; i++) {
        const struct bp_tensor *tensor = &t->graph->tensors[i];
        const float *g = t->model->grads + tensor->offset;

        for (size_t e = 0; !tensor->statistic && tensor->trainable && e < tensor->count; e++) {
            if (!isfinite(g[e]) || !isfinite(g[e] * g[e])) {
                return bp_fail_at(err, BP_NONFINITE, tensor->name,
                                  "the gradient of %s is not finite, or too large to square, at step %lld; try a "
                                  "smaller learning rate or clip_grad_norm",
                                  tensor->name, (long long)t->at.step + 1);
            }
        }
    }
    return bp_fail(err, BP_NONFINITE,
                   "the norm of the gradient is too large at step %lld; try a smaller learning rate",
                   (long long)t->at.step + 1);
}

/* Clips by the global norm and updates. The squares of all gradients together must fit a float: else the second
 * moments of Adam could overflow, and parameters after them. */
static bp_status update(struct bp_trainer *t, struct bp_team *team, struct bp_error *err)
{
    double squares = bp_optimizer_prepare(t->model, team), scale = 1.0;

    if (!(squares <= (double)FLT_MAX)) {
        return fail_at_gradient(t, err);
    }
    if (t->config.clip_grad_norm > 0.0) {
        scale = t->config.clip_grad_norm / (sqrt(squares) + CLIP_EPS);
        scale = scale < 1.0 ? scale : 1.0;
    }
    t->clip = scale;
    bp_optimizer_step(&t->config.optimizer, t->model, team, t->config.optimizer.lr, scale, (uint64_t)t->at.step + 1);
    bp_model_pack(t->model, team);
    return BP_OK;
}

static bp_status step(struct run *run)
{
    struct bp_trainer *t = run->t;
    uint64_t first = (uint64_t)t->at.epoch_step * (uint64_t)t->config.batch_size;
    uint64_t left = t->split->count[BP_TRAIN] - first;
    int n = left < (uint64_t)t->config.batch_size ? (int)left : t->config.batch_size;
    double loss;
    bp_status status;

    order_rows(t);
    status = bp_batch_load(t->exec, run->team, t->graph, t->source, t->order + first, n, run->err);
    if (status != BP_OK) {
        return status;
    }
    loss = bp_exec_pass(t->exec, run->team, n, true, t->config.seed, (uint64_t)t->at.step);
    if (!isfinite(loss)) {
        return bp_fail(run->err, BP_NONFINITE,
                       "the loss is not a finite number at step %lld; try a smaller learning rate",
                       (long long)t->at.step + 1);
    }
    status = update(t, run->team, run->err);
    if (status != BP_OK) {
        return status;
    }
    for (int h = 0; h < t->graph->nheads; h++) {
        bp_accumulator_add(&t->epoch_accs[h], t->exec, &t->graph->heads[h], h, n, bp_head_unit(t->source, h));
        bp_scores_add(t->epoch_scores[h], t->exec, h, n);
    }
    t->batch_loss = batch_loss(t, n);
    t->at.step++;
    t->at.epoch_step++;
    t->at.samples += n;
    t->at.seconds = run->earlier + (now() - run->started);
    return BP_OK;
}

/* A training pass writes running statistics before anybody knows whether its numbers are finite: a step that failed
 * leaves those that were there before it. */
static bp_status step_or_stay(struct run *run)
{
    struct bp_trainer *t = run->t;
    size_t bytes = t->graph->nstats * sizeof *t->stats_before;
    bp_status status;

    memcpy(t->stats_before, t->model->stats, bytes);
    status = step(run);
    if (status != BP_OK) {
        memcpy(t->model->stats, t->stats_before, bytes);
    }
    return status;
}

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
    if (status == BP_OK) {
        status = step_or_stay(run);
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
    double begin = now();
    bp_status status = BP_OK;

    if (run->hooks->checkpoint != NULL) {
        status = run->hooks->checkpoint(run->hooks->ctx, run->t, must, run->err);
    }
    run->checkpoint_end = now();
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
    double passed = now() - run->checkpoint_end;
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
    int threads = run->threads;
    enum bp_command command;

    if (run->hooks->command == NULL) {
        return BP_GO_ON;
    }
    command = run->hooks->command(run->hooks->ctx, &threads);
    if (threads != run->threads) {
        bp_team_set_active(run->team, threads);
        run->threads = bp_team_active(run->team);
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
        status = watched_step(run);
        if (status != BP_OK) {
            return status;
        }
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
    if (loop(run) != BP_OK) {
        run->outcome = BP_RUN_FAILED;
    }
}

enum bp_outcome bp_trainer_run(struct bp_trainer *trainer, const struct bp_train_hooks *hooks, struct bp_error *err)
{
    struct run run = {.t = trainer, .hooks = hooks, .err = err, .outcome = BP_RUN_FAILED};

    run.started = run.checkpoint_end = now();
    run.earlier = trainer->at.seconds;
    if (trainer->at.stop_reason == BP_STOP_NONE && trainer->at.epoch >= trainer->config.epochs) {
        trainer->at.stop_reason = BP_STOP_MAX_EPOCHS;
    }
    bp_team_run(trainer->config.threads, lead, &run);
    return run.outcome;
}
