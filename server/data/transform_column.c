/* transform_column.c: one column of a plan: number or one-hot, its scaling, and what happens to missing values. Each
 * comes from the column's own options, then from the dataset's, then from what the column is. */
#include "data/transform_planning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODES_MAX 16777216 /* a code is exact as a float */

/* --- options of a column -------------------------------------------------------------------------------------------- */

/* The words of an option, with the option's pointer for faults. */
struct option {
    const char *word; /* NULL: not given */
    char pointer[400];
};

static struct option get_option(const struct bp_planning *p, const char *column, const char *key)
{
    const json_t *config = json_object_get(json_object_get(p->dataset, "columns"), column);
    struct option o = {.word = json_string_value(json_object_get(config, key)), .pointer = "/dataset/columns"};
    bp_pointer_append(o.pointer, sizeof o.pointer, column);
    bp_pointer_append(o.pointer, sizeof o.pointer, key);
    return o;
}

bool bp_planning_is_word(const char *word, const char *expected)
{
    return word && strcmp(word, expected) == 0;
}

static int find_word(struct bp_planning *p, const struct option *o, const char *const *words, int first, int n)
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

static void set_scaling(struct bp_planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
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
static void set_constant(struct bp_planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
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

static void set_missing(struct bp_planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
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

bp_status bp_planning_levels(const struct bp_table_column *c, struct bp_levels *ret, struct bp_error *err)
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
static bool is_category(struct bp_planning *p, const struct bp_table_column *c)
{
    struct option type = get_option(p, c->name, "type"), encode = get_option(p, c->name, "encode");
    bool category = c->kind == BP_COLUMN_CATEGORY;
    if (category && bp_planning_is_word(type.word, "number"))
        bp_problems_add(p->problems, type.pointer, "not_a_number", NULL, NULL,
                        "column '%s' cannot be a number: it holds '%s'", c->name, c->levels[c->nlevels - 1]);
    else if (category && bp_planning_is_word(encode.word, "number"))
        bp_problems_add(p->problems, encode.pointer, "not_a_number", "one_hot", NULL,
                        "column '%s' is a category: it is encoded one_hot, or as a code", c->name);
    if (category || (!bp_planning_is_word(type.word, "category") && !bp_planning_is_word(encode.word, "one_hot")))
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

/* Whether the column feeds an embedding: by its own option, or by the dataset's. */
static bool is_coded(const struct bp_planning *p, const struct bp_table_column *c)
{
    struct option encode = get_option(p, c->name, "encode");
    return bp_planning_is_word(encode.word ? encode.word : json_string_value(json_object_get(p->dataset, "encode")),
                               "code");
}

/* A number is its own code, where it is a whole one from 0 on. */
static void set_codes(struct bp_planning *p, const struct bp_table_column *c, struct bp_transform_feature *f)
{
    struct option o = get_option(p, c->name, "encode");
    if (f->category) {
        f->codes = f->levels.n + (f->missing_level == f->levels.n);
        return;
    }
    f->scaling = BP_SCALE_NONE;
    if (!c->integral || !(c->min >= 0 && c->max < CODES_MAX))
        bp_problems_add(
            p->problems, o.pointer, "not_a_code", NULL, NULL,
            "column '%s' cannot be read as codes for an embedding: it has numbers that are not whole, below "
            "0 or from %d on; leave it out, or make it a category with \"type\": \"category\"",
            c->name, CODES_MAX);
    else if (c->missing > 0 && f->missing != BP_MISSING_DROP && f->missing != BP_MISSING_CONSTANT)
        bp_problems_add(p->problems, o.pointer, "missing_values", "drop", NULL,
                        "column '%s' is read as codes, which have no mean: its %lld missing values need \"missing\": "
                        "\"drop\" or \"constant\"",
                        c->name, (long long)c->missing);
    else
        f->codes = (int64_t)c->max + 1;
}

bp_status bp_planning_feature(struct bp_planning *p, const struct bp_table_column *c, struct bp_error *err)
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
        bp_status status = bp_planning_levels(c, &f->levels, err);
        if (status != BP_OK)
            return status;
    } else {
        set_scaling(p, c, f);
    }
    set_missing(p, c, f);
    f->coded = is_coded(p, c);
    if (f->coded)
        set_codes(p, c, f);
    return BP_OK;
}
