/* ingest_idx.c: IDX files (the format of MNIST) become a table: "inputs", an array column, and "target".
 *
 * An IDX file is 00 00, a type, a number of dimensions, the dimensions as big-endian u32, and the values in big-endian.
 * The first dimension counts the rows. Unsigned bytes stay bytes; the other types become f32, or f64 where f32 would
 * not be exact. Headers, counts and lengths are checked before anything is allocated for them.
 *
 * The pass that looks at the values writes the rows too, as bytes, as f32, or, of an f64 file, as f64. Where the values
 * want it otherwise they are written again.
 */
#include "data/ingest.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a row in a file: far above any image, and what two row buffers may take. */
#define IDX_ROW_MAX (64 << 20)

static int value_size(int type)
{
    switch (type) {
    case 0x08:
    case 0x09:
        return 1;
    case 0x0b:
        return 2;
    case 0x0c:
    case 0x0d:
        return 4;
    case 0x0e:
        return 8;
    default:
        return 0;
    }
}

static uint64_t big_endian(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

double bp_idx_value(int type, const uint8_t *p)
{
    switch (type) {
    case 0x08:
        return p[0];
    case 0x09:
        return (int8_t)p[0];
    case 0x0b:
        return (int16_t)big_endian(p, 2);
    case 0x0c:
        return (int32_t)big_endian(p, 4);
    case 0x0d: {
        uint32_t u = (uint32_t)big_endian(p, 4);
        float f;
        memcpy(&f, &u, sizeof f);
        return f;
    }
    default: {
        uint64_t u = big_endian(p, 8);
        double d;
        memcpy(&d, &u, sizeof d);
        return d;
    }
    }
}

static bp_status check_length(struct bp_stream *in, const char *what, const struct bp_idx *idx, int header,
                              struct bp_error *err)
{
    int64_t size = bp_stream_size(in), values;
    if (__builtin_mul_overflow(idx->elements * idx->size, idx->rows, &values) || values > INT64_MAX - header)
        return bp_fail_at(err, BP_LIMIT, "idx_dimensions", "%s: the dimensions of the IDX file multiply to too much",
                          what);
    if (size >= 0 && size != values + header)
        return bp_fail_at(err, BP_INVALID, "idx_length",
                          "%s: the IDX header says %" PRId64 " bytes, the file has %" PRId64, what, values + header,
                          size);
    return BP_OK;
}

bp_status bp_idx_header(struct bp_stream *in, const char *what, struct bp_idx *ret, struct bp_error *err)
{
    uint8_t bytes[4 + 4 * 4];
    size_t got;
    bp_status status = bp_stream_read(in, bytes, 4, &got, err);
    if (status != BP_OK)
        return status;
    struct bp_idx idx = {0};
    if (got < 4 || bytes[0] || bytes[1] || !(idx.size = value_size(bytes[2])) || bytes[3] < 1 || bytes[3] > 4)
        return bp_fail_at(err, BP_INVALID, "idx_magic",
                          "%s: not an IDX file of one to four dimensions: its first bytes are %02x %02x %02x %02x",
                          what, bytes[0], got > 1 ? bytes[1] : 0, got > 2 ? bytes[2] : 0, got > 3 ? bytes[3] : 0);
    idx.type = bytes[2];
    idx.rank = bytes[3] - 1;
    if ((status = bp_stream_read(in, bytes + 4, 4 * (size_t)bytes[3], &got, err)) != BP_OK)
        return status;
    if (got < 4 * (size_t)bytes[3])
        return bp_fail_at(err, BP_INVALID, "idx_length", "%s: the IDX file ends in its header", what);
    idx.rows = (int64_t)big_endian(bytes + 4, 4);
    idx.elements = 1;
    for (int i = 0; i < idx.rank; i++) {
        idx.dim[i] = (int64_t)big_endian(bytes + 8 + 4 * i, 4);
        if (idx.dim[i] == 0)
            return bp_fail_at(err, BP_INVALID, "idx_dimensions", "%s: a dimension of the IDX file is 0", what);
        if (__builtin_mul_overflow(idx.elements, idx.dim[i], &idx.elements) || idx.elements > IDX_ROW_MAX / idx.size)
            return bp_fail_at(err, BP_LIMIT, "idx_dimensions", "%s: a row of the IDX file has more than %d bytes",
                              what, IDX_ROW_MAX);
    }
    if (idx.rows == 0)
        return bp_fail_at(err, BP_INVALID, "empty_dataset", "%s: the IDX file has no rows", what);
    if (idx.rows > BP_ROWS_MAX)
        return bp_fail_at(err, BP_LIMIT, "too_many_rows", "%s: the IDX file has more than %" PRId64 " rows", what,
                          BP_ROWS_MAX);
    if ((status = check_length(in, what, &idx, 4 + 4 * (idx.rank + 1), err)) != BP_OK)
        return status;
    *ret = idx;
    return BP_OK;
}

/* --- parts ---------------------------------------------------------------------------------------------------------- */

/* A part as it is read: its header, and one row. */
struct idx_part {
    struct bp_stream *in;
    struct bp_idx idx;
    uint8_t *row;
    const char *what;
};

static void part_done(struct idx_part *part)
{
    bp_stream_close(part->in);
    free(part->row);
    memset(part, 0, sizeof *part);
}

static bp_status part_open(struct bp_ingest *ingest, int index, struct idx_part *ret, struct bp_error *err)
{
    struct idx_part part = {.what = ingest->parts[index].role};
    bp_status status;
    if ((status = bp_ingest_open(ingest, index, &part.in, err)) != BP_OK ||
        (status = bp_idx_header(part.in, part.what, &part.idx, err)) != BP_OK)
        goto out;
    ingest->compressed[index] = bp_stream_compressed(part.in);
    part.row = malloc((size_t)(part.idx.elements * part.idx.size));
    if (!part.row) {
        status = bp_fail(err, BP_NOMEM, "no memory for a row");
        goto out;
    }
    *ret = part;
    part = (struct idx_part){0};
out:
    part_done(&part);
    return status;
}

static bp_status read_row(struct idx_part *part, int64_t row, struct bp_error *err)
{
    size_t size = (size_t)(part->idx.elements * part->idx.size), got;
    bp_status status = bp_stream_read(part->in, part->row, size, &got, err);
    if (status == BP_OK && got < size)
        status = bp_fail_at(err, BP_INVALID, "idx_length",
                            "%s: the IDX header says %" PRId64 " rows, the file ends in row %" PRId64, part->what,
                            part->idx.rows, row + 1);
    return status;
}

static bp_status expect_end(struct idx_part *part, struct bp_error *err)
{
    uint8_t byte;
    size_t got;
    bp_status status = bp_stream_read(part->in, &byte, 1, &got, err);
    if (status == BP_OK && got)
        status = bp_fail_at(err, BP_INVALID, "idx_length", "%s: the IDX file goes on behind its %" PRId64 " rows",
                            part->what, part->idx.rows);
    return status;
}

static int find_part(const struct bp_ingest *ingest, const char *role)
{
    for (int i = 0; i < ingest->nparts; i++)
        if (strcmp(ingest->parts[i].role, role) == 0)
            return i;
    return -1;
}

/* The parts that feed a column: its training and its test rows. */
struct feed {
    const char *column, *role, *test_role;
    int part[2]; /* -1: there is none */
    struct bp_idx idx[2];
};

static const struct feed feeds[2] = {{.column = "inputs", .role = "inputs", .test_role = "test_inputs"},
                                     {.column = "target", .role = "targets", .test_role = "test_targets"}};

static bp_status missing_part(const char *there, const char *missing, struct bp_error *err)
{
    return bp_fail_at(err, BP_INVALID, "missing_part", "there is a part '%s' but no part '%s'", there, missing);
}

/* Finds the parts of both columns; a file sent alone, without a role, is the inputs. */
static bp_status find_feeds(const struct bp_ingest *ingest, struct feed ret[2], struct bp_error *err)
{
    for (int i = 0; i < 2; i++) {
        ret[i] = feeds[i];
        ret[i].part[0] = find_part(ingest, feeds[i].role);
        ret[i].part[1] = find_part(ingest, feeds[i].test_role);
    }
    if (ret[0].part[0] < 0)
        ret[0].part[0] = find_part(ingest, "data");
    if (ret[0].part[0] < 0)
        return missing_part(ingest->parts[0].role, "inputs", err);
    if (ret[1].part[1] >= 0 && ret[0].part[1] < 0)
        return missing_part("test_targets", "test_inputs", err);
    if (ret[1].part[1] >= 0 && ret[1].part[0] < 0)
        return missing_part("test_targets", "targets", err);
    if (ret[0].part[1] >= 0 && ret[1].part[0] >= 0 && ret[1].part[1] < 0)
        return missing_part("test_inputs", "test_targets", err);
    return BP_OK;
}

/* --- figures -------------------------------------------------------------------------------------------------------- */

/* Bytes are counted by value; the figures follow from the counts. */
static void histogram_figures(struct bp_ingest_column *c, const int64_t histogram[256])
{
    for (int v = 0; v < 256; v++) {
        if (!histogram[v])
            continue;
        c->numbers += histogram[v];
        c->sum += (double)v * (double)histogram[v];
        c->min = v < c->min ? v : c->min;
        c->max = v > c->max ? v : c->max;
    }
}

static bp_status histogram_values(struct bp_ingest *ingest, struct bp_ingest_column *c, const int64_t histogram[256],
                                  struct bp_error *err)
{
    for (int v = 0; v < 256; v++) {
        bp_status status;
        if (!histogram[v])
            continue;
        if ((status = bp_number_set_add(&c->values, v, &ingest->budget, err)) != BP_OK)
            return status;
    }
    bp_number_set_sort(&c->values);
    for (int i = 0; i < c->values.n; i++)
        c->values.counts[i] = histogram[(int)c->values.values[i]];
    return BP_OK;
}

static bp_status scan_values(struct bp_ingest *ingest, struct bp_ingest_column *c, const struct idx_part *part,
                             int64_t row, struct bp_error *err)
{
    for (int64_t i = 0; i < part->idx.elements; i++) {
        double v = bp_idx_value(part->idx.type, part->row + i * part->idx.size);
        if (isinf(v))
            return bp_fail_at(err, BP_INVALID, "infinite_value", "%s: row %" PRId64 " holds an infinite number",
                              part->what, row + 1);
        if (isnan(v)) {
            c->missing++;
            continue;
        }
        bp_status status = bp_ingest_number(ingest, c, v, err);
        if (status != BP_OK)
            return status;
    }
    return BP_OK;
}

/* Neighbours are counted in tables of their own: the same byte twice in a row would wait for its own count. */
static void count_bytes(const uint8_t *bytes, int64_t n, int64_t histogram[4][256])
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t v; /* in any order: they are only counted */
        memcpy(&v, bytes + i, 8);
        for (int k = 0; k < 8; k++, v >>= 8)
            histogram[k & 3][v & 255]++;
    }
    for (; i < n; i++)
        histogram[0][bytes[i]]++;
}

