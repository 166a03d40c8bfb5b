/* spec_fixture.h: datasets for the tests of job specs, imported for real into a temporary directory. */
#ifndef BP_TEST_SPEC_FIXTURE_H
#define BP_TEST_SPEC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/import.h"
#include "jobs/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct fixture_set {
    const char *name;
    char table[65];
    char *description;
};

static char fixture_dir[64];
static struct fixture_set fixture_sets[16];
static int fixture_count;

static void fixture_add(const char *name, const char *role[], const void *bytes[], const size_t size[], int parts)
{
    struct bp_import_options options = {.dir = fixture_dir, .header = -1, .max_unfolded = 1 << 26};
    struct bp_import_part part[4];
    char path[4][128];
    struct bp_import_result result;
    struct bp_error err = {0};
    for (int i = 0; i < parts; i++) {
        snprintf(path[i], sizeof path[i], "%s/tmp/%s-%d", fixture_dir, name, i);
        FILE *f = fopen(path[i], "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes[i], 1, size[i], f), size[i]);
        fclose(f);
        part[i] = (struct bp_import_part){role[i], path[i], "", (int64_t)size[i]};
    }
    bp_status status = bp_import(&options, part, parts, &result, &err);
    if (status)
        fail_msg("%s: %s", name, err.message);
    struct fixture_set *set = &fixture_sets[fixture_count++];
    set->name = name;
    snprintf(set->table, sizeof set->table, "%s", result.table);
    set->description = result.description;
}

static void fixture_csv(const char *name, const char *text)
{
    const char *role = "data";
    const void *bytes = text;
    size_t size = strlen(text);
    fixture_add(name, &role, &bytes, &size, 1);
}

static bool fixture_knows(void *ctx, const char *hash)
{
    (void)ctx, (void)hash;
    return false;
}

static void fixture_images(const char *name, int rows, bool with_test)
{
    static uint8_t images[16 + 64 * 16], labels[8 + 64];
    memset(images, 7, sizeof images);
    memcpy(images, (uint8_t[16]){0, 0, 8, 3, 0, 0, 0, (uint8_t)rows, 0, 0, 0, 4, 0, 0, 0, 4}, 16);
    memcpy(labels, (uint8_t[8]){0, 0, 8, 1, 0, 0, 0, (uint8_t)rows}, 8);
    for (int i = 0; i < rows; i++) {
        labels[8 + i] = (uint8_t)(i % 4);
        images[16 + i * 16] = (uint8_t)(i * 3);
    }
    const char *roles[] = {"inputs", "targets", "test_inputs", "test_targets"};
    const void *bytes[] = {images, labels, images, labels};
    size_t sizes[] = {(size_t)(16 + rows * 16), (size_t)(8 + rows), (size_t)(16 + rows * 16), (size_t)(8 + rows)};
    fixture_add(name, roles, bytes, sizes, with_test ? 4 : 2);
}

/* iris: 150 rows, 4 numbers, 3 names. xor: 4 rows. houses: a price with fractions. pixels: 60 images 4x4, 4 classes;
 * split: the same with a test split. soft: a target between 0 and 1. rare: a class of one row. */
static inline int fixture_up(void **state)
{
    static char text[65536];
    struct bp_error err = {0};
    (void)state;
    snprintf(fixture_dir, sizeof fixture_dir, "/tmp/bp-spec-XXXXXX");
    assert_non_null(mkdtemp(fixture_dir));
    if (bp_import_tidy(fixture_dir, fixture_knows, NULL, &err))
        fail_msg("%s", err.message);
    size_t n = (size_t)snprintf(text, sizeof text, "sepal_length,sepal_width,petal_length,petal_width,species\n");
    for (int i = 0; i < 150; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%.1f,%.1f,%.1f,%.1f,%s\n", 4 + i * 0.013, 2 + i % 7 * 0.3,
                              1 + i * 0.031, 0.1 + i % 5 * 0.2,
                              ((const char *[]){"setosa", "versicolor", "virginica"})[i / 50]);
    fixture_csv("iris", text);
    fixture_csv("xor", "a,b,y\n0,0,0\n0,1,1\n1,0,1\n1,1,0\n");
    n = (size_t)snprintf(text, sizeof text, "rooms,area,price\n");
    for (int i = 0; i < 80; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%d,%.1f,%.2f\n", 1 + i % 6, 20 + i * 1.7,
                              1000.25 + i * 31.37);
    fixture_csv("houses", text);
    n = (size_t)snprintf(text, sizeof text, "x,p\n");
    for (int i = 0; i < 40; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%d,%.3f\n", i, i / 40.0);
    fixture_csv("soft", text);
    n = (size_t)snprintf(text, sizeof text, "x,kind\n");
    for (int i = 0; i < 41; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%d,%s\n", i, i == 40 ? "odd" : i % 2 ? "one" : "two");
    fixture_csv("rare", text);
    fixture_images("pixels", 60, false);
    fixture_images("split", 60, true);
    return 0;
}

static inline int fixture_down(void **state)
{
    char command[128];
    (void)state;
    for (int i = 0; i < fixture_count; i++)
        free(fixture_sets[i].description);
    fixture_count = 0;
    snprintf(command, sizeof command, "rm -r '%s'", fixture_dir);
    return system(command);
}

static bp_status fixture_open(void *ctx, const char *name, struct bp_table **ret, struct bp_error *err)
{
    (void)ctx;
    for (int i = 0; i < fixture_count; i++)
        if (strcmp(fixture_sets[i].name, name) == 0)
            return bp_table_open(fixture_dir, fixture_sets[i].table, fixture_sets[i].description, ret, err);
    return bp_fail(err, BP_NOT_FOUND, "no dataset %s", name);
}

static json_t *fixture_names(void *ctx)
{
    (void)ctx;
    json_t *names = json_array();
    for (int i = 0; i < fixture_count; i++)
        json_array_append_new(names, json_string(fixture_sets[i].name));
    return names;
}

static const struct bp_spec_context fixture_context = {
    .open_dataset = fixture_open, .dataset_names = fixture_names, .thread_budget = 2, .memory_limit = 1LL << 28};

static json_t *fixture_json(const char *text)
{
    json_error_t where;
    char quoted[16384];
    size_t n = strlen(text);
    assert_true(n < sizeof quoted);
    for (size_t i = 0; i <= n; i++)
        quoted[i] = text[i] == '\'' ? '"' : text[i]; /* C strings full of \" are hard to read */
    json_t *json = json_loads(quoted, JSON_DECODE_ANY, &where);
    if (!json)
        fail_msg("%s: %s", text, where.text);
    return json;
}

static bp_status fixture_resolve(const char *text, struct bp_spec *ret)
{
    struct bp_error err = {0};
    json_t *input = fixture_json(text);
    bp_status status = bp_spec_resolve(input, &fixture_context, ret, &err);
    json_decref(input);
    if (status != BP_OK && status != BP_INVALID)
        fail_msg("%s: status %s, %s", text, bp_status_name(status), err.message);
    assert_int_equal(status == BP_INVALID, bp_problems_any(&ret->problems));
    assert_int_equal(status == BP_OK, ret->resolved != NULL);
    return status;
}

/* Resolves what must be right. */
static inline void fixture_good(const char *text, struct bp_spec *ret)
{
    if (fixture_resolve(text, ret) == BP_OK)
        return;
    char *dump = json_dumps(ret->problems.errors, JSON_INDENT(1));
    fail_msg("%s: %s", text, dump);
}

/* A value of a document by its pointer. */
static json_t *fixture_at(json_t *json, const char *pointer)
{
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s", pointer);
    for (char *token = strtok_r(copy, "/", &save); token && json; token = strtok_r(NULL, "/", &save))
        json = json_is_array(json) ? json_array_get(json, (size_t)atoi(token)) : json_object_get(json, token);
    return json;
}

/* Whether the value there is this JSON. */
static inline void fixture_is(json_t *json, const char *pointer, const char *expected)
{
    json_t *value = fixture_at(json, pointer), *want = fixture_json(expected);
    if (!value || !json_equal(value, want)) {
        char *dump = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
        fail_msg("%s is %s, not %s", pointer, dump ? dump : "missing", expected);
    }
    json_decref(want);
}

static inline json_t *fixture_entry(json_t *list, const char *pointer, const char *code)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        if (strcmp(json_string_value(json_object_get(entry, "pointer")), pointer) == 0 &&
            strcmp(json_string_value(json_object_get(entry, "code")), code) == 0)
            return entry;
    }
    return NULL;
}

#endif
