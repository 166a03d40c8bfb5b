/* ingest_csv.c: a CSV becomes a table: a pass over its rows finds types, levels and figures, and writes them in the layout
 * that the first rows suggest; where the file contradicts those, a second pass writes the rows.
 *
 * A column all of whose present fields are numbers is a number column; any other is a category, or text where it has
 * too many levels. Spaces around a field do not count. When a column shows numbers first and a text later, the levels
 * that went by are collected in a further pass over just those columns.
 */
#include "data/csv.h"
#include "data/ingest_guess.h"
#include "data/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_ROWS 4096        /* the layout is guessed from so many rows */
#define SAMPLE_FIELDS (1 << 20) /* or from fewer, where they are wide */

/* A field without the spaces around it; false: it is missing. */
static inline __attribute__((always_inline)) bool present(const struct bp_csv_field *field, const char **ret_text,
                                                          size_t *ret_size)
{
    *ret_text = field->text;
    *ret_size = field->size;
    if (field->size == 0)
        return false;
    char last = field->text[field->size - 1], first = *field->text;
    if (first == ' ' || first == '\t' || last == ' ' || last == '\t')
        bp_text_trim(ret_text, ret_size);
    return *ret_size > 4 || !bp_text_missing(*ret_text, *ret_size);
}

static bp_status add_text(struct bp_ingest *ingest, struct bp_ingest_column *c, const char *text, size_t size,
                          int64_t line, struct bp_error *err)
{
    if (c->texts++ == 0) {
        c->mixed = c->numbers > 0;
        c->odd_line = line;
        char quote[BP_CSV_QUOTE];
        snprintf(c->odd_text, sizeof c->odd_text, "%s", bp_csv_quote(text, size, quote));
    }
    return c->mixed ? BP_OK : bp_level_set_add(&c->levels, text, size, &ingest->budget, err);
}

/* *ret_v is untouched where there is no number. */
static inline __attribute__((always_inline)) bp_status scan_field(struct bp_ingest *ingest,
                                                                  struct bp_ingest_column *c,
                                                                  const struct bp_csv_field *field, int64_t line,
                                                                  bool *ret_present, double *ret_v,
                                                                  struct bp_error *err)
{
    const char *text = field->text;
    size_t size = field->size;
    double v;
    *ret_present = true;
    /* Most fields are numbers as they stand: those are neither missing nor in need of trimming. */
    if ((unsigned char)*text > '9' || !bp_number_short(text, size, &v)) {
        if (!present(field, &text, &size)) {
            *ret_present = false;
            c->missing++;
            return BP_OK;
        }
        if (!bp_number_parse(text, size, &v))
            return add_text(ingest, c, text, size, line, err);
    }
    *ret_v = v;
    bp_status status = bp_ingest_number(ingest, c, v, err);
    if (status == BP_OK && c->texts > 0 && !c->mixed)
        status = bp_level_set_add(&c->levels, text, size, &ingest->budget, err);
    return status;
}

/* --- names ---------------------------------------------------------------------------------------------------------- */

struct named {
    const char *name;
    int index;
};

static int compare_names(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : x->index - y->index;
}

static bp_status check_unique(const struct bp_ingest *ingest, struct bp_error *err)
{
    bp_status status = BP_OK;
    struct named *names = malloc((size_t)ingest->ncolumns * sizeof *names);
    if (!names)
        return bp_fail(err, BP_NOMEM, "no memory for %d names", ingest->ncolumns);
    for (int i = 0; i < ingest->ncolumns; i++)
        names[i] = (struct named){ingest->columns[i].name, i};
    qsort(names, (size_t)ingest->ncolumns, sizeof *names, compare_names);
    for (int i = 1; i < ingest->ncolumns && status == BP_OK; i++)
        if (strcmp(names[i - 1].name, names[i].name) == 0)
            status = bp_fail_at(err, BP_INVALID, "duplicate_column",
                                "columns %d and %d of the header have the same name '%s'", names[i - 1].index + 1,
                                names[i].index + 1, names[i].name);
    free(names);
    return status;
}