/* What a column is called and looks like; its type is right for bytes and a guess for the rest. */
static bp_status name_column(struct bp_ingest_column *c, const struct feed *feed, struct bp_error *err)
{
    const struct bp_idx *idx = &feed->idx[0];
    if (!(c->name = strdup(feed->column)))
        return bp_fail(err, BP_NOMEM, "no memory for a column");
    c->rank = idx->rank;
    c->count = (int)idx->elements;
    memcpy(c->dim, idx->dim, sizeof idx->dim);
    c->values.full = c->count > 1 && idx->type != 0x08; /* levels of an array of measurements mean nothing */
    c->type = idx->type == 0x08 ? BP_U8 : idx->type == 0x0e ? BP_F64 : BP_F32;
    return BP_OK;
}

static bp_status count_column(struct bp_ingest *ingest, struct bp_ingest_column *c, int64_t histogram[4][256],
                              struct bp_error *err)
{
    if (c->type != BP_U8)
        return BP_OK;
    for (int v = 0; v < 256; v++)
        histogram[0][v] += histogram[1][v] + histogram[2][v] + histogram[3][v];
    histogram_figures(c, histogram[0]);
    return histogram_values(ingest, c, histogram[0], err);
}

/* --- the two steps -------------------------------------------------------------------------------------------------- */

