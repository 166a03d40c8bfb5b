/* evaluate.c: judging the network: an evaluation on rows, and the end of an epoch.
 *
 * Evaluations run in prediction mode, batch after batch in the order of the rows, so their values do not depend on
 * the capacity of the execution. An evaluation changes nothing of the network.
 */
#include "train/batch.h"
#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double bp_head_unit(const struct bp_source *source, int head)
{
    const struct bp_target *target = &source->targets[head];

    return target->is_class ? 1.0 : 1.0 / target->scale;
}

double bp_total_loss(const struct bp_graph *graph, const struct bp_accumulator *accs)
{
    double sum = 0.0;

    for (int h = 0; h < graph->nheads; h++) {
        sum += graph->heads[h].weight * bp_accumulator_value(&accs[h], BP_METRIC_LOSS);
    }
    return sum;
}

static void reset(const struct bp_graph *graph, struct bp_accumulator *accs)
{
    for (int h = 0; h < graph->nheads; h++) {
        bp_accumulator_reset(&accs[h]);
    }
}

static void reset_scores(const struct bp_graph *graph, struct bp_scores **scores)
{
    for (int h = 0; h < graph->nheads; h++) {
        bp_scores_reset(scores[h]);
    }
}

/* What an evaluation takes in of each head; scores may be NULL. */
struct judges {
    struct bp_accumulator *accs;
    struct bp_scores **scores;
    unsigned wanted; /* metrics */
};

/* visit may be NULL. */
static bp_status evaluate(struct bp_exec *exec, int capacity, struct bp_team *team, const struct bp_graph *graph,
                          const struct bp_source *source, const uint32_t *rows, uint64_t nrows,
                          const struct judges *judges, bp_evaluate_visit *visit, void *ctx, struct bp_error *err)
{
    reset(graph, judges->accs);
    if (judges->scores != NULL) {
        reset_scores(graph, judges->scores);
    }
    for (uint64_t first = 0; first < nrows; first += (uint64_t)capacity) {
        int n = nrows - first < (uint64_t)capacity ? (int)(nrows - first) : capacity;
        struct bp_batch batch;
        bp_status status = bp_batch_load(&batch, exec, graph, source, rows + first, n, err);

        if (status != BP_OK) {
            return status;
        }
        if (nrows - first > (uint64_t)n) {
            uint64_t left = nrows - first - (uint64_t)n;
            bp_batch_expect(&batch, rows + first + n, left < (uint64_t)capacity ? (int)left : capacity);
        }
        bp_exec_pass(exec, team, n, false, 0, 0);
        for (int h = 0; h < graph->nheads; h++) {
            bp_accumulator_add(&judges->accs[h], exec, &graph->heads[h], h, n, bp_head_unit(source, h),
                               judges->wanted);
            if (judges->scores != NULL) {
                bp_scores_add(judges->scores[h], exec, h, n);
            }
        }
        if (visit != NULL && !visit(ctx, exec, rows + first, n)) {
            return bp_fail(err, BP_STOPPED, "the evaluation was stopped");
        }
    }
    return BP_OK;
}

void bp_evaluate(struct bp_exec *exec, int capacity, struct bp_team *team, const struct bp_graph *graph,
                 const struct bp_source *source, const uint32_t *rows, uint64_t nrows, struct bp_accumulator *accs,
                 bp_evaluate_visit *visit, void *ctx)
{
    const struct judges all = {accs, NULL, ~0u};

    if (evaluate(exec, capacity, team, graph, source, rows, nrows, &all, visit, ctx, NULL) != BP_OK) {
        reset(graph, accs);
    }
}

/* What one set of rows came to. */
struct result {
    const struct bp_graph *graph;
    const struct bp_accumulator *accs; /* one a head */
    struct bp_scores **scores;
    bool training; /* the rows that were trained on */
};

static double head_value(const struct result *r, int h, enum bp_metric metric)
{
    return bp_metric_is_score(metric) ? bp_scores_value(r->scores[h], metric)
                                      : bp_accumulator_value(&r->accs[h], metric);
}

/* The value of what is monitored: a head's own, the total loss, or the metric of the first head that has it. */
static double value_of(const struct result *r, const struct bp_monitor *monitor)
{
    if (monitor->head > 0) {
        return head_value(r, monitor->head - 1, monitor->metric);
    }
    if (monitor->metric == BP_METRIC_LOSS) {
        return bp_total_loss(r->graph, r->accs);
    }
    for (int h = 0; h < r->graph->nheads; h++) {
        if (bp_metric_applies(monitor->metric, r->graph->heads[h].loss)) {
            return head_value(r, h, monitor->metric);
        }
    }
    return NAN;
}

/* The name of a head's series: plain where there is one head; else it ends in "_" and the head's label, or its number
 * from 0. */
static void name_series(const struct bp_graph *graph, int h, const char *prefix, enum bp_metric metric, char *name,
                        size_t size)
{
    const char *word = bp_metric_name(metric), *label = graph->heads[h].label;

    if (graph->nheads == 1) {
        snprintf(name, size, "%s%s", prefix, word);
    } else if (label[0] != '\0') {
        snprintf(name, size, "%s%s_%s", prefix, word, label);
    } else {
        snprintf(name, size, "%s%s_%d", prefix, word, h);
    }
}

