/* From uploaded files to tables: types, figures, faults, gzip, IDX, and what is left on the disk. */
#include "data/help.h"

#include <nettle/sha2.h>

#include <signal.h>
#include <sys/resource.h>

static void types_and_figures(void **state)
{
    (void)state;
    struct bp_import_result result;
    struct bp_table *t = table_of("id,x,n,color,note,hole\n"
                                  "1,0.1,5, red ,aa,\n"
                                  "2,?,5,blue,bb,NA\n"
                                  "3,0.5,-7,red,cc,null\n"
                                  "4, 2.5 ,5,,\"d,\"\"d\",\n",
                                  &result);
    assert_int_equal(t->nrows, 4);
    assert_int_equal(t->test_first, 4);
    assert_int_equal(t->ncolumns, 6);

    const struct bp_table_column *x = column(t, "x"), *n = column(t, "n"), *color = column(t, "color");
    assert_int_equal(x->kind, BP_COLUMN_NUMBER);
    assert_int_equal(x->type, BP_F64);
    assert_int_equal(x->missing, 1);
    assert_int_equal(x->distinct, 3);
    assert_false(x->integral);
    assert_true(x->min == 0.1 && x->max == 2.5 && fabs(x->mean - 3.1 / 3) < 1e-15);
    assert_true(isnan(number_at(t, 1, "x")) && number_at(t, 3, "x") == 2.5);

    assert_int_equal(n->type, BP_F32);
    assert_true(n->integral);
    assert_int_equal(n->nvalues, 2);
    assert_true(n->values[0] == -7 && n->values[1] == 5);
    assert_true(n->counts[0] == 1 && n->counts[1] == 3);

    assert_int_equal(color->kind, BP_COLUMN_CATEGORY);
    assert_int_equal(color->nlevels, 2);
    assert_string_equal(color->levels[0], "blue");
    assert_true(color->counts[0] == 1 && color->counts[1] == 2);
    assert_true(number_at(t, 0, "color") == 1 && number_at(t, 3, "color") == -1);

    assert_int_equal(column(t, "note")->kind, BP_COLUMN_TEXT); /* four levels in four rows */
    assert_int_equal(column(t, "hole")->kind, BP_COLUMN_TEXT);
    assert_int_equal(json_array_size(json_object_get(t->description, "warnings")), 2);

    json_t *profile = bp_table_profile(result.description);
    json_t *columns = json_object_get(profile, "columns");
    assert_int_equal(json_array_size(columns), 6);
    assert_null(json_object_get(json_array_get(columns, 1), "offset"));
    json_t *classes = json_object_get(json_array_get(columns, 3), "classes");
    assert_string_equal(json_string_value(json_object_get(json_array_get(classes, 1), "value")), "red");
    json_decref(profile);

    json_t *rows;
    assert_int_equal(bp_import_rows(data_dir, result.sha256, result.description, 10, &rows, NULL), BP_OK);
    assert_int_equal(json_array_size(rows), 4);
    json_t *last = json_array_get(rows, 3);
    assert_string_equal(json_string_value(json_object_get(last, "note")), "d,\"d");
    assert_true(json_is_null(json_object_get(last, "color")));
    assert_true(json_integer_value(json_object_get(last, "id")) == 4);
    json_decref(rows);
    free(result.description);
    bp_table_close(t);
}

/* A table is there until its last owner has closed it, and what it shows too. */
static void shares_tables(void **state)
{
    (void)state;
    struct bp_table *t = table_of("a,b\n1,x\n2,y\n", NULL), *same = bp_table_share(t);
    assert_ptr_equal(same, t);
    bp_table_close(t);
    assert_string_equal(column(same, "b")->levels[1], "y");
    assert_true(number_at(same, 1, "a") == 2);
    bp_table_close(same);
}

