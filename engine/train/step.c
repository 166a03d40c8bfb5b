/* step.c: one step of training: micro-batches forward and back, the clipped gradient, the update.
 *
 * A step that fails (a loss or a gradient that is no finite number) has changed neither parameters nor running
 * statistics: what is checkpointed afterwards is the state before it. A large model is updated within the pass, each
 * gradient while it is in the cache, but only in a step whose loss is finite and whose gradients have been proved to be
 * before the first of them (graph/exec.h). Where the proof fails the step goes the long way: the gradients themselves
 * are checked, then the update. Both ways give the same bits.
 */
#include "base/random.h"
#include "base/ticks.h"
#include "kernels/kernels.h"
#include "train/batch.h"
#include "train/gradient.h"
#include "train/state.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define CLIP_EPS 1e-6 /* keeps the clipping factor finite at norm 0; PyTorch's value */

/* Gives the time since the last mark to a part of the step, where somebody profiles. */
static void mark(struct bp_trainer *t, enum bp_step_part part)
{
    if (t->profile != NULL) {
        uint64_t now = bp_ticks();
        t->profile->ticks[part] += now - t->profile->mark;
        t->profile->mark = now;
    }
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
        bp_kernels_current()->shuffle(t->config.seed, bp_stream(BP_STREAM_SHUFFLE, 0), (uint64_t)t->at.epoch,
                                      t->order, n);
    }
    t->order_epoch = t->at.epoch;
}