static bp_status same_shape(const struct feed *feed, struct bp_error *err)
{
    const struct bp_idx *a = &feed->idx[0], *b = &feed->idx[1];
    if (a->type != b->type || a->rank != b->rank || memcmp(a->dim, b->dim, sizeof a->dim) != 0)
        return bp_fail_at(err, BP_INVALID, "shape_mismatch", "'%s' and '%s' differ in type or in the shape of a row",
                          feed->role, feed->test_role);
    return BP_OK;
}

/* Reads the headers of all parts and compares what must agree. */
static bp_status read_headers(struct bp_ingest *ingest, struct feed f[2], struct bp_error *err)
{
    for (int i = 0; i < 2; i++)
        for (int split = 0; split < 2; split++) {
            struct idx_part part = {0};
            bp_status status = f[i].part[split] < 0 ? BP_OK : part_open(ingest, f[i].part[split], &part, err);
            f[i].idx[split] = part.idx;
            part_done(&part);
            if (status == BP_OK && split == 1 && f[i].part[1] >= 0)
                status = same_shape(&f[i], err);
            if (status != BP_OK)
                return status;
        }
    for (int split = 0; split < 2; split++)
        if (f[1].part[split] >= 0 && f[0].idx[split].rows != f[1].idx[split].rows)
            return bp_fail_at(err, BP_INVALID, "count_mismatch", "'%s' has %" PRId64 " rows, '%s' has %" PRId64,
                              split ? f[0].test_role : f[0].role, f[0].idx[split].rows,
                              split ? f[1].test_role : f[1].role, f[1].idx[split].rows);
    return BP_OK;
}

