/* transform_rows.c: rows from outside in JSON become rows that a source gathers.
 *
 * A row is an object by column name or an array in the order of the features; the value of an array column (an image)
 * may be nested or flat, and is the row itself where it is the only feature. A number is a JSON number or a numeric
 * string; null is a missing value. Nothing else is guessed: what does not fit is a fault that names row and column.
 */
#include "data/transform_internal.h"

#include "data/number.h"
#include "json_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALLOWED_MAX 20 /* levels and names listed in a fault */
#define QUOTED_MAX 60  /* bytes of a value repeated in a fault */

/* --- fields --------------------------------------------------------------------------------------------------------- */

static json_t *allowed_levels(const struct bp_levels *levels)
{
    json_t *list = json_array();
    for (int i = 0; i < levels->n && i < ALLOWED_MAX; i++)
        json_array_append(list, json_array_get(levels->labels, (size_t)i));
    return list;
}

static void unseen(struct bp_encoder *e, const struct bp_transform_feature *f, const char *text, const char *pointer)
{
    const char *nearest =
        f->levels.numbers ? NULL : bp_nearest(text, (const char *const *)f->levels.texts, (size_t)f->levels.n);
    bp_problems_add(e->problems, pointer, "unseen_category", nearest, allowed_levels(&f->levels),
                    "'%.*s' is a value of '%s' that the model never saw", QUOTED_MAX, text, f->name);
}

static void store_code(const struct bp_transform_feature *f, uint8_t *row, int32_t code)
{
    memcpy(row + f->offset, &code, sizeof code);
}

static void store_double(const struct bp_transform_feature *f, uint8_t *row, int i, double v)
{
    memcpy(row + f->offset + (size_t)i * sizeof v, &v, sizeof v);
}

/* Missing in all of the column's values at once, or in a plain column. */
static bool may_miss(const struct bp_transform_feature *f)
{
    return f->missing != BP_MISSING_DROP && f->missing != BP_MISSING_ERROR && (!f->category || f->missing_level >= 0);
}

static void missing_value(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, int i,
                          const char *pointer)
{
    if (!may_miss(f)) {
        bp_problems_add(e->problems, pointer, "missing_value", NULL, f->category ? allowed_levels(&f->levels) : NULL,
                        "'%s' must have a value: the model was trained without missing ones", f->name);
        return;
    }
    if (f->category && !f->levels.numbers)
        store_code(f, row, -1);
    else
        store_double(f, row, i, NAN);
}

void bp_encode_missing(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, const char *pointer)
{
    missing_value(e, f, row, 0, pointer);
}

void bp_encode_number(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, int i, double v,
                      const char *pointer)
{
    char text[BP_NUMBER_TEXT];
    if (f->category && !f->levels.numbers)
        bp_encode_text(e, f, row, bp_number_text(v, text), pointer);
    else if (f->category && bp_levels_find_number(&f->levels, v) < 0)
        unseen(e, f, bp_number_text(v, text), pointer);
    else
        store_double(f, row, i, v);
}

void bp_encode_text(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, const char *text,
                    const char *pointer)
{
    double v;
    if (f->category && !f->levels.numbers) {
        int level = bp_levels_find_text(&f->levels, text);
        if (level < 0)
            unseen(e, f, text, pointer);
        else
            store_code(f, row, level);
    } else if (bp_number_parse(text, strlen(text), &v)) {
        bp_encode_number(e, f, row, 0, v, pointer);
    } else {
        bp_problems_add(e->problems, pointer, "not_a_number", NULL, NULL, "'%s' is a number, and '%.*s' is none",
                        f->name, QUOTED_MAX, text);
    }
}

void bp_encode_unknown(struct bp_encoder *e, const char *name, const char *pointer)
{
    const struct bp_transform *t = e->t;
    const char **names = calloc((size_t)t->nfeatures, sizeof *names);
    json_t *allowed = json_array();
    for (int i = 0; names && i < t->nfeatures; i++) {
        names[i] = t->features[i].name;
        if (i < ALLOWED_MAX)
            json_array_append_new(allowed, json_string(names[i]));
    }
    const char *nearest = names ? bp_nearest(name, names, (size_t)t->nfeatures) : NULL;
    bp_problems_add(e->problems, pointer, "unknown_column", nearest, allowed,
                    "'%.*s' is no column of the dataset that the model was trained on", QUOTED_MAX, name);
    free(names);
}

bool bp_encode_enough(const struct bp_encoder *e)
{
    return json_array_size(e->problems->errors) >= BP_PROBLEMS_MAX;
}

bp_status bp_encode_room(const struct bp_transform *t, size_t n, uint8_t **ret, struct bp_error *err)
{
    if (n > BP_TRANSFORM_ROWS_MAX)
        return bp_fail(err, BP_LIMIT, "%zu rows in one call: at most %d", n, BP_TRANSFORM_ROWS_MAX);
    if (n > BP_TRANSFORM_BYTES_MAX / t->stride)
        return bp_fail(err, BP_LIMIT, "%zu rows of %d values are too much for one call", n, t->inputs);
    uint8_t *rows = calloc(n + 1, t->stride);
    if (!rows)
        return bp_fail(err, BP_NOMEM, "no memory for %zu rows", n);
    *ret = rows;
    return BP_OK;
}