/* Names from the header, the current row of csv, or column_1, column_2, … */
static bp_status name_columns(struct bp_ingest *ingest, const struct bp_csv *csv, struct bp_error *err)
{
    int unnamed = 0;
    for (int i = 0; i < ingest->ncolumns; i++) {
        char made[32];
        snprintf(made, sizeof made, "column_%d", i + 1);
        const char *text = made;
        size_t size = strlen(made);
        if (ingest->header) {
            text = csv->fields[i].text;
            size = csv->fields[i].size;
            bp_text_trim(&text, &size);
        }
        if (size == 0 && unnamed)
            return bp_fail_at(err, BP_INVALID, "empty_column_name", "columns %d and %d of the header have no name",
                              unnamed, i + 1);
        if (size == 0)
            unnamed = i + 1;
        if (size > BP_NAME_BYTES_MAX)
            return bp_fail_at(err, BP_LIMIT, "column_name_too_long", "the name of column %d is longer than %d bytes",
                              i + 1, BP_NAME_BYTES_MAX);
        if (!(ingest->columns[i].name = strndup(text, size)))
            return bp_fail(err, BP_NOMEM, "no memory for the name of column %d", i + 1);
    }
    if (unnamed)
        return bp_fail_at(err, BP_INVALID, "empty_column_name", "column %d of the header has no name", unnamed);
    return check_unique(ingest, err);
}

/* --- passes --------------------------------------------------------------------------------------------------------- */

typedef bp_status visit_row(struct bp_ingest *ingest, const struct bp_csv *csv, void *ctx, struct bp_error *err);

/* Runs over all rows but the header, at most `limit`. In the first pass (no columns yet) the first row makes the
 * columns. */
static bp_status each_row(struct bp_ingest *ingest, struct bp_stream *in, int64_t limit, visit_row *visit, void *ctx,
                          int64_t *ret_rows, struct bp_error *err)
{
    struct bp_csv csv = {0};
    bool row, first = true;
    int64_t rows = 0;
    bp_status status;
    if ((status = bp_stream_rewind(in, err)) != BP_OK ||
        (status = bp_csv_init(&csv, in, ingest->delimiter, err)) != BP_OK)
        goto out;
    while (rows < limit && (status = bp_csv_next(&csv, &row, err)) == BP_OK && row) {
        if (first && ingest->ncolumns == 0 &&
            ((status = bp_ingest_columns(ingest, csv.nfields, err)) != BP_OK ||
             (status = name_columns(ingest, &csv, err)) != BP_OK))
            goto out;
        if (first && ingest->header) {
            first = false;
            continue;
        }
        first = false;
        if ((status = bp_csv_expect(&csv, ingest->ncolumns, err)) != BP_OK)
            goto out;
        if (rows == BP_ROWS_MAX) {
            status = bp_fail_at(err, BP_LIMIT, "too_many_rows", "the file has more than %lld rows",
                                (long long)BP_ROWS_MAX);
            goto out;
        }
        if ((status = visit(ingest, &csv, ctx, err)) != BP_OK)
            goto out;
        rows++;
    }
    if (status == BP_OK)
        *ret_rows = rows;
out:
    bp_csv_done(&csv);
    return status;
}

/* What the fields of a column add up to that are known to be small integers, beside the column itself: files of pixels
 * have a thousand columns, and these are what the cache can hold of them. */
struct tiny {
    uint8_t *small; /* the small integers of the column's set; NULL: each field is looked at */
    int64_t sum;    /* not yet in the column's own */
    uint32_t n;     /* the same */
    int32_t at;     /* where the guess has the column as a float in its row; -1: the guess is to be asked */
};

struct scan {
    struct bp_guess *guess;
    struct tiny *tiny; /* of each column */
};

/* While all numbers of a column are integers their sum is exact, and may be taken in any order. */
static void take_tiny(struct tiny *t, struct bp_ingest_column *c)
{
    c->numbers += t->n;
    c->sum += (double)t->sum;
    t->n = 0;
    t->sum = 0;
}

/* A field that the column has not seen as a small integer. */
static bp_status scan_other(struct bp_ingest *ingest, const struct bp_csv *csv, struct scan *scan, int i,
                            struct bp_error *err)
{
    struct bp_ingest_column *c = &ingest->columns[i];
    struct bp_guess *guess = scan->guess;
    struct tiny *t = &scan->tiny[i];
    bool there;
    double v = NAN;
    take_tiny(t, c);
    bp_status status = scan_field(ingest, c, &csv->fields[i], csv->line, &there, &v, err);
    if (status != BP_OK)
        return status;
    t->small = c->texts == 0 && c->integral ? c->values.small : NULL;
    if (guess->holds)
        bp_guess_put(&guess->columns[i], c, there, v, guess->row);
    return BP_OK;
}

