/* spec_metrics.c: metrics and what is watched to choose the best weights: whether they can be computed, and which
 * ones where none were named.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <string.h>

/* Whether some head has the metric. */
static bool applies(const struct spec_heads *heads, enum bp_metric metric)
{
    for (int h = 0; h < heads->n; h++)
        if (metric != BP_METRIC_COUNT && bp_metric_applies(metric, heads->head[h].loss))
            return true;
    return false;
}

/* Hinge of several classes has what cross entropy has. */
static void name_margins(struct spec_work *w, struct spec_heads *heads)
{
    for (int h = 0; h < heads->n && w->transform; h++)
        heads->head[h].loss = spec_head_loss(heads->head[h].loss, bp_transform_target(w->transform, h));
}

static void infer_metrics(struct spec_work *w, const struct spec_heads *heads)
{
    static const char *const for_numbers[] = {"rmse", "mae", "r2"};
    const char *task = json_string_value(json_object_get(json_object_get(w->doc, "dataset"), "task"));
    bool classes = false, numbers = false;
    json_t *metrics = json_array();
    for (int h = 0; h < heads->n; h++) {
        bool sides = heads->head[h].loss == BP_LOSS_BCE && (heads->several || strcmp(task ? task : "", "regression"));
        classes |= sides || !heads->head[h].want.regression;
        numbers |= bp_metric_applies(BP_METRIC_MSE, heads->head[h].loss);
    }
    if (classes)
        json_array_append_new(metrics, json_string("accuracy"));
    for (int i = 0; numbers && i < 3; i++)
        json_array_append_new(metrics, json_string(for_numbers[i]));
    spec_set(w, w->doc, "metrics", metrics);
}

static void check_metric(struct spec_work *w, const struct spec_heads *heads, size_t i, const char *name)
{
    enum bp_metric metric = spec_metric(name);
    char pointer[64];
    snprintf(pointer, sizeof pointer, "/metrics/%zu", i);
    if (strcmp(name, "confusion") == 0 && applies(heads, BP_METRIC_ACCURACY)) {
        spec_warn(w, pointer, "no_series",
                  "a confusion matrix is no series: POST /v1/jobs/{id}/evaluate shows it, "
                  "whether it is listed or not");
        return;
    }
    if (applies(heads, metric))
        return;
    json_t *allowed = json_array();
    for (int m = 0; m < BP_METRIC_COUNT; m++)
        if (applies(heads, (enum bp_metric)m))
            json_array_append_new(allowed, json_string(bp_metric_name((enum bp_metric)m)));
    spec_fault(w, pointer, "incompatible", NULL, allowed, "%s cannot be computed with the loss%s %s", name,
               heads->n > 1 ? "es of these targets, such as" : "", bp_loss_name(heads->head[0].loss));
}

static void settle_metrics(struct spec_work *w, const struct spec_heads *heads, bool validation)
{
    json_t *metrics = json_object_get(w->doc, "metrics"), *value;
    size_t i;
    bool top = false;
    if (!metrics) {
        infer_metrics(w, heads);
        return;
    }
    json_array_foreach(metrics, i, value) {
        const char *name = spec_kind(value, "type");
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/metrics/%zu", i);
        check_metric(w, heads, i, name);
        if (strcmp(name, "top_k") == 0 && top)
            spec_fault(w, pointer, "duplicate", NULL, NULL, "top_k can be listed once, with one k");
        top |= strcmp(name, "top_k") == 0;
        if (strcmp(name, "auc") == 0)
            spec_warn(w, pointer, "validation_only",
                      validation
                          ? "auc needs all rows of a set at once: it is computed on validation rows, as val_auc, "
                            "and by evaluations"
                          : "auc is computed on validation rows, and there are none: evaluations show it");
    }
}