/* What an upload is named after, though nobody but the import has read it. */
static void hashes_uploads(void **state)
{
    size_t size = 3 << 20; /* several blocks */
    char *csv = malloc(size), digits[65], path[400];
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    struct sha256_ctx sha;
    uint8_t digest[32];
    (void)state;
    for (size_t i = 0; i < size; i++)
        csv[i] = "1,2\n"[i % 4];
    sha256_init(&sha);
    sha256_update(&sha, size, (const uint8_t *)csv);
    sha256_digest(&sha, sizeof digest, digest);
    for (int i = 0; i < 32; i++)
        sprintf(digits + 2 * i, "%02x", digest[i]);
    assert_int_equal(import_bytes(csv, size, &options, &result, &err), BP_OK);
    assert_string_equal(result.sha256, digits);
    snprintf(path, sizeof path, "%s/raw/%s", data_dir, digits);
    assert_int_equal(access(path, F_OK), 0);
    bp_import_remove(data_dir, result.sha256, result.table);
    free(result.description);
    free(csv);
}

static void faults_of_csv(void **state)
{
    static const struct {
        const char *csv, *code, *says;
    } cases[] = {
        {"a,b\n1,2\n3\n", "ragged_row", "line 3: 2 columns expected, 1 found"},
        {"a,b\n1,2\n3,4,5\n", "ragged_row", "line 3: 2 columns expected, 3 found"},
        {"a,b,a\n1,2,3\n", "duplicate_column", "columns 1 and 3"},
        {"a,,b,\n1,2,3,4\n", "empty_column_name", "columns 2 and 4"},
        {"a,\n1,2\n", "empty_column_name", "column 2"},
        {"a,b\n", "empty_dataset", "below its header"},
        {"", "empty_dataset", "empty"},
        {"\n\n", "empty_dataset", "no rows"},
        {"a,b1,23,4", "newlines_gone", "curl -d strips them"},
        {"a,b\n1,\"2\n", "unclosed_quote", "line 2, column 2"},
        {"PK\x03\x04zip", "looks_like_xlsx", "save the sheet as CSV"},
        {"\xff\xfe"
         "a",
         "not_utf8", "UTF-16"},
        {"a\n\xe9\n", "not_utf8", "line 2"},
        {"\x93NUMPY", "unsupported_format", "NPY"},
        {"backpropd manifest 1\n", "is_manifest", "manifest"},
    };
    struct bp_error err;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_fault(cases[i].csv, strlen(cases[i].csv), cases[i].code, &err);
        if (!strstr(err.message, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.message, cases[i].says);
    }
}

static void options_override(void **state)
{
    struct bp_import_options options = default_options();
    struct bp_import_result a, b;
    struct bp_error err;
    struct bp_table *t;
    (void)state;
    options.header = 0;
    assert_int_equal(import_bytes("a,b\nc,d\n", 8, &options, &a, &err), BP_OK);
    assert_int_equal(a.rows, 2);
    options.header = 1;
    assert_int_equal(import_bytes("a,b\nc,d\n", 8, &options, &b, &err), BP_OK);
    assert_int_equal(b.rows, 1);
    assert_string_equal(a.sha256, b.sha256);
    assert_string_not_equal(a.table, b.table);
    assert_int_equal(bp_table_open(data_dir, a.table, a.description, &t, &err), BP_OK);
    assert_string_equal(t->columns[0].name, "column_1");
    bp_table_close(t);
    assert_int_equal(bp_table_open(data_dir, b.table, a.description, &t, &err), BP_CORRUPT);

    /* two tables of one file: it stays until the second goes */
    int raw = count_files("raw");
    bp_import_remove(data_dir, a.sha256, a.table);
    assert_int_equal(count_files("raw"), raw);
    assert_int_equal(bp_table_open(data_dir, a.table, a.description, &t, &err), BP_NOT_FOUND);
    bp_import_remove(data_dir, b.sha256, b.table);
    assert_int_equal(count_files("raw"), raw - 1);
    free(a.description);
    free(b.description);
}

