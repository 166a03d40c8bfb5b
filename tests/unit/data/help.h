/* help.h: what the tests of the data floor share: a data directory of their own, uploads made of bytes, imports. */
#ifndef BP_TEST_DATA_HELP_H
#define BP_TEST_DATA_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/import.h"
#include "data/table.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct upload {
    char path[300];
    int64_t bytes;
};

static char data_dir[256]; /* "" until make_dir */

__attribute__((unused)) static bool know_none(void *ctx, const char *hash)
{
    (void)ctx;
    (void)hash;
    return false;
}

__attribute__((unused)) static int make_dir(void **state)
{
    (void)state;
    snprintf(data_dir, sizeof data_dir, "/tmp/backpropd-test-XXXXXX");
    return mkdtemp(data_dir) && bp_import_tidy(data_dir, know_none, NULL, NULL) == BP_OK ? 0 : -1;
}

__attribute__((unused)) static int remove_dir(void **state)
{
    static const char *const subs[] = {"raw", "tables", "tmp"};
    char path[300];
    (void)state;
    bp_import_tidy(data_dir, know_none, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", data_dir, subs[i]);
        rmdir(path);
    }
    return rmdir(data_dir);
}

/* Number of files below a sub-directory. */
__attribute__((unused)) static int count_files(const char *sub)
{
    char path[300];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", data_dir, sub);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

__attribute__((unused)) static struct upload put_bytes(const void *bytes, size_t size)
{
    static int serial;
    struct upload u = {.bytes = (int64_t)size};
    snprintf(u.path, sizeof u.path, "%s/tmp/upload-%d", data_dir, serial++);
    FILE *f = fopen(u.path, "wb");
    assert_non_null(f);
    if (size)
        assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    return u;
}

__attribute__((unused)) static struct bp_import_part part_of(const struct upload *u, const char *role)
{
    return (struct bp_import_part){.role = role, .path = u->path, .filename = "test", .bytes = u->bytes};
}

__attribute__((unused)) static struct bp_import_options default_options(void)
{
    return (struct bp_import_options){.dir = data_dir, .header = -1, .max_unfolded = 1 << 28};
}

/* Imports bytes as a single file; the upload is removed when it fails. */
__attribute__((unused)) static bp_status import_bytes(const void *bytes, size_t size,
                                                      const struct bp_import_options *options,
                                                      struct bp_import_result *ret, struct bp_error *err)
{
    struct upload u = put_bytes(bytes, size);
    struct bp_import_part part = part_of(&u, "data");
    memset(err, 0, sizeof *err);
    bp_status status = bp_import(options, &part, 1, ret, err);
    if (status != BP_OK) {
        assert_int_equal(access(u.path, F_OK), 0); /* it stayed where it was */
        unlink(u.path);
    } else {
        assert_int_equal(access(u.path, F_OK), -1);
    }
    return status;
}

/* A table of CSV text that must be fine. */
__attribute__((unused)) static struct bp_table *table_of(const char *csv, struct bp_import_result *ret_result)
{
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    struct bp_table *table;
    if (import_bytes(csv, strlen(csv), &options, &result, &err) != BP_OK)
        fail_msg("import: [%s] %s", err.where, err.message);
    if (bp_table_open(data_dir, result.table, result.description, &table, &err) != BP_OK)
        fail_msg("open: %s", err.message);
    if (ret_result)
        *ret_result = result;
    else
        free(result.description);
    return table;
}

/* The code of the fault that CSV text must have; the message is left in err. */
__attribute__((unused)) static void expect_fault(const char *csv, size_t size, const char *code, struct bp_error *err)
{
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    bp_status status = import_bytes(csv, size, &options, &result, err);
    if (status == BP_OK) {
        free(result.description);
        fail_msg("'%s' was accepted, expected %s", csv, code);
    }
    if (strcmp(err->where, code) != 0)
        fail_msg("'%s' gave [%s] %s, expected %s", csv, err->where, err->message, code);
    assert_int_equal(count_files("tmp"), 0);
}

__attribute__((unused)) static const struct bp_table_column *column(const struct bp_table *t, const char *name)
{
    int i = bp_table_find(t, name);
    assert_true(i >= 0);
    return &t->columns[i];
}

__attribute__((unused)) static double number_at(const struct bp_table *t, uint64_t row, const char *name)
{
    int i = bp_table_find(t, name);
    assert_true(i >= 0);
    const struct bp_table_column *c = &t->columns[i];
    const uint8_t *p = t->rows + row * t->stride + c->offset;
    float f;
    double d;
    int32_t code;
    if (c->type == BP_U8)
        return *p;
    if (c->type == BP_I32)
        return memcpy(&code, p, 4), code;
    return c->type == BP_F32 ? (memcpy(&f, p, 4), (double)f) : (memcpy(&d, p, 8), d);
}

__attribute__((unused)) static uint8_t *gzip(const void *bytes, size_t size, size_t *ret_size)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&z, size);
    uint8_t *out = malloc(room);
    z.next_in = (Bytef *)bytes;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *ret_size = z.total_out;
    deflateEnd(&z);
    return out;
}

/* A number below `below`, from a sequence that is the same in every run. */
static inline uint32_t any(uint32_t below)
{
    static uint64_t seed = 88172645463325252u;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16) % below;
}

#endif
