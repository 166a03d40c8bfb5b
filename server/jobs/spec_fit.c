/* spec_fit.c: what needs the numbers: shapes, the split, the batch size, memory.
 *
 * Builds the plan that the job will run and looks at it: so what is refused here would have failed later, and what
 * passes will run.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include "base/team.h"
#include "train/scores.h"

#include <stdio.h>
#include <string.h>

#define LOG_POINTS 10000 /* batch_loss is recorded about so often by default: a curve, and rows that stay few */

static void human_bytes(double bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    int u = 0;
    while (bytes >= 1024 && u < 6) {
        bytes /= 1024;
        u++;
    }
    snprintf(text, size, bytes < 10 && u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
}

static void check_memory(struct spec_work *w, struct bp_plan *plan, const struct bp_split *split)
{
    char need[32], limit[32];
    size_t bytes = 0;
    int budget = w->context->thread_budget;
    plan->config.threads = budget < 1 ? 1 : budget > BP_TEAM_MAX ? BP_TEAM_MAX : budget;
    bp_status status = bp_plan_bytes(plan, split, &bytes);
    if (status == BP_LIMIT) {
        spec_fault(w, "/model", "too_large", NULL, NULL, "this network with this batch size is beyond any memory");
        return;
    }
    if (status != BP_OK) {
        w->error.code = status;
        snprintf(w->error.message, sizeof w->error.message, "estimating memory failed");
        return;
    }
    if (w->context->memory_limit <= 0 || bytes <= (size_t)w->context->memory_limit)
        return;
    human_bytes((double)bytes, need, sizeof need);
    human_bytes((double)w->context->memory_limit, limit, sizeof limit);
    spec_fault(w, "/model", "exceeds_memory", NULL, NULL,
               "training would take %s, a job may take %s: use fewer units, or a smaller batch_size", need, limit);
    json_t *errors = w->problems->errors;
    json_t *entry = json_array_get(errors, json_array_size(errors) - 1);
    if (entry) {
        spec_set(w, entry, "need", json_integer((json_int_t)bytes));
        spec_set(w, entry, "limit", json_integer(w->context->memory_limit));
    }
}

static void settle_batch(struct spec_work *w, struct bp_plan *plan, const struct bp_split *split)
{
    json_t *training = json_object_get(w->doc, "training");
    uint64_t rows = split->count[BP_TRAIN];
    if ((uint64_t)plan->config.batch_size > rows) {
        spec_warn(w, "/training/batch_size", "clamped", "batch_size is %llu, all training rows, instead of %d",
                  (unsigned long long)rows, plan->config.batch_size);
        plan->config.batch_size = (int)rows;
        spec_set(w, training, "batch_size", json_integer(plan->config.batch_size));
    }
    if (json_object_get(training, "log_every_steps"))
        return;
    int64_t per_epoch = (int64_t)((rows + (uint64_t)plan->config.batch_size - 1) / (uint64_t)plan->config.batch_size);
    int64_t steps = per_epoch > INT64_MAX / plan->config.epochs ? INT64_MAX : per_epoch * plan->config.epochs;
    int64_t every = steps / LOG_POINTS < 10 ? 10 : steps / LOG_POINTS;
    spec_set(w, training, "log_every_steps", json_integer(every > 1000000000 ? 1000000000 : every));
}

/* A batch of one row has no variance: a batch_norm of vectors makes its own offset of it, and learns nothing. */
static void warn_single_rows(struct spec_work *w, const struct bp_plan *plan, const struct bp_split *split)
{
    int batch = plan->config.batch_size;
    bool all = batch == 1;
    if (!all && split->count[BP_TRAIN] % (uint64_t)batch != 1)
        return;
    for (int i = 0; i < plan->graph->nnodes; i++) {
        const struct bp_node *node = &plan->graph->nodes[i];
        if (node->kind != BP_OP_BATCH_NORM || !node->trainable ||
            node->shape.dim[0] != bp_shape_elements(&node->shape))
            continue;
        spec_warn(w, "/training/batch_size", "single_row",
                  "%s has a single row, and \"%s\" needs the variance of several: that row trains nothing below it; "
                  "choose another batch_size",
                  all ? "every batch" : "the last batch of each epoch", node->name);
        return;
    }
}

/* Why there are no rows for validation although a share of them was asked for. */
static void say_why(const struct spec_work *w, double share, char *ret, size_t size)
{
    const json_t *dataset = json_object_get(w->doc, "dataset");
    const char *by = json_string_value(json_object_get(dataset, "split_by"));
    const char *order = json_string_value(json_object_get(dataset, "order_by"));
    bool window = json_is_object(json_object_get(dataset, "window"));
    if (by)
        snprintf(ret, size,
                 "none of a share of %g is left for validation: all rows of one \"%.60s\" stay on one side of the "
                 "split, and there are too few groups, or one has nearly all rows; leave \"split_by\" out, or set "
                 "validation_split to 0",
                 share, by);
    else if (order || window)
        snprintf(ret, size,
                 "none of a share of %g is left for validation: it is cut off the end of the rows%s%.60s%s%s; take a "
                 "larger validation_split, or set it to 0",
                 share, order ? " by \"" : "", order ? order : "",
                 order ? "\", and rows of one time stay together" : "",
                 window ? ", and windows that reach over the cut are left out" : "");
    else
        snprintf(ret, size, "there are too few rows for validation: none is left of a share of %g", share);
}

/* Few rows or groups may leave no row for validation, whatever share was asked for. */
static void check_validation(struct spec_work *w, const struct bp_split *split)
{
    json_t *early = json_object_get(json_object_get(w->doc, "training"), "early_stopping");
    bool validation;
    char why[400];
    double share = json_number_value(json_object_get(json_object_get(w->doc, "dataset"), "validation_split"));
    if (split->count[BP_VALIDATION] > 0 || share == 0)
        return;
    say_why(w, share, why, sizeof why);
    validation = strncmp(spec_kind(json_object_get(early, "monitor"), ""), "val_", 4) == 0;
    if (validation && w->monitor_inferred)
        spec_set(w, early, "monitor", json_string("loss"));
    else if (validation)
        spec_fault(w, "/training/early_stopping/monitor", "incompatible", "loss", NULL, "%s", why);
    spec_warn(w, "/dataset/validation_split", "no_validation_rows", "%s", why);
}

/* auc keeps every score of the validation rows. */
static void check_auc(struct spec_work *w, const struct bp_plan *plan, const struct bp_split *split)
{
    size_t i;
    json_t *metric;
    if (!(plan->config.metrics >> BP_METRIC_AUC & 1u))
        return;
    json_array_foreach(json_object_get(w->doc, "metrics"), i, metric) {
        if (strcmp(spec_kind(metric, "type"), "auc") != 0)
            continue;
        for (int h = 0; h < plan->graph->nheads; h++) {
            int columns = bp_scores_columns(&plan->graph->heads[h]);
            char pointer[64];
            snprintf(pointer, sizeof pointer, "/metrics/%zu", i);
            if (columns > 0 && split->count[BP_VALIDATION] > (uint64_t)BP_AUC_SCORES_MAX / (uint64_t)columns)
                spec_fault(
                    w, pointer, "too_large", NULL, NULL,
                    "auc keeps the scores of all validation rows: %llu rows of %d are more than the %d that it "
                    "may keep; take a smaller validation_split",
                    (unsigned long long)split->count[BP_VALIDATION], columns, BP_AUC_SCORES_MAX);
        }
    }
}

void spec_fit(struct spec_work *w)
{
    struct bp_problems problems;
    struct bp_plan *plan = &w->plan;
    struct bp_split split = {0};
    struct bp_error err = {0};
    bp_problems_init(&problems);
    bp_status status = bp_plan_build(w->doc, w->table, NULL, &problems, plan, &err);
    bool told = bp_problems_any(&problems);
    spec_merge(w, &problems);
    if (status != BP_OK) {
        if (!told)
            w->error = err;
        return;
    }
    status = bp_plan_split(plan, plan->transform, w->table, &split, &err);
    if (status == BP_INVALID) {
        spec_fault(w, "/dataset/validation_split", "no_training_rows", NULL, NULL, "%s", err.message);
    } else if (status != BP_OK) {
        w->error = err;
    } else {
        check_validation(w, &split);
        check_auc(w, plan, &split);
        settle_batch(w, plan, &split);
        warn_single_rows(w, plan, &split);
        check_memory(w, plan, &split);
        spec_advise(w, plan, &split);
        bp_split_done(&split);
    }
}
