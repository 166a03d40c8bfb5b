/* transform_target.c: what the heads of a network are to learn: a class, numbers, several columns at once, or the
 * network's own input; and how much each row and each class weighs.
 *
 * All faults are collected, with pointers below /dataset. No target and no column of weights is ever a feature.
 */
#include "data/transform_planning.h"

#include "data/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void no_column(struct bp_planning *p, const char *pointer, const char *name)
{
    const char *nearest = bp_nearest(name, p->names, (size_t)p->table->ncolumns);
    json_t *allowed = json_array();
    for (int i = 0; i < p->table->ncolumns && i < 50; i++)
        json_array_append_new(allowed, json_string(p->names[i]));
    bp_problems_add(p->problems, pointer, "unknown_column", nearest, allowed,
                    nearest ? "the dataset has no column '%s'; did you mean '%s'?" : "the dataset has no column '%s'",
                    name, nearest);
}

/* --- which columns -------------------------------------------------------------------------------------------------- */

/* Takes a column away from the features; false with a fault where it is one by name. */
static bool take(struct bp_planning *p, int index, const char *what)
{
    if (p->chosen[index] == BP_CHOSEN_BY_NAME) {
        bp_problems_add(p->problems, "/dataset/features", "target_is_feature", NULL, NULL,
                        "'%s' is the %s and cannot be a feature%s", p->names[index], what,
                        strcmp(what, "target") == 0 ? ": the network would only copy it" : "");
        return false;
    }
    p->chosen[index] = BP_CHOSEN_NOT;
    return true;
}

void bp_planning_targets(struct bp_planning *p)
{
    for (int h = 0; h < p->nheads; h++) {
        const struct bp_transform_want *want = &p->heads[h];
        for (int i = 0; i < want->ncolumns && !want->inputs; i++) {
            int index = bp_table_find(p->table, want->columns[i]);
            if (index < 0)
                no_column(p, "/dataset/target", want->columns[i]);
            else
                take(p, index, "target");
        }
    }
}

bp_status bp_planning_weight(struct bp_planning *p, struct bp_error *err)
{
    static const char pointer[] = "/dataset/sample_weight";
    const char *name = json_string_value(json_object_get(p->dataset, "sample_weight"));
    int index = name ? bp_table_find(p->table, name) : -1;
    if (!name)
        return BP_OK;
    if (index < 0) {
        no_column(p, pointer, name);
        return BP_OK;
    }
    const struct bp_table_column *c = &p->table->columns[index];
    for (int h = 0; h < p->nheads; h++)
        for (int i = 0; i < p->heads[h].ncolumns; i++)
            if (strcmp(p->heads[h].columns[i], name) == 0) {
                bp_problems_add(p->problems, pointer, "conflict", NULL, NULL, "'%s' is a target", name);
                return BP_OK;
            }
    if (c->kind != BP_COLUMN_NUMBER || c->count > 1)
        bp_problems_add(p->problems, pointer, "not_a_number", NULL, NULL, "'%s' must be a column of numbers", name);
    else if (c->missing > 0)
        bp_problems_add(p->problems, pointer, "missing_values", NULL, NULL,
                        "'%s' has %lld missing values: every row needs a weight", name, (long long)c->missing);
    else if (c->min < 0 || !(c->max > 0) || !isfinite(c->max))
        bp_problems_add(p->problems, pointer, "out_of_range", NULL, NULL,
                        "weights must be at least 0, and some above it: '%s' goes from %g to %g", name, c->min,
                        c->max);
    else if (take(p, index, "column of weights") && !(p->t->weight = strdup(name)))
        return bp_fail(err, BP_NOMEM, "no memory for a column");
    return BP_OK;
}

/* --- heads ---------------------------------------------------------------------------------------------------------- */

