/* transform.c: a planned transform's parts, what others ask of it, and the sources that it makes. */
#include "data/transform_internal.h"

#include "data/number.h"
#include "json_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of a sample: far above what trains, and small enough for every index and size computed from it. */
#define INPUTS_MAX (1 << 26)

const char *const bp_scaling_words[4] = {"standard", "minmax", "unit", "none"};
const char *const bp_missing_words[6] = {"level", "mean", "median", "constant", "drop", "error"};

/* --- levels --------------------------------------------------------------------------------------------------------- */

json_t *bp_label_number(double v)
{
    return v == floor(v) && fabs(v) < 0x1p53 ? json_integer((json_int_t)v) : json_real(v);
}

bp_status bp_levels_init(struct bp_levels *levels, json_t *labels, struct bp_error *err)
{
    size_t n = json_array_size(labels);
    struct bp_levels l = {.labels = labels, .n = (int)n, .numbers = json_is_number(json_array_get(labels, 0))};
    if (!labels ||
        (l.numbers ? !(l.values = calloc(n + 1, sizeof *l.values)) : !(l.texts = calloc(n + 1, sizeof *l.texts)))) {
        bp_levels_done(&l);
        return bp_fail(err, BP_NOMEM, "no memory for the levels of a column");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *label = json_array_get(labels, i);
        bool fine;
        if (l.numbers) {
            l.values[i] = json_number_value(label);
            fine = json_is_number(label) && (i == 0 || l.values[i - 1] < l.values[i]);
        } else {
            l.texts[i] = json_string_value(label);
            fine = l.texts[i] && (i == 0 || strcmp(l.texts[i - 1], l.texts[i]) < 0);
        }
        if (!fine) {
            bp_levels_done(&l);
            return bp_fail(err, BP_CORRUPT, "the levels of a column are not in order");
        }
    }
    *levels = l;
    return BP_OK;
}

void bp_levels_done(struct bp_levels *levels)
{
    json_decref(levels->labels);
    free(levels->texts);
    free(levels->values);
    memset(levels, 0, sizeof *levels);
}

int bp_levels_find_text(const struct bp_levels *levels, const char *text)
{
    int low = 0, high = levels->n - 1;
    while (low <= high) {
        int middle = (low + high) / 2, order = strcmp(levels->texts[middle], text);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle - 1;
    }
    return -1;
}

int bp_levels_find_number(const struct bp_levels *levels, double value)
{
    int low = 0, high = levels->n - 1;
    while (low <= high) {
        int middle = (low + high) / 2;
        if (levels->values[middle] == value)
            return middle;
        if (levels->values[middle] < value)
            low = middle + 1;
        else
            high = middle - 1;
    }
    return -1;
}

/* --- parts ---------------------------------------------------------------------------------------------------------- */

void bp_transform_free(struct bp_transform *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->nfeatures; i++) {
        free(t->features[i].name);
        bp_levels_done(&t->features[i].levels);
    }
    for (int i = 0; i < t->nheads; i++) {
        free((void *)t->heads[i].target.name);
        for (int k = 0; t->heads[i].columns && k < t->heads[i].target.ncolumns; k++)
            free(t->heads[i].columns[k]);
        free(t->heads[i].columns);
        free(t->heads[i].class_weights);
        bp_levels_done(&t->heads[i].levels);
    }
    free(t->weight);
    free(t->sequence.by);
    free(t->sequence.split_by);
    free(t->sequence.order_by);
    free(t->features);
    free(t->heads);
    json_decref(t->index);
    json_decref(t->others);
    json_decref(t->warnings);
    free(t);
}

void bp_transform_warn(struct bp_transform *t, const char *code, const char *pointer, const char *format, ...)
{
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    /* a warning that finds no memory is lost, and nothing else with it */
    json_array_append_new(t->warnings,
                          json_pack("{s:s, s:s, s:s}", "code", code, "pointer", pointer, "detail", detail));
}

json_t *bp_transform_warnings(const struct bp_transform *t)
{
    return json_deep_copy(t->warnings);
}

