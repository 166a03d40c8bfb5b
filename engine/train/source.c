/* source.c: the gather: rows of a stored table become a batch of numbers.
 *
 * Features are walked in the outer loop and a small block of rows in the inner one, so that what depends on the
 * feature alone is decided once a block; a block of rows and its outputs stay in the nearest caches. Bytes go through
 * a table of their 256 values where there are enough of them to pay for it. Every number is computed by the one
 * expression ((v - shift) * scale) in double and rounded once, so all ways give the same bits.
 *
 * It refuses to invent: a value that is no known level gives zeros, a class that is none gives -1.
 */
#include "train/source.h"

#include "base/memory.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define BLOCK_ROWS 32   /* rows of a block: sources and outputs of usual widths stay in the second-level cache */
#define TABLE_WORTH 512 /* bytes to convert from which a table of 256 values is cheaper */
#define NEAR_BYTES (512 << 10) /* of a table that the second-level cache holds beside the network */
#define ASK_BYTES 256          /* of a row that are asked for; what comes behind, the processor sees coming */

size_t bp_column_size(enum bp_column_type type)
{
    static const size_t size[] = {[BP_U8] = 1, [BP_I32] = 4, [BP_F32] = 4, [BP_F64] = 8};

    return size[type];
}

/* The value at p as a double; a missing one is NaN. Columns need not be aligned. */
static inline double load(enum bp_column_type type, const uint8_t *p)
{
    int32_t i;
    float f;
    double d;

    switch (type) {
    case BP_U8:
        return *p;
    case BP_I32:
        memcpy(&i, p, sizeof i);
        return i == -1 ? NAN : i;
    case BP_F32:
        memcpy(&f, p, sizeof f);
        return f;
    case BP_F64:
        memcpy(&d, p, sizeof d);
        return d;
    }
    return NAN;
}

static inline float number(const struct bp_feature *f, double v)
{
    return (float)(((v != v ? f->fill : v) - f->shift) * f->scale);
}

static inline const uint8_t *row_at(const struct bp_source *s, uint32_t row, size_t offset)
{
    return s->rows + (size_t)row * s->stride + offset;
}

