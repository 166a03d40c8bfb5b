/* ingest_column.c: figures of a column while its fields go by, and what they make of it in the end. */
#include "data/ingest.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bp_status bp_ingest_columns(struct bp_ingest *ingest, int n, struct bp_error *err)
{
    ingest->columns = calloc((size_t)n, sizeof *ingest->columns);
    if (!ingest->columns)
        return bp_fail(err, BP_NOMEM, "no memory for %d columns", n);
    ingest->ncolumns = n;
    for (int i = 0; i < n; i++) {
        struct bp_ingest_column *c = &ingest->columns[i];
        c->count = 1;
        c->type = BP_F32; /* a reader of bytes says BP_U8; bp_ingest_settle has the last word */
        c->integral = c->exact_f32 = true;
        c->min = INFINITY;
        c->max = -INFINITY;
    }
    return BP_OK;
}

void bp_ingest_done(struct bp_ingest *ingest)
{
    for (int i = 0; i < ingest->ncolumns; i++) {
        free(ingest->columns[i].name);
        bp_number_set_done(&ingest->columns[i].values);
        bp_level_set_done(&ingest->columns[i].levels);
    }
    free(ingest->columns);
    ingest->columns = NULL;
    ingest->ncolumns = 0;
    json_decref(ingest->warnings);
    ingest->warnings = NULL;
}

void bp_ingest_warn(struct bp_ingest *ingest, const char *code, const char *column, const char *format, ...)
{
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    if (!ingest->warnings)
        ingest->warnings = json_array();
    json_t *entry =
        json_pack("{s:s, s:s, s:s#}", "code", code, "column", column, "detail", detail, (int)strlen(detail));
    if (!entry || json_array_append_new(ingest->warnings, entry) != 0)
        ingest->warning_lost = true;
}

bp_status bp_ingest_number(struct bp_ingest *ingest, struct bp_ingest_column *c, double v, struct bp_error *err)
{
    c->numbers++;
    c->sum += v;
    if (bp_number_set_again(&c->values, v))
        return BP_OK; /* all else was seen at its first time */
    c->min = v < c->min ? v : c->min;
    c->max = v > c->max ? v : c->max;
    if (c->integral && (fabs(v) >= 0x1p53 ? false : (double)(int64_t)v != v))
        c->integral = false;
    if (c->exact_f32 && (fabs(v) > FLT_MAX || (double)(float)v != v))
        c->exact_f32 = false;
    return c->values.full ? BP_OK : bp_number_set_add(&c->values, v, &ingest->budget, err);
}

/* Rows are divided by at least two for a level to be learned from; two levels are always fine (yes and no). */
static bool too_many_levels(const struct bp_ingest *ingest, const struct bp_ingest_column *c)
{
    int64_t most = ingest->rows / 2 < BP_DISTINCT_MAX ? ingest->rows / 2 : BP_DISTINCT_MAX;
    return c->levels.full || c->levels.n > (most < 2 ? 2 : most);
}

static void settle_kind(struct bp_ingest *ingest, int index, struct bp_ingest_column *c)
{
    bp_number_set_sort(&c->values);
    if (c->texts == 0 && c->numbers > 0) {
        c->kind = BP_COLUMN_NUMBER;
        if (c->type != BP_U8)
            c->type = c->exact_f32 ? BP_F32 : BP_F64;
        return;
    }
    bool text = c->texts == 0 || too_many_levels(ingest, c);
    c->kind = text ? BP_COLUMN_TEXT : BP_COLUMN_CATEGORY;
    c->type = BP_I32;
    if (c->texts == 0)
        bp_ingest_warn(ingest, "empty_column", c->name, "column %d '%s' has no values and is left out", index + 1,
                       c->name);
    else if (c->numbers > 9 * c->texts)
        bp_ingest_warn(ingest, "mixed_column", c->name,
                       "line %lld, column %d '%s': '%s' is not a number, so the column is read as %s",
                       (long long)c->odd_line, index + 1, c->name, c->odd_text,
                       text ? "text and left out" : "a category");
    else if (text)
        bp_ingest_warn(ingest, "text_column", c->name,
                       "column %d '%s' is text with too many different values for a category, and is left out",
                       index + 1, c->name);
    if (!text)
        bp_level_set_sort(&c->levels);
}

bp_status bp_ingest_lay_out(struct bp_ingest *ingest, struct bp_error *err)
{
    /* widest first, so that each stands aligned without gaps */
    static const size_t widths[] = {8, 4, 1};
    size_t at = 0, widest = 1;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
        for (int i = 0; i < ingest->ncolumns; i++) {
            struct bp_ingest_column *c = &ingest->columns[i];
            if (c->kind == BP_COLUMN_TEXT || bp_column_size(c->type) != widths[w])
                continue;
            c->offset = at;
            at += widths[w] * (size_t)c->count;
            widest = widths[w] > widest ? widths[w] : widest;
        }
    if (at == 0)
        return bp_fail_at(err, BP_INVALID, "no_columns", "no column is of use: none holds numbers or categories");
    ingest->stride = (at + widest - 1) / widest * widest;
    return BP_OK;
}

bp_status bp_ingest_settle(struct bp_ingest *ingest, struct bp_error *err)
{
    for (int i = 0; i < ingest->ncolumns; i++)
        settle_kind(ingest, i, &ingest->columns[i]);
    return bp_ingest_lay_out(ingest, err);
}