static bp_status make_tiny(struct scan *scan, int ncolumns, struct bp_error *err)
{
    const struct bp_guess *guess = scan->guess;
    scan->tiny = calloc((size_t)ncolumns, sizeof *scan->tiny);
    if (!scan->tiny)
        return bp_fail(err, BP_NOMEM, "no memory for %d columns", ncolumns);
    for (int i = 0; i < ncolumns; i++) {
        const struct bp_guess_column *g = guess->holds ? &guess->columns[i] : NULL;
        bool single = g && g->kind == BP_COLUMN_NUMBER && g->type == BP_F32;
        scan->tiny[i].at = single ? (int32_t)g->offset : -1; /* fits: columns are limited */
    }
    return BP_OK;
}

static bp_status scan_row(struct bp_ingest *ingest, const struct bp_csv *csv, void *ctx, struct bp_error *err)
{
    struct scan *scan = ctx;
    struct bp_guess *guess = scan->guess;
    bp_status status;
    if (!scan->tiny && (status = make_tiny(scan, ingest->ncolumns, err)) != BP_OK)
        return status;
    /* in registers: bytes are written that could, to the compiler, be anything */
    const struct bp_csv_field *field = csv->fields, *end = field + ingest->ncolumns;
    uint8_t *row = guess->row;
    for (struct tiny *t = scan->tiny; field < end; field++, t++) {
        int v = t->small ? bp_number_tiny(field->text, field->size) : -1;
        if ((unsigned)v >= BP_SMALL || !bp_small_again(t->small, (unsigned)v)) {
            if ((status = scan_other(ingest, csv, scan, (int)(field - csv->fields), err)) != BP_OK)
                return status;
            continue;
        }
        t->sum += v;
        t->n++;
        float f = (float)v;
        if (t->at >= 0)
            memcpy(row + t->at, &f, sizeof f);
        else if (guess->holds)
            bp_guess_put(&guess->columns[field - csv->fields], &ingest->columns[field - csv->fields], true, v, row);
    }
    if (guess->holds)
        bp_guess_put_row(guess, ingest);
    return BP_OK;
}

/* The scan of all rows, or of the first ones. */
static bp_status scan_rows(struct bp_ingest *ingest, struct bp_stream *in, int64_t limit, struct bp_guess *guess,
                           struct bp_error *err)
{
    struct scan scan = {.guess = guess};
    bp_status status = each_row(ingest, in, limit, scan_row, &scan, &ingest->rows, err);
    for (int i = 0; scan.tiny && i < ingest->ncolumns; i++)
        take_tiny(&scan.tiny[i], &ingest->columns[i]);
    free(scan.tiny);
    return status;
}

/* Collects the levels of the columns that turned out to be mixed. */
static bp_status scan_mixed(struct bp_ingest *ingest, const struct bp_csv *csv, void *ctx, struct bp_error *err)
{
    (void)ctx;
    for (int i = 0; i < ingest->ncolumns; i++) {
        struct bp_ingest_column *c = &ingest->columns[i];
        const char *text;
        size_t size;
        if (!c->mixed || !present(&csv->fields[i], &text, &size))
            continue;
        bp_status status = bp_level_set_add(&c->levels, text, size, &ingest->budget, err);
        if (status != BP_OK)
            return status;
    }
    return BP_OK;
}

static bool any_mixed(const struct bp_ingest *ingest)
{
    bool mixed = false;
    for (int i = 0; i < ingest->ncolumns; i++)
        mixed = mixed || ingest->columns[i].mixed;
    return mixed;
}

/* A guess from the first rows; none where they are faulty (the scan will say so), or too few to be divided. */
static void guess_layout(const struct bp_ingest *ingest, struct bp_stream *in, struct bp_writer *writer,
                         struct bp_guess *guess)
{
    struct bp_ingest sample = {.options = ingest->options,
                               .budget = BP_MEMBERS_MAX,
                               .delimiter = ingest->delimiter,
                               .header = ingest->header};
    struct bp_guess none = {0};
    if (scan_rows(&sample, in, 1, &none, NULL) != BP_OK || sample.ncolumns == 0)
        goto out;
    int64_t limit = SAMPLE_FIELDS / sample.ncolumns;
    bp_ingest_done(&sample);
    sample.budget = BP_MEMBERS_MAX;
    if (scan_rows(&sample, in, limit < SAMPLE_ROWS ? limit : SAMPLE_ROWS, &none, NULL) == BP_OK &&
        !any_mixed(&sample) && bp_ingest_settle(&sample, NULL) == BP_OK)
        bp_guess_init(guess, &sample, writer);
out:
    bp_ingest_done(&sample);
}

