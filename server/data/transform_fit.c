/* transform_fit.c: the figures of a transform, from the training rows: one pass in ascending order, in double, so that
 * the same rows give the same bits. Medians take one more pass and a column of doubles each. */
#include "data/transform_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Welford's running mean and sum of squared deviations. */
struct figures {
    const struct bp_table_column *column; /* NULL: nothing to find out */
    uint64_t n;
    double mean, m2, min, max;
};

static inline void see(struct figures *g, double v)
{
    g->n++;
    double delta = v - g->mean;
    g->mean += delta / (double)g->n;
    g->m2 += delta * (v - g->mean);
    g->min = v < g->min ? v : g->min;
    g->max = v > g->max ? v : g->max;
}

static void scan(struct figures *figures, int n, const struct bp_table *table, const struct bp_split *split)
{
    for (uint64_t r = 0; r < split->count[BP_TRAIN]; r++) {
        const uint8_t *row = table->rows + (size_t)split->rows[BP_TRAIN][r] * table->stride;
        for (int i = 0; i < n; i++) {
            struct figures *g = &figures[i];
            for (int k = 0; g->column && k < g->column->count; k++) {
                double v = bp_column_load(g->column, row, k);
                if (!isnan(v))
                    see(g, v);
            }
        }
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bp_status find_median(const struct bp_table_column *c, const struct bp_table *table,
                             const struct bp_split *split, double *ret, struct bp_error *err)
{
    double *values = malloc((size_t)split->count[BP_TRAIN] * sizeof *values + 1);
    size_t n = 0;
    if (!values)
        return bp_fail(err, BP_NOMEM, "no memory for the median of column '%s'", c->name);
    for (uint64_t r = 0; r < split->count[BP_TRAIN]; r++) {
        double v = bp_column_load(c, table->rows + (size_t)split->rows[BP_TRAIN][r] * table->stride, 0);
        if (!isnan(v))
            values[n++] = v;
    }
    qsort(values, n, sizeof *values, compare_doubles);
    *ret = n == 0 ? 0 : n % 2 ? values[n / 2] : values[n / 2 - 1] / 2 + values[n / 2] / 2;
    free(values);
    return BP_OK;
}

static bp_status too_large(const char *name, struct bp_error *err)
{
    return bp_fail_at(err, BP_NONFINITE, name, "the values of column '%s' are too large to be scaled", name);
}

/* shift and scale of a number from its figures. */
static bp_status set_scale(struct bp_transform *t, struct bp_transform_feature *f, const struct figures *g,
                           struct bp_error *err)
{
    double width = 0;
    f->shift = 0;
    f->scale = 1;
    if (f->scaling == BP_SCALE_NONE)
        return BP_OK;
    if (f->scaling == BP_SCALE_UNIT) {
        f->scale = 1.0 / 255.0;
        return BP_OK;
    }
    if (g->n == 0) {
        bp_transform_warn(t, "empty_column", "/dataset/features", "column '%s' has no values in the training rows",
                          f->name);
        return BP_OK;
    }
    f->shift = f->scaling == BP_SCALE_STANDARD ? g->mean : g->min;
    width = f->scaling == BP_SCALE_STANDARD ? sqrt(g->m2 / (double)g->n) : g->max - g->min;
    if (!isfinite(width) || !isfinite(f->shift))
        return too_large(f->name, err);
    if (width == 0 || !isfinite(1 / width)) {
        bp_transform_warn(t, "constant_column", "/dataset/features",
                          "column '%s' has the same value in all training rows, and tells the network nothing",
                          f->name);
        return BP_OK;
    }
    f->scale = 1 / width;
    return BP_OK;
}

static bp_status fit_feature(struct bp_transform *t, struct bp_transform_feature *f, const struct figures *g,
                             const struct bp_table *table, const struct bp_split *split, struct bp_error *err)
{
    bp_status status = BP_OK;
    if (f->missing == BP_MISSING_MEAN)
        f->fill = g->n ? g->mean : 0;
    else if (f->missing == BP_MISSING_MEDIAN && g->column) /* bytes have no missing values to fill */
        status = find_median(g->column, table, split, &f->fill, err);
    if (status == BP_OK && !isfinite(f->fill))
        status = too_large(f->name, err);
    return status == BP_OK ? set_scale(t, f, g, err) : status;
}

static bp_status fit_target(struct bp_transform_target *target, const struct figures *g, struct bp_error *err)
{
    double deviation = g->n ? sqrt(g->m2 / (double)g->n) : 0;
    if (!isfinite(deviation) || !isfinite(g->mean))
        return too_large(target->name, err);
    target->shift = g->mean;
    target->scale = deviation > 0 && isfinite(1 / deviation) ? 1 / deviation : 1;
    return BP_OK;
}

/* Whether anything of a feature depends on the training rows. */
static bool needs_figures(const struct bp_transform_feature *f)
{
    bool scaled = f->scaling == BP_SCALE_STANDARD || f->scaling == BP_SCALE_MINMAX;
    return !f->category && (scaled || f->missing == BP_MISSING_MEDIAN || f->missing == BP_MISSING_MEAN);
}

/* The figures of all columns, from the training rows of a split. */
static bp_status fit_columns(struct bp_transform *t, const struct bp_table *table, const struct bp_split *split,
                             bool standardize_target, struct bp_error *err)
{
    int n = t->nfeatures + t->nheads;
    struct figures *figures = calloc((size_t)n, sizeof *figures);
    bp_status status = figures ? BP_OK : bp_fail(err, BP_NOMEM, "no memory to look at %d columns", n);
    for (int i = 0; i < n && status == BP_OK; i++) {
        bool feature = i < t->nfeatures;
        struct bp_transform_head *h = feature ? NULL : &t->heads[i - t->nfeatures];
        figures[i].min = INFINITY;
        figures[i].max = -INFINITY;
        if (feature && needs_figures(&t->features[i])) {
            const struct bp_table_column *c;
            status = bp_transform_column(table, t->features[i].name, NULL, t->features[i].count, &c, err);
            /* bytes that are only divided by 255 have no missing values to fill */
            if (status == BP_OK && !(c->type == BP_U8 && t->features[i].scaling >= BP_SCALE_UNIT))
                figures[i].column = c;
        } else if (!feature && standardize_target && !h->target.is_class && !h->target.inputs && !h->unscaled &&
                   h->target.ncolumns == 0) {
            status = bp_transform_column(table, h->target.name, NULL, h->target.outputs, &figures[i].column, err);
        }
    }
    if (status == BP_OK)
        scan(figures, n, table, split);
    for (int i = 0; i < t->nfeatures && status == BP_OK; i++)
        if (!t->features[i].category)
            status = fit_feature(t, &t->features[i], &figures[i], table, split, err);
    for (int i = 0; i < t->nheads && status == BP_OK; i++)
        if (figures[t->nfeatures + i].column)
            status = fit_target(&t->heads[i].target, &figures[t->nfeatures + i], err);
    free(figures);
    return status;
}

bp_status bp_transform_fit(struct bp_transform *t, const struct bp_table *table, const struct bp_split *split,
                           bool standardize_target, struct bp_error *err)
{
    bool windows = t->sequence.steps > 0; /* all of their rows count, each once */
    struct bp_split cover = {0};
    bp_status status = windows ? bp_transform_cover(t, table, split, &cover, err) : BP_OK;
    if (status == BP_OK)
        status = fit_columns(t, table, windows ? &cover : split, standardize_target, err);
    if (status == BP_OK)
        status = bp_transform_balance(t, table, split, err);
    t->fitted = status == BP_OK;
    free(cover.rows[BP_TRAIN]);
    return status;
}

/* --- for the split -------------------------------------------------------------------------------------------------- */

bp_status bp_transform_classes(const struct bp_transform *t, const struct bp_table *table, int32_t *ret,
                               struct bp_error *err)
{
    if (t->nheads < 1 || !t->heads[0].target.is_class)
        return bp_fail(err, BP_INVALID, "the target has no classes");
    struct bp_source source;
    bp_status status = bp_transform_bind(t, table, &source, err);
    if (status != BP_OK)
        return status;
    for (uint64_t r = 0; r < table->nrows; r++) {
        uint32_t row = (uint32_t)r;
        bp_source_gather_labels(&source, 0, &row, 1, &ret[r]);
    }
    bp_transform_source_done(&source);
    return BP_OK;
}

static void exclude_missing(const struct bp_table *table, const struct bp_table_column *c, uint8_t *ret)
{
    if (c->missing == 0)
        return;
    for (uint64_t r = 0; r < table->nrows; r++)
        for (int k = 0; k < c->count && !ret[r]; k++)
            ret[r] = isnan(bp_column_load(c, table->rows + r * table->stride, k));
}

/* A target that is missing, or no class of ours (another dataset may have such). */
static void exclude_targets(const struct bp_source *source, int head, uint8_t *ret)
{
    const struct bp_target *target = &source->targets[head];
    struct bp_table_column c = {.type = target->type, .offset = target->offset};
    for (uint64_t r = 0; r < source->nrows && target->nparts > 0; r++)
        for (int k = 0; k < target->nparts && !ret[r]; k++) {
            struct bp_table_column part = {.type = target->parts[k].type, .offset = target->parts[k].offset};
            ret[r] = isnan(bp_column_load(&part, source->rows + r * source->stride, 0));
        }
    if (target->nparts > 0 || target->inputs)
        return;
    for (uint64_t r = 0; r < source->nrows; r++) {
        uint32_t row = (uint32_t)r;
        int32_t label = 0;
        if (target->is_class)
            bp_source_gather_labels(source, head, &row, 1, &label);
        ret[r] |= label < 0; /* another head may have refused the row */
        for (int k = 0; k < target->count && !target->is_class && !ret[r]; k++)
            ret[r] = isnan(bp_column_load(&c, source->rows + r * source->stride, k));
    }
}

bp_status bp_transform_dropped(const struct bp_transform *t, const struct bp_table *table, uint8_t *ret,
                               struct bp_error *err)
{
    bp_status status = BP_OK;
    for (int i = 0; i < t->nfeatures && status == BP_OK; i++) {
        const struct bp_transform_feature *f = &t->features[i];
        const struct bp_table_column *c;
        if (f->missing != BP_MISSING_DROP)
            continue;
        status = bp_transform_column(table, f->name, &f->levels, f->count, &c, err);
        if (status == BP_OK)
            exclude_missing(table, c, ret);
    }
    return status;
}

bp_status bp_transform_exclude(const struct bp_transform *t, const struct bp_table *table, uint8_t *ret,
                               uint64_t *ret_count, struct bp_error *err)
{
    struct bp_source source;
    bp_status status = bp_transform_bind(t, table, &source, err);
    if (status != BP_OK)
        return status;
    memset(ret, 0, (size_t)table->nrows);
    for (int i = 0; i < t->nheads; i++)
        exclude_targets(&source, i, ret);
    bp_transform_source_done(&source);
    status = bp_transform_dropped(t, table, ret, err);
    if (status == BP_OK && t->sequence.steps > 0)
        status = bp_transform_exclude_inner(t, table, ret, err);
    if (status != BP_OK)
        return status;
    uint64_t count = 0;
    for (uint64_t r = 0; r < table->nrows; r++)
        count += ret[r];
    *ret_count = count;
    return BP_OK;
}
