/* test_select.c: the choice of a table. */
#include "support.h"

static void test_select(void **state)
{
    (void)state;
    struct bp_error err;
    assert_non_null(bp_kernels_current());
    const struct bp_kernels *best = bp_kernels_current();
    assert_int_equal(bp_kernels_select("generic", &err), BP_OK);
    assert_ptr_equal(bp_kernels_current(), &bp_kernels_generic);
    assert_int_equal(bp_kernels_select("sse9", &err), BP_INVALID);
    assert_non_null(strstr(err.message, "sse9"));
    assert_ptr_equal(bp_kernels_current(), &bp_kernels_generic); /* unchanged by the failure */
    assert_int_equal(bp_kernels_select(NULL, &err), BP_OK);
    assert_ptr_equal(bp_kernels_current(), best);

    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    assert_ptr_equal(best, tables[ntables - 1]);
    const char *const names[] = {"generic", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct bp_kernels *table = NULL;
        for (int t = 0; t < ntables; t++)
            if (strcmp(tables[t]->name, names[i]) == 0)
                table = tables[t];
        bp_status status = bp_kernels_select(names[i], &err);
        assert_int_equal(status, table ? BP_OK : BP_UNSUPPORTED);
        if (table)
            assert_ptr_equal(bp_kernels_current(), table);
        else
            assert_non_null(strstr(err.message, best->name));
    }
    assert_int_equal(bp_kernels_select("", &err), BP_OK);
    assert_ptr_equal(bp_kernels_current(), best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_select)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