/* Levels of a category, with one for missing values where they are one. */
static int feature_levels(const struct bp_transform_feature *f)
{
    return f->levels.n + (f->missing_level == f->levels.n);
}

bp_status bp_transform_place(struct bp_transform *t, struct bp_error *err)
{
    int64_t inputs = 0;
    size_t offset = 0;
    for (int i = 0; i < t->nfeatures; i++) {
        struct bp_transform_feature *f = &t->features[i];
        f->outputs = f->category ? feature_levels(f) : f->count;
        f->outputs = f->category && f->coded ? 1 : f->outputs;
        f->output = (int)inputs;
        f->offset = offset;
        inputs += f->outputs;
        offset += sizeof(double) * (size_t)f->count;
        if (inputs > INPUTS_MAX)
            return bp_fail(err, BP_LIMIT, "the columns make more than %d inputs", INPUTS_MAX);
        if (json_object_get(t->index, f->name))
            return bp_fail(err, BP_CORRUPT, "two columns are called '%s'", f->name);
        if (json_object_set_new(t->index, f->name, json_integer(i)) != 0)
            return bp_fail(err, BP_NOMEM, "no memory for a column");
    }
    int64_t steps = t->sequence.steps > 0 ? t->sequence.steps : 1;
    if (inputs > INPUTS_MAX / steps)
        return bp_fail(err, BP_LIMIT, "windows of %d rows make more than %d inputs", t->sequence.steps, INPUTS_MAX);
    t->inputs = (int)(inputs * steps);
    t->stride = offset;
    return BP_OK;
}

int bp_transform_find(const struct bp_transform *t, const char *name)
{
    const json_t *index = json_object_get(t->index, name);
    return index ? (int)json_integer_value(index) : -1;
}

int bp_transform_steps(const struct bp_transform *t)
{
    return t->sequence.steps;
}

int bp_transform_inputs(const struct bp_transform *t)
{
    return t->inputs;
}

struct bp_shape bp_transform_shape(const struct bp_transform *t)
{
    return t->shape;
}

int bp_transform_targets(const struct bp_transform *t)
{
    return t->nheads;
}

const struct bp_transform_target *bp_transform_target(const struct bp_transform *t, int i)
{
    return &t->heads[i].target;
}

static json_t *input_name(const struct bp_transform_feature *f, int i)
{
    char number[BP_NUMBER_TEXT];
    if (!f->category || f->coded)
        return f->count > 1 ? json_sprintf("%s[%d]", f->name, i) : json_string(f->name);
    if (i >= f->levels.n)
        return json_sprintf("%s=(missing)", f->name);
    return json_sprintf("%s=%s", f->name,
                        f->levels.numbers ? bp_number_text(f->levels.values[i], number) : f->levels.texts[i]);
}

json_t *bp_transform_input_names(const struct bp_transform *t)
{
    json_t *names = json_array();
    for (int step = 0; step < (t->sequence.steps > 0 ? t->sequence.steps : 1); step++)
        for (int i = 0; i < t->nfeatures; i++)
            for (int k = 0; k < t->features[i].outputs; k++) {
                json_t *name = input_name(&t->features[i], k);
                if (name && t->sequence.steps > 0) {
                    json_t *plain = name;
                    name = json_sprintf("%s@%d", json_string_value(plain), step);
                    json_decref(plain);
                }
                if (json_array_append_new(names, name) != 0) {
                    json_decref(names);
                    return NULL;
                }
            }
    return names;
}

bool bp_transform_codes(const struct bp_transform *t, int64_t *ret, const char **ret_column)
{
    *ret = 0;
    *ret_column = NULL;
    for (int i = 0; i < t->nfeatures; i++) {
        const struct bp_transform_feature *f = &t->features[i];
        if (!f->coded || f->codes > *ret)
            *ret_column = f->name;
        if (!f->coded)
            return false;
        *ret = f->codes > *ret ? f->codes : *ret;
    }
    return true;
}

static json_t *decode_number(const struct bp_transform_feature *f, const float *x)
{
    return json_real((double)*x / f->scale + f->shift);
}

