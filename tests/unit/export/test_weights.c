/* test_weights.c: the three formats of weights, byte by byte, on a graph written down by hand. The real readers
 * (NumPy, safetensors) are tried on a running daemon by tests/api/test_weights.py. */
#include "export/number.h"
#include "export/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

/* Two tensors of parameters, whose order by name differs from that of the graph, and one of statistics. */
static struct bp_tensor tensors[3] = {
    {.name = "out.weight", .shape = {2, {2, 3}}, .count = 6, .offset = 0},
    {.name = "hidden.bias", .shape = {1, {2}}, .count = 2, .offset = 6},
    {.name = "hidden.mean", .shape = {1, {2}}, .count = 2, .offset = 0, .statistic = true},
};
static struct bp_graph graph = {.ntensors = 3, .tensors = tensors, .nparams = 8, .nstats = 2};
static const float numbers[10] = {0.1f, -2.5f, 3.0f, 1e-40f, -0.0f, 16777216.0f, 1.0f / 3, 6.02e23f, 7.0f, 8.0f};

static bp_status read_numbers(void *ctx, uint64_t offset, uint8_t *buffer, size_t n, struct bp_error *err)
{
    int *calls_left = ctx;
    if (calls_left && (*calls_left)-- == 0)
        return bp_fail(err, BP_CORRUPT, "damaged");
    assert_true(offset + n <= sizeof numbers);
    memcpy(buffer, (const uint8_t *)numbers + offset, n);
    return BP_OK;
}

struct file {
    uint8_t *bytes;
    size_t size;
    char identity[65];
};

static struct file export_as(const char *format, const char *hash)
{
    json_t *metadata = json_pack("{s:s, s:s}", "format", "pt", "seed", "42");
    struct bp_weights weights = {&graph, read_numbers, NULL, metadata};
    struct bp_layout *layout;
    struct bp_error err;
    assert_int_equal(bp_export_find(format)->make(&weights, &layout, &err), BP_OK);
    json_decref(metadata);
    struct file file = {.size = (size_t)bp_layout_size(layout)};
    file.bytes = malloc(file.size + 1);
    size_t got;
    assert_int_equal(bp_layout_read(layout, 0, file.bytes, file.size + 1, &got, &err), BP_OK);
    assert_int_equal(got, file.size);
    bp_layout_identity(layout, hash, file.identity);

    /* any range is the same bytes */
    uint8_t part[64];
    for (size_t offset = 0; offset <= file.size; offset++) {
        size_t max = 1 + offset % sizeof part;
        assert_int_equal(bp_layout_read(layout, (int64_t)offset, part, max, &got, &err), BP_OK);
        assert_int_equal(got, max < file.size - offset ? max : file.size - offset);
        assert_memory_equal(part, file.bytes + offset, got);
    }
    assert_int_equal(bp_layout_read(layout, (int64_t)file.size + 1, part, 1, &got, &err), BP_INVALID);
    assert_int_equal(bp_layout_read(layout, -1, part, 1, &got, &err), BP_INVALID);
    bp_layout_free(layout);
    return file;
}

static uint64_t little(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    while (n-- > 0)
        value = value << 8 | bytes[n];
    return value;
}

static void safetensors_tiles_its_buffer(void **state)
{
    (void)state;
    struct file file = export_as("safetensors", "h");
    uint64_t n = little(file.bytes, 8);
    assert_int_equal(n % 8, 0);
    json_error_t error;
    json_t *header = json_loadb((const char *)file.bytes + 8, (size_t)n, 0, &error);
    assert_non_null(header);
    json_t *metadata = json_object_get(header, "__metadata__");
    assert_string_equal(json_string_value(json_object_get(metadata, "format")), "pt");
    assert_string_equal(json_string_value(json_object_get(metadata, "seed")), "42");

    static const char *const order[] = {"hidden.bias", "hidden.mean", "out.weight"};
    static const int first[] = {6, 8, 0}, count[] = {2, 2, 6};
    uint64_t end = 0;
    for (int i = 0; i < 3; i++) {
        json_t *offsets = json_object_get(json_object_get(header, order[i]), "data_offsets");
        assert_int_equal(json_integer_value(json_array_get(offsets, 0)), end);
        assert_memory_equal(file.bytes + 8 + n + end, numbers + first[i], (size_t)count[i] * 4);
        end = (uint64_t)json_integer_value(json_array_get(offsets, 1));
    }
    assert_int_equal(8 + n + end, file.size);
    json_t *shape = json_object_get(json_object_get(header, "out.weight"), "shape");
    assert_int_equal(json_array_size(shape), 2);
    assert_int_equal(json_integer_value(json_array_get(shape, 1)), 3);
    json_decref(header);
    free(file.bytes);
}

static void npz_is_a_plain_archive(void **state)
{
    (void)state;
    struct file file = export_as("npz", "h");
    const uint8_t *end = file.bytes + file.size - 22;
    assert_memory_equal(end, "PK\x05\x06", 4);
    assert_int_equal(little(end + 10, 2), 3);
    const uint8_t *entry = file.bytes + little(end + 16, 4);
    assert_ptr_equal(entry + little(end + 12, 4), end);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(entry, "PK\x01\x02", 4);
        const uint8_t *local = file.bytes + little(entry + 42, 4);
        size_t name = (size_t)little(entry + 28, 2), size = (size_t)little(entry + 24, 4);
        assert_memory_equal(local, "PK\x03\x04", 4);
        assert_memory_equal(local + 4, entry + 6, 26); /* the same fields in both places */
        assert_int_equal(name, strlen(tensors[i].name) + 4);
        assert_memory_equal(entry + 46, tensors[i].name, name - 4);
        const uint8_t *npy = local + 30 + name;
        assert_int_equal(little(entry + 16, 4), crc32(0, npy, (uInt)size));
        assert_memory_equal(npy, "\x93NUMPY\x01\x00", 8);
        size_t header = 10 + (size_t)little(npy + 8, 2);
        assert_int_equal(header % 64, 0);
        assert_int_equal(npy[header - 1], '\n');
        assert_int_equal(size - header, tensors[i].count * 4);
        size_t first = tensors[i].offset + (tensors[i].statistic ? graph.nparams : 0);
        assert_memory_equal(npy + header, numbers + first, size - header);
        entry += 46 + name;
    }
    assert_ptr_equal(entry, end);
    free(file.bytes);
}