bp_status bp_encode_result(const struct bp_encoder *e, struct bp_error *err)
{
    if (e->problems->out_of_memory)
        return bp_fail(err, BP_NOMEM, "no memory to read the rows");
    if (!bp_problems_any(e->problems))
        return BP_OK;
    const char *detail = json_string_value(json_object_get(json_array_get(e->problems->errors, 0), "detail"));
    return bp_fail_at(err, BP_INVALID, "invalid_rows", "%s", detail ? detail : "the rows do not fit the model");
}

/* --- JSON ----------------------------------------------------------------------------------------------------------- */

/* A JSON string as a field: without spaces around it, terminated. */
static void json_text(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, const json_t *value,
                      const char *pointer)
{
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    bp_text_trim(&text, &size);
    if (f->category && bp_text_missing(text, size)) {
        bp_encode_missing(e, f, row, pointer);
        return;
    }
    char *copy = strndup(text, size);
    if (copy)
        bp_encode_text(e, f, row, copy, pointer);
    else
        e->problems->out_of_memory = true;
    free(copy);
}

static void json_scalar(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, int i,
                        const json_t *value, const char *pointer)
{
    if (json_is_null(value))
        missing_value(e, f, row, i, pointer);
    else if (json_is_number(value))
        bp_encode_number(e, f, row, i, json_number_value(value), pointer);
    else if (json_is_string(value) && f->count == 1)
        json_text(e, f, row, value, pointer);
    else if (json_is_boolean(value) && f->category && !f->levels.numbers)
        bp_encode_text(e, f, row, json_is_true(value) ? "true" : "false", pointer);
    else
        bp_problems_add(e->problems, pointer, "wrong_type", NULL, NULL, "'%s' must be %s", f->name,
                        f->category    ? "one of its categories"
                        : f->count > 1 ? "numbers"
                                       : "a number");
}

/* The values of an array column, nested as deep as its shape or flat. Returns how many there are, or -1 after a fault;
 * those beyond the column's own are counted only. */
static int64_t json_flatten(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row,
                            const json_t *value, int depth, int64_t at, const char *pointer)
{
    size_t i;
    json_t *entry;
    if (!json_is_array(value)) {
        if (at < f->count)
            json_scalar(e, f, row, (int)at, value, pointer);
        return at + 1;
    }
    if (depth > BP_RANK_MAX + 1) {
        bp_problems_add(e->problems, pointer, "shape_mismatch", NULL, NULL, "'%s' is nested too deep", f->name);
        return -1;
    }
    json_array_foreach(value, i, entry) {
        if (bp_encode_enough(e) || (at = json_flatten(e, f, row, entry, depth + 1, at, pointer)) < 0)
            return -1;
    }
    return at;
}

static void json_value(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, const json_t *value,
                       const char *pointer)
{
    if (f->count == 1) {
        json_scalar(e, f, row, 0, value, pointer);
        return;
    }
    int64_t n = json_flatten(e, f, row, value, 0, 0, pointer);
    if (n >= 0 && n != f->count)
        bp_problems_add(e->problems, pointer, "shape_mismatch", NULL, NULL, "'%s' must have %d values, got %lld",
                        f->name, f->count, (long long)n);
}

static void json_object_row(struct bp_encoder *e, uint8_t *row, const json_t *value, const char *pointer)
{
    const struct bp_transform *t = e->t;
    size_t found = 0;
    for (int i = 0; i < t->nfeatures; i++) {
        const struct bp_transform_feature *f = &t->features[i];
        const json_t *field = json_object_get(value, f->name);
        char at[400];
        snprintf(at, sizeof at, "%s", pointer);
        bp_pointer_append(at, sizeof at, f->name);
        if (field) {
            found++;
            json_value(e, f, row, field, at);
        } else {
            bp_problems_add(e->problems, at, "missing_column", NULL, NULL,
                            "the row has no '%s' (null stands for a missing value)", f->name);
        }
    }
    if (json_object_size(value) == found)
        return;
    const char *name;
    json_t *field;
    json_object_foreach((json_t *)value, name, field) {
        bool known = json_object_get(t->others, name) || bp_transform_find(t, name) >= 0;
        char at[400];
        snprintf(at, sizeof at, "%s", pointer);
        bp_pointer_append(at, sizeof at, name);
        if (!known)
            bp_encode_unknown(e, name, at);
        if (bp_encode_enough(e))
            return;
    }
}