static json_t *decode_feature(const struct bp_transform_feature *f, const float *x)
{
    int best = 0;
    if (!f->category && f->count == 1)
        return decode_number(f, x);
    json_t *list = f->category ? NULL : json_array();
    for (int i = 0; i < f->count && list; i++)
        json_array_append_new(list, decode_number(f, &x[i]));
    if (!f->category)
        return list;
    for (int i = 1; i < f->outputs; i++)
        best = x[i] > x[best] ? i : best;
    if (f->coded) /* the nearest level; what is none is missing */
        best = x[0] >= 0 && x[0] < (float)f->levels.n ? (int)(x[0] + 0.5f) : f->levels.n;
    return best < f->levels.n ? json_incref(json_array_get(f->levels.labels, (size_t)best)) : json_null();
}

static json_t *decode_row(const struct bp_transform *t, const float *inputs)
{
    json_t *row = json_object();
    for (int i = 0; i < t->nfeatures; i++) {
        const struct bp_transform_feature *f = &t->features[i];
        if (json_object_set_new(row, f->name, decode_feature(f, inputs + f->output)) != 0) {
            json_decref(row);
            return NULL;
        }
    }
    return row;
}

json_t *bp_transform_decode(const struct bp_transform *t, const float *inputs)
{
    int steps = t->sequence.steps;
    if (steps == 0)
        return decode_row(t, inputs);
    json_t *rows = json_array();
    for (int i = 0; i < steps && rows; i++)
        if (json_array_append_new(rows, decode_row(t, inputs + (size_t)i * (size_t)(t->inputs / steps))) != 0) {
            json_decref(rows);
            return NULL;
        }
    return rows;
}

/* --- a table's columns ---------------------------------------------------------------------------------------------- */

double bp_column_load(const struct bp_table_column *c, const uint8_t *row, int i)
{
    const uint8_t *p = row + c->offset;
    int32_t code;
    float f;
    double d;
    switch (c->type) {
    case BP_U8:
        return p[i];
    case BP_I32:
        memcpy(&code, p + 4 * (size_t)i, sizeof code);
        return code < 0 ? NAN : code;
    case BP_F32:
        memcpy(&f, p + 4 * (size_t)i, sizeof f);
        return f;
    case BP_F64:
        memcpy(&d, p + 8 * (size_t)i, sizeof d);
        return d;
    }
    return NAN;
}

bp_status bp_transform_column(const struct bp_table *table, const char *name, const struct bp_levels *levels,
                              int count, const struct bp_table_column **ret, struct bp_error *err)
{
    int index = bp_table_find(table, name);
    if (index < 0)
        return bp_fail_at(err, BP_MISMATCH, name, "the dataset has no column '%s'", name);
    const struct bp_table_column *c = &table->columns[index];
    bool texts = levels && levels->n > 0 && !levels->numbers;
    if (c->kind != (texts ? BP_COLUMN_CATEGORY : BP_COLUMN_NUMBER) || c->count != count)
        return bp_fail_at(err, BP_MISMATCH, name, "column '%s' of the dataset is not %s as the model learned it",
                          name,
                          texts       ? "a category"
                          : count > 1 ? "an array of the shape"
                                      : "a number");
    *ret = c;
    return BP_OK;
}

/* --- sources -------------------------------------------------------------------------------------------------------- */

/* The one block of a source: features, targets, and the values that they borrow. */
struct block {
    struct bp_feature *features;
    struct bp_target *targets;
    struct bp_target_part *parts; /* unused ones begin here, and in values */
    double *values;
};