static void reads_gzip(void **state)
{
    static const char csv[] = "a,b\n1,2\n3,4\n";
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    size_t n1, n2;
    (void)state;
    uint8_t *first = gzip(csv, 6, &n1), *second = gzip(csv + 6, strlen(csv) - 6, &n2), both[256] = {0};
    memcpy(both, first, n1);
    memcpy(both + n1, second, n2);
    assert_int_equal(import_bytes(both, n1 + n2 + 20, &options, &result, &err), BP_OK); /* two members, zeros */
    assert_int_equal(result.rows, 2);
    free(result.description);

    expect_fault((char *)both, n1 + n2 - 1, "gzip_damaged", &err);
    expect_fault((char *)both, n1 - 9, "gzip_damaged", &err);
    both[n1 + n2] = 'x';
    expect_fault((char *)both, n1 + n2 + 1, "gzip_damaged", &err);
    both[n1 - 6] ^= 1; /* its checksum */
    expect_fault((char *)both, n1 + n2, "gzip_damaged", &err);
    free(first);
    free(second);

    /* a bomb: 100 MB of newlines in 100 kB */
    char *zeros = malloc(100 << 20);
    memset(zeros, '\n', 100 << 20);
    uint8_t *bomb = gzip(zeros, 100 << 20, &n1);
    expect_fault((char *)bomb, n1, "unfolds_too_far", &err);
    options.max_unfolded = 1 << 20;
    assert_int_equal(import_bytes(bomb, n1, &options, &result, &err), BP_LIMIT);
    free(zeros);
    free(bomb);
}

/* --- IDX ------------------------------------------------------------------------------------------------------------ */

static size_t idx_bytes(uint8_t *dst, int type, int ndim, const uint32_t *dims, const void *values, size_t size)
{
    memcpy(dst, (uint8_t[]){0, 0, (uint8_t)type, (uint8_t)ndim}, 4);
    for (int i = 0; i < ndim; i++)
        for (int b = 0; b < 4; b++)
            dst[4 + 4 * i + b] = (uint8_t)(dims[i] >> (24 - 8 * b));
    memcpy(dst + 4 + 4 * ndim, values, size);
    return 4 + 4 * (size_t)ndim + size;
}

static bp_status import_parts(struct upload *uploads, const char *const *roles, int n, struct bp_import_result *ret,
                              struct bp_error *err)
{
    struct bp_import_part parts[5];
    struct bp_import_options options = default_options();
    for (int i = 0; i < n; i++)
        parts[i] = part_of(&uploads[i], roles[i]);
    return bp_import(&options, parts, n, ret, err);
}

static void idx_datasets(void **state)
{
    static const char *const roles[] = {"test_targets", "targets", "inputs", "test_inputs"};
    static const uint8_t pixels[18] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 255};
    uint8_t bytes[64];
    struct upload u[4];
    struct bp_import_result result;
    struct bp_error err;
    struct bp_table *t;
    size_t n;
    (void)state;
    int raw = count_files("raw");
    n = idx_bytes(bytes, 8, 3, (uint32_t[]){2, 2, 3}, pixels, 12);
    u[2] = put_bytes(bytes, n);
    n = idx_bytes(bytes, 8, 1, (uint32_t[]){2}, "\7\3", 2);
    u[1] = put_bytes(bytes, n);
    n = idx_bytes(bytes, 8, 3, (uint32_t[]){1, 2, 3}, pixels + 12, 6);
    size_t folded;
    uint8_t *gz = gzip(bytes, n, &folded);
    u[3] = put_bytes(gz, folded);
    free(gz);
    n = idx_bytes(bytes, 8, 1, (uint32_t[]){1}, "\3", 1);
    u[0] = put_bytes(bytes, n);
    if (import_parts(u, roles, 4, &result, &err) != BP_OK)
        fail_msg("[%s] %s", err.where, err.message);
    assert_int_equal(count_files("raw"), raw + 5);
    assert_int_equal(count_files("tmp"), 0);
    assert_int_equal(bp_table_open(data_dir, result.table, result.description, &t, &err), BP_OK);
    assert_int_equal(t->nrows, 3);
    assert_int_equal(t->test_first, 2);
    assert_int_equal(t->stride, 7);
    const struct bp_table_column *c = column(t, "inputs"), *target = column(t, "target");
    assert_true(c->count == 6 && c->rank == 2 && c->dim[0] == 2 && c->dim[1] == 3 && c->type == BP_U8);
    assert_true(c->max == 255 && c->distinct == 18 && fabs(c->mean - 391.0 / 18) < 1e-12);
    assert_memory_equal(t->rows + 2 * t->stride + c->offset, pixels + 12, 6);
    assert_true(target->nvalues == 2 && target->values[0] == 3 && target->counts[0] == 2);
    assert_true(number_at(t, 0, "target") == 7 && number_at(t, 2, "target") == 3);
    bp_table_close(t);

    json_t *rows;
    assert_int_equal(bp_import_rows(data_dir, result.sha256, result.description, 1, &rows, &err), BP_OK);
    char *text = json_dumps(rows, JSON_COMPACT);
    assert_string_equal(text, "[{\"inputs\":[[0,1,2],[3,4,5]],\"target\":7}]");
    free(text);
    json_decref(rows);
    bp_import_remove(data_dir, result.sha256, result.table);
    assert_int_equal(count_files("raw"), raw);
    free(result.description);
}

