/* transform_plan.c: from the `dataset` object of a spec to a transform: which columns, how, and which target.
 *
 * All faults are collected, each with a pointer below /dataset. Names are matched exactly first, then as a pattern in
 * which * stands for anything. A text column is left out with a warning when a pattern chose it, and is a fault when
 * its name did. The target is never a feature.
 */
#include "data/transform_internal.h"

#include "data/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALLOWED_MAX 50 /* names listed in a fault */

struct planning {
    const struct bp_table *table;
    const json_t *dataset;
    struct bp_problems *problems;
    struct bp_transform *t;
    const char **names; /* of the table's columns, for bp_nearest */
    uint8_t *chosen;    /* by column */
    int target;         /* -1: none */
    bool regression;
};

enum { LEFT_OUT, BY_PATTERN, BY_NAME };

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

static json_t *allowed_names(const struct planning *p)
{
    json_t *list = json_array();
    for (int i = 0; i < p->table->ncolumns && i < ALLOWED_MAX; i++)
        json_array_append_new(list, json_string(p->names[i]));
    return list;
}

static void unknown_column(struct planning *p, const char *pointer, const char *name)
{
    const char *nearest = bp_nearest(name, p->names, (size_t)p->table->ncolumns);
    bp_problems_add(p->problems, pointer, "unknown_column", nearest, allowed_names(p),
                    nearest ? "the dataset has no column '%s'; did you mean '%s'?" : "the dataset has no column '%s'",
                    name, nearest);
}

/* Marks the columns that a list of names and patterns chooses. */
static void mark(struct planning *p, const char *key, const json_t *list, uint8_t by_name, uint8_t by_pattern)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
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
                if (p->chosen[c] < by_pattern || by_pattern == LEFT_OUT)
                    p->chosen[c] = by_pattern;
            }
        if (!any)
            unknown_column(p, pointer, name ? name : "?");
    }
}

/* A single string is a list of one. */
static void mark_key(struct planning *p, const char *key, uint8_t by_name, uint8_t by_pattern)
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

static void choose_columns(struct planning *p)
{
    if (json_array_size(json_object_get(p->dataset, "features")) > 0 ||
        json_is_string(json_object_get(p->dataset, "features")))
        mark_key(p, "features", BY_NAME, BY_PATTERN);
    else
        memset(p->chosen, BY_PATTERN, (size_t)p->table->ncolumns);
    mark_key(p, "ignore", LEFT_OUT, LEFT_OUT);

    const char *name;
    json_t *value;
    json_object_foreach((json_t *)p->dataset, name, value)
    {
        const char *column;
        json_t *config;
        if (strcmp(name, "columns") != 0)
            continue;
        json_object_foreach(value, column, config)
        {
            char pointer[400] = "/dataset/columns";
            bp_pointer_append(pointer, sizeof pointer, column);
            if (bp_table_find(p->table, column) < 0)
                unknown_column(p, pointer, column);
        }
    }
}

/* --- options of a column -------------------------------------------------------------------------------------------- */

/* The words of an option, with the option's pointer for faults. */
struct option {
    const char *word; /* NULL: not given */
    char pointer[400];
};

static struct option get_option(const struct planning *p, const char *column, const char *key)
{
    const json_t *config = json_object_get(json_object_get(p->dataset, "columns"), column);
    struct option o = {.word = json_string_value(json_object_get(config, key)), .pointer = "/dataset/columns"};
    bp_pointer_append(o.pointer, sizeof o.pointer, column);
    bp_pointer_append(o.pointer, sizeof o.pointer, key);
    return o;
}

static bool is_word(const char *word, const char *expected)
{
    return word && strcmp(word, expected) == 0;
}

static int find_word(struct planning *p, const struct option *o, const char *const *words, int first, int n)
{
    for (int i = first; i < n; i++)
        if (strcmp(o->word, words[i]) == 0)
            return i;
    json_t *allowed = json_array();
    for (int i = first; i < n; i++)
        json_array_append_new(allowed, json_string(words[i]));
    bp_problems_add(p->problems, o->pointer, "unknown_value", bp_nearest(o->word, words + first, (size_t)(n - first)),
                    allowed, "'%s' is not known here", o->word);
    return -1;
}

