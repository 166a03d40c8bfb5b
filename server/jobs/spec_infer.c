/* spec_infer.c: what follows from the dataset: scaling and the split. Targets are in spec_target.c.
 *
 * What was given is checked against the data, what was not is inferred, and a choice that a person might wonder about
 * is told in the warnings, with its reason.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <string.h>

#define NAMES_LISTED 100 /* names shown for a missing one: there may be thousands of columns or datasets */

static json_t *dataset_of(const struct spec_work *w)
{
    return json_object_get(w->doc, "dataset");
}

/* --- the table ------------------------------------------------------------------------------------- */
static void dataset_missing(struct spec_work *w, const char *name)
{
    const char *names[BP_PROBLEMS_MAX];
    size_t n = 0, i;
    json_t *known = w->context->dataset_names ? w->context->dataset_names(w->context->ctx) : NULL, *value;
    while (json_array_size(known) > NAMES_LISTED)
        json_array_remove(known, json_array_size(known) - 1);
    json_array_foreach(known, i, value) {
        if (n < BP_PROBLEMS_MAX && json_is_string(value))
            names[n++] = json_string_value(value);
    }
    const char *near = bp_nearest(name, names, n);
    char hint[120] = "; none is uploaded yet";
    if (near)
        snprintf(hint, sizeof hint, ", did you mean \"%s\"?", near);
    else if (n)
        hint[0] = 0;
    /* The list borrows its names from `known`, which the fault takes over. */
    spec_fault(w, "/dataset/name", "dataset_not_found", near, json_incref(known), "there is no dataset \"%s\"%s",
               name, hint);
    json_decref(known);
}

void spec_infer_dataset(struct spec_work *w)
{
    const char *name = json_string_value(json_object_get(dataset_of(w), "name"));
    struct bp_error err = {0};
    if (!name)
        return;
    bp_status status = w->context->open_dataset(w->context->ctx, name, &w->table, &err);
    if (status == BP_NOT_FOUND)
        dataset_missing(w, name);
    else if (status != BP_OK)
        w->error = err;
    else
        spec_find_targets(w);
    if (w->error.code == BP_OK && status != BP_OK && status != BP_NOT_FOUND)
        w->error.code = status;
}

/* --- split and scale ---------------------------------------------------------------------------------------------- */
static void settle_split(struct spec_work *w)
{
    json_t *dataset = dataset_of(w), *stratify = json_object_get(dataset, "stratify");
    json_t *first = json_array_get(json_object_get(json_object_get(w->doc, "model"), "heads"), 0);
    enum bp_loss loss = spec_loss(spec_kind(json_object_get(first ? first : w->doc, "loss"), "type"));
    bool classes = spec_loss_is_of_classes(loss);
    double validation = json_number_value(json_object_get(dataset, "validation_split"));
    double test = json_number_value(json_object_get(dataset, "test_split"));
    bool whole = spec_settle_sequence(w);
    if (!stratify)
        spec_set(w, dataset, "stratify", json_boolean(classes && !whole));
    else if (json_is_true(stratify) && !classes)
        spec_fault(w, "/dataset/stratify", "incompatible", NULL, NULL,
                   "rows can be stratified by classes only: with %s the %starget is a number", bp_loss_name(loss),
                   first ? "first " : "");
    if (validation + test >= 1)
        spec_fault(w, "/dataset/validation_split", "out_of_range", NULL, NULL,
                   "validation_split and test_split leave no training rows: together they must be below 1, got %g",
                   validation + test);
    if (test > 0 && w->table->test_first < w->table->nrows)
        spec_fault(w, "/dataset/test_split", "incompatible", NULL, NULL,
                   "must be 0: the dataset has a test split of its own, of %llu rows",
                   (unsigned long long)(w->table->nrows - w->table->test_first));
}

static bool is_weight(const struct spec_work *w, const struct bp_table_column *c)
{
    const char *weight = json_string_value(json_object_get(dataset_of(w), "sample_weight"));
    return weight && strcmp(weight, c->name) == 0;
}

/* Images have a natural range; other numbers are standardized. */
static void settle_scale(struct spec_work *w)
{
    json_t *dataset = dataset_of(w);
    bool bytes = false, others = false;
    if (json_object_get(dataset, "scale"))
        return;
    for (int i = 0; i < w->table->ncolumns; i++) {
        const struct bp_table_column *c = &w->table->columns[i];
        if (spec_is_target(w, c) || c->kind != BP_COLUMN_NUMBER || is_weight(w, c))
            continue;
        bytes |= c->type == BP_U8;
        others |= c->type != BP_U8;
    }
    spec_set(w, dataset, "scale", json_string(bytes && !others ? "unit" : "standard"));
}

/* An embedding reads codes. */
static void settle_encoding(struct spec_work *w)
{
    json_t *dataset = dataset_of(w);
    bool embedded = strcmp(spec_kind(json_array_get(spec_layers(w->doc), 0), "type"), "embedding") == 0;
    if (!json_object_get(dataset, "encode"))
        spec_set(w, dataset, "encode", json_string(embedded ? "code" : "one_hot"));
}

/* A fill that would be ignored is a fault. (A missing one is found by the transform.) */
static void check_fills(struct spec_work *w)
{
    const char *name;
    json_t *column;
    json_object_foreach(json_object_get(dataset_of(w), "columns"), name, column) {
        char pointer[512] = "/dataset/columns";
        if (!json_object_get(column, "fill") ||
            strcmp(spec_kind(json_object_get(column, "missing"), ""), "constant") == 0)
            continue;
        bp_pointer_append(pointer, sizeof pointer, name);
        bp_pointer_append(pointer, sizeof pointer, "fill");
        spec_fault(w, pointer, "incompatible", NULL, NULL, "\"fill\" is used with missing: constant only");
    }
}

void spec_infer_task(struct spec_work *w)
{
    json_t *dataset = dataset_of(w);
    if (!w->table || (!w->target && !w->autoencoder) || !json_object_get(dataset, "columns"))
        return;
    check_fills(w);
    settle_scale(w);
    settle_encoding(w);
    if (!spec_settle_task(w))
        return;
    w->task_settled = true;
    settle_split(w);
    if (!json_object_get(dataset, "features") || !json_object_get(dataset, "ignore"))
        return;

    struct bp_problems problems;
    struct bp_error err = {0};
    bp_problems_init(&problems);
    bp_status status = spec_plan_transform(w->doc, w->table, &problems, &w->transform, &err);
    if (status != BP_OK && !bp_problems_any(&problems)) {
        if (status == BP_INVALID || status == BP_LIMIT || status == BP_UNSUPPORTED)
            spec_fault(w, "/dataset", "incompatible", NULL, NULL, "%s", err.message);
        else
            w->error = err;
    }
    spec_merge(w, &problems);
    json_t *told = w->transform ? bp_transform_warnings(w->transform) : NULL, *entry;
    size_t i;
    json_array_foreach(told, i, entry)
        spec_warn(w, spec_kind(json_object_get(entry, "pointer"), ""), spec_kind(json_object_get(entry, "code"), ""),
                  "%s", spec_kind(json_object_get(entry, "detail"), ""));
    json_decref(told);
}
