/* spec_infer.c: what follows from the dataset: the task, the loss, scaling, the split.
 *
 * What was given is checked against the data, what was not is inferred, and a choice that a person might wonder about
 * is told in the warnings, with its reason. The rule for a target of numbers: whole numbers with at most 20 different
 * values, each of them ten times on average (or just two values), are classes.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <string.h>

#define CLASSES_GUESS 20 /* more different integers look like a quantity */
#define NAMES_LISTED 100 /* names shown for a missing one: there may be thousands of columns or datasets */

static json_t *dataset_of(const struct spec_work *w)
{
    return json_object_get(w->doc, "dataset");
}

/* --- the table and its target ------------------------------------------------------------------------------------- */
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

static json_t *column_names(const struct bp_table *table)
{
    json_t *names = json_array();
    for (int i = 0; i < table->ncolumns && i < NAMES_LISTED; i++)
        json_array_append_new(names, json_string(table->columns[i].name));
    return names;
}

static void column_missing(struct spec_work *w, const char *name)
{
    const char *names[NAMES_LISTED];
    size_t n = 0;
    for (int i = 0; i < w->table->ncolumns && i < NAMES_LISTED; i++)
        names[n++] = w->table->columns[i].name;
    const char *near = bp_nearest(name, names, n);
    if (strcmp(name, "features") == 0)
        spec_fault(
            w, "/dataset/target", "not_supported", NULL, column_names(w->table),
            "target \"features\" (an autoencoder) is part of the spec, but this version does not build it yet");
    else
        spec_fault(w, "/dataset/target", "unknown_column", near, column_names(w->table),
                   "the dataset has no column \"%.80s\"%s%s%s", name, near ? ", did you mean \"" : "",
                   near ? near : "", near ? "\"?" : "");
}

/* The target column: the one named, or of a dataset of arrays the column that is made for it. */
static void find_target(struct spec_work *w)
{
    json_t *dataset = dataset_of(w);
    const char *name = json_string_value(json_object_get(dataset, "target"));
    const char *format = json_string_value(json_object_get(w->table->description, "format"));
    if (!name && format && strcmp(format, "idx") == 0 && bp_table_find(w->table, "target") >= 0) {
        name = "target";
        spec_set(w, dataset, "target", json_string(name));
    }
    if (!name) {
        char user[64];
        spec_origin(w, "/dataset/target", user, sizeof user);
        for (size_t i = 0; i < json_array_size(w->problems->errors); i++) {
            const char *at = json_string_value(json_object_get(json_array_get(w->problems->errors, i), "pointer"));
            if (at && strncmp(at, user, strlen(user)) == 0)
                return; /* given, and wrong in itself */
        }
        spec_fault(w, "/dataset/target", "required", NULL, column_names(w->table),
                   "\"target\" is required: the column to predict");
        return;
    }
    int index = bp_table_find(w->table, name);
    if (index < 0)
        column_missing(w, name);
    else
        w->target = &w->table->columns[index];
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
        find_target(w);
    if (w->error.code == BP_OK && status != BP_OK && status != BP_NOT_FOUND)
        w->error.code = status;
}

/* --- task and loss ------------------------------------------------------------------------------------------------ */
/* Whether the column is read as a category: by what it is, or by what the spec says it is. */
static bool is_category(const struct spec_work *w)
{
    const json_t *column = json_object_get(json_object_get(dataset_of(w), "columns"), w->target->name);
    const char *type = json_string_value(json_object_get(column, "type"));
    return w->target->kind != BP_COLUMN_NUMBER || (type && strcmp(type, "category") == 0);
}

static const char *natural_task(const struct spec_work *w, char *reason, size_t size)
{
    const struct bp_table_column *c = w->target;
    const json_t *column = json_object_get(json_object_get(dataset_of(w), "columns"), c->name);
    if (is_category(w)) {
        snprintf(reason, size, "it is a category");
        if (c->kind == BP_COLUMN_CATEGORY)
            snprintf(reason, size, "it is text with %d different values", c->nlevels);
        return "classification";
    }
    if (c->count > 1)
        snprintf(reason, size, "it has %d numbers a row", c->count);
    else if (json_object_get(column, "type"))
        snprintf(reason, size, "it is declared a number");
    else if (c->integral && c->distinct > 0 && c->distinct <= CLASSES_GUESS &&
             (c->distinct <= 2 || (uint64_t)c->distinct * 10 <= w->table->nrows)) {
        snprintf(reason, size, "it has only %lld different integers", (long long)c->distinct);
        return "classification";
    } else
        snprintf(reason, size, "it is a number with %s", c->integral ? "many different integers" : "fractions");
    return "regression";
}

/* Only 0 and 1, no fraction between. */
static bool is_binary(const struct bp_table_column *c)
{
    return c->integral && c->min >= 0 && c->max <= 1;
}