/* Whether the column fits what is wanted of it. */
static bool check_target(struct bp_planning *p, const struct bp_table_column *c, bool regression)
{
    const char *code = NULL, *hint = NULL;
    char detail[256] = "";
    if (c->kind == BP_COLUMN_TEXT) {
        code = "text_column";
        snprintf(detail, sizeof detail, "'%.60s' is text with too many different values to be classes", c->name);
    } else if (regression && c->kind == BP_COLUMN_CATEGORY) {
        code = "not_a_number";
        hint = "classification";
        snprintf(detail, sizeof detail, "'%.60s' is a category: a regression needs a number", c->name);
    } else if (!regression && c->count > 1) {
        code = "unsupported";
        hint = "regression";
        snprintf(detail, sizeof detail, "'%.60s' is an array of numbers and no class", c->name);
    } else if (!regression && c->kind == BP_COLUMN_NUMBER && c->nvalues == 0) {
        code = "too_many_classes";
        hint = "regression";
        snprintf(detail, sizeof detail, "'%.60s' has more than %d different numbers to be classes", c->name,
                 BP_DISTINCT_MAX);
    } else if (!regression && (c->kind == BP_COLUMN_CATEGORY ? c->nlevels : c->nvalues) < 2) {
        code = "one_class";
        snprintf(detail, sizeof detail, "'%.60s' has the same value in all rows: there is nothing to tell apart",
                 c->name);
    }
    if (code)
        bp_problems_add(p->problems, "/dataset/target", code, hint, NULL, "%s", detail);
    return code == NULL;
}

/* The name of a head over several columns: "a, b, c", cut where it gets long. */
static char *joint_name(const struct bp_transform_want *want)
{
    char text[200] = "";
    for (int i = 0; i < want->ncolumns && strlen(text) < sizeof text - 1; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "", want->columns[i]);
    return strdup(text);
}

static bp_status copy_columns(struct bp_transform_head *h, const struct bp_transform_want *want, struct bp_error *err)
{
    h->columns = calloc((size_t)want->ncolumns + 1, sizeof *h->columns);
    if (!h->columns)
        return bp_fail(err, BP_NOMEM, "no memory for the target");
    h->target.columns = (const char *const *)h->columns;
    while (h->target.ncolumns < want->ncolumns) {
        char *copy = strdup(want->columns[h->target.ncolumns]);
        if (!copy)
            return bp_fail(err, BP_NOMEM, "no memory for the target");
        h->columns[h->target.ncolumns++] = copy;
    }
    return BP_OK;
}

static bp_status add_joint(struct bp_planning *p, struct bp_transform_head *h, const struct bp_transform_want *want,
                           struct bp_error *err)
{
    for (int i = 0; i < want->ncolumns; i++) {
        int index = bp_table_find(p->table, want->columns[i]);
        const struct bp_table_column *c = index >= 0 ? &p->table->columns[index] : NULL;
        if (c && check_target(p, c, true) && c->count > 1)
            bp_problems_add(p->problems, "/dataset/target", "unsupported", NULL, NULL,
                            "'%s' is an array, and cannot be one of several targets of a loss", c->name);
    }
    h->target.outputs = want->ncolumns;
    h->target.name = joint_name(want);
    return h->target.name ? copy_columns(h, want, err) : bp_fail(err, BP_NOMEM, "no memory for the target");
}

/* --- class weights -------------------------------------------------------------------------------------------------- */

/* The class that a key names, or -1 with a fault. */
static int find_class(struct bp_planning *p, const struct bp_transform_head *h, const char *key, const char *pointer)
{
    double v;
    int found = -1;
    if (h->sides)
        found = strcmp(key, "0") == 0 ? 0 : strcmp(key, "1") == 0 ? 1 : -1;
    else if (!h->levels.numbers)
        found = bp_levels_find_text(&h->levels, key);
    else if (bp_number_parse(key, strlen(key), &v))
        found = bp_levels_find_number(&h->levels, v);
    if (found < 0)
        bp_problems_add(p->problems, pointer, "unknown_class", NULL,
                        h->sides ? json_pack("[s,s]", "0", "1") : json_incref(h->levels.labels),
                        "'%.60s' is no class of '%.60s'", key, h->target.name);
    return found;
}

