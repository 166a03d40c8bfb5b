/* table.c: puts a description and a mapped file together. Both are checked against each other: a column that would
 * reach beyond its row, or a file that is not exactly as long as its header says, is damage and never read. */
#include "data/table.h"

#include "data/files.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(struct bp_table_header) == 64, "the header is 64 bytes on every machine");

static bp_status damaged(struct bp_error *err, const char *what)
{
    return bp_fail(err, BP_CORRUPT, "the stored dataset is damaged: %s", what);
}

static bool read_integer(const json_t *o, const char *key, int64_t low, int64_t high, int64_t *ret)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high)
        return false;
    *ret = json_integer_value(v);
    return true;
}

static double read_number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int find_word(const json_t *o, const char *key, const char *const *words, int n)
{
    const char *word = json_string_value(json_object_get(o, key));
    for (int i = 0; word && i < n; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

/* --- columns -------------------------------------------------------------------------------------------------------- */

static bool read_shape(const json_t *o, struct bp_table_column *c)
{
    const json_t *shape = json_object_get(o, "shape");
    int64_t product = 1;
    if (json_array_size(shape) > 4)
        return false;
    c->rank = (int)json_array_size(shape);
    for (int i = 0; i < c->rank; i++) {
        c->dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
        if (c->dim[i] < 1 || __builtin_mul_overflow(product, c->dim[i], &product))
            return false;
    }
    return product == c->count;
}

/* counts, for n levels or values. */
static bp_status read_counts(const json_t *o, int n, struct bp_table_column *c, struct bp_error *err)
{
    const json_t *counts = json_object_get(o, "counts");
    if (json_array_size(counts) != (size_t)n)
        return damaged(err, "counts");
    int64_t *list = malloc((size_t)n * sizeof *list + 1);
    if (!list)
        return bp_fail(err, BP_NOMEM, "no memory to open the dataset");
    for (int i = 0; i < n; i++)
        list[i] = json_integer_value(json_array_get(counts, (size_t)i));
    c->counts = list;
    return BP_OK;
}

static bp_status read_values(const json_t *o, struct bp_table_column *c, struct bp_error *err)
{
    const json_t *values = json_object_get(o, "values");
    size_t n = json_array_size(values);
    if (!values)
        return BP_OK;
    if (n > BP_DISTINCT_MAX)
        return damaged(err, "values");
    double *list = malloc(n * sizeof *list + 1);
    if (!list)
        return bp_fail(err, BP_NOMEM, "no memory to open the dataset");
    c->values = list;
    c->nvalues = (int)n;
    for (size_t i = 0; i < n; i++) {
        list[i] = json_number_value(json_array_get(values, i));
        if (i > 0 && !(list[i - 1] < list[i]))
            return damaged(err, "values");
    }
    return read_counts(o, (int)n, c, err);
}

static bp_status read_levels(const json_t *o, struct bp_table_column *c, struct bp_error *err)
{
    const json_t *levels = json_object_get(o, "levels");
    size_t n = json_array_size(levels);
    if (n < 1 || n > BP_DISTINCT_MAX)
        return damaged(err, "levels");
    const char **list = malloc(n * sizeof *list);
    if (!list)
        return bp_fail(err, BP_NOMEM, "no memory to open the dataset");
    c->levels = list;
    c->nlevels = (int)n;
    for (size_t i = 0; i < n; i++) {
        list[i] = json_string_value(json_array_get(levels, i));
        if (!list[i] || (i > 0 && strcmp(list[i - 1], list[i]) >= 0))
            return damaged(err, "levels");
    }
    return read_counts(o, (int)n, c, err);
}

static bp_status read_column(const json_t *o, size_t stride, struct bp_table_column *c, struct bp_error *err)
{
    static const char *const kinds[] = {"number", "category", "text"};
    static const char *const types[] = {[BP_U8] = "u8", [BP_I32] = "i32", [BP_F32] = "f32", [BP_F64] = "f64"};
    int64_t offset, count;
    int kind = find_word(o, "kind", kinds, 3), type = find_word(o, "type", types, 4);
    c->name = json_string_value(json_object_get(o, "name"));
    if (!c->name || kind < 0 || type < 0 || !read_integer(o, "offset", 0, INT64_MAX, &offset) ||
        !read_integer(o, "count", 1, INT32_MAX, &count) || !read_integer(o, "missing", 0, INT64_MAX, &c->missing) ||
        !read_integer(o, "distinct", -1, INT64_MAX, &c->distinct))
        return damaged(err, "a column");
    c->kind = (enum bp_column_kind)kind;
    c->type = (enum bp_column_type)type;
    c->offset = (size_t)offset;
    c->count = (int)count;
    size_t size = bp_column_size(c->type);
    if (!read_shape(o, c) || (kind == BP_COLUMN_CATEGORY && (type != BP_I32 || count != 1)) ||
        (kind == BP_COLUMN_NUMBER && type == BP_I32))
        return damaged(err, "a column");
    if (kind != BP_COLUMN_TEXT &&
        (c->offset > stride || (size_t)c->count > (stride - c->offset) / size || c->offset % size != 0))
        return damaged(err, "a column");
    c->integral = json_is_true(json_object_get(o, "integral"));
    c->min = read_number(o, "min");
    c->max = read_number(o, "max");
    c->mean = read_number(o, "mean");
    if (kind == BP_COLUMN_NUMBER)
        return read_values(o, c, err);
    return kind == BP_COLUMN_CATEGORY ? read_levels(o, c, err) : BP_OK;
}

static bp_status read_description(struct bp_table *t, const char *text, struct bp_error *err)
{
    int64_t version, rows, test_rows, stride;
    t->description = json_loads(text, 0, NULL);
    if (!json_is_object(t->description) || !read_integer(t->description, "version", 0, INT32_MAX, &version))
        return damaged(err, "its description");
    if (version != BP_TABLE_VERSION)
        return bp_fail(err, BP_MISMATCH, "the dataset was stored in format %d, this is format %d: upload it again",
                       (int)version, BP_TABLE_VERSION);
    const json_t *columns = json_object_get(t->description, "columns");
    size_t n = json_array_size(columns);
    if (n < 1 || n > BP_COLUMNS_MAX || !read_integer(t->description, "rows", 1, INT32_MAX, &rows) ||
        !read_integer(t->description, "test_rows", 0, rows, &test_rows) ||
        !read_integer(t->description, "stride", 1, INT32_MAX, &stride))
        return damaged(err, "its description");
    t->nrows = (uint64_t)rows;
    t->test_first = (uint64_t)(rows - test_rows);
    t->stride = (size_t)stride;
    t->columns = calloc(n, sizeof *t->columns);
    if (!t->columns)
        return bp_fail(err, BP_NOMEM, "no memory to open the dataset");
    t->ncolumns = (int)n;
    t->private_data = json_object(); /* index of each column by name */
    for (size_t i = 0; i < n; i++) {
        bp_status status = read_column(json_array_get(columns, i), t->stride, &t->columns[i], err);
        if (status != BP_OK)
            return status;
        if (json_object_set_new(t->private_data, t->columns[i].name, json_integer((json_int_t)i)) != 0)
            return bp_fail(err, BP_NOMEM, "no memory to open the dataset");
    }
    return BP_OK;
}

/* --- the file ------------------------------------------------------------------------------------------------------- */

static bp_status check_header(const struct bp_table *t, struct bp_error *err)
{
    struct bp_table_header h;
    size_t rows;
    if (t->map_size < sizeof h)
        return damaged(err, "the file of its rows is too short");
    memcpy(&h, t->map, sizeof h);
    if (memcmp(h.magic, BP_TABLE_MAGIC, sizeof h.magic) != 0)
        return damaged(err, "the file of its rows is none of ours");
    if (h.byte_order != BP_TABLE_BYTE_ORDER)
        return bp_fail(err, BP_MISMATCH,
                       "the dataset was stored on a machine of another byte order: upload it again");
    if (h.version != BP_TABLE_VERSION)
        return bp_fail(err, BP_MISMATCH, "the dataset was stored in format %u, this is format %d: upload it again",
                       (unsigned)h.version, BP_TABLE_VERSION);
    if (h.rows != t->nrows || h.stride != t->stride || __builtin_mul_overflow(t->stride, t->nrows, &rows) ||
        t->map_size - sizeof h != rows)
        return damaged(err, "the file of its rows has another length");
    return BP_OK;
}

static bp_status map_file(struct bp_table *t, const char *dir, struct bp_error *err)
{
    char path[BP_FILES_PATH];
    struct stat st;
    bp_status status = bp_files_path(path, dir, "tables", t->hash, ".table", err);
    if (status != BP_OK)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return bp_fail(err, errno == ENOENT ? BP_NOT_FOUND : BP_IO, "opening the stored dataset: %s",
                       strerror(errno));
    if (fstat(fd, &st) != 0) {
        status = bp_fail(err, BP_IO, "opening the stored dataset: %s", strerror(errno));
    } else if (st.st_size > 0) { /* an empty file cannot be mapped, and is too short anyway */
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            status =
                bp_fail(err, errno == ENOMEM ? BP_NOMEM : BP_IO, "mapping the stored dataset: %s", strerror(errno));
        } else {
            t->map = map;
            t->map_size = (size_t)st.st_size;
        }
    }
    close(fd);
    return status == BP_OK ? check_header(t, err) : status;
}

bp_status bp_table_open(const char *dir, const char *hash, const char *description, struct bp_table **ret,
                        struct bp_error *err)
{
    if (!bp_files_is_hash(hash))
        return bp_fail(err, BP_NOT_FOUND, "there is no such stored dataset");
    struct bp_table *t = calloc(1, sizeof *t);
    if (!t)
        return bp_fail(err, BP_NOMEM, "no memory to open the dataset");
    memcpy(t->hash, hash, sizeof t->hash);
    bp_status status = read_description(t, description, err);
    if (status == BP_OK)
        status = map_file(t, dir, err);
    if (status != BP_OK) {
        bp_table_close(t);
        return status;
    }
    t->rows = (const uint8_t *)t->map + sizeof(struct bp_table_header);
    *ret = t;
    return BP_OK;
}

struct bp_table *bp_table_share(struct bp_table *t)
{
    t->shares++;
    return t;
}

void bp_table_close(struct bp_table *t)
{
    if (!t || t->shares-- > 0)
        return;
    for (int i = 0; i < t->ncolumns; i++) {
        free((void *)t->columns[i].levels);
        free((void *)t->columns[i].values);
        free((void *)t->columns[i].counts);
    }
    free(t->columns);
    if (t->map)
        munmap(t->map, t->map_size);
    json_decref(t->private_data);
    json_decref(t->description);
    free(t);
}

int bp_table_find(const struct bp_table *t, const char *name)
{
    const json_t *index = json_object_get(t->private_data, name);
    return index ? (int)json_integer_value(index) : -1;
}