/* Nesterov's momentum as PyTorch defines it: with velocity, and all of the gradient in it. */
void spec_check_optimizer(struct spec_work *w)
{
    const json_t *optimizer = json_object_get(w->doc, "optimizer");
    if (json_is_true(json_object_get(optimizer, "nesterov")) &&
        (json_number_value(json_object_get(optimizer, "momentum")) == 0 ||
         json_number_value(json_object_get(optimizer, "dampening")) != 0))
        spec_fault(w, "/optimizer/nesterov", "incompatible", NULL, NULL,
                   "nesterov needs a momentum above 0 and a dampening of 0");
    if (json_is_number(json_object_get(json_object_get(w->doc, "training"), "max_seconds")))
        spec_warn(w, "/training/max_seconds", "time_budget",
                  "where training ends depends on the speed of the machine: the same job may end with other weights");
}

static void add_name(json_t *names, const char *prefix, const char *metric, const char *label)
{
    json_array_append_new(names, json_sprintf("%s%s%s%s", prefix, metric, label[0] ? "_" : "", label));
}

/* What can be watched: the loss and each metric, on the training and (where there are any) the validation rows; with
 * several heads also each head's. */
static json_t *watchable(const struct spec_work *w, const struct spec_heads *heads, bool validation)
{
    json_t *names = json_array(), *value;
    size_t i;
    for (int part = 0; part < (validation ? 2 : 1); part++) {
        const char *prefix = part ? "val_" : "";
        add_name(names, prefix, "loss", "");
        for (int h = 0; h < heads->n && heads->n > 1; h++)
            add_name(names, prefix, "loss", heads->head[h].label);
        json_array_foreach(json_object_get(w->doc, "metrics"), i, value) {
            const char *metric = spec_kind(value, "type");
            enum bp_metric m = spec_metric(metric);
            if (m == BP_METRIC_LOSS || m == BP_METRIC_COUNT || (m == BP_METRIC_AUC && !part))
                continue;
            add_name(names, prefix, metric, "");
            for (int h = 0; h < heads->n && heads->n > 1; h++)
                if (bp_metric_applies(m, heads->head[h].loss))
                    add_name(names, prefix, metric, heads->head[h].label);
        }
    }
    return names;
}

static void check_monitor(struct spec_work *w, const struct spec_heads *heads, const char *pointer,
                          const char *monitor, bool validation)
{
    json_t *names = watchable(w, heads, validation), *value;
    const char *known[2 * (BP_METRIC_COUNT + 40)];
    size_t n = 0, i;
    bool found = false;
    json_array_foreach(names, i, value) {
        if (n < sizeof known / sizeof known[0])
            known[n++] = json_string_value(value);
        found = found || strcmp(json_string_value(value), monitor) == 0;
    }
    if (!found) {
        const char *near = bp_nearest(monitor, known, n);
        spec_fault(w, pointer, "unknown_name", near, json_incref(names), "\"%.60s\" is not computed%s", monitor,
                   !validation && strncmp(monitor, "val_", 4) == 0 ? ": there are no validation rows" : "");
    }
    json_decref(names);
}

void spec_infer_monitors(struct spec_work *w)
{
    json_t *dataset = json_object_get(w->doc, "dataset");
    bool validation = json_number_value(json_object_get(dataset, "validation_split")) > 0;
    struct spec_heads heads;
    if (!w->task_settled || spec_heads_read(w->doc, w->table, &heads, NULL))
        return; /* unknown as yet: the metrics cannot be judged */
    name_margins(w, &heads);
    settle_metrics(w, &heads, validation);

    json_t *early = json_object_get(json_object_get(w->doc, "training"), "early_stopping");
    const char *monitor = json_string_value(json_object_get(early, "monitor"));
    if (json_is_object(early) && !monitor) {
        w->monitor_inferred = true;
        spec_set(w, early, "monitor", json_string(validation ? "val_loss" : "loss"));
    } else if (json_is_object(early)) {
        check_monitor(w, &heads, "/training/early_stopping/monitor", monitor, validation);
    }
    const char *goal =
        json_string_value(json_object_get(json_object_get(json_object_get(w->doc, "training"), "target"), "metric"));
    if (goal)
        check_monitor(w, &heads, "/training/target/metric", goal, validation);
    spec_heads_done(&heads);
}