/* Loss of the last pass in the targets' own units. */
static double batch_loss(const struct bp_trainer *t)
{
    double sum = 0.0;

    for (int h = 0; h < t->graph->nheads; h++) {
        const struct bp_head *head = &t->graph->heads[h];

        sum += head->weight * bp_exec_mean_loss(t->exec, h) * bp_loss_unit(head->loss, bp_head_unit(t->source, h));
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

double bp_trainer_rate(const struct bp_trainer *t)
{
    struct bp_schedule_at at = {.epoch = t->at.epoch,
                                .epochs = t->config.epochs,
                                .step = t->at.step,
                                .steps_per_epoch = t->steps_per_epoch,
                                .plateau_lr = t->at.plateau.lr};

    return bp_schedule_rate(&t->config.schedule, t->config.optimizer.lr, &at) * t->at.rate_factor;
}

/* Clips by the global norm, then by value, and updates. The squares of all gradients together must fit a float: else
 * the second moments of Adam could overflow, and parameters after them. */
static bp_status update(struct bp_trainer *t, struct bp_team *team, struct bp_error *err)
{
    double squares, scale = 1.0;

    if (t->updated) {
        return BP_OK;
    }
    squares = bp_optimizer_prepare(t->model, team);
    mark(t, BP_STEP_CHECK);
    if (!(squares <= (double)FLT_MAX)) {
        return fail_at_gradient(t, err);
    }
    if (t->config.clip_grad_norm > 0.0) {
        scale = t->config.clip_grad_norm / (sqrt(squares) + CLIP_EPS);
        scale = scale < 1.0 ? scale : 1.0;
    }
    t->clip = scale;
    if (t->config.clip_grad_value > 0.0) {
        bp_gradient_clip(t->model, team, scale, t->config.clip_grad_value);
        scale = 1.0;
    }
    t->rate = bp_trainer_rate(t);
    bp_optimizer_step(&t->config.optimizer, t->model, team, t->rate, scale, (uint64_t)t->at.step + 1);
    mark(t, BP_STEP_UPDATE);
    return BP_OK;
}

/* Whether the pass may update: the loss is finite, and the squares of all gradients together, at most as large as the
 * bound, fit a float. */
static bool admit(void *arg, double loss, double squares)
{
    struct bp_trainer *t = arg;

    if (!isfinite(loss) || !(squares <= (double)FLT_MAX)) {
        return false;
    }
    t->clip = 1.0;
    t->rate = bp_trainer_rate(t);
    bp_optimizer_begin(&t->config.optimizer, t->model, t->rate, 1.0, (uint64_t)t->at.step + 1, &t->update);
    t->updated = true;
    return true;
}

static void take(void *arg, const struct bp_piece *piece, float *gradient, size_t gradient_row)
{
    struct bp_trainer *t = arg;

    bp_optimizer_take(&t->update, piece, gradient, gradient_row);
}

/* Takes the last pass into the epoch's metrics. */
static void collect(struct bp_trainer *t, int n)
{
    unsigned wanted = bp_trainer_metrics(&t->config);

    for (int h = 0; h < t->graph->nheads; h++) {
        bp_accumulator_add(&t->epoch_accs[h], t->exec, &t->graph->heads[h], h, n, bp_head_unit(t->source, h), wanted);
        bp_scores_add(t->epoch_scores[h], t->exec, h, n);
    }
}

/* The rows of a step: up to `accumulate` micro-batches. */
struct rows {
    const uint32_t *list;
    int64_t count;
};

static struct rows rows_of_step(const struct bp_trainer *t)
{
    int64_t most = (int64_t)t->config.batch_size * bp_trainer_micro_batches(&t->config);
    int64_t first = t->at.epoch_step * most, left = (int64_t)t->split->count[BP_TRAIN] - first;

    return (struct rows){t->order + first, left < most ? left : most};
}

/* How many rows of the epoch's order are from this place on, as far as a batch can have them. */
static int rows_behind(const struct bp_trainer *t, const uint32_t *place)
{
    ptrdiff_t left = t->order + t->split->count[BP_TRAIN] - place;

    return left < t->config.batch_size ? (int)left : (int)t->config.batch_size;
}

/* Forward and backward pass of one micro-batch, the k-th of the step; whole: it is all of the step. */
static bp_status pass(struct bp_trainer *t, struct bp_team *team, const uint32_t *rows, int n, int k, bool whole,
                      struct bp_error *err)
{
    uint64_t counter = (uint64_t)t->at.step * (uint64_t)bp_trainer_micro_batches(&t->config) + (uint64_t)k;
    struct bp_batch batch;
    bp_status status = bp_batch_load(&batch, t->exec, t->graph, t->source, rows, n, err);
    double loss;

    if (status != BP_OK) {
        return status;
    }
    bp_batch_expect(&batch, rows + n, rows_behind(t, rows + n));
    mark(t, BP_STEP_GATHER);
    t->last = (struct bp_last_pass){rows, n, counter};
    t->updated = false;
    if (t->fuses && whole && !t->watched) {
        bp_exec_hand_over(t->exec, &(struct bp_exec_update){admit, take, t});
    }
    loss = bp_exec_pass(t->exec, team, n, true, t->config.seed, counter);
    mark(t, BP_STEP_PASS);
    if (!isfinite(loss)) {
        return bp_fail(err, BP_NONFINITE, "the loss is not a finite number at step %lld; try a smaller learning rate",
                       (long long)t->at.step + 1);
    }
    return BP_OK;
}

static bp_status step(struct bp_trainer *t, struct bp_team *team, struct bp_error *err)
{
    struct rows rows;
    double loss = 0.0;
    int n = 0;
    bp_status status;

    order_rows(t);
    rows = rows_of_step(t);
    for (int64_t done = 0, k = 0; done < rows.count; done += n, k++) {
        int64_t left = rows.count - done;
        double share;

        if (k > 0) {
            collect(t, n); /* of the micro-batch before, which the pass now overwrites */
        }
        n = left < t->config.batch_size ? (int)left : t->config.batch_size;
        status = pass(t, team, rows.list + done, n, (int)k, n == rows.count, err);
        if (status != BP_OK) {
            return status;
        }
        share = (double)n / (double)rows.count;
        loss += share * batch_loss(t);
        if (n < rows.count) {
            bp_gradient_accumulate(t->model, team, t->sum, share, k == 0, n == left);
        }
        mark(t, BP_STEP_METRICS);
    }
    status = update(t, team, err);
    if (status != BP_OK) {
        return status;
    }
    collect(t, n);
    mark(t, BP_STEP_METRICS);
    t->batch_loss = loss;
    t->at.step++;
    t->at.epoch_step++;
    t->at.samples += rows.count;
    return BP_OK;
}

/* A training pass writes running statistics before anybody knows whether its numbers are finite: a step that failed
 * leaves those that were there before it. */
bp_status bp_trainer_step(struct bp_trainer *t, struct bp_team *team, struct bp_error *err)
{
    size_t bytes = t->graph->nstats * sizeof *t->stats_before;
    bp_status status;

    if (t->profile != NULL) {
        t->profile->mark = bp_ticks();
    }
    memcpy(t->stats_before, t->model->stats, bytes);
    status = step(t, team, err);
    if (status != BP_OK) {
        if (status == BP_NONFINITE) {
            bp_trainer_blame(t, t->last.rows, t->last.n, t->last.counter, err);
        }
        memcpy(t->model->stats, t->stats_before, bytes);
    }
    return status;
}