static bp_status block_new(const struct bp_transform *t, struct block *ret, struct bp_error *err)
{
    size_t nvalues = 0, nparts = 0;
    for (int i = 0; i < t->nfeatures; i++)
        nvalues += (size_t)t->features[i].levels.n + 1;
    for (int i = 0; i < t->nheads; i++)
        nvalues += (size_t)t->heads[i].levels.n + 1;
    for (int i = 0; i < t->nheads; i++)
        nparts += (size_t)t->heads[i].target.ncolumns;
    size_t parts = nparts * sizeof(struct bp_target_part);
    size_t features = (size_t)t->nfeatures * sizeof(struct bp_feature);
    size_t targets = (size_t)t->nheads * sizeof(struct bp_target);
    uint8_t *bytes = calloc(1, features + targets + parts + nvalues * sizeof(double) + 1);
    if (!bytes)
        return bp_fail(err, BP_NOMEM, "no memory to read the dataset");
    ret->features = (void *)bytes;
    ret->targets = (void *)(bytes + features);
    ret->parts = (void *)(bytes + features + targets);
    ret->values = (void *)(bytes + features + targets + parts);
    return BP_OK;
}

/* What the gather compares a stored value with: NULL when a stored code is the level itself. A table with some of our
 * levels has other codes: theirs, in the same order; a level that it does not have gets a number between two codes,
 * which no row holds. The place behind the levels is for a missing value, and is never found. */
static bp_status bind_levels(const struct bp_levels *l, const struct bp_table_column *c, struct block *block,
                             const double **ret, struct bp_error *err)
{
    if (!l->numbers && !c) {
        *ret = NULL;
        return BP_OK;
    }
    double *values = block->values;
    int matched = 0;
    values[l->n] = INFINITY;
    for (int i = 0; i < l->n; i++) {
        if (l->numbers)
            values[i] = l->values[i];
        else if (matched < c->nlevels && strcmp(c->levels[matched], l->texts[i]) == 0)
            values[i] = matched++;
        else
            values[i] = matched - 1 + (i + 1.0) / (l->n + 1.0);
    }
    if (!l->numbers && matched < c->nlevels)
        return bp_fail_at(err, BP_MISMATCH, c->name,
                          "column '%s' of the dataset has a value that the model never saw: '%s'", c->name,
                          c->levels[matched]);
    block->values += l->n + 1;
    *ret = !l->numbers && matched == l->n ? NULL : values;
    return BP_OK;
}

/* c: the column of a table; NULL: rows from outside. */
static bp_status bind_feature(const struct bp_transform_feature *f, const struct bp_table_column *c,
                              struct block *block, struct bp_feature *ret, struct bp_error *err)
{
    *ret = (struct bp_feature){.type = c                                   ? c->type
                                       : f->category && !f->levels.numbers ? BP_I32
                                                                           : BP_F64,
                               .offset = c ? c->offset : f->offset,
                               .count = f->count,
                               .encoding = !f->category ? BP_ENCODE_NUMBER
                                           : f->coded   ? BP_ENCODE_CODE
                                                        : BP_ENCODE_ONE_HOT,
                               .fill = f->fill,
                               .shift = f->shift,
                               .scale = f->scale,
                               .missing_level = f->missing_level,
                               .output = f->output};
    if (!f->category)
        return BP_OK;
    ret->levels = feature_levels(f);
    return bind_levels(&f->levels, c, block, &ret->values, err);
}

/* A head over several columns, or over the network's own input. */
static bp_status bind_joint(const struct bp_transform_target *t, const struct bp_table *table, struct block *block,
                            struct bp_target *ret, struct bp_error *err)
{
    *ret = (struct bp_target){
        .inputs = t->inputs, .nparts = t->ncolumns, .parts = block->parts, .shift = t->shift, .scale = t->scale};
    for (int i = 0; i < t->ncolumns; i++) {
        const struct bp_table_column *c;
        bp_status status = bp_transform_column(table, t->columns[i], NULL, 1, &c, err);
        if (status != BP_OK)
            return status;
        *block->parts++ = (struct bp_target_part){.type = c->type, .offset = c->offset};
    }
    return BP_OK;
}

/* The rows' weights; a table that has no such column of sound weights (another one than was trained on) has 1s. */
static void bind_weight(const struct bp_transform *t, const struct bp_table *table, struct bp_source *source)
{
    int index = t->weight ? bp_table_find(table, t->weight) : -1;
    const struct bp_table_column *c = index >= 0 ? &table->columns[index] : NULL;
    if (!c || c->kind != BP_COLUMN_NUMBER || c->count > 1 || c->missing > 0 || !(c->min >= 0) || !isfinite(c->max))
        return;
    source->weighted = true;
    source->weight_type = c->type;
    source->weight_offset = c->offset;
}