/* Index of v among n ascending values, or -1. NULL values: v is the index itself. NaN is never found. */
static int find_level(const double *values, int n, double v)
{
    int low = 0, high = n - 1;

    if (values == NULL) {
        return v >= 0.0 && v < n && v == (int)v ? (int)v : -1;
    }
    if (v >= 0.0 && v < n && values[(int)v] == v) {
        return (int)v; /* 0, 1, 2, ...: the usual classes */
    }
    while (low <= high) {
        int middle = low + (high - low) / 2;

        if (values[middle] == v) {
            return middle;
        }
        if (values[middle] < v) {
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return -1;
}

static void gather_bytes(const struct bp_source *s, const struct bp_feature *f, const uint32_t *rows, int n, float *x)
{
    float table[256];

    for (int v = 0; v < 256; v++) {
        table[v] = number(f, v);
    }
    for (int r = 0; r < n; r++) {
        const uint8_t *from = row_at(s, rows[r], f->offset);
        float *to = x + (size_t)r * (size_t)s->inputs;

        for (int i = 0; i < f->count; i++) {
            to[i] = table[from[i]];
        }
    }
}

/* One loop a type: the type is a constant in each call, and load() folds into the loop. */
static inline __attribute__((always_inline)) void numbers_of(enum bp_column_type type, const struct bp_source *s,
                                                             const struct bp_feature *f, const uint32_t *rows, int n,
                                                             float *x)
{
    size_t size = bp_column_size(type);

    for (int r = 0; r < n; r++) {
        const uint8_t *from = row_at(s, rows[r], f->offset);
        float *to = x + (size_t)r * (size_t)s->inputs;

        for (int i = 0; i < f->count; i++) {
            to[i] = number(f, load(type, from + (size_t)i * size));
        }
    }
}

/* Floats at addresses that are fit for them, the usual case, go through the kernel. */
static bool gather_floats(const struct bp_source *s, const struct bp_feature *f, const uint32_t *rows, int n,
                          float *x)
{
    const uint8_t *from = s->rows + f->offset;

    if ((uintptr_t)from % _Alignof(float) != 0 || s->stride % sizeof(float) != 0) {
        return false;
    }
    bp_kernels_current()->gather(&(struct bp_gather){.rows = n,
                                                     .n = f->count,
                                                     .x = (const float *)(const void *)from,
                                                     .index = rows,
                                                     .x_row = s->stride / sizeof(float),
                                                     .fill = f->fill,
                                                     .shift = f->shift,
                                                     .scale = f->scale,
                                                     .y = x,
                                                     .y_row = (size_t)s->inputs});
    return true;
}

static void gather_numbers(const struct bp_source *s, const struct bp_feature *f, const uint32_t *rows, int n,
                           float *x)
{
    switch (f->type) {
    case BP_U8:
        numbers_of(BP_U8, s, f, rows, n, x);
        break;
    case BP_I32:
        numbers_of(BP_I32, s, f, rows, n, x);
        break;
    case BP_F32:
        if (!gather_floats(s, f, rows, n, x)) {
            numbers_of(BP_F32, s, f, rows, n, x);
        }
        break;
    case BP_F64:
        numbers_of(BP_F64, s, f, rows, n, x);
        break;
    }
}

static void gather_levels(const struct bp_source *s, const struct bp_feature *f, const uint32_t *rows, int n,
                          float *x)
{
    for (int r = 0; r < n; r++) {
        double v = load(f->type, row_at(s, rows[r], f->offset));
        int level = v != v ? f->missing_level : find_level(f->values, f->levels, v);
        float *to = x + (size_t)r * (size_t)s->inputs;

        memset(to, 0, (size_t)f->levels * sizeof *to);
        if (level >= 0) {
            to[level] = 1.0f;
        }
    }
}

/* A window is followed from its last row to its first, and gathered block by block. */
static void gather_window(const struct bp_source *one, const struct bp_source *source, uint32_t last, float *x)
{
    uint32_t rows[BLOCK_ROWS],
        row = source->apart ? last * (uint32_t)source->steps + (uint32_t)source->steps - 1 : last;

    for (int end = source->steps; end > 0; end -= BLOCK_ROWS) {
        int n = end < BLOCK_ROWS ? end : BLOCK_ROWS;

        for (int i = n - 1; i >= 0; i--) {
            rows[i] = row;
            if (end - n + i > 0) {
                row = source->previous != NULL ? source->previous[row] : row - 1;
            }
        }
        bp_source_gather(one, rows, n, x + (size_t)(end - n) * (size_t)one->inputs);
    }
}

static void gather_windows(const struct bp_source *source, const uint32_t *rows, int n, float *x)
{
    struct bp_source one = *source; /* the same rows, each by itself */

    one.steps = 0;
    one.inputs = source->inputs / source->steps;
    for (int i = 0; i < n; i++) {
        gather_window(&one, source, rows[i], x + (size_t)i * (size_t)source->inputs);
    }
}

static void gather_codes(const struct bp_source *s, const struct bp_feature *f, const uint32_t *rows, int n, float *x)
{
    for (int r = 0; r < n; r++) {
        double v = load(f->type, row_at(s, rows[r], f->offset));
        int level = v != v ? f->missing_level : find_level(f->values, f->levels, v);

        x[(size_t)r * (size_t)s->inputs] = (float)level;
    }
}

void bp_source_gather(const struct bp_source *source, const uint32_t *rows, int n, float *x)
{
    if (source->steps > 0) {
        gather_windows(source, rows, n, x);
        return;
    }
    for (int r = 0; r < n; r += BLOCK_ROWS) {
        int block = n - r < BLOCK_ROWS ? n - r : BLOCK_ROWS;
        float *to = x + (size_t)r * (size_t)source->inputs;

        for (int i = 0; i < source->nfeatures; i++) {
            const struct bp_feature *f = &source->features[i];

            if (f->encoding == BP_ENCODE_CODE) {
                gather_codes(source, f, rows + r, block, to + f->output);
            } else if (f->encoding == BP_ENCODE_ONE_HOT) {
                gather_levels(source, f, rows + r, block, to + f->output);
            } else if (f->type == BP_U8 && (int64_t)block * f->count >= TABLE_WORTH) {
                gather_bytes(source, f, rows + r, block, to + f->output);
            } else {
                gather_numbers(source, f, rows + r, block, to + f->output);
            }
        }
    }
}

void bp_source_ask(const struct bp_source *source, const uint32_t *rows, int n)
{
    size_t bytes = source->stride < ASK_BYTES ? source->stride : ASK_BYTES;

    if (source->steps > 0 || source->nrows <= NEAR_BYTES / source->stride) {
        return;
    }
    for (int r = 0; r < n; r++) {
        const uint8_t *row = row_at(source, rows[r], 0);

        for (size_t at = 0; at < bytes; at += BP_CACHE_LINE) {
            __builtin_prefetch(row + at, 0, 2); /* into the second-level cache */
        }
        __builtin_prefetch(row + source->stride - 1, 0, 2); /* where targets are */
    }
}

void bp_source_gather_labels(const struct bp_source *source, int head, const uint32_t *rows, int n, int32_t *label)
{
    const struct bp_target *t = &source->targets[head];

    if (t->type == BP_I32 && t->values == NULL) { /* codes, as text has them */
        for (int r = 0; r < n; r++) {
            int32_t code;
            memcpy(&code, row_at(source, rows[r], t->offset), sizeof code);
            label[r] = code >= 0 && code < t->classes ? code : -1;
        }
        return;
    }
    for (int r = 0; r < n; r++) {
        label[r] = find_level(t->values, t->classes, load(t->type, row_at(source, rows[r], t->offset)));
    }
}

void bp_source_gather_values(const struct bp_source *source, int head, const uint32_t *rows, int n, float *value)
{
    const struct bp_target *t = &source->targets[head];
    size_t size = bp_column_size(t->type);

    if (t->inputs) {
        bp_source_gather(source, rows, n, value);
        return;
    }
    for (int r = 0; r < n && t->nparts > 0; r++) {
        for (int i = 0; i < t->nparts; i++) {
            double v = load(t->parts[i].type, row_at(source, rows[r], t->parts[i].offset));
            value[(size_t)r * (size_t)t->nparts + (size_t)i] = (float)((v - t->shift) * t->scale);
        }
    }
    for (int r = 0; r < n && t->nparts == 0; r++) {
        const uint8_t *from = row_at(source, rows[r], t->offset);

        if (t->is_class) {
            int level = find_level(t->values, t->classes, load(t->type, from));
            value[r] = level < 0 ? NAN : (float)level;
            continue;
        }
        for (int i = 0; i < t->count; i++) {
            double v = load(t->type, from + (size_t)i * size);
            value[(size_t)r * (size_t)t->count + (size_t)i] = (float)((v - t->shift) * t->scale);
        }
    }
}

void bp_source_gather_weights(const struct bp_source *source, int head, const uint32_t *rows, int n, float *weight)
{
    const struct bp_target *t = &source->targets[head];

    if (!source->weighted && t->class_weights == NULL) {
        for (int r = 0; r < n; r++) {
            weight[r] = 1.0f;
        }
        return;
    }
    for (int r = 0; r < n; r++) {
        double w = source->weighted ? load(source->weight_type, row_at(source, rows[r], source->weight_offset)) : 1.0;

        if (t->class_weights != NULL) {
            double v = load(t->type, row_at(source, rows[r], t->offset));
            int level = t->is_class ? find_level(t->values, t->classes, v) : v >= 0.5;
            w *= level < 0 ? 0.0 : t->class_weights[level];
        }
        weight[r] = (float)w;
    }
}