static void store_row(const struct bp_ingest_column *c, const struct idx_part *part, uint8_t *row)
{
    if (c->kind == BP_COLUMN_TEXT)
        return;
    if (c->type == BP_U8) {
        memcpy(row + c->offset, part->row, (size_t)c->count);
        return;
    }
    for (int i = 0; i < c->count; i++) {
        double v = bp_idx_value(part->idx.type, part->row + (size_t)i * (size_t)part->idx.size);
        if (c->type == BP_F64) {
            memcpy(row + c->offset + (size_t)i * sizeof v, &v, sizeof v);
        } else {
            float x = (float)v;
            memcpy(row + c->offset + (size_t)i * sizeof x, &x, sizeof x);
        }
    }
}

/* Of a pass: the row as it is written, and the bytes counted for each column (NULL: they were looked at before). */
struct pass {
    uint8_t *row;
    int64_t (*histograms)[4][256];
    struct bp_writer *writer;
};

static bp_status look(struct bp_ingest *ingest, int column, const struct idx_part *part, int64_t row,
                      const struct pass *pass, struct bp_error *err)
{
    if (part->idx.type != 0x08)
        return scan_values(ingest, &ingest->columns[column], part, row, err);
    count_bytes(part->row, part->idx.elements, pass->histograms[column]);
    return BP_OK;
}