/* Whether the target can be what the loss and the task say; reports why not. */
static bool target_fits(struct spec_work *w, const char *task, const char *loss)
{
    const struct bp_table_column *c = w->target;
    bool category = is_category(w), number = !category;
    const char *at = json_object_get(w->doc, "loss") ? "/loss" : "/dataset/task";
    if (strcmp(loss, "bce") == 0) {
        if (number && c->min >= 0 && c->max <= 1)
            return true;
        spec_fault(w, "/loss", "incompatible", "cross_entropy", NULL,
                   "bce needs a target of numbers from 0 to 1, but \"%.80s\" %s; use cross_entropy for classes",
                   c->name, number ? "has others" : "is a category");
        return false;
    }
    if (strcmp(task, "regression") == 0) {
        if (number)
            return true;
        spec_fault(w, at, "incompatible", "cross_entropy", NULL,
                   "%s needs a target of numbers, but \"%.80s\" is a category; use cross_entropy for classes",
                   strcmp(at, "/loss") == 0 ? loss : "regression", c->name);
        return false;
    }
    if (number && (!c->integral || c->distinct < 0 || c->count > 1)) {
        spec_fault(w, at, "incompatible", "mse", NULL,
                   "classification needs a target of text or of few whole numbers, but \"%.80s\" has %s; use "
                   "regression with mse for quantities",
                   c->name,
                   c->count > 1   ? "several numbers a row"
                   : !c->integral ? "fractions"
                                  : "too many values");
        return false;
    }
    if (c->kind != BP_COLUMN_TEXT && (number ? c->distinct : c->nlevels) == 1) {
        spec_fault(w, "/dataset/target", "single_class", NULL, NULL,
                   "\"%.80s\" has a single class: there is nothing to tell apart", c->name);
        return false;
    }
    return true;
}

/* Settles task and loss; false when they and the target do not go together. */
static bool settle_task(struct spec_work *w)
{
    json_t *dataset = dataset_of(w);
    const char *task = json_string_value(json_object_get(dataset, "task"));
    const char *loss = spec_kind(json_object_get(w->doc, "loss"), "type");
    char reason[120];
    const char *natural = natural_task(w, reason, sizeof reason);
    if (!task && loss[0]) {
        bool classes = strcmp(loss, "cross_entropy") == 0 || (strcmp(loss, "bce") == 0 && is_binary(w->target));
        task = classes ? "classification" : "regression";
    } else if (!task) {
        task = natural;
        spec_warn(w, "/dataset/target", "inferred", "%s, because of the target \"%.80s\": %s; \"task\" overrides",
                  task, w->target->name, reason);
    }
    bool classes = strcmp(task, "classification") == 0;
    if (!loss[0])
        loss = classes ? "cross_entropy" : "mse";
    else if (strcmp(loss, classes ? "mse" : "cross_entropy") == 0) {
        spec_fault(w, "/loss", "incompatible", classes ? "cross_entropy" : "mse", NULL,
                   "%s does not go with %s; leave the loss out, or change \"task\"", loss, task);
        return false;
    }
    if (!target_fits(w, task, loss))
        return false;
    spec_set(w, dataset, "task", json_string(task));
    spec_set(w, w->doc, "loss", json_string(loss));
    return true;
}

/* --- split and scale ---------------------------------------------------------------------------------------------- */
static void settle_split(struct spec_work *w)
{
    json_t *dataset = dataset_of(w), *stratify = json_object_get(dataset, "stratify");
    bool classes = strcmp(spec_kind(json_object_get(w->doc, "loss"), "type"), "cross_entropy") == 0;
    double validation = json_number_value(json_object_get(dataset, "validation_split"));
    double test = json_number_value(json_object_get(dataset, "test_split"));
    bool whole = spec_settle_sequence(w);
    if (!stratify)
        spec_set(w, dataset, "stratify", json_boolean(classes && !whole));
    else if (json_is_true(stratify) && !classes)
        spec_fault(w, "/dataset/stratify", "incompatible", NULL, NULL,
                   "rows can be stratified by classes only: with %s the target is a number",
                   spec_kind(json_object_get(w->doc, "loss"), "type"));
    if (validation + test >= 1)
        spec_fault(w, "/dataset/validation_split", "out_of_range", NULL, NULL,
                   "validation_split and test_split leave no training rows: together they must be below 1, got %g",
                   validation + test);
    if (test > 0 && w->table->test_first < w->table->nrows)
        spec_fault(w, "/dataset/test_split", "incompatible", NULL, NULL,
                   "must be 0: the dataset has a test split of its own, of %llu rows",
                   (unsigned long long)(w->table->nrows - w->table->test_first));
    for (int i = 0, told = 0; classes && w->target->counts && told < 5; i++) {
        int n = w->target->kind == BP_COLUMN_CATEGORY ? w->target->nlevels : w->target->nvalues;
        if (i >= n)
            break;
        if (w->target->counts[i] != 1)
            continue;
        told++;
        if (w->target->kind == BP_COLUMN_CATEGORY)
            spec_warn(w, "/dataset/target", "rare_class",
                      "class \"%.80s\" has a single row: it is trained on, never "
                      "validated",
                      w->target->levels[i]);
        else
            spec_warn(w, "/dataset/target", "rare_class",
                      "class %.17g has a single row: it is trained on, never "
                      "validated",
                      w->target->values[i]);
    }
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
        if (c == w->target || c->kind != BP_COLUMN_NUMBER)
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
    if (!w->table || !w->target || !json_object_get(dataset, "columns"))
        return;
    check_fills(w);
    settle_scale(w);
    settle_encoding(w);
    if (!settle_task(w))
        return;
    settle_split(w);
    if (!json_object_get(dataset, "features") || !json_object_get(dataset, "ignore"))
        return;

    struct bp_problems problems;
    struct bp_error err = {0};
    bp_problems_init(&problems);
    const char *loss = json_string_value(json_object_get(w->doc, "loss"));
    bp_status status =
        bp_transform_plan(w->table, dataset, spec_transform_task(dataset, loss), &problems, &w->transform, &err);
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
