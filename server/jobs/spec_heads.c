/* spec_heads.c: what a spec wants learned: one head from `target` and `loss`, or those of `model.heads`.
 *
 * One loss over several targets (bce, kl_div) is one head with an output for each; otherwise each target is a head.
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/spec_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "val_precision_macro_" and this many bytes fit the name of a series. */
#define LABEL_MAX 19

bool spec_loss_is_of_classes(enum bp_loss loss)
{
    return loss == BP_LOSS_CROSS_ENTROPY || loss == BP_LOSS_HINGE;
}

bool spec_loss_is_scaled(enum bp_loss loss)
{
    return loss == BP_LOSS_MSE || loss == BP_LOSS_MAE || loss == BP_LOSS_HUBER || loss == BP_LOSS_QUANTILE;
}

int spec_head_outputs(enum bp_loss loss, const struct bp_transform_target *target)
{
    return loss == BP_LOSS_HINGE && target->outputs == 2 ? 1 : target->outputs;
}

enum bp_loss spec_head_loss(enum bp_loss loss, const struct bp_transform_target *target)
{
    return loss == BP_LOSS_HINGE && target->outputs > 2 ? BP_LOSS_MULTI_MARGIN : loss;
}

static double parameter_of(enum bp_loss loss, const json_t *value)
{
    static const char *const members[BP_LOSS_COUNT] = {[BP_LOSS_CROSS_ENTROPY] = "label_smoothing",
                                                       [BP_LOSS_BCE] = "label_smoothing",
                                                       [BP_LOSS_HUBER] = "delta",
                                                       [BP_LOSS_QUANTILE] = "q"};
    return loss < BP_LOSS_COUNT && members[loss] ? json_number_value(json_object_get(value, members[loss])) : 0;
}

/* Letters, digits and '_' of a column's name; others become '_'. */
static void write_label(const json_t *target, char *label)
{
    const char *name = json_string_value(json_is_array(target) ? json_array_get(target, 0) : target);
    size_t n = 0;
    for (; name && name[n] && n < LABEL_MAX; n++)
        label[n] = isalnum((unsigned char)name[n]) && (unsigned char)name[n] < 128 ? name[n] : '_';
    label[n] = 0;
}

static bp_status fill(struct spec_head *h, const json_t *target, const json_t *loss, const struct bp_table *table,
                      struct bp_error *err)
{
    size_t n = json_is_array(target) ? json_array_size(target) : 1;
    h->columns = calloc(n + 1, sizeof *h->columns);
    if (!h->columns)
        return bp_fail(err, BP_NOMEM, "no memory for the targets");
    for (size_t i = 0; i < n; i++) {
        h->columns[i] = json_string_value(json_is_array(target) ? json_array_get(target, i) : target);
        if (!h->columns[i])
            return bp_fail(err, BP_INVALID, "a target must name a column");
    }
    h->loss = spec_loss(spec_kind(loss, "type"));
    if (h->loss == BP_LOSS_COUNT)
        return bp_fail(err, BP_INVALID, "there is no loss \"%.40s\"", spec_kind(loss, "type"));
    h->parameter = parameter_of(h->loss, loss);
    h->want = (struct bp_transform_want){.columns = h->columns,
                                         .ncolumns = (int)n,
                                         .regression = !spec_loss_is_of_classes(h->loss),
                                         .sides = h->loss == BP_LOSS_BCE && n == 1,
                                         .unscaled = !spec_loss_is_scaled(h->loss)};
    h->want.inputs =
        n == 1 && table && strcmp(h->columns[0], "features") == 0 && bp_table_find(table, "features") < 0;
    write_label(target, h->label);
    return BP_OK;
}

bp_status spec_heads_read(const json_t *doc, const struct bp_table *table, struct spec_heads *ret,
                          struct bp_error *err)
{
    const json_t *heads = json_object_get(json_object_get(doc, "model"), "heads");
    const json_t *target = json_object_get(json_object_get(doc, "dataset"), "target");
    size_t n = json_is_array(heads) ? json_array_size(heads) : 1;
    struct spec_heads out = {.several = json_is_array(heads)};
    bp_status status = BP_OK;
    if (n > BP_HEADS_MAX)
        return bp_fail(err, BP_LIMIT, "at most %d heads, got %zu", BP_HEADS_MAX, n);
    out.head = calloc(n + 1, sizeof *out.head);
    out.wants = calloc(n + 1, sizeof *out.wants);
    if (!out.head || !out.wants)
        status = bp_fail(err, BP_NOMEM, "no memory for the targets");
    for (size_t i = 0; i < n && !status; i++) {
        const json_t *head = json_array_get(heads, i);
        struct spec_head *h = &out.head[i];
        out.n = (int)i + 1;
        h->weight = head ? json_number_value(json_object_get(head, "weight")) : 1;
        status = fill(h, head ? json_object_get(head, "target") : target, json_object_get(head ? head : doc, "loss"),
                      table, err);
        out.wants[i] = h->want;
        for (size_t k = 0; k < i; k++)
            if (strcmp(out.head[k].label, h->label) == 0)
                snprintf(h->label, sizeof h->label, "%zu", i); /* two names that begin alike: the number */
    }
    if (status) {
        spec_heads_done(&out);
        return status;
    }
    if (n == 1)
        out.head[0].label[0] = 0; /* nothing to tell apart */
    *ret = out;
    return BP_OK;
}

void spec_heads_done(struct spec_heads *heads)
{
    for (int i = 0; heads->head && i < heads->n; i++)
        free(heads->head[i].columns);
    free(heads->head);
    free(heads->wants);
    memset(heads, 0, sizeof *heads);
}

bool spec_monitor_read(const json_t *doc, const char *name, struct bp_monitor *ret)
{
    struct spec_heads heads;
    struct bp_monitor m = {.validation = strncmp(name, "val_", 4) == 0};
    bool found = false;
    name += m.validation ? 4 : 0;
    m.metric = spec_metric(name);
    if (m.metric != BP_METRIC_COUNT) {
        *ret = m;
        return true;
    }
    if (spec_heads_read(doc, NULL, &heads, NULL))
        return false;
    for (int i = 0; i < BP_METRIC_COUNT && !found; i++) {
        const char *word = bp_metric_name((enum bp_metric)i);
        size_t length = strlen(word);
        if (strncmp(name, word, length) != 0 || name[length] != '_')
            continue;
        for (int h = 0; h < heads.n && heads.n > 1 && !found; h++)
            if (strcmp(name + length + 1, heads.head[h].label) == 0) {
                m.metric = (enum bp_metric)i;
                m.head = h + 1;
                found = true;
            }
    }
    spec_heads_done(&heads);
    if (found)
        *ret = m;
    return found;
}