/* The training or the test rows of all columns. */
static bp_status pass_split(struct bp_ingest *ingest, const struct feed f[2], int split, const struct pass *pass,
                            struct bp_error *err)
{
    struct idx_part parts[2] = {{0}, {0}};
    bp_status status = BP_OK;
    for (int i = 0; i < ingest->ncolumns && status == BP_OK; i++)
        status = part_open(ingest, f[i].part[split], &parts[i], err);
    for (int64_t r = 0; status == BP_OK && r < parts[0].idx.rows; r++) {
        for (int i = 0; i < ingest->ncolumns && status == BP_OK; i++) {
            if ((status = read_row(&parts[i], r, err)) == BP_OK && pass->histograms)
                status = look(ingest, i, &parts[i], r, pass, err);
            if (status == BP_OK)
                store_row(&ingest->columns[i], &parts[i], pass->row);
        }
        if (status == BP_OK)
            status = bp_writer_put(pass->writer, pass->row, ingest->stride, err);
    }
    for (int i = 0; i < ingest->ncolumns && status == BP_OK; i++)
        status = expect_end(&parts[i], err);
    part_done(&parts[0]);
    part_done(&parts[1]);
    return status;
}

static bp_status pass_rows(struct bp_ingest *ingest, const struct feed f[2], struct pass *pass, struct bp_error *err)
{
    if (!(pass->row = calloc(1, ingest->stride)))
        return bp_fail(err, BP_NOMEM, "no memory for a row");
    bp_status status = pass_split(ingest, f, 0, pass, err);
    if (status == BP_OK && f[0].part[1] >= 0)
        status = pass_split(ingest, f, 1, pass, err);
    free(pass->row);
    return status;
}

/* Whether the columns are as they were laid out before the rows were seen. */
static bool laid_out_right(const struct bp_ingest *ingest, const enum bp_column_type guessed[2])
{
    bool right = true;
    for (int i = 0; i < ingest->ncolumns; i++)
        right = right && ingest->columns[i].kind == BP_COLUMN_NUMBER && ingest->columns[i].type == guessed[i];
    return right;
}

static bp_status scan_rows(struct bp_ingest *ingest, const struct feed f[2], struct pass *pass, struct bp_error *err)
{
    enum bp_column_type guessed[2] = {BP_U8};
    bp_status status = BP_OK;
    for (int i = 0; i < ingest->ncolumns && status == BP_OK; i++) {
        status = name_column(&ingest->columns[i], &f[i], err);
        guessed[i] = ingest->columns[i].type;
    }
    if (status == BP_OK)
        status = bp_ingest_lay_out(ingest, err);
    if (status == BP_OK)
        status = pass_rows(ingest, f, pass, err);
    for (int i = 0; i < ingest->ncolumns && status == BP_OK; i++)
        status = count_column(ingest, &ingest->columns[i], pass->histograms[i], err);
    if (status == BP_OK)
        status = bp_ingest_settle(ingest, err);
    ingest->written = status == BP_OK && laid_out_right(ingest, guessed);
    return status;
}

bp_status bp_ingest_idx_scan(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err)
{
    struct feed f[2];
    bp_status status;
    if ((status = find_feeds(ingest, f, err)) != BP_OK || (status = read_headers(ingest, f, err)) != BP_OK)
        return status;
    if ((status = bp_ingest_columns(ingest, f[1].part[0] >= 0 ? 2 : 1, err)) != BP_OK)
        return status;
    ingest->test_rows = f[0].idx[1].rows;
    ingest->rows = f[0].idx[0].rows + ingest->test_rows;
    if (ingest->rows > BP_ROWS_MAX)
        return bp_fail_at(err, BP_LIMIT, "too_many_rows", "there are more than %" PRId64 " rows", BP_ROWS_MAX);
    struct pass pass = {.writer = writer, .histograms = calloc(2, sizeof *pass.histograms)};
    if (!pass.histograms)
        return bp_fail(err, BP_NOMEM, "no memory to count the values");
    status = scan_rows(ingest, f, &pass, err);
    free(pass.histograms);
    return status;
}

bp_status bp_ingest_idx_write(struct bp_ingest *ingest, struct bp_writer *writer, struct bp_error *err)
{
    struct feed f[2];
    struct pass pass = {.writer = writer};
    bp_status status = find_feeds(ingest, f, err);
    return status == BP_OK ? pass_rows(ingest, f, &pass, err) : status;
}
