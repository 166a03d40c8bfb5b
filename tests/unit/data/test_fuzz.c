/* Valid files with bytes changed, cut and repeated: every import ends in a table or in an error, never in a crash, and
 * leaves nothing behind. Run it under the sanitizers. BACKPROPD_FUZZ_ROUNDS sets the number of rounds. */
#include "data/help.h"

/* A few changes to a copy; the room is twice the size. */
static size_t mutate(uint8_t *bytes, size_t n)
{
    static const char spice[] = "\",;\t|\r\n\0\xff\xef\xbb\xbf-.eE0919?N\x80\xc3(";
    for (uint32_t k = 1 + any(4); k > 0 && n > 4; k--) {
        uint32_t at = any((uint32_t)n), len = 1 + any((uint32_t)n / 4);
        switch (any(5)) {
        case 0:
            bytes[at] = (uint8_t)any(256);
            break;
        case 1:
            bytes[at] = (uint8_t)spice[any(sizeof spice - 1)];
            break;
        case 2: /* cut the end */
            n = at + 1;
            break;
        case 3: /* take a piece out */
            len = at + len > n ? (uint32_t)n - at : len;
            memmove(bytes + at, bytes + at + len, n - at - len);
            n -= len;
            break;
        default: /* copy a piece over another */
            len = at + len > n ? (uint32_t)n - at : len;
            memmove(bytes + any((uint32_t)(n - len) + 1), bytes + at, len);
        }
    }
    return n;
}

static void import_and_open(const uint8_t *bytes, size_t n)
{
    struct bp_import_options options = default_options();
    struct bp_import_result result;
    struct bp_error err;
    struct bp_table *table;
    options.max_unfolded = 1 << 20;
    if (any(8) == 0)
        options.header = (int)any(2);
    if (any(8) == 0)
        options.delimiter = ",;\t|"[any(4)];
    if (import_bytes(bytes, n, &options, &result, &err) != BP_OK) {
        assert_true(err.code != BP_INTERNAL && err.code != BP_NOMEM && err.message[0]);
        return;
    }
    assert_int_equal(bp_table_open(data_dir, result.table, result.description, &table, &err), BP_OK);
    json_t *rows, *profile = bp_table_profile(result.description);
    assert_non_null(profile);
    assert_int_equal(bp_import_rows(data_dir, result.sha256, result.description, 5, &rows, &err), BP_OK);
    json_decref(profile);
    json_decref(rows);
    bp_table_close(table);
    bp_import_remove(data_dir, result.sha256, result.table);
    free(result.description);
}

static void survives_anything(void **state)
{
    static const char csv[] =
        "a,b;c,d\n1,x,2.5,\"q,\"\"1\"\"\"\n2,y,-1e-3,\"two\nlines\"\n3,x,NA,?\n4,,0.1,z\n5,x,7,z\n";
    static const char wide[] = "\xef\xbb\xbfp|q\r\n0.30000000000000004|1e22\r\n123456789012345678901|2\r\n";
    uint8_t idx[16 + 24] = {0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 3, 9, 8, 7};
    uint8_t real[8 + 16] = {0, 0, 0x0e, 1, 0, 0, 0, 2, 0x3f, 0xf0};
    size_t folded;
    uint8_t *gz = gzip(csv, sizeof csv - 1, &folded);
    const struct {
        const void *bytes;
        size_t size;
    } seeds[] = {
        {csv, sizeof csv - 1}, {wide, sizeof wide - 1}, {idx, sizeof idx}, {real, sizeof real}, {gz, folded}};
    const char *wish = getenv("BACKPROPD_FUZZ_ROUNDS");
    long rounds = wish ? atol(wish) : 3000;
    (void)state;
    for (long i = 0; i < rounds; i++) {
        size_t which = (size_t)i % 5, n = seeds[which].size;
        uint8_t *bytes = malloc(2 * n);
        memcpy(bytes, seeds[which].bytes, n);
        n = mutate(bytes, n);
        import_and_open(bytes, n);
        free(bytes);
    }
    free(gz);
    assert_int_equal(count_files("tmp"), 0);
    assert_int_equal(count_files("raw"), 0);
    assert_int_equal(count_files("tables"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(survives_anything)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