static void json_reads_back_to_the_same_bits(void **state)
{
    (void)state;
    struct file file = export_as("json", "h");
    json_error_t error;
    json_t *root = json_loadb((const char *)file.bytes, file.size, JSON_DECODE_INT_AS_REAL, &error);
    assert_non_null(root);
    json_t *data = json_object_get(json_object_get(json_object_get(root, "tensors"), "out.weight"), "data");
    assert_int_equal(json_array_size(data), 2);
    for (size_t i = 0; i < 6; i++) {
        json_t *row = json_array_get(data, i / 3);
        assert_int_equal(json_array_size(row), 3);
        float value = (float)json_real_value(json_array_get(row, i % 3));
        assert_memory_equal(&value, &numbers[i], sizeof value);
    }
    json_decref(root);
    free(file.bytes);
}

static void same_in_same_out(void **state)
{
    (void)state;
    static const char *const formats[] = {"safetensors", "npz", "json"};
    for (int i = 0; i < 3; i++) {
        struct file a = export_as(formats[i], "h"), b = export_as(formats[i], "h"), c = export_as(formats[i], "g");
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.bytes, b.bytes, a.size);
        assert_string_equal(a.identity, b.identity);
        assert_string_not_equal(a.identity, c.identity);
        free(a.bytes);
        free(b.bytes);
        free(c.bytes);
    }
    assert_null(bp_export_find("pickle"));
    json_t *names = bp_export_names();
    assert_int_equal(json_array_size(names), 3);
    json_decref(names);
}

static void damage_is_reported(void **state)
{
    (void)state;
    json_t *metadata = json_object();
    struct bp_layout *layout = NULL;
    struct bp_error err;
    for (int calls = 0; calls < 3; calls++) { /* npz and json read the weights while they are laid out */
        int left = calls;
        struct bp_weights weights = {&graph, read_numbers, &left, metadata};
        assert_int_equal(bp_export_npz(&weights, &layout, &err), BP_CORRUPT);
        left = calls;
        assert_int_equal(bp_export_json(&weights, &layout, &err), BP_CORRUPT);
        assert_null(layout);
    }
    int left = 1; /* safetensors when they are sent */
    struct bp_weights weights = {&graph, read_numbers, &left, metadata};
    uint8_t all[1024];
    size_t got = 77;
    assert_int_equal(bp_export_safetensors(&weights, &layout, &err), BP_OK);
    assert_int_equal(bp_layout_read(layout, 0, all, sizeof all, &got, &err), BP_CORRUPT);
    assert_int_equal(got, 77);
    bp_layout_free(layout);
    json_decref(metadata);
}

static void limits_are_kept(void **state)
{
    (void)state;
    static struct bp_tensor big = {.name = "big", .shape = {2, {1 << 15, 1 << 15}}, .count = (size_t)1 << 30};
    struct bp_graph huge = {.ntensors = 1, .tensors = &big, .nparams = (size_t)1 << 30};
    json_t *metadata = json_object();
    struct bp_weights weights = {&huge, read_numbers, NULL, metadata};
    struct bp_layout *layout;
    struct bp_error err;
    assert_int_equal(bp_export_npz(&weights, &layout, &err), BP_LIMIT); /* before it reads anything */
    assert_int_equal(bp_export_json(&weights, &layout, &err), BP_LIMIT);
    assert_int_equal(bp_export_safetensors(&weights, &layout, &err), BP_OK);
    assert_true(bp_layout_size(layout) > (int64_t)1 << 32);
    bp_layout_free(layout);
    json_decref(metadata);
}

static void numbers_print_short_and_exact(void **state)
{
    (void)state;
    static const struct {
        float value;
        const char *text;
    } cases[] = {{0.1f, "0.1"},
                 {1.0f, "1"},
                 {-0.0f, "-0"},
                 {1e-45f, "1.4013e-45"},
                 {16777216.0f, "16777216"},
                 {NAN, "\"NaN\""},
                 {INFINITY, "\"Infinity\""},
                 {-INFINITY, "\"-Infinity\""}};
    char text[BP_F32_TEXT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(bp_f32_print(text, cases[i].value), strlen(cases[i].text));
        assert_string_equal(text, cases[i].text);
    }
    uint32_t bits = 1;
    for (int i = 0; i < 200000; i++) { /* a walk over all exponents, signs and many fractions */
        bits = bits * 1664525u + 1013904223u;
        float value, back;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        bp_f32_print(text, value);
        back = strtof(text, NULL);
        assert_memory_equal(&back, &value, sizeof value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_tiles_its_buffer),
        cmocka_unit_test(npz_is_a_plain_archive),
        cmocka_unit_test(json_reads_back_to_the_same_bits),
        cmocka_unit_test(same_in_same_out),
        cmocka_unit_test(damage_is_reported),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(numbers_print_short_and_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