static void set_scaling(struct planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
{
    struct option o = get_option(p, c->name, "scale");
    f->scaling = c->type == BP_U8 ? BP_SCALE_UNIT : BP_SCALE_STANDARD;
    if (!o.word) {
        o.word = json_string_value(json_object_get(p->dataset, "scale"));
        snprintf(o.pointer, sizeof o.pointer, "/dataset/scale");
    }
    if (!o.word)
        return;
    int scaling = find_word(p, &o, bp_scaling_words, 0, 4);
    if (scaling == BP_SCALE_UNIT && c->type != BP_U8)
        bp_problems_add(p->problems, o.pointer, "no_range", "minmax", NULL,
                        "unit needs a type with a range, such as the bytes of an image; column '%s' has none",
                        c->name);
    else if (scaling >= 0)
        f->scaling = (enum bp_scaling)scaling;
}

/* The value that missing ones are replaced by: `fill` (or `value`) of the column. */
static void set_constant(struct planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
{
    const json_t *config = json_object_get(json_object_get(p->dataset, "columns"), c->name);
    const json_t *fill = json_object_get(config, "fill");
    struct option o = get_option(p, c->name, "fill");
    if (!fill)
        fill = json_object_get(config, "value");
    if (!f->category) {
        if (json_is_number(fill))
            f->fill = json_number_value(fill);
        else
            bp_problems_add(p->problems, o.pointer, "required", NULL, NULL,
                            "missing: constant needs a number for column '%s' in `fill`", c->name);
        return;
    }
    if (json_is_number(fill) && f->levels.numbers)
        f->missing_level = bp_levels_find_number(&f->levels, json_number_value(fill));
    else if (json_is_string(fill) && !f->levels.numbers)
        f->missing_level = bp_levels_find_text(&f->levels, json_string_value(fill));
    if (f->missing_level < 0)
        bp_problems_add(p->problems, o.pointer, "unknown_level", NULL, json_incref(f->levels.labels),
                        "missing: constant needs a value that column '%s' has, in `fill`", c->name);
}

static void set_missing(struct planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
{
    struct option o = get_option(p, c->name, "missing");
    int missing = o.word ? find_word(p, &o, bp_missing_words, 1, 6) : -1;
    f->missing_level = -1;
    f->missing = f->category ? BP_MISSING_LEVEL : BP_MISSING_MEAN;
    if (missing >= 0 && f->category && (missing == BP_MISSING_MEAN || missing == BP_MISSING_MEDIAN))
        bp_problems_add(p->problems, o.pointer, "not_a_number", NULL, NULL,
                        "column '%s' is a category and has no %s: a missing value is a level of its own", c->name,
                        o.word);
    else if (missing == BP_MISSING_MEDIAN && c->count > 1)
        bp_problems_add(p->problems, o.pointer, "unsupported", "mean", NULL,
                        "the median is for plain columns; '%s' is an array", c->name);
    else if (missing >= 0)
        f->missing = (enum bp_missing)missing;

    if (f->missing == BP_MISSING_CONSTANT)
        set_constant(p, c, f);
    else if (f->missing == BP_MISSING_ERROR && c->missing > 0)
        bp_problems_add(p->problems, o.pointer, "missing_values", NULL, NULL, "column '%s' has %lld missing values",
                        c->name, (long long)c->missing);
    else if (f->missing == BP_MISSING_LEVEL && c->missing > 0)
        f->missing_level = f->levels.n;
    else if (f->missing == BP_MISSING_MEAN && c->missing > 0 && !o.word)
        bp_transform_warn(p->t, "missing_filled", o.pointer,
                          "the %lld missing values of column '%s' are replaced by the mean of the training rows",
                          (long long)c->missing, c->name);
}

/* --- features ------------------------------------------------------------------------------------------------------- */

/* The levels of a category, or the values of a number that is read as one. */
static bp_status column_levels(const struct bp_table_column *c, struct bp_levels *ret, struct bp_error *err)
{
    json_t *labels = json_array();
    if (c->kind == BP_COLUMN_CATEGORY)
        for (int i = 0; i < c->nlevels; i++)
            json_array_append_new(labels, json_string(c->levels[i]));
    else
        for (int i = 0; i < c->nvalues; i++)
            json_array_append_new(labels, bp_label_number(c->values[i]));
    if (json_array_size(labels) != (size_t)(c->kind == BP_COLUMN_CATEGORY ? c->nlevels : c->nvalues)) {
        json_decref(labels);
        return bp_fail(err, BP_NOMEM, "no memory for the levels of column '%s'", c->name);
    }
    return bp_levels_init(ret, labels, err);
}

/* Whether the column is one-hot, by what it is and what was asked for. */
static bool is_category(struct planning *p, const struct bp_table_column *c)
{
    struct option type = get_option(p, c->name, "type"), encode = get_option(p, c->name, "encode");
    bool category = c->kind == BP_COLUMN_CATEGORY;
    if (category && is_word(type.word, "number"))
        bp_problems_add(p->problems, type.pointer, "not_a_number", NULL, NULL,
                        "column '%s' cannot be a number: it holds '%s'", c->name, c->levels[c->nlevels - 1]);
    else if (category && is_word(encode.word, "number"))
        bp_problems_add(p->problems, encode.pointer, "not_a_number", "one_hot", NULL,
                        "column '%s' is a category: it is encoded one_hot", c->name);
    if (category || (!is_word(type.word, "category") && !is_word(encode.word, "one_hot")))
        return category;
    const char *pointer = type.word ? type.pointer : encode.pointer;
    if (c->count > 1)
        bp_problems_add(p->problems, pointer, "unsupported", NULL, NULL, "column '%s' is an array of numbers",
                        c->name);
    else if (c->nvalues == 0)
        bp_problems_add(p->problems, pointer, "too_many_levels", "number", NULL,
                        "column '%s' has more than %d different values and cannot be a category", c->name,
                        BP_DISTINCT_MAX);
    else
        return true;
    return false;
}

static bp_status add_feature(struct planning *p, const struct bp_table_column *c, struct bp_error *err)
{
    struct bp_transform_feature *f = &p->t->features[p->t->nfeatures];
    memset(f, 0, sizeof *f);
    if (!(f->name = strdup(c->name)))
        return bp_fail(err, BP_NOMEM, "no memory for a column");
    p->t->nfeatures++;
    f->count = c->count;
    f->rank = c->rank;
    memcpy(f->dim, c->dim, sizeof f->dim);
    f->scale = 1;
    f->scaling = BP_SCALE_NONE;
    f->category = is_category(p, c);
    if (f->category) {
        bp_status status = column_levels(c, &f->levels, err);
        if (status != BP_OK)
            return status;
    } else {
        set_scaling(p, c, f);
    }
    set_missing(p, c, f);
    return BP_OK;
}

static bp_status add_features(struct planning *p, struct bp_error *err)
{
    for (int i = 0; i < p->table->ncolumns; i++) {
        const struct bp_table_column *c = &p->table->columns[i];
        bool chosen = p->chosen[i] != LEFT_OUT && i != p->target;
        bp_status status;
        if (chosen && c->kind == BP_COLUMN_TEXT) {
            chosen = false;
            if (p->chosen[i] == BY_NAME)
                bp_problems_add(p->problems, "/dataset/features", "text_column", NULL, NULL,
                                "column '%s' is text with too many different values to learn from", c->name);
            else
                bp_transform_warn(p->t, "text_left_out", "/dataset/features", "column '%s' is text and is left out",
                                  c->name);
        }
        if (!chosen && json_object_set_new(p->t->others, c->name, json_true()) != 0)
            return bp_fail(err, BP_NOMEM, "no memory for a column");
        if (chosen && (status = add_feature(p, c, err)) != BP_OK)
            return status;
    }
    if (p->t->nfeatures == 0 && !bp_problems_any(p->problems))
        bp_problems_add(p->problems, "/dataset/features", "no_features", NULL, allowed_names(p),
                        "no column is left to learn from");
    return BP_OK;
}

/* --- target --------------------------------------------------------------------------------------------------------- */

static void find_target(struct planning *p)
{
    const json_t *target = json_object_get(p->dataset, "target");
    const char *name = json_string_value(target);
    if (json_array_size(target) == 1)
        name = json_string_value(json_array_get(target, 0));
    p->target = name ? bp_table_find(p->table, name) : -1;
    if (!name)
        bp_problems_add(p->problems, "/dataset/target", "required", NULL, allowed_names(p),
                        "target must name the column to predict");
    else if (p->target < 0)
        unknown_column(p, "/dataset/target", name);
    else if (p->chosen[p->target] == BY_NAME)
        bp_problems_add(p->problems, "/dataset/features", "target_is_feature", NULL, NULL,
                        "'%s' is the target and cannot be a feature: the network would only copy it", name);
}

/* Whether the target fits the task. */
static bool check_target(struct planning *p, const struct bp_table_column *c)
{
    const char *code = NULL, *hint = NULL;
    char detail[256] = "";
    if (c->kind == BP_COLUMN_TEXT) {
        code = "text_column";
        snprintf(detail, sizeof detail, "'%.60s' is text with too many different values to be classes", c->name);
    } else if (p->regression && c->kind == BP_COLUMN_CATEGORY) {
        code = "not_a_number";
        hint = "classification";
        snprintf(detail, sizeof detail, "'%.60s' is a category: a regression needs a number", c->name);
    } else if (!p->regression && c->count > 1) {
        code = "unsupported";
        hint = "regression";
        snprintf(detail, sizeof detail, "'%.60s' is an array of numbers and no class", c->name);
    } else if (!p->regression && c->kind == BP_COLUMN_NUMBER && c->nvalues == 0) {
        code = "too_many_classes";
        hint = "regression";
        snprintf(detail, sizeof detail, "'%.60s' has more than %d different numbers to be classes", c->name,
                 BP_DISTINCT_MAX);
    } else if (!p->regression && (c->kind == BP_COLUMN_CATEGORY ? c->nlevels : c->nvalues) < 2) {
        code = "one_class";
        snprintf(detail, sizeof detail, "'%.60s' has the same value in all rows: there is nothing to tell apart",
                 c->name);
    }
    if (code)
        bp_problems_add(p->problems, "/dataset/target", code, hint, NULL, "%s", detail);
    return code == NULL;
}

static bp_status add_target(struct planning *p, struct bp_error *err)
{
    if (p->target < 0 || !check_target(p, &p->table->columns[p->target]))
        return BP_OK;
    const struct bp_table_column *c = &p->table->columns[p->target];
    struct bp_transform_head *h = &p->t->heads[0];
    h->target = (struct bp_transform_target){
        .name = strdup(c->name), .is_class = !p->regression, .outputs = c->count, .shift = 0, .scale = 1};
    p->t->nheads = 1;
    if (!h->target.name)
        return bp_fail(err, BP_NOMEM, "no memory for the target");
    if (p->regression)
        return BP_OK;
    bp_status status = column_levels(c, &h->levels, err);
    h->target.outputs = h->levels.n;
    h->target.labels = h->levels.labels;
    h->target.labels_are_numbers = h->levels.numbers;
    return status;
}

/* --- shape ---------------------------------------------------------------------------------------------------------- */

/* An image of (height, width) gets a channel; columns side by side are a vector. */
static struct bp_shape natural_shape(const struct bp_transform *t)
{
    const struct bp_transform_feature *f = &t->features[0];
    struct bp_shape shape = {.rank = 1, .dim = {t->inputs}};
    if (t->nfeatures != 1 || f->rank < 2)
        return shape;
    shape.rank = 3;
    if (f->rank == 2)
        shape = (struct bp_shape){.rank = 3, .dim = {1, f->dim[0], f->dim[1]}};
    else
        memcpy(shape.dim, f->dim, 3 * sizeof f->dim[0]);
    return shape;
}

static void set_shape(struct planning *p)
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

static bp_status plan(struct planning *p, struct bp_error *err)
{
    bp_status status;
    choose_columns(p);
    find_target(p);
    if ((status = add_features(p, err)) != BP_OK || (status = add_target(p, err)) != BP_OK)
        return status;
    if (!bp_problems_any(p->problems)) {
        if ((status = bp_transform_place(p->t, err)) != BP_OK)
            return status;
        set_shape(p);
    }
    if (p->problems->out_of_memory)
        return bp_fail(err, BP_NOMEM, "no memory to plan the columns");
    if (bp_problems_any(p->problems))
        return bp_fail(err, BP_INVALID, "the dataset object of the spec has faults");
    return BP_OK;
}

bp_status bp_transform_plan(const struct bp_table *table, const json_t *dataset, const char *task,
                            struct bp_problems *problems, struct bp_transform **ret, struct bp_error *err)
{
    size_t n = (size_t)table->ncolumns;
    struct bp_problems own; /* the list may hold faults of others, which are no reason to stop here */
    struct planning p = {.table = table, .dataset = dataset, .problems = &own, .target = -1};
    bp_status status = BP_NOMEM;
    bp_problems_init(&own);
    p.regression = is_word(task, "regression");
    p.t = calloc(1, sizeof *p.t);
    p.names = calloc(n, sizeof *p.names);
    p.chosen = calloc(n, 1);
    if (p.t) {
        p.t->features = calloc(n, sizeof *p.t->features);
        p.t->heads = calloc(1, sizeof *p.t->heads);
        p.t->others = json_object();
        p.t->warnings = json_array();
    }
    if (!p.t || !p.names || !p.chosen || !p.t->features || !p.t->heads || !p.t->others || !p.t->warnings) {
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
