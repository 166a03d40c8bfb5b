/* import_rows.c: the first rows of a dataset as they were read, from the raw files and not from the table, so that
 * what the table left out (text) is there to be seen. */
#include "data/csv.h"
#include "data/ingest.h"
#include "data/number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values of all rows together: as JSON each takes some 100 bytes of memory, and a row may have millions. */
#define SHOWN_MAX (1 << 20)

static bp_status no_memory(struct bp_error *err)
{
    return bp_fail(err, BP_NOMEM, "no memory for the rows");
}

static json_t *number_json(double v)
{
    if (!isfinite(v))
        return json_null();
    if (v == floor(v) && fabs(v) < 0x1p53)
        return json_integer((json_int_t)v);
    return json_real(v);
}

/* Lowers *limit to the rows of so many values that are shown. */
static bp_status bound_rows(int64_t values, int *limit, struct bp_error *err)
{
    if (values > SHOWN_MAX)
        return bp_fail(err, BP_LIMIT, "a row has %lld values: rows of more than %d are not shown", (long long)values,
                       SHOWN_MAX);
    int most = (int)(SHOWN_MAX / (values > 0 ? values : 1));
    *limit = *limit < most ? *limit : most;
    return BP_OK;
}

static bool is_word(const json_t *o, const char *key, const char *word)
{
    const char *value = json_string_value(json_object_get(o, key));
    return value && strcmp(value, word) == 0;
}

/* The file of a part of the description. */
static bp_status open_part(const char *dir, const json_t *part, struct bp_stream **ret, struct bp_error *err)
{
    /* the file was accepted before: it may unfold again to what it did */
    static const struct bp_stream_config config = {.max_unfolded = INT64_MAX};
    const char *sha256 = json_string_value(json_object_get(part, "sha256"));
    char path[BP_FILES_PATH];
    if (!sha256 || !bp_files_is_hash(sha256))
        return bp_fail(err, BP_CORRUPT, "the description of the dataset is damaged");
    bp_status status = bp_files_path(path, dir, "raw", sha256, "", err);
    return status == BP_OK ? bp_stream_open(path, &config, ret, err) : status;
}

/* --- CSV ------------------------------------------------------------------------------------------------------------ */

static json_t *field_json(const json_t *column, const struct bp_csv_field *field)
{
    const char *text = field->text;
    size_t size = field->size;
    double v;
    bp_text_trim(&text, &size);
    if (bp_text_missing(text, size))
        return json_null();
    if (is_word(column, "kind", "number") && bp_number_parse(text, size, &v))
        return number_json(v);
    return json_stringn(text, size);
}

static bp_status csv_row(const struct bp_csv *csv, const json_t *columns, json_t *rows, struct bp_error *err)
{
    bp_status status = bp_csv_expect(csv, (int)json_array_size(columns), err);
    if (status != BP_OK)
        return status;
    json_t *row = json_object();
    for (int i = 0; i < csv->nfields; i++) {
        const json_t *column = json_array_get(columns, (size_t)i);
        const char *name = json_string_value(json_object_get(column, "name"));
        if (!name || json_object_set_new(row, name, field_json(column, &csv->fields[i])) != 0) {
            json_decref(row);
            return no_memory(err);
        }
    }
    return json_array_append_new(rows, row) == 0 ? BP_OK : no_memory(err);
}

static bp_status csv_rows(const char *dir, const json_t *d, int limit, json_t *rows, struct bp_error *err)
{
    const char *delimiter = json_string_value(json_object_get(d, "delimiter"));
    bool header = json_is_true(json_object_get(d, "header")), more = true;
    struct bp_stream *in = NULL;
    struct bp_csv csv = {0};
    bp_status status = bound_rows((int64_t)json_array_size(json_object_get(d, "columns")), &limit, err);
    if (status == BP_OK)
        status = open_part(dir, json_array_get(json_object_get(d, "parts"), 0), &in, err);
    if (status == BP_OK)
        status = bp_csv_init(&csv, in, delimiter ? *delimiter : ',', err);
    for (int i = -(int)header; status == BP_OK && i < limit; i++) {
        if ((status = bp_csv_next(&csv, &more, err)) != BP_OK || !more)
            break;
        if (i >= 0)
            status = csv_row(&csv, json_object_get(d, "columns"), rows, err);
    }
    bp_csv_done(&csv);
    bp_stream_close(in);
    return status;
}