/* Rows are shown as JSON, some 100 bytes a value: so many values at most, the same rows of each part. */
static void shows_fewer_wide_rows(void **state)
{
    static const char *const roles[] = {"targets", "inputs"};
    enum { SIDE = 600, ROWS = 4 };
    struct bp_import_result result;
    struct bp_error err;
    struct upload u[2];
    json_t *rows;
    (void)state;
    uint8_t *pixels = calloc(ROWS, SIDE * SIDE), *bytes = malloc(ROWS * SIDE * SIDE + 16);
    u[0] = put_bytes(bytes, idx_bytes(bytes, 8, 1, (uint32_t[]){ROWS}, "\1\0\1\0", ROWS));
    u[1] = put_bytes(bytes, idx_bytes(bytes, 8, 3, (uint32_t[]){ROWS, SIDE, SIDE}, pixels, ROWS * SIDE * SIDE));
    assert_int_equal(import_parts(u, roles, 2, &result, &err), BP_OK);
    assert_int_equal(bp_import_rows(data_dir, result.sha256, result.description, 10, &rows, &err), BP_OK);
    assert_int_equal(json_array_size(rows), 2);
    assert_int_equal(json_array_size(json_object_get(json_array_get(rows, 1), "inputs")), SIDE);
    assert_true(json_integer_value(json_object_get(json_array_get(rows, 0), "target")) == 1);
    json_decref(rows);
    free(result.description);

    u[0] = put_bytes(bytes, idx_bytes(bytes, 8, 2, (uint32_t[]){1, ROWS * SIDE * SIDE}, pixels, ROWS * SIDE * SIDE));
    assert_int_equal(import_parts(u, (const char *const[]){"data"}, 1, &result, &err), BP_OK);
    assert_int_equal(bp_import_rows(data_dir, result.sha256, result.description, 1, &rows, &err), BP_LIMIT);
    free(result.description);
    free(pixels);
    free(bytes);
}

static void idx_types(void **state)
{
    static const struct {
        int type, size;
        uint8_t bytes[8];
        double value;
        enum bp_column_type stored;
    } cases[] = {{0x08, 1, {200}, 200, BP_U8},
                 {0x09, 1, {0xff}, -1, BP_F32},
                 {0x0b, 2, {0xff, 0x00}, -256, BP_F32},
                 {0x0c, 4, {0x01, 0x00, 0x00, 0x01}, 16777217, BP_F64},
                 {0x0c, 4, {0xff, 0xff, 0xff, 0xfe}, -2, BP_F32},
                 {0x0d, 4, {0x3f, 0x80, 0x00, 0x00}, 1, BP_F32},
                 {0x0e, 8, {0x3f, 0xf0, 0, 0, 0, 0, 0, 0}, 1, BP_F32},
                 {0x0e, 8, {0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a}, 0.1, BP_F64}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_import_options options = default_options();
        struct bp_import_result result;
        struct bp_error err;
        struct bp_table *t;
        uint8_t bytes[32];
        size_t n = idx_bytes(bytes, cases[i].type, 1, (uint32_t[]){1}, cases[i].bytes, (size_t)cases[i].size);
        assert_int_equal(import_bytes(bytes, n, &options, &result, &err), BP_OK);
        assert_int_equal(bp_table_open(data_dir, result.table, result.description, &t, &err), BP_OK);
        assert_int_equal(t->ncolumns, 1);
        assert_int_equal(t->columns[0].type, cases[i].stored);
        assert_true(number_at(t, 0, "inputs") == cases[i].value);
        bp_table_close(t);
        free(result.description);
    }
}

