/* transform_rows_csv.c: rows from outside as CSV text with a header, read by the one CSV reader.
 *
 * The delimiter is the first of , ; tab | with which the header names columns of the dataset only; where there is
 * none, the comma, and the faults say which names are unknown. */
#include "data/csv.h"
#include "data/number.h"
#include "data/transform_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KNOWN_OTHER = -1, UNKNOWN = -2 };

/* Index of the feature that a header field names, KNOWN_OTHER or UNKNOWN. *name is terminated, in the reader's block. */
static int find_name(const struct bp_transform *t, struct bp_csv_field *field, const char **name)
{
    const char *text = field->text;
    size_t size = field->size;
    bp_text_trim(&text, &size);
    ((char *)text)[size] = 0;
    *name = text;
    int index = bp_transform_find(t, text);
    return index >= 0 ? index : json_object_get(t->others, text) ? KNOWN_OTHER : UNKNOWN;
}

/* How many fields of the first row are names that we know, and how many are not. */
static bp_status try_delimiter(const struct bp_transform *t, const char *text, size_t size, char delimiter,
                               int *ret_known, int *ret_unknown, struct bp_error *err)
{
    struct bp_stream *in = NULL;
    struct bp_csv csv = {0};
    bool row;
    const char *name;
    bp_status status;
    *ret_known = *ret_unknown = 0;
    if ((status = bp_stream_memory(text, size, &in, err)) != BP_OK ||
        (status = bp_csv_init(&csv, in, delimiter, err)) != BP_OK)
        goto out;
    if ((status = bp_csv_next(&csv, &row, err)) == BP_OK && row)
        for (int i = 0; i < csv.nfields; i++)
            ++*(find_name(t, &csv.fields[i], &name) == UNKNOWN ? ret_unknown : ret_known);
out:
    bp_csv_done(&csv);
    bp_stream_close(in);
    return status;
}

static bp_status find_delimiter(const struct bp_transform *t, const char *text, size_t size, char *ret,
                                struct bp_error *err)
{
    static const char candidates[] = {',', ';', '\t', '|'};
    for (size_t i = 0; i < sizeof candidates; i++) {
        int known, unknown;
        bp_status status = try_delimiter(t, text, size, candidates[i], &known, &unknown, err);
        if (status == BP_NOMEM)
            return status;
        if (status == BP_OK && known > 0 && unknown == 0) {
            *ret = candidates[i];
            return BP_OK;
        }
    }
    *ret = ',';
    return BP_OK;
}

/* Reads the header: for each field the feature that it feeds. */
static bp_status read_header(struct bp_encoder *e, struct bp_csv *csv, int **ret_map, int *ret_n,
                             struct bp_error *err)
{
    const struct bp_transform *t = e->t;
    int known = 0;
    int *map = malloc((size_t)csv->nfields * sizeof *map);
    uint8_t *there = calloc((size_t)t->nfeatures, 1);
    if (!map || !there) {
        free(map);
        free(there);
        return bp_fail(err, BP_NOMEM, "no memory for the header");
    }
    const char *name;
    for (int i = 0; i < csv->nfields; i++) {
        map[i] = find_name(t, &csv->fields[i], &name);
        known += map[i] != UNKNOWN;
    }
    if (known == 0)
        bp_problems_add(e->problems, "/rows", "no_header", NULL, NULL,
                        "the first line must name the columns, such as '%s'", t->features[0].name);
    for (int i = 0; i < csv->nfields && known > 0; i++) {
        char pointer[400] = "/rows/0";
        find_name(t, &csv->fields[i], &name);
        bp_pointer_append(pointer, sizeof pointer, name);
        if (map[i] == UNKNOWN)
            bp_encode_unknown(e, name, pointer);
        else if (map[i] >= 0 && there[map[i]]++)
            bp_problems_add(e->problems, pointer, "duplicate_column", NULL, NULL, "the header names '%s' twice",
                            name);
    }
    for (int i = 0; i < t->nfeatures && known > 0; i++) {
        char pointer[400] = "/rows/0";
        bp_pointer_append(pointer, sizeof pointer, t->features[i].name);
        if (t->features[i].count > 1)
            bp_problems_add(e->problems, pointer, "unsupported", NULL, NULL,
                            "'%s' is an array: send the rows as JSON", t->features[i].name);
        else if (!there[i])
            bp_problems_add(e->problems, pointer, "missing_column", NULL, NULL, "the header has no '%s'",
                            t->features[i].name);
    }
    free(there);
    *ret_map = map;
    *ret_n = csv->nfields;
    return BP_OK;
}