static bp_status bind_head(const struct bp_transform_head *h, const struct bp_table *table, struct block *block,
                           struct bp_target *ret, struct bp_error *err)
{
    const struct bp_transform_target *t = &h->target;
    const struct bp_table_column *c;
    if (t->inputs || t->ncolumns > 0)
        return bind_joint(t, table, block, ret, err);
    bp_status status = bp_transform_column(table, t->name, &h->levels, t->is_class ? 1 : t->outputs, &c, err);
    if (status != BP_OK)
        return status;
    *ret = (struct bp_target){.is_class = t->is_class,
                              .type = c->type,
                              .offset = c->offset,
                              .count = c->count,
                              .classes = t->is_class ? t->outputs : 0,
                              .shift = t->shift,
                              .scale = t->scale,
                              .class_weights = h->class_weights};
    return t->is_class ? bind_levels(&h->levels, c, block, &ret->values, err) : BP_OK;
}

bp_status bp_transform_bind(const struct bp_transform *t, const struct bp_table *table, struct bp_source *ret,
                            struct bp_error *err)
{
    struct block block;
    bp_status status = block_new(t, &block, err);
    if (status != BP_OK)
        return status;
    struct bp_source source = {.rows = table->rows,
                               .stride = table->stride,
                               .nrows = table->nrows,
                               .nfeatures = t->nfeatures,
                               .features = block.features,
                               .inputs = t->inputs,
                               .ntargets = t->nheads,
                               .targets = block.targets};
    for (int i = 0; i < t->nfeatures && status == BP_OK; i++) {
        const struct bp_transform_feature *f = &t->features[i];
        const struct bp_table_column *c;
        status = bp_transform_column(table, f->name, &f->levels, f->count, &c, err);
        if (status == BP_OK)
            status = bind_feature(f, c, &block, &source.features[i], err);
    }
    for (int i = 0; i < t->nheads && status == BP_OK; i++)
        status = bind_head(&t->heads[i], table, &block, &source.targets[i], err);
    bind_weight(t, table, &source);
    if (status != BP_OK) {
        bp_transform_source_done(&source);
        return status;
    }
    *ret = source;
    return BP_OK;
}

bp_status bp_transform_source(const struct bp_transform *t, const struct bp_table *table, struct bp_source *ret,
                              struct bp_error *err)
{
    struct bp_source source;
    bp_status status = bp_transform_bind(t, table, &source, err);
    if (status != BP_OK)
        return status;
    status = bp_transform_link(t, table, &source, err);
    if (status != BP_OK)
        bp_transform_source_done(&source);
    else
        *ret = source;
    return status;
}

bp_status bp_transform_rows_source(const struct bp_transform *t, const uint8_t *rows, int n, struct bp_source *ret,
                                   struct bp_error *err)
{
    struct block block;
    bp_status status = block_new(t, &block, err);
    if (status != BP_OK)
        return status;
    struct bp_source source = {.rows = rows,
                               .stride = t->stride,
                               .nrows = (uint64_t)n * (uint64_t)(t->sequence.steps > 0 ? t->sequence.steps : 1),
                               .steps = t->sequence.steps,
                               .apart = true,
                               .nfeatures = t->nfeatures,
                               .features = block.features,
                               .inputs = t->inputs};
    for (int i = 0; i < t->nfeatures && status == BP_OK; i++)
        status = bind_feature(&t->features[i], NULL, &block, &source.features[i], err);
    if (status != BP_OK) {
        bp_transform_source_done(&source);
        return status;
    }
    *ret = source;
    return BP_OK;
}

void bp_transform_source_done(struct bp_source *source)
{
    free(source->features); /* the block */
    free((void *)source->previous);
    memset(source, 0, sizeof *source);
}