/* Reports the metrics of one set of rows; with several heads "loss" is the total. */
static void report(const struct bp_trainer *t, const struct bp_train_hooks *hooks, const char *prefix,
                   const struct result *r)
{
    const struct bp_graph *graph = r->graph;
    char name[128];

    if (hooks->metric == NULL) {
        return;
    }
    snprintf(name, sizeof name, "%s%s", prefix, bp_metric_name(BP_METRIC_LOSS));
    hooks->metric(hooks->ctx, name, t->at.epoch, t->at.step, bp_total_loss(graph, r->accs));
    for (int h = 0; h < graph->nheads; h++) {
        for (int m = 0; m < BP_METRIC_COUNT; m++) {
            bool wanted = m == BP_METRIC_LOSS ? graph->nheads > 1 : (t->config.metrics >> m & 1u) != 0;

            if (!wanted || !bp_metric_applies(m, graph->heads[h].loss) || (m == BP_METRIC_AUC && r->training)) {
                continue;
            }
            name_series(graph, h, prefix, m, name, sizeof name);
            hooks->metric(hooks->ctx, name, t->at.epoch, t->at.step, head_value(r, h, m));
        }
    }
}

/* Compares the epoch's monitor with the best so far. Any improvement makes a new best; only one by more than
 * min_delta counts for the patience. */
static void judge(struct bp_trainer *t, double value)
{
    struct bp_best *best = &t->at.best;
    double gain = bp_metric_maximized(t->config.monitor.metric) ? value - best->value : best->value - value;
    bool better = isfinite(value) && (!best->any || gain > 0.0);

    t->at.bad_epochs = better && (!best->any || gain > t->config.min_delta) ? 0 : t->at.bad_epochs + 1;
    if (better) {
        *best = (struct bp_best){.any = true, .epoch = t->at.epoch, .step = t->at.step, .value = value};
        memcpy(t->best, t->model->params, t->graph->nparams * sizeof *t->best);
        if (t->graph->nstats > 0) {
            memcpy(t->best + t->graph->nparams, t->model->stats, t->graph->nstats * sizeof *t->best);
        }
    }
}

/* Whether the metric has got to where the user wants it. */
static bool reached(const struct bp_train_config *c, double value)
{
    return c->has_target &&
           (bp_metric_maximized(c->target.metric) ? value >= c->target_value : value <= c->target_value);
}

/* Why training ends with this epoch, if it does; loss is the total one, of the monitor's rows. */
static void consider_stopping(struct bp_trainer *t, double target, double loss)
{
    double change = fabs(loss - t->at.last_loss); /* NaN after the first epoch: no reason to stop */

    if (reached(&t->config, target)) {
        t->at.stop_reason = BP_STOP_TARGET;
    } else if (t->at.epoch >= t->config.epochs) {
        t->at.stop_reason = BP_STOP_MAX_EPOCHS;
    } else if (change < t->config.tolerance) {
        t->at.stop_reason = BP_STOP_CONVERGED;
    } else if (t->config.early_stopping && t->at.bad_epochs > 0 && t->at.bad_epochs >= t->config.patience) {
        t->at.stop_reason = BP_STOP_EARLY;
    }
    t->at.last_loss = loss;
}

bp_status bp_trainer_end_epoch(struct bp_trainer *t, const struct bp_train_hooks *hooks, struct bp_team *team,
                               struct bp_error *err)
{
    const struct bp_monitor *monitor = &t->config.monitor;
    const struct result training = {t->graph, t->epoch_accs, t->epoch_scores, true};
    const struct result validation = {t->graph, t->validation_accs, t->validation_scores, false};
    const struct result *judged = monitor->validation ? &validation : &training;
    double value;

    if (t->evaluation != NULL) {
        const struct judges judges = {t->validation_accs, t->validation_scores, bp_trainer_metrics(&t->config)};
        bp_status status =
            evaluate(t->evaluation, t->evaluation_capacity, team, t->graph, t->source, t->split->rows[BP_VALIDATION],
                     t->split->count[BP_VALIDATION], &judges, NULL, NULL, err);
        if (status != BP_OK) {
            return status;
        }
    }
    t->at.epoch++;
    t->at.epoch_step = 0;
    report(t, hooks, "", &training);
    if (t->evaluation != NULL) {
        report(t, hooks, "val_", &validation);
    }
    if (hooks->metric != NULL && bp_trainer_rate_varies(t)) {
        hooks->metric(hooks->ctx, "lr", t->at.epoch, t->at.step, t->rate);
    }
    value = value_of(judged, monitor);
    judge(t, value);
    bp_plateau_epoch(&t->config.schedule, &t->at.plateau, value, bp_metric_maximized(monitor->metric));
    consider_stopping(t, value_of(t->config.target.validation ? &validation : &training, &t->config.target),
                      bp_total_loss(t->graph, judged->accs));
    reset(t->graph, t->epoch_accs);
    reset_scores(t->graph, t->epoch_scores);
    if (hooks->epoch != NULL) {
        struct bp_progress progress;
        bp_trainer_progress(t, &progress);
        hooks->epoch(hooks->ctx, &progress, &t->at.best);
    }
    return BP_OK;
}