static void idx_faults(void **state)
{
    uint8_t bytes[64], huge[64];
    struct bp_error err;
    (void)state;
    size_t n = idx_bytes(bytes, 8, 2, (uint32_t[]){2, 3}, "abcdef", 6);
    expect_fault((char *)bytes, n - 1, "idx_length", &err);
    assert_non_null(strstr(err.message, "says 18 bytes, the file has 17"));
    expect_fault((char *)bytes, n + 1, "idx_length", &err);
    expect_fault((char *)bytes, 7, "idx_length", &err);
    expect_fault((char *)bytes, 3, "idx_magic", &err);
    bytes[2] = 0x0a;
    expect_fault((char *)bytes, n, "idx_magic", &err);
    bytes[2] = 8;
    bytes[3] = 0;
    expect_fault((char *)bytes, n, "idx_magic", &err);
    bytes[3] = 255;
    expect_fault((char *)bytes, n, "idx_magic", &err);
    n = idx_bytes(huge, 0x0e, 4, (uint32_t[]){0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, "", 0);
    expect_fault((char *)huge, n, "idx_dimensions", &err);
    n = idx_bytes(huge, 8, 2, (uint32_t[]){0, 3}, "", 0);
    expect_fault((char *)huge, n, "empty_dataset", &err);
    n = idx_bytes(huge, 8, 2, (uint32_t[]){3, 0}, "", 0);
    expect_fault((char *)huge, n, "idx_dimensions", &err);

    size_t folded;
    n = idx_bytes(bytes, 8, 2, (uint32_t[]){2, 3}, "abcdef", 6);
    uint8_t *gz = gzip(bytes, n - 1, &folded);
    expect_fault((char *)gz, folded, "idx_length", &err);
    free(gz);
    n = idx_bytes(bytes, 0x0d, 1, (uint32_t[]){1}, "\x7f\x80\0\0", 4);
    expect_fault((char *)bytes, n, "infinite_value", &err);

    static const char *const roles[] = {"inputs", "targets"};
    struct upload u[2];
    struct bp_import_result result;
    u[0] = put_bytes(bytes, idx_bytes(bytes, 8, 2, (uint32_t[]){2, 3}, "abcdef", 6));
    u[1] = put_bytes(bytes, idx_bytes(bytes, 8, 1, (uint32_t[]){3}, "abc", 3));
    assert_int_equal(import_parts(u, roles, 2, &result, &err), BP_INVALID);
    assert_string_equal(err.where, "count_mismatch");
    assert_string_equal(err.message, "'inputs' has 2 rows, 'targets' has 3");
    assert_int_equal(import_parts(u + 1, roles + 1, 1, &result, &err), BP_INVALID);
    assert_string_equal(err.where, "missing_part");
    assert_int_equal(count_files("tmp"), 2);
    unlink(u[0].path);
    unlink(u[1].path);
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

static bool stop_now(void *ctx)
{
    (void)ctx;
    return true;
}

static bool know_one(void *ctx, const char *hash)
{
    const struct bp_import_result *r = ctx;
    return strcmp(hash, r->sha256) == 0 || strcmp(hash, r->table) == 0;
}

static void keeps_the_disk_tidy(void **state)
{
    struct bp_import_options options = default_options();
    struct bp_import_result keep, drop;
    struct bp_error err;
    (void)state;
    options.cancelled = stop_now;
    int raw = count_files("raw"), tables = count_files("tables");
    assert_int_equal(import_bytes("a\n1\n2\n", 6, &options, &keep, &err), BP_STOPPED);
    assert_int_equal(count_files("raw"), raw);
    assert_int_equal(count_files("tables"), tables);
    options.cancelled = NULL;
    assert_int_equal(import_bytes("a\n1\n2\n", 6, &options, &keep, &err), BP_OK);
    assert_int_equal(import_bytes("a\n1\n3\n", 6, &options, &drop, &err), BP_OK);
    put_bytes("left behind", 11);
    assert_int_equal(bp_import_tidy(data_dir, know_one, &keep, &err), BP_OK);
    assert_int_equal(count_files("raw"), 1);
    assert_int_equal(count_files("tables"), 1);
    assert_int_equal(count_files("tmp"), 0);

    /* the same bytes again change nothing */
    free(drop.description);
    assert_int_equal(import_bytes("a\n1\n2\n", 6, &options, &drop, &err), BP_OK);
    assert_string_equal(drop.table, keep.table);
    assert_string_equal(drop.description, keep.description);
    assert_int_equal(count_files("raw"), 1);

    /* damage is seen */
    struct bp_table *t;
    char path[400];
    snprintf(path, sizeof path, "%s/tables/%s.table", data_dir, keep.table);
    assert_int_equal(truncate(path, 65), 0);
    assert_int_equal(bp_table_open(data_dir, keep.table, keep.description, &t, &err), BP_CORRUPT);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(bp_table_open(data_dir, keep.table, keep.description, &t, &err), BP_CORRUPT);
    free(keep.description);
    free(drop.description);
}

/* A file that cannot be written to its end leaves nothing behind, and the upload where it was. */
static void survives_failing_writes(void **state)
{
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    struct rlimit old, small;
    (void)state;
    char *csv = malloc(400000);
    strcpy(csv, "x,y\n");
    size_t used = strlen(csv);
    for (int i = 0; i < 20000; i++)
        used += (size_t)sprintf(csv + used, "%d,%d.5\n", i, i);
    int raw = count_files("raw"), tables = count_files("tables");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct upload u = put_bytes(csv, used);
    struct bp_import_part part = part_of(&u, "data");
    small = old;
    small.rlim_cur = 100000; /* the table takes 240,064 bytes */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bp_status status = bp_import(&options, &part, 1, &result, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, BP_FULL);       /* a limit on the size of files counts as a full disk */
    assert_int_equal(count_files("tmp"), 1); /* the upload */
    assert_int_equal(count_files("raw"), raw);
    assert_int_equal(count_files("tables"), tables);

    /* a table that cannot be put into place: the raw file goes back to where it came from */
    char path[300], aside[300];
    snprintf(path, sizeof path, "%s/tables", data_dir);
    snprintf(aside, sizeof aside, "%s/aside", data_dir);
    assert_int_equal(rename(path, aside), 0);
    FILE *f = fopen(path, "w"); /* a file where the directory should be */
    assert_non_null(f);
    fclose(f);
    assert_int_equal(bp_import(&options, &part, 1, &result, &err), BP_IO);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(aside, path), 0);
    assert_int_equal(count_files("tmp"), 1);
    assert_int_equal(count_files("raw"), raw);
    assert_int_equal(access(u.path, F_OK), 0);
    assert_int_equal(bp_import(&options, &part, 1, &result, &err), BP_OK);
    free(result.description);
    free(csv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(types_and_figures),
                                       cmocka_unit_test(hashes_uploads),
                                       cmocka_unit_test(faults_of_csv),
                                       cmocka_unit_test(options_override),
                                       cmocka_unit_test(reads_gzip),
                                       cmocka_unit_test(idx_datasets),
                                       cmocka_unit_test(shows_fewer_wide_rows),
                                       cmocka_unit_test(idx_types),
                                       cmocka_unit_test(idx_faults),
                                       cmocka_unit_test(survives_failing_writes),
                                       cmocka_unit_test(shares_tables),
                                       cmocka_unit_test(keeps_the_disk_tidy)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
