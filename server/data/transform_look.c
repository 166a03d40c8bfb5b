/* transform_look.c: a transform's columns and a table's rows, seen from outside: for explanations and for people. */
#include "data/transform_internal.h"

#include <math.h>

int bp_transform_features(const struct bp_transform *t)
{
    return t->nfeatures;
}

const char *bp_transform_feature_name(const struct bp_transform *t, int i)
{
    return t->features[i].name;
}

const json_t *bp_transform_feature_labels(const struct bp_transform *t, int i)
{
    return t->features[i].category ? t->features[i].levels.labels : NULL;
}

static json_t *value_json(const struct bp_table_column *c, const uint8_t *row, int i)
{
    double v = bp_column_load(c, row, i);
    if (isnan(v))
        return json_null();
    if (c->kind == BP_COLUMN_CATEGORY && c->nlevels > 0)
        return v >= 0 && v < c->nlevels ? json_string(c->levels[(int)v]) : json_null();
    return bp_label_number(v);
}

/* The values of an array column in its own shape, from axis on; `at` runs on. Rank is at most BP_RANK_MAX. */
static json_t *nested(const struct bp_table_column *c, const uint8_t *row, int axis, int *at)
{
    if (axis == c->rank)
        return value_json(c, row, (*at)++);
    json_t *list = json_array();
    for (int64_t i = 0; list && i < c->dim[axis]; i++)
        if (json_array_append_new(list, nested(c, row, axis + 1, at)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

json_t *bp_table_row_json(const struct bp_table *table, uint64_t index)
{
    const uint8_t *row = table->rows + index * table->stride;
    json_t *out = json_object();
    for (int i = 0; out && i < table->ncolumns; i++) {
        const struct bp_table_column *c = &table->columns[i];
        int at = 0;
        if (c->kind == BP_COLUMN_TEXT)
            continue;
        if (json_object_set_new(out, c->name, nested(c, row, 0, &at)) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}