static void encode_row(struct bp_encoder *e, struct bp_csv *csv, const int *map, int n, size_t index, uint8_t *row)
{
    for (int i = 0; i < n; i++) {
        if (map[i] < 0)
            continue;
        const struct bp_transform_feature *f = &e->t->features[map[i]];
        const char *text = csv->fields[i].text;
        size_t size = csv->fields[i].size;
        char pointer[400];
        snprintf(pointer, sizeof pointer, "/rows/%zu", index);
        bp_pointer_append(pointer, sizeof pointer, f->name);
        bp_text_trim(&text, &size);
        ((char *)text)[size] = 0; /* a delimiter, a quote or a line end that was read already */
        if (bp_text_missing(text, size))
            bp_encode_missing(e, f, row, pointer);
        else
            bp_encode_text(e, f, row, text, pointer);
    }
}

/* Room for one more row in a block that grows by doubling, as far as the limits go. */
static bp_status grow(const struct bp_transform *t, uint8_t **rows, size_t n, size_t *capacity, struct bp_error *err)
{
    if (n < *capacity)
        return BP_OK;
    size_t larger = *capacity ? *capacity * 2 : 16;
    uint8_t *grown;
    size_t most = BP_TRANSFORM_BYTES_MAX / t->stride;
    most = most < BP_TRANSFORM_ROWS_MAX ? most : BP_TRANSFORM_ROWS_MAX;
    if (larger > most && n < most)
        larger = most;
    bp_status status = bp_encode_room(t, larger, &grown, err);
    if (status != BP_OK)
        return status;
    if (n)
        memcpy(grown, *rows, n * t->stride);
    free(*rows);
    *rows = grown;
    *capacity = larger;
    return BP_OK;
}

static bp_status read_rows(struct bp_encoder *e, struct bp_csv *csv, uint8_t **rows, size_t *n, struct bp_error *err)
{
    int *map = NULL, nfields = 0;
    size_t capacity = 0;
    bool more;
    bp_status status = bp_csv_next(csv, &more, err);
    if (status == BP_OK && more)
        status = read_header(e, csv, &map, &nfields, err);
    bool faulty = bp_problems_any(e->problems);
    while (status == BP_OK && more && map && !(faulty && *n == 0) && !bp_encode_enough(e)) {
        if ((status = bp_csv_next(csv, &more, err)) != BP_OK || !more ||
            (status = bp_csv_expect(csv, nfields, err)) != BP_OK ||
            (!faulty && (status = grow(e->t, rows, *n, &capacity, err)) != BP_OK))
            break;
        /* after the first fault rows are looked at and not kept */
        encode_row(e, csv, map, nfields, *n, faulty ? *rows : *rows + *n * e->t->stride);
        faulty = bp_problems_any(e->problems);
        ++*n;
    }
    free(map);
    return status;
}

bp_status bp_transform_rows_csv(const struct bp_transform *t, const char *text, size_t size,
                                struct bp_problems *problems, uint8_t **ret, int *ret_n, struct bp_error *err)
{
    struct bp_encoder e = {.t = t, .problems = problems};
    struct bp_stream *in = NULL;
    struct bp_csv csv = {0};
    struct bp_error local;
    struct bp_error *why = err ? err : &local;
    uint8_t *rows = NULL;
    size_t n = 0;
    char delimiter;
    bp_status status;
    if ((status = find_delimiter(t, text, size, &delimiter, err)) != BP_OK ||
        (status = bp_stream_memory(text, size, &in, err)) != BP_OK ||
        (status = bp_csv_init(&csv, in, delimiter, err)) != BP_OK)
        goto out;
    status = read_rows(&e, &csv, &rows, &n, why);
    if (status == BP_INVALID) { /* a fault of the CSV itself */
        bp_problems_add(problems, "/rows", why->where, NULL, NULL, "%s", why->message);
        status = BP_OK;
    }
    if (status == BP_OK && n == 0 && !bp_problems_any(problems))
        bp_problems_add(problems, "/rows", csv.newlines ? "empty" : "newlines_gone", NULL, NULL, "%s",
                        csv.newlines ? "there are no rows below the header"
                                     : "the text is one line: your newlines are gone: curl -d strips them; use "
                                       "--data-binary @file");
    if (status == BP_OK && !bp_problems_any(problems))
        bp_encode_windows(&e, n, "/rows");
    if (status == BP_OK)
        status = bp_encode_result(&e, err);
    if (status == BP_OK) {
        *ret = rows;
        *ret_n = (int)(t->sequence.steps > 0 ? n / (size_t)t->sequence.steps : n);
        rows = NULL;
    }
out:
    free(rows);
    bp_csv_done(&csv);
    bp_stream_close(in);
    return status;
}
