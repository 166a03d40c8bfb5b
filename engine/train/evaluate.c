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

static bp_status evaluate(struct bp_exec *exec, int capacity, struct bp_team *team, const struct bp_graph *graph,
                          const struct bp_source *source, const uint32_t *rows, uint64_t nrows,
                          struct bp_accumulator *accs, bp_evaluate_visit *visit, void *ctx, struct bp_error *err)
{
    reset(graph, accs);
    for (uint64_t first = 0; first < nrows; first += (uint64_t)capacity) {
        int n = nrows - first < (uint64_t)capacity ? (int)(nrows - first) : capacity;
        bp_status status = bp_batch_load(exec, team, graph, source, rows + first, n, err);

        if (status != BP_OK) {
            return status;
        }
        bp_exec_pass(exec, team, n, false, 0, 0);
        for (int h = 0; h < graph->nheads; h++) {
            bp_accumulator_add(&accs[h], exec, &graph->heads[h], h, n, bp_head_unit(source, h));
        }
        if (visit != NULL) {
            visit(ctx, exec, rows + first, n);
        }
    }
    return BP_OK;
}

void bp_evaluate(struct bp_exec *exec, int capacity, struct bp_team *team, const struct bp_graph *graph,
                 const struct bp_source *source, const uint32_t *rows, uint64_t nrows, struct bp_accumulator *accs,
                 bp_evaluate_visit *visit, void *ctx)
{
    if (evaluate(exec, capacity, team, graph, source, rows, nrows, accs, visit, ctx, NULL) != BP_OK) {
        reset(graph, accs);
    }
}

/* The value of a metric over all heads: the total loss, or the metric of the first head that has it. */
static double value_of(const struct bp_graph *graph, const struct bp_accumulator *accs, enum bp_metric metric)
{
    if (metric == BP_METRIC_LOSS) {
        return bp_total_loss(graph, accs);
    }
    for (int h = 0; h < graph->nheads; h++) {
        if (bp_metric_applies(metric, graph->heads[h].loss)) {
            return bp_accumulator_value(&accs[h], metric);
        }
    }
    return NAN;
}

/* Reports the metrics of one set of rows. With one head they have plain names; with several, "loss" is the total and
 * the others end in "_" and the number of the head, from 0. */
static void report(const struct bp_trainer *t, const struct bp_train_hooks *hooks, const char *prefix,
                   const struct bp_accumulator *accs)
{
    const struct bp_graph *graph = t->graph;
    char name[64];

    if (hooks->metric == NULL) {
        return;
    }
    snprintf(name, sizeof name, "%s%s", prefix, bp_metric_name(BP_METRIC_LOSS));
    hooks->metric(hooks->ctx, name, t->at.epoch, t->at.step, bp_total_loss(graph, accs));
    for (int h = 0; h < graph->nheads; h++) {
        for (int m = 0; m < BP_METRIC_COUNT; m++) {
            bool wanted = m == BP_METRIC_LOSS ? graph->nheads > 1 : (t->config.metrics >> m & 1u) != 0;

            if (!wanted || !bp_metric_applies(m, graph->heads[h].loss)) {
                continue;
            }
            if (graph->nheads > 1) {
                snprintf(name, sizeof name, "%s%s_%d", prefix, bp_metric_name(m), h);
            } else {
                snprintf(name, sizeof name, "%s%s", prefix, bp_metric_name(m));
            }
            hooks->metric(hooks->ctx, name, t->at.epoch, t->at.step, bp_accumulator_value(&accs[h], m));
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
    if (t->at.epoch >= t->config.epochs) {
        t->at.stop_reason = BP_STOP_MAX_EPOCHS;
    } else if (t->config.early_stopping && t->at.bad_epochs > 0 && t->at.bad_epochs >= t->config.patience) {
        t->at.stop_reason = BP_STOP_EARLY;
    }
}

bp_status bp_trainer_end_epoch(struct bp_trainer *t, const struct bp_train_hooks *hooks, struct bp_team *team,
                               struct bp_error *err)
{
    const struct bp_monitor *monitor = &t->config.monitor;
    struct bp_progress progress;

    if (t->evaluation != NULL) {
        bp_status status =
            evaluate(t->evaluation, t->evaluation_capacity, team, t->graph, t->source, t->split->rows[BP_VALIDATION],
                     t->split->count[BP_VALIDATION], t->validation_accs, NULL, NULL, err);
        if (status != BP_OK) {
            return status;
        }
    }
    t->at.epoch++;
    t->at.epoch_step = 0;
    report(t, hooks, "", t->epoch_accs);
    if (t->evaluation != NULL) {
        report(t, hooks, "val_", t->validation_accs);
    }
    judge(t, value_of(t->graph, monitor->validation ? t->validation_accs : t->epoch_accs, monitor->metric));
    reset(t->graph, t->epoch_accs);
    if (hooks->epoch != NULL) {
        bp_trainer_progress(t, &progress);
        hooks->epoch(hooks->ctx, &progress, &t->at.best);
    }
    return BP_OK;
}
