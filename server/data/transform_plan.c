/* transform_plan.c: from the `dataset` object of a spec to a transform: which columns, how, and which target.
 *
 * All faults are collected, each with a pointer below /dataset. Names are matched exactly first, then as a pattern in
 * which * stands for anything. A text column is left out with a warning when a pattern chose it, and is a fault when
 * its name did. Targets are in transform_target.c.
 */
#include "data/transform_planning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALLOWED_MAX 50 /* names listed in a fault */

/* --- names ---------------------------------------------------------------------------------------------------------- */

/* Whether a pattern with * matches a whole name. */
static bool glob(const char *pattern, const char *name)
{
    const char *star = NULL, *again = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            again = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++again;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == 0;
}

json_t *bp_planning_names(const struct bp_planning *p)
{
    json_t *list = json_array();
    for (int i = 0; i < p->table->ncolumns && i < ALLOWED_MAX; i++)
        json_array_append_new(list, json_string(p->names[i]));
    return list;
}

static void unknown_column(struct bp_planning *p, const char *pointer, const char *name)
{
    const char *nearest = bp_nearest(name, p->names, (size_t)p->table->ncolumns);
    bp_problems_add(p->problems, pointer, "unknown_column", nearest, bp_planning_names(p),
                    nearest ? "the dataset has no column '%s'; did you mean '%s'?" : "the dataset has no column '%s'",
                    name, nearest);
}

/* Marks the columns that a list of names and patterns chooses. */
static void mark(struct bp_planning *p, const char *key, const json_t *list, uint8_t by_name, uint8_t by_pattern)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(entry);
        char pointer[128];
        snprintf(pointer, sizeof pointer, "/dataset/%s/%zu", key, i);
        int exact = name ? bp_table_find(p->table, name) : -1;
        bool any = false;
        if (exact >= 0) {
            p->chosen[exact] = by_name;
            continue;
        }
        for (int c = 0; name && strchr(name, '*') && c < p->table->ncolumns; c++)
            if (glob(name, p->names[c])) {
                any = true;
                if (p->chosen[c] < by_pattern || by_pattern == BP_CHOSEN_NOT)
                    p->chosen[c] = by_pattern;
            }
        if (!any)
            unknown_column(p, pointer, name ? name : "?");
    }
}

/* A single string is a list of one. */
static void mark_key(struct bp_planning *p, const char *key, uint8_t by_name, uint8_t by_pattern)
{
    json_t *value = json_object_get(p->dataset, key);
    if (json_is_string(value)) {
        json_t *list = json_pack("[O]", value);
        mark(p, key, list, by_name, by_pattern);
        json_decref(list);
    } else if (json_array_size(value) > 0) {
        mark(p, key, value, by_name, by_pattern);
    }
}

static void choose_columns(struct bp_planning *p)
{
    if (json_array_size(json_object_get(p->dataset, "features")) > 0 ||
        json_is_string(json_object_get(p->dataset, "features")))
        mark_key(p, "features", BP_CHOSEN_BY_NAME, BP_CHOSEN_BY_PATTERN);
    else
        memset(p->chosen, BP_CHOSEN_BY_PATTERN, (size_t)p->table->ncolumns);
    mark_key(p, "ignore", BP_CHOSEN_NOT, BP_CHOSEN_NOT);

    const char *name;
    json_t *value;
    json_object_foreach((json_t *)p->dataset, name, value) {
        const char *column;
        json_t *config;
        if (strcmp(name, "columns") != 0)
            continue;
        json_object_foreach(value, column, config) {
            char pointer[400] = "/dataset/columns";
            bp_pointer_append(pointer, sizeof pointer, column);
            if (bp_table_find(p->table, column) < 0)
                unknown_column(p, pointer, column);
        }
    }
}

static bp_status add_features(struct bp_planning *p, struct bp_error *err)
{
    for (int i = 0; i < p->table->ncolumns; i++) {
        const struct bp_table_column *c = &p->table->columns[i];
        bool chosen = p->chosen[i] != BP_CHOSEN_NOT;
        bp_status status;
        if (chosen && c->kind == BP_COLUMN_TEXT) {
            chosen = false;
            if (p->chosen[i] == BP_CHOSEN_BY_NAME)
                bp_problems_add(p->problems, "/dataset/features", "text_column", NULL, NULL,
                                "column '%s' is text with too many different values to learn from", c->name);
            else
                bp_transform_warn(p->t, "text_left_out", "/dataset/features", "column '%s' is text and is left out",
                                  c->name);
        }
        if (!chosen && json_object_set_new(p->t->others, c->name, json_true()) != 0)
            return bp_fail(err, BP_NOMEM, "no memory for a column");
        if (chosen && (status = bp_planning_feature(p, c, err)) != BP_OK)
            return status;
    }
    if (p->t->nfeatures == 0 && !bp_problems_any(p->problems))
        bp_problems_add(p->problems, "/dataset/features", "no_features", NULL, bp_planning_names(p),
                        "no column is left to learn from");
    return BP_OK;
}

/* --- shape ---------------------------------------------------------------------------------------------------------- */