/* --- IDX ------------------------------------------------------------------------------------------------------------ */

/* Values in the nested shape of a row; `at` runs on. Depth is at most 3. */
static json_t *nested(const struct bp_idx *idx, int axis, const uint8_t **at)
{
    if (axis == idx->rank) {
        json_t *v = number_json(bp_idx_value(idx->type, *at));
        *at += idx->size;
        return v;
    }
    json_t *list = json_array();
    for (int64_t i = 0; i < idx->dim[axis]; i++)
        if (json_array_append_new(list, nested(idx, axis + 1, at)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* Adds the values of one part to the rows, which are made as needed; fewer than *limit where its rows are wide. */
static bp_status idx_part(const char *dir, const json_t *part, const char *name, int *limit, json_t *rows,
                          struct bp_error *err)
{
    struct bp_stream *in = NULL;
    struct bp_idx idx = {0};
    uint8_t *bytes = NULL;
    size_t got = 0, size = 0;
    bp_status status;
    if ((status = open_part(dir, part, &in, err)) != BP_OK ||
        (status = bp_idx_header(in, name, &idx, err)) != BP_OK ||
        (status = bound_rows(idx.elements, limit, err)) != BP_OK)
        goto out;
    size = (size_t)(idx.elements * idx.size);
    if (!(bytes = malloc(size))) {
        status = no_memory(err);
        goto out;
    }
    for (int i = 0; i < *limit && i < idx.rows; i++) {
        if ((status = bp_stream_read(in, bytes, size, &got, err)) != BP_OK)
            goto out;
        if (got < size) {
            status = bp_fail(err, BP_CORRUPT, "the raw file of the dataset is damaged");
            goto out;
        }
        if ((size_t)i == json_array_size(rows))
            json_array_append_new(rows, json_object());
        const uint8_t *at = bytes;
        if (json_object_set_new(json_array_get(rows, (size_t)i), name, nested(&idx, 0, &at)) != 0) {
            status = no_memory(err);
            goto out;
        }
    }
out:
    free(bytes);
    bp_stream_close(in);
    return status;
}

static bp_status idx_rows(const char *dir, const json_t *d, int limit, json_t *rows, struct bp_error *err)
{
    const json_t *parts = json_object_get(d, "parts");
    bp_status status = BP_OK;
    for (size_t i = 0; i < json_array_size(parts) && status == BP_OK; i++) {
        const json_t *part = json_array_get(parts, i);
        if (is_word(part, "role", "inputs") || is_word(part, "role", "data"))
            status = idx_part(dir, part, "inputs", &limit, rows, err);
        else if (is_word(part, "role", "targets"))
            status = idx_part(dir, part, "target", &limit, rows, err);
    }
    while (json_array_size(rows) > (size_t)limit) /* of a part that came before one with wider rows */
        json_array_remove(rows, json_array_size(rows) - 1);
    return status;
}

bp_status bp_import_rows(const char *dir, const char *sha256, const char *description, int limit, json_t **ret,
                         struct bp_error *err)
{
    (void)sha256; /* the parts are named by the description */
    json_t *d = json_loads(description, 0, NULL), *rows = json_array();
    bp_status status;
    if (!d)
        status = bp_fail(err, BP_CORRUPT, "the description of the dataset is damaged");
    else if (!rows)
        status = no_memory(err);
    else
        status =
            is_word(d, "format", "idx") ? idx_rows(dir, d, limit, rows, err) : csv_rows(dir, d, limit, rows, err);
    json_decref(d);
    if (status != BP_OK) {
        json_decref(rows);
        return status;
    }
    *ret = rows;
    return BP_OK;
}
