/* describe.c: the description of a dataset: the JSON that is stored beside the table and without which the table is
 * bytes. table.c reads it back; profile.c shapes it for people. */
#include "data/ingest.h"

#include <math.h>

/* Adds a value to an object, taking it; a failed allocation anywhere makes *ok false. */
static void put(bool *ok, json_t *object, const char *key, json_t *value)
{
    if (!value || json_object_set_new(object, key, value) != 0)
        *ok = false;
}

static void append(bool *ok, json_t *array, json_t *value)
{
    if (!value || json_array_append_new(array, value) != 0)
        *ok = false;
}

static json_t *shape_json(const struct bp_ingest_column *c, bool *ok)
{
    json_t *shape = json_array();
    for (int i = 0; i < c->rank; i++)
        append(ok, shape, json_integer(c->dim[i]));
    return shape;
}

static void put_number(bool *ok, json_t *o, const struct bp_ingest_column *c)
{
    put(ok, o, "integral", json_boolean(c->numbers > 0 && c->integral));
    put(ok, o, "distinct", json_integer(c->values.full ? -1 : c->values.n));
    if (c->numbers > 0) {
        put(ok, o, "min", json_real(c->min));
        put(ok, o, "max", json_real(c->max));
        if (isfinite(c->sum)) /* numbers near the largest double may have none */
            put(ok, o, "mean", json_real(c->sum / (double)c->numbers));
    }
    if (c->values.full || c->values.n == 0)
        return;
    json_t *values = json_array(), *counts = json_array();
    for (int i = 0; i < c->values.n; i++) {
        append(ok, values, json_real(c->values.values[i]));
        append(ok, counts, json_integer(c->values.counts[i]));
    }
    put(ok, o, "values", values);
    put(ok, o, "counts", counts);
}

static void put_levels(bool *ok, json_t *o, const struct bp_ingest_column *c)
{
    put(ok, o, "distinct", json_integer(c->levels.full ? -1 : c->levels.n));
    if (c->kind != BP_COLUMN_CATEGORY)
        return;
    json_t *levels = json_array(), *counts = json_array();
    for (int i = 0; i < c->levels.n; i++) {
        append(ok, levels, json_stringn(c->levels.levels[i].text, c->levels.levels[i].size));
        append(ok, counts, json_integer(c->levels.levels[i].count));
    }
    put(ok, o, "levels", levels);
    put(ok, o, "counts", counts);
}

static json_t *column_json(const struct bp_ingest_column *c, bool *ok)
{
    static const char *const kinds[] = {"number", "category", "text"};
    static const char *const types[] = {[BP_U8] = "u8", [BP_I32] = "i32", [BP_F32] = "f32", [BP_F64] = "f64"};
    json_t *o = json_object();
    put(ok, o, "name", json_string(c->name));
    put(ok, o, "kind", json_string(kinds[c->kind]));
    put(ok, o, "type", json_string(types[c->type]));
    put(ok, o, "offset", json_integer((json_int_t)c->offset));
    put(ok, o, "count", json_integer(c->count));
    put(ok, o, "shape", shape_json(c, ok));
    put(ok, o, "missing", json_integer(c->missing));
    if (c->kind == BP_COLUMN_NUMBER)
        put_number(ok, o, c);
    else
        put_levels(ok, o, c);
    return o;
}

static json_t *parts_json(const struct bp_ingest *ingest, bool *ok)
{
    json_t *parts = json_array();
    for (int i = 0; i < ingest->nparts; i++) {
        const struct bp_import_part *part = &ingest->parts[i];
        json_t *filename = json_string(part->filename ? part->filename : "");
        json_t *o = json_object();
        put(ok, o, "role", json_string(part->role));
        put(ok, o, "sha256", json_string(ingest->sha256[i]));
        put(ok, o, "bytes", json_integer(part->bytes));
        put(ok, o, "filename", filename ? filename : json_string("")); /* a name that is not UTF-8 is no loss */
        put(ok, o, "compressed", json_boolean(ingest->compressed[i]));
        append(ok, parts, o);
    }
    return parts;
}

json_t *bp_ingest_describe(const struct bp_ingest *ingest)
{
    bool ok = !ingest->warning_lost, csv = ingest->format == BP_FORMAT_CSV;
    json_t *o = json_object(), *columns = json_array();
    put(&ok, o, "version", json_integer(BP_TABLE_VERSION));
    put(&ok, o, "format", json_string(csv ? "csv" : "idx"));
    if (csv) {
        put(&ok, o, "delimiter", json_stringn(&ingest->delimiter, 1));
        put(&ok, o, "header", json_boolean(ingest->header));
    }
    put(&ok, o, "compressed", json_boolean(ingest->compressed[0]));
    put(&ok, o, "rows", json_integer(ingest->rows));
    put(&ok, o, "test_rows", json_integer(ingest->test_rows));
    put(&ok, o, "stride", json_integer((json_int_t)ingest->stride));
    put(&ok, o, "parts", parts_json(ingest, &ok));
    for (int i = 0; i < ingest->ncolumns; i++)
        append(&ok, columns, column_json(&ingest->columns[i], &ok));
    put(&ok, o, "columns", columns);
    put(&ok, o, "warnings", ingest->warnings ? json_incref(ingest->warnings) : json_array());
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}