static bp_status scan_stream(struct bp_ingest *ingest, struct bp_stream *in, struct bp_guess *guess,
                             struct bp_error *err)
{
    bp_status status = scan_rows(ingest, in, INT64_MAX, guess, err);
    if (status != BP_OK)
        return status;
    if (ingest->rows == 0)
        return bp_fail_at(err, BP_INVALID, "empty_dataset", "the file has no rows%s",
                          ingest->header ? " below its header" : "");
    int64_t rows;
    return any_mixed(ingest) ? each_row(ingest, in, INT64_MAX, scan_mixed, NULL, &rows, err) : BP_OK;
}

bp_status bp_ingest_csv_scan(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err)
{
    struct bp_stream *in = NULL;
    struct bp_guess guess = {0};
    struct bp_csv_dialect dialect;
    bp_status status;
    if ((status = bp_ingest_open(ingest, 0, &in, err)) != BP_OK ||
        (status = bp_csv_sniff(in, ingest->options->delimiter, ingest->options->header, &dialect, err)) != BP_OK)
        goto out;
    ingest->compressed[0] = bp_stream_compressed(in);
    ingest->delimiter = dialect.delimiter;
    ingest->header = dialect.header;
    guess_layout(ingest, in, writer, &guess);
    if ((status = scan_stream(ingest, in, &guess, err)) != BP_OK)
        goto out;
    if (!ingest->header && dialect.header_found)
        bp_ingest_warn(ingest, "no_header", "",
                       "the first row was taken for data, and the columns are called column_1, column_2, …; "
                       "?header=true makes it names");
    status = bp_ingest_settle(ingest, err);
    ingest->written = status == BP_OK && bp_guess_right(&guess, ingest);
out:
    bp_guess_done(&guess);
    bp_stream_close(in);
    return status;
}

/* --- rows ----------------------------------------------------------------------------------------------------------- */

struct row_writer {
    struct bp_writer *writer;
    uint8_t *row;
};

static bp_status changed(struct bp_error *err)
{
    return bp_fail(err, BP_INTERNAL, "the uploaded file changed while it was read");
}

static bp_status store_field(const struct bp_ingest_column *c, const struct bp_csv_field *field, uint8_t *row,
                             struct bp_error *err)
{
    const char *text;
    size_t size;
    bool there = present(field, &text, &size);
    if (c->kind == BP_COLUMN_CATEGORY) {
        int32_t code = there ? bp_level_set_find(&c->levels, text, size) : -1;
        if (there && code < 0)
            return changed(err);
        memcpy(row + c->offset, &code, sizeof code);
        return BP_OK;
    }
    double v = NAN;
    if (there && !bp_number_parse(text, size, &v))
        return changed(err);
    if (c->type == BP_F64) {
        memcpy(row + c->offset, &v, sizeof v);
    } else {
        float f = (float)v;
        memcpy(row + c->offset, &f, sizeof f);
    }
    return BP_OK;
}

static bp_status write_row(struct bp_ingest *ingest, const struct bp_csv *csv, void *ctx, struct bp_error *err)
{
    struct row_writer *w = ctx;
    for (int i = 0; i < ingest->ncolumns; i++) {
        bp_status status;
        if (ingest->columns[i].kind != BP_COLUMN_TEXT &&
            (status = store_field(&ingest->columns[i], &csv->fields[i], w->row, err)) != BP_OK)
            return status;
    }
    return bp_writer_put(w->writer, w->row, ingest->stride, err);
}

bp_status bp_ingest_csv_write(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err)
{
    struct bp_stream *in = NULL;
    struct row_writer w = {.writer = writer, .row = calloc(1, ingest->stride)};
    int64_t rows;
    bp_status status;
    if (!w.row) {
        status = bp_fail(err, BP_NOMEM, "no memory for a row");
        goto out;
    }
    if ((status = bp_ingest_open(ingest, 0, &in, err)) != BP_OK ||
        (status = each_row(ingest, in, INT64_MAX, write_row, &w, &rows, err)) != BP_OK)
        goto out;
    if (rows != ingest->rows)
        status = changed(err);
out:
    bp_stream_close(in);
    free(w.row);
    return status;
}