static void json_array_row(struct bp_encoder *e, uint8_t *row, const json_t *value, const char *pointer)
{
    const struct bp_transform *t = e->t;
    if (t->nfeatures == 1 && t->features[0].count > 1) {
        json_value(e, &t->features[0], row, value, pointer);
        return;
    }
    if (json_array_size(value) != (size_t)t->nfeatures) {
        bp_problems_add(e->problems, pointer, "wrong_length", NULL, NULL,
                        "the row has %zu values; the model takes %d columns, from '%s' to '%s'",
                        json_array_size(value), t->nfeatures, t->features[0].name,
                        t->features[t->nfeatures - 1].name);
        return;
    }
    for (int i = 0; i < t->nfeatures; i++) {
        char at[96];
        snprintf(at, sizeof at, "%s/%d", pointer, i);
        json_value(e, &t->features[i], row, json_array_get(value, (size_t)i), at);
    }
}

bool bp_encode_windows(struct bp_encoder *e, size_t n, const char *pointer)
{
    size_t steps = (size_t)e->t->sequence.steps;
    if (steps == 0 || n % steps == 0)
        return true;
    bp_problems_add(e->problems, pointer, "wrong_length", NULL, NULL,
                    "the model reads windows of %zu rows: send an array of windows, or rows that make whole windows; "
                    "got %zu rows",
                    steps, n);
    return false;
}

/* Windows (arrays of rows) as their rows one after the other: a new array; NULL after a fault, or without memory. */
static json_t *open_windows(struct bp_encoder *e, const json_t *windows)
{
    json_t *rows = json_array(), *window;
    size_t i, steps = (size_t)e->t->sequence.steps;
    json_array_foreach(windows, i, window) {
        char pointer[40];
        snprintf(pointer, sizeof pointer, "/rows/%zu", i);
        if (!json_is_array(window) || json_array_size(window) != steps)
            bp_problems_add(e->problems, pointer, "wrong_length", NULL, NULL,
                            "the model reads windows of %zu rows: this must be an array of as many rows", steps);
        else if (json_array_extend(rows, window) != 0)
            e->problems->out_of_memory = true;
        if (bp_encode_enough(e))
            break;
    }
    if (bp_problems_any(e->problems) || e->problems->out_of_memory) {
        json_decref(rows);
        return NULL;
    }
    return rows;
}

/* Whether rows come as arrays of rows. */
static bool is_window(const struct bp_transform *t, const json_t *first)
{
    const json_t *inner = json_array_get(first, 0);
    return t->sequence.steps > 0 && (json_is_array(inner) || json_is_object(inner));
}

static void row_pointer(const struct bp_transform *t, bool windows, size_t i, char *ret, size_t size)
{
    size_t steps = windows ? (size_t)t->sequence.steps : 1;
    if (windows)
        snprintf(ret, size, "/rows/%zu/%zu", i / steps, i % steps);
    else
        snprintf(ret, size, "/rows/%zu", i);
}

static bp_status rows_of(const struct bp_transform *t, const json_t *rows, bool windows, struct bp_problems *problems,
                         uint8_t **ret, int *ret_n, struct bp_error *err)
{
    struct bp_encoder e = {.t = t, .problems = problems};
    uint8_t *bytes = NULL;
    size_t n = json_array_size(rows);
    if (n == 0) {
        bp_problems_add(problems, "/rows", "empty", NULL, NULL, "rows must be an array of at least one row");
        return bp_encode_result(&e, err);
    }
    if (!bp_encode_windows(&e, n, "/rows"))
        return bp_encode_result(&e, err);
    bp_status status = bp_encode_room(t, n, &bytes, err);
    if (status != BP_OK)
        return status;
    for (size_t i = 0; i < n && !bp_encode_enough(&e) && !problems->out_of_memory; i++) {
        const json_t *value = json_array_get(rows, i);
        char pointer[64];
        row_pointer(t, windows, i, pointer, sizeof pointer);
        if (json_is_object(value))
            json_object_row(&e, bytes + i * t->stride, value, pointer);
        else if (json_is_array(value))
            json_array_row(&e, bytes + i * t->stride, value, pointer);
        else
            bp_problems_add(problems, pointer, "wrong_type", NULL, NULL,
                            "a row is an object by column name or an array: rows is an array of those");
    }
    if ((status = bp_encode_result(&e, err)) != BP_OK) {
        free(bytes);
        return status;
    }
    *ret = bytes;
    *ret_n = (int)(t->sequence.steps > 0 ? n / (size_t)t->sequence.steps : n);
    return BP_OK;
}

bp_status bp_transform_rows(const struct bp_transform *t, const json_t *rows, struct bp_problems *problems,
                            uint8_t **ret, int *ret_n, struct bp_error *err)
{
    struct bp_encoder e = {.t = t, .problems = problems};
    if (!is_window(t, json_array_get(rows, 0)))
        return rows_of(t, rows, false, problems, ret, ret_n, err);
    json_t *opened = open_windows(&e, rows);
    bp_status status = bp_encode_result(&e, err);
    if (status == BP_OK)
        status = rows_of(t, opened, true, problems, ret, ret_n, err);
    json_decref(opened);
    return status;
}
