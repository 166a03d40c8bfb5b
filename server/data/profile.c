/* profile.c: a description as people want to see it: what each column is, without where it is stored.
 *
 * A column's classes are listed when it could be learned as one: the levels of a category, and the values of an
 * integer column that has at most as many as a category may have. The target that is guessed is a column called
 * target, label, class, y or outcome, else the last one that can be one: a hint for people, used for nothing. */
#include "data/table.h"

#include <string.h>
#include <strings.h>

static void put(bool *ok, json_t *object, const char *key, json_t *value)
{
    if (!value || json_object_set_new(object, key, value) != 0)
        *ok = false;
}

static void copy(bool *ok, json_t *to, const json_t *from, const char *key)
{
    json_t *value = json_object_get(from, key);
    if (value && json_object_set(to, key, value) != 0)
        *ok = false;
}

static bool is_kind(const json_t *column, const char *kind)
{
    const char *k = json_string_value(json_object_get(column, "kind"));
    return k && strcmp(k, kind) == 0;
}

/* A value of an integral column, or any other. */
static json_t *value_json(const json_t *column, json_t *value)
{
    double v = json_number_value(value);
    if (json_is_real(value) && json_is_true(json_object_get(column, "integral")) && v > -0x1p53 && v < 0x1p53)
        return json_integer((json_int_t)v);
    return json_incref(value);
}

static json_t *classes_json(const json_t *column, json_int_t rows, bool *ok)
{
    const json_t *members = json_object_get(column, "levels"), *counts = json_object_get(column, "counts");
    if (!members && json_is_true(json_object_get(column, "integral")) &&
        (json_int_t)json_array_size(json_object_get(column, "values")) <= rows / 2)
        members = json_object_get(column, "values");
    if (!members || json_array_size(json_object_get(column, "shape")) > 0)
        return NULL;
    json_t *classes = json_array();
    for (size_t i = 0; i < json_array_size(members); i++) {
        json_t *o = json_object();
        put(ok, o, "value", value_json(column, json_array_get(members, i)));
        put(ok, o, "count", json_incref(json_array_get(counts, i)));
        if (json_array_append_new(classes, o) != 0)
            *ok = false;
    }
    return classes;
}

static json_t *column_json(const json_t *column, json_int_t rows, bool *ok)
{
    static const char *const limits[] = {"min", "max"};
    json_t *o = json_object();
    copy(ok, o, column, "name");
    put(ok, o, "type", json_incref(json_object_get(column, "kind")));
    if (is_kind(column, "number"))
        put(ok, o, "stored_as", json_incref(json_object_get(column, "type")));
    if (json_array_size(json_object_get(column, "shape")) > 0)
        copy(ok, o, column, "shape");
    copy(ok, o, column, "missing");
    json_t *distinct = json_object_get(column, "distinct");
    put(ok, o, "distinct", json_integer_value(distinct) < 0 ? json_null() : json_incref(distinct));
    for (size_t i = 0; i < 2; i++) {
        json_t *v = json_object_get(column, limits[i]);
        if (v)
            put(ok, o, limits[i], value_json(column, v));
    }
    copy(ok, o, column, "mean");
    json_t *classes = classes_json(column, rows, ok);
    if (classes)
        put(ok, o, "classes", classes);
    return o;
}

static const json_t *guess_target(const json_t *columns)
{
    static const char *const names[] = {"target", "label", "class", "y", "outcome"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++)
        for (size_t i = 0; i < json_array_size(columns); i++) {
            const json_t *c = json_array_get(columns, i);
            const char *name = json_string_value(json_object_get(c, "name"));
            if (name && strcasecmp(name, names[n]) == 0 && !is_kind(c, "text"))
                return c;
        }
    for (size_t i = json_array_size(columns); i-- > 1;) /* one column alone is no target */
        if (!is_kind(json_array_get(columns, i), "text"))
            return json_array_get(columns, i);
    return NULL;
}

static json_t *target_json(const json_t *columns, bool *ok)
{
    const json_t *column = guess_target(columns);
    if (!column)
        return json_null();
    json_int_t distinct = json_integer_value(json_object_get(column, "distinct"));
    bool classes = is_kind(column, "category") ||
                   (json_is_true(json_object_get(column, "integral")) && distinct >= 0 && distinct <= 20);
    json_t *o = json_object();
    copy(ok, o, column, "name");
    put(ok, o, "task", json_string(classes ? "classification" : "regression"));
    return o;
}

json_t *bp_table_profile(const char *description)
{
    static const char *const copied[] = {"format", "delimiter", "header", "compressed", "rows", "test_rows"};
    json_t *d = json_loads(description, 0, NULL), *o = json_object(), *list = json_array();
    bool ok = d != NULL;
    const json_t *columns = json_object_get(d, "columns");
    json_int_t rows = json_integer_value(json_object_get(d, "rows"));
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        copy(&ok, o, d, copied[i]);
    json_t *filename = json_object_get(json_array_get(json_object_get(d, "parts"), 0), "filename");
    put(&ok, o, "filename", filename ? json_incref(filename) : json_string(""));
    copy(&ok, o, d, "parts");
    for (size_t i = 0; i < json_array_size(columns); i++)
        if (json_array_append_new(list, column_json(json_array_get(columns, i), rows, &ok)) != 0)
            ok = false;
    put(&ok, o, "columns", list);
    put(&ok, o, "target_guess", target_json(columns, &ok));
    copy(&ok, o, d, "warnings");
    json_decref(d);
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}