static bp_status add_class_weights(struct bp_planning *p, struct bp_transform_head *h, struct bp_error *err)
{
    const json_t *asked = json_object_get(p->dataset, "class_weights");
    int n = h->sides ? 2 : h->levels.n;
    const char *key;
    json_t *value;
    if (!asked || json_is_null(asked) || n < 2)
        return BP_OK;
    h->class_weights = malloc((size_t)n * sizeof *h->class_weights);
    if (!h->class_weights)
        return bp_fail(err, BP_NOMEM, "no memory for the weights of the classes");
    h->nclass_weights = n;
    for (int i = 0; i < n; i++)
        h->class_weights[i] = 1;
    h->balanced = json_is_string(asked);
    json_object_foreach((json_t *)asked, key, value) {
        char pointer[400] = "/dataset/class_weights";
        bp_pointer_append(pointer, sizeof pointer, key);
        int class = find_class(p, h, key, pointer);
        double w = json_number_value(value);
        if (!json_is_number(value) || w < 0 || w > 1e6)
            bp_problems_add(p->problems, pointer, "out_of_range", NULL, NULL,
                            "the weight of a class is a number from 0 to 1e6");
        else if (class >= 0)
            h->class_weights[class] = w;
    }
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += h->class_weights[i];
    if (!(sum > 0))
        bp_problems_add(p->problems, "/dataset/class_weights", "out_of_range", NULL, NULL,
                        "at least one class must have a weight above 0");
    return BP_OK;
}

bp_status bp_planning_heads(struct bp_planning *p, struct bp_error *err)
{
    for (int i = 0; i < p->nheads; i++) {
        const struct bp_transform_want *want = &p->heads[i];
        struct bp_transform_head *h = &p->t->heads[i];
        bp_status status = BP_OK;
        h->target = (struct bp_transform_target){.shift = 0, .scale = 1, .inputs = want->inputs};
        h->sides = want->sides;
        h->unscaled = want->unscaled;
        p->t->nheads = i + 1;
        if (want->ncolumns > 1) {
            if ((status = add_joint(p, h, want, err)) != BP_OK)
                return status;
            continue;
        }
        int index = want->inputs ? -1 : bp_table_find(p->table, want->columns[0]);
        h->target.name = strdup(want->inputs ? "features" : want->columns[0]);
        if (!h->target.name)
            return bp_fail(err, BP_NOMEM, "no memory for the target");
        if (index < 0 || !check_target(p, &p->table->columns[index], want->regression))
            continue;
        const struct bp_table_column *c = &p->table->columns[index];
        h->target.is_class = !want->regression;
        h->target.outputs = c->count;
        if (!want->regression) {
            status = bp_planning_levels(c, &h->levels, err);
            h->target.outputs = h->levels.n;
            h->target.labels = h->levels.labels;
            h->target.labels_are_numbers = h->levels.numbers;
        }
        if (status == BP_OK)
            status = add_class_weights(p, h, err);
        if (status != BP_OK)
            return status;
    }
    return BP_OK;
}

/* --- figures from the training rows --------------------------------------------------------------------------------- */

/* A class's weight is n / (classes * count), so that all classes together weigh the same. */
bp_status bp_transform_balance(struct bp_transform *t, const struct bp_table *table, const struct bp_split *split,
                               struct bp_error *err)
{
    struct bp_source source;
    bp_status status = bp_transform_source(t, table, &source, err);
    if (status != BP_OK)
        return status;
    for (int i = 0; i < t->nheads && status == BP_OK; i++) {
        struct bp_transform_head *h = &t->heads[i];
        double *counts = h->balanced ? calloc((size_t)h->nclass_weights, sizeof *counts) : NULL, n = 0, present = 0;
        if (h->balanced && !counts)
            status = bp_fail(err, BP_NOMEM, "no memory to count the classes");
        for (uint64_t r = 0; counts && r < split->count[BP_TRAIN]; r++) {
            uint32_t row = split->rows[BP_TRAIN][r];
            int32_t label = 0;
            float value = 0;
            if (h->sides) {
                bp_source_gather_values(&source, i, &row, 1, &value);
                label = value >= 0.5f;
            } else {
                bp_source_gather_labels(&source, i, &row, 1, &label);
            }
            if (label < 0)
                continue;
            present += counts[label] == 0;
            counts[label]++;
            n++;
        }
        for (int c = 0; counts && c < h->nclass_weights; c++)
            h->class_weights[c] = counts[c] > 0 ? n / (present * counts[c]) : 1;
        free(counts);
    }
    bp_transform_source_done(&source);
    return status;
}