/* An image of (height, width) gets a channel; columns side by side are a vector, and windows sequences of it. */
static struct bp_shape natural_shape(const struct bp_transform *t)
{
    const struct bp_transform_feature *f = &t->features[0];
    struct bp_shape shape = {.rank = 1, .dim = {t->inputs}};
    if (t->sequence.steps > 0)
        return (struct bp_shape){.rank = 2, .dim = {t->sequence.steps, t->inputs / t->sequence.steps}};
    if (t->nfeatures != 1 || f->rank < 2)
        return shape;
    shape.rank = 3;
    if (f->rank == 2)
        shape = (struct bp_shape){.rank = 3, .dim = {1, f->dim[0], f->dim[1]}};
    else
        memcpy(shape.dim, f->dim, 3 * sizeof f->dim[0]);
    return shape;
}

static void set_shape(struct bp_planning *p)
{
    const json_t *asked = json_object_get(p->dataset, "input_shape");
    struct bp_shape shape = {.rank = (int)json_array_size(asked)};
    int64_t product = 1;
    bool fine = shape.rank <= BP_RANK_MAX;
    p->t->shape = natural_shape(p->t);
    if (!json_is_array(asked))
        return;
    for (int i = 0; i < shape.rank && fine; i++) {
        shape.dim[i] = json_integer_value(json_array_get(asked, (size_t)i));
        fine = shape.dim[i] > 0 && !__builtin_mul_overflow(product, shape.dim[i], &product);
    }
    if (fine && shape.rank > 0 && product == p->t->inputs) {
        p->t->shape = shape;
        return;
    }
    bp_problems_add(p->problems, "/dataset/input_shape", "shape_mismatch", NULL, NULL,
                    "input_shape must have %d elements in all, as many as the columns make", p->t->inputs);
}

static bp_status plan(struct bp_planning *p, struct bp_error *err)
{
    bp_status status;
    choose_columns(p);
    bp_planning_targets(p);
    if ((status = bp_planning_sequence(p, err)) != BP_OK || (status = bp_planning_weight(p, err)) != BP_OK ||
        (status = add_features(p, err)) != BP_OK || (status = bp_planning_heads(p, err)) != BP_OK)
        return status;
    if (!bp_problems_any(p->problems)) {
        if ((status = bp_transform_place(p->t, err)) != BP_OK || (status = bp_planning_windows(p, err)) != BP_OK)
            return status;
        set_shape(p);
        for (int i = 0; i < p->t->nheads; i++)
            if (p->t->heads[i].target.inputs)
                p->t->heads[i].target.outputs = p->t->inputs;
    }
    if (p->problems->out_of_memory)
        return bp_fail(err, BP_NOMEM, "no memory to plan the columns");
    if (bp_problems_any(p->problems))
        return bp_fail(err, BP_INVALID, "the dataset object of the spec has faults");
    return BP_OK;
}

bp_status bp_transform_plan_heads(const struct bp_table *table, const json_t *dataset,
                                  const struct bp_transform_want *heads, int nheads, struct bp_problems *problems,
                                  struct bp_transform **ret, struct bp_error *err)
{
    size_t n = (size_t)table->ncolumns;
    struct bp_problems own; /* the list may hold faults of others, which are no reason to stop here */
    struct bp_planning p = {.table = table, .dataset = dataset, .problems = &own, .nheads = nheads, .heads = heads};
    bp_status status = BP_NOMEM;
    bp_problems_init(&own);
    p.t = calloc(1, sizeof *p.t);
    p.names = calloc(n, sizeof *p.names);
    p.chosen = calloc(n, 1);
    if (p.t) {
        p.t->features = calloc(n, sizeof *p.t->features);
        p.t->heads = calloc((size_t)nheads + 1, sizeof *p.t->heads);
        p.t->index = json_object();
        p.t->others = json_object();
        p.t->warnings = json_array();
    }
    if (!p.t || !p.names || !p.chosen || !p.t->features || !p.t->heads || !p.t->index || !p.t->others ||
        !p.t->warnings) {
        bp_fail(err, BP_NOMEM, "no memory to plan %d columns", table->ncolumns);
        goto out;
    }
    for (int i = 0; i < table->ncolumns; i++)
        p.names[i] = table->columns[i].name;
    status = plan(&p, err);
    if (status == BP_INVALID) {
        if (!problems->errors)
            problems->errors = json_array();
        if (!problems->errors || json_array_extend(problems->errors, own.errors) != 0)
            problems->out_of_memory = true;
    }
    if (status == BP_OK) {
        *ret = p.t;
        p.t = NULL;
    }
out:
    free(p.names);
    free(p.chosen);
    bp_transform_free(p.t);
    bp_problems_done(&own);
    return status;
}

bp_status bp_transform_plan(const struct bp_table *table, const json_t *dataset, const char *task,
                            struct bp_problems *problems, struct bp_transform **ret, struct bp_error *err)
{
    const json_t *target = json_object_get(dataset, "target");
    const char *name = json_string_value(json_is_array(target) ? json_array_get(target, 0) : target);
    struct bp_transform_want want = {
        .columns = &name, .ncolumns = 1, .regression = bp_planning_is_word(task, "regression")};
    if (name)
        return bp_transform_plan_heads(table, dataset, &want, 1, problems, ret, err);
    bp_problems_add(problems, "/dataset/target", "required", NULL, NULL, "target must name the column to predict");
    return bp_fail(err, BP_INVALID, "the dataset object of the spec has faults");
}
