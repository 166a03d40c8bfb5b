/* spec_metrics.c: metrics and what is watched to choose the best weights: whether they can be computed, and which
 * ones where none were named.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <string.h>

static void settle_metrics(struct spec_work *w, enum bp_loss loss, bool classes)
{
    static const char *const for_classes[] = {"accuracy"}, *const for_numbers[] = {"rmse", "mae", "r2"};
    json_t *metrics = json_object_get(w->doc, "metrics"), *value;
    size_t i;
    if (!metrics) {
        metrics = json_array();
        for (i = 0; i < (classes ? 1 : 3); i++) {
            const char *name = classes ? for_classes[i] : for_numbers[i];
            if (bp_metric_applies(spec_metric(name), loss))
                json_array_append_new(metrics, json_string(name));
        }
        spec_set(w, w->doc, "metrics", metrics);
        return;
    }
    json_array_foreach(metrics, i, value)
    {
        enum bp_metric metric = spec_metric(json_string_value(value));
        if (metric != BP_METRIC_COUNT && bp_metric_applies(metric, loss))
            continue;
        json_t *allowed = json_array();
        for (int m = 0; m < BP_METRIC_COUNT; m++)
            if (bp_metric_applies((enum bp_metric)m, loss))
                json_array_append_new(allowed, json_string(bp_metric_name((enum bp_metric)m)));
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/metrics/%zu", i);
        spec_fault(w, pointer, "incompatible", NULL, allowed, "%s cannot be computed with the loss %s",
                   json_string_value(value), bp_loss_name(loss));
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
}

/* What can be watched: the loss and each metric, on the training and (where there are any) the validation rows. */
static json_t *watchable(const struct spec_work *w, bool validation)
{
    json_t *names = json_array(), *value;
    size_t i;
    char name[80];
    for (int part = 0; part < (validation ? 2 : 1); part++) {
        const char *prefix = part ? "val_" : "";
        snprintf(name, sizeof name, "%sloss", prefix);
        json_array_append_new(names, json_string(name));
        json_array_foreach(json_object_get(w->doc, "metrics"), i, value)
        {
            if (strcmp(json_string_value(value), "loss") == 0)
                continue;
            snprintf(name, sizeof name, "%s%s", prefix, json_string_value(value));
            json_array_append_new(names, json_string(name));
        }
    }
    return names;
}

void spec_infer_monitors(struct spec_work *w)
{
    json_t *dataset = json_object_get(w->doc, "dataset");
    enum bp_loss loss = spec_loss(spec_kind(json_object_get(w->doc, "loss"), "type"));
    const char *task = json_string_value(json_object_get(dataset, "task"));
    if (loss == BP_LOSS_COUNT || !task)
        return; /* unknown as yet: the metrics cannot be judged */
    settle_metrics(w, loss, strcmp(task, "classification") == 0);

    json_t *early = json_object_get(json_object_get(w->doc, "training"), "early_stopping");
    bool validation = json_number_value(json_object_get(dataset, "validation_split")) > 0;
    const char *monitor = json_string_value(json_object_get(early, "monitor"));
    if (!json_is_object(early))
        return;
    if (!monitor) {
        w->monitor_inferred = true;
        spec_set(w, early, "monitor", json_string(validation ? "val_loss" : "loss"));
        return;
    }
    json_t *names = watchable(w, validation), *value;
    const char *known[2 * BP_METRIC_COUNT + 40];
    size_t n = 0, i;
    json_array_foreach(names, i, value)
    {
        known[n++] = json_string_value(value);
    }
    for (i = 0; i < n; i++)
        if (strcmp(known[i], monitor) == 0)
            break;
    if (i < n) {
        json_decref(names);
        return;
    }
    const char *near = bp_nearest(monitor, known, n);
    spec_fault(w, "/training/early_stopping/monitor", "unknown_name", near, json_incref(names),
               "\"%.60s\" is not computed%s", monitor,
               !validation && strncmp(monitor, "val_", 4) == 0 ? ": there are no validation rows" : "");
    json_decref(names);
}
